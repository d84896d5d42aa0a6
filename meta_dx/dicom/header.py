"""What ingest asks of a header, and how it reads the few values that it keeps."""

from __future__ import annotations

import re
from datetime import date
from math import prod
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    ParametricMapStorage,
    RTDoseStorage,
    SegmentationStorage,
    SurfaceSegmentationStorage,
)

from meta_dx.dicom.deidentification import age_string
from meta_dx.dicom.identity import clean
from meta_dx.dicom.pixels import COLOUR, GREY, PALETTE, frame_count, photometric_of
from meta_dx.dicom.rejections import RefusedError, RejectionCode
from meta_dx.dicom.words import code_string, code_value

_NO_PICTURES = frozenset(
    {
        SegmentationStorage,
        SurfaceSegmentationStorage,
        ParametricMapStorage,
        RTDoseStorage,
        UID("1.2.840.10008.5.1.4.1.1.66.7"),  # label map segmentation
        UID("1.2.840.10008.5.1.4.1.1.66.8"),  # height map segmentation
    }
)
_NO_PICTURE_MODALITIES = frozenset({"SEG", "RTDOSE"})
_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})")
_DAYS = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
_OLDEST = 130.0

#: Characters of a UID (PS3.5, 9.1).
LONGEST_UID = 64
#: Characters of a patient's number, its issuer or an accession number. The representations of DICOM end at 64 and 16,
#: which archives that join several numbers now and then exceed; a value of UT may have 4 GB, and whoever keeps the
#: identities of a batch would keep that.
LONGEST_IDENTITY = 256
_LONGEST = {
    **dict.fromkeys(("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"), LONGEST_UID),
    **dict.fromkeys(("PatientID", "IssuerOfPatientID", "AccessionNumber"), LONGEST_IDENTITY),
}


def text(dataset: Dataset, keyword: str) -> str:
    """Return a value as text without padding, several values joined by a backslash, ``""`` where absent."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, (MultiValue, list)):
        return "\\".join(clean(str(item)) for item in value)
    return clean(str(value))


def integer(dataset: Dataset, keyword: str, default: int) -> int:
    """Return a whole number that fits 32 bits, or the default."""
    try:
        value = int(dataset.get(keyword))
    except Exception:
        # Absent, empty, text, several values: pydicom raises something else for each.
        return default
    return value if -(2**31) <= value < 2**31 else default


def require_identity(dataset: Dataset) -> None:
    """Refuse an instance that does not say which instance of whom it is, or says so in impossibly many words.

    Raises
    ------
    RefusedError
        ``missing_identifier``, ``missing_patient``, ``missing_modality`` or ``damaged_header``.
    """
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not text(dataset, keyword):
            raise RefusedError(RejectionCode.MISSING_IDENTIFIER, keyword)
    if not text(dataset, "PatientID"):
        raise RefusedError(RejectionCode.MISSING_PATIENT)
    if not text(dataset, "Modality"):
        raise RefusedError(RejectionCode.MISSING_MODALITY)
    for keyword, longest in _LONGEST.items():
        if len(text(dataset, keyword)) > longest:
            raise RefusedError(RejectionCode.DAMAGED_HEADER, f"{keyword} has more than {longest} characters")


def require_picture(dataset: Dataset, largest: int) -> None:
    """Refuse what is no picture, and a picture whose header cannot describe its pixels.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        The instance.
    largest : int
        Bytes that all decoded frames together may have.

    Raises
    ------
    RefusedError
        ``no_pixel_data``, ``not_a_picture``, ``pixel_description``, ``unsupported_photometric`` or
        ``expansion_limit``.
    """
    classified = UID(text(dataset, "SOPClassUID")) in _NO_PICTURES
    if classified or text(dataset, "Modality").upper() in _NO_PICTURE_MODALITIES:
        raise RefusedError(RejectionCode.NOT_A_PICTURE)
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise RefusedError(RejectionCode.NOT_A_PICTURE)
    if "PixelData" not in dataset:
        raise RefusedError(RejectionCode.NO_PIXEL_DATA)
    if not dataset["PixelData"].value:
        raise RefusedError(RejectionCode.NO_PIXEL_DATA, "PixelData is empty")
    photometric = photometric_of(dataset)
    if not photometric:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "PhotometricInterpretation is missing")
    if photometric not in GREY | COLOUR | {PALETTE}:
        raise RefusedError(RejectionCode.UNSUPPORTED_PHOTOMETRIC)
    _require_numbers(dataset, 3 if photometric in COLOUR else 1)
    shape = (frame_count(dataset), dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    if prod(int(side) for side in shape) * max(1, int(dataset.BitsAllocated) // 8) > largest:
        raise RefusedError(RejectionCode.EXPANSION_LIMIT)


def _require_numbers(dataset: Dataset, samples: int) -> None:
    allocated = integer(dataset, "BitsAllocated", -1)
    allowed: dict[str, Any] = {
        "Rows": range(1, 1 << 16),
        "Columns": range(1, 1 << 16),
        "SamplesPerPixel": (samples,),
        "BitsAllocated": (1, 8, 16, 32),
        "BitsStored": range(1, max(allocated, 0) + 1),
        "PixelRepresentation": (0, 1),
    }
    for keyword, values in allowed.items():
        if integer(dataset, keyword, -1) not in values:
            raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, f"{keyword} is missing or impossible")


def first_date(dataset: Dataset) -> date | None:
    """Return the day of the study: StudyDate, else the date of series, acquisition or content."""
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        day = _date(text(dataset, keyword))
        if day:
            return day
    return None


def age_in_years(dataset: Dataset) -> float | None:
    """Return the age in years: PatientAge, else from birth to study; ``None`` where implausible."""
    stated = age_string(dataset.get("PatientAge"))
    born, seen = _date(text(dataset, "PatientBirthDate")), first_date(dataset)
    if stated:
        years = float(stated[:3]) if stated[3] == "Y" else int(stated[:3]) * _DAYS[stated[3]] / _DAYS["Y"]
    elif born and seen:
        years = (seen - born).days / _DAYS["Y"]
    else:
        return None
    return years if 0 <= years <= _OLDEST else None


def modality_of(dataset: Dataset) -> str:
    """Return Modality, or ``OT`` (other) where it is not a code of safe words."""
    return code_string(text(dataset, "Modality")) or "OT"


def view_of(dataset: Dataset) -> str | None:
    """Return ViewPosition, else the code of ViewCodeSequence."""
    view = code_string(text(dataset, "ViewPosition"))
    codes = dataset.get("ViewCodeSequence")
    if view or not codes:
        return view
    return code_value(text(codes[0], "CodingSchemeDesignator"), text(codes[0], "CodeValue"))


def slice_position(dataset: Dataset) -> float:
    """Return the place of the first frame along the slice normal in mm; NaN where no geometry is given."""
    place = _geometry(dataset, "PlanePositionSequence", "ImagePositionPatient", 3)
    axes = _geometry(dataset, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    if place is None or axes is None:
        return float("nan")
    return float(np.dot(place, np.cross(axes[:3], axes[3:])))


def _geometry(dataset: Dataset, group: str, keyword: str, length: int) -> np.ndarray[Any, Any] | None:
    places = [dataset]
    for functional in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = dataset.get(functional)
        if groups and groups[0].get(group):
            places.insert(0, groups[0].get(group)[0])
    for place in places:
        try:
            values = np.array([float(value) for value in place.get(keyword) or ()])
        except (TypeError, ValueError):
            continue
        if len(values) == length and np.isfinite(values).all():
            return values
    return None


def _date(value: str) -> date | None:
    found = _DATE.match(value)
    try:
        return date(*(int(part) for part in found.groups())) if found else None
    except ValueError:
        return None
