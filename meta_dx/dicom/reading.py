"""Read one file: either everything that ingest needs of it, or a coded refusal.

:func:`read_instance` is a pure function of the bytes of one file and the key of the home, so it can run in
any process. Whatever is wrong with a file comes back as a :class:`~meta_dx.dicom.rejections.Refusal`, never
as an exception, and no value of a refused file stands in it.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset

from meta_dx.dicom.deidentification import (
    Identity,
    age_string,
    deidentified_object,
    device_text,
    raw_elements,
    uid_surrogate,
)
from meta_dx.dicom.frames import geometry_columns
from meta_dx.dicom.header import (
    age_in_years,
    first_date,
    integer,
    modality_of,
    require_identity,
    require_picture,
    slice_position,
    text,
    view_of,
)
from meta_dx.dicom.identity import NamedPatient, Surrogates
from meta_dx.dicom.parsing import parse, parse_own
from meta_dx.dicom.pixels import (
    StoredPixels,
    decode,
    frame_count,
    is_blank,
    padding_of,
    physical_frames,
    require_same_meaning,
    rescale_of,
)
from meta_dx.dicom.profile import ProfileOptions
from meta_dx.dicom.profiled import profiled_object
from meta_dx.dicom.quarantine import require_allowed
from meta_dx.dicom.rejections import Refusal, RefusedError, RejectionCode
from meta_dx.dicom.words import code_string, safe_values

_SEXES = frozenset({"M", "F", "O"})
_IMAGE_TYPES = 16  # values of ImageType that are kept; DICOM defines four, makers add some


@dataclass(frozen=True)
class ReadLimits:
    """What one file may be, and how much of the machine it may take.

    Parameters
    ----------
    file_bytes : int
        Largest file that is read, in bytes.
    decoded_bytes : int
        Largest content after unpacking: the inflated data set, or all decoded frames.
    memory_bytes : int
        Address space of the process that reads (see :mod:`meta_dx.dicom.sandbox`).
    seconds : float
        How long one file may take by the clock.
    archive_members : int
        Largest number of files in one archive.
    archive_bytes : int
        Largest content of one archive, unpacked.
    archive_ratio : float
        How many times larger than itself an archive may become (checked beyond 64 MiB: a blank picture packs
        a thousandfold).
    allow : frozenset of str
        Kinds of pictures that are taken although they may show whose they are
        (:mod:`meta_dx.dicom.quarantine`).
    profile : ProfileOptions, optional
        Build the whole object by the profile of PS3.15 instead of the short one that a home keeps.
    patients : mapping of str to NamedPatient
        Of some studies, by surrogate, the patient as whom a file of them is read that may mean the same one.
    """

    file_bytes: int = 2 << 30
    decoded_bytes: int = 4 << 30
    memory_bytes: int = 4 << 30
    seconds: float = 120.0
    archive_members: int = 100_000
    archive_bytes: int = 1 << 37
    archive_ratio: float = 200.0
    allow: frozenset[str] = frozenset()
    profile: ProfileOptions | None = None
    patients: Mapping[str, NamedPatient] = field(default_factory=dict)


@dataclass(frozen=True)
class AcceptedInstance:
    """A file that can be taken.

    Parameters
    ----------
    row : dict
        Columns of the instances table, all but ``batch``; surrogate identities only.
    object : bytes
        The de-identified DICOM file to keep; its SHA-256 is ``row["object"]``.
    identities : dict of str to dict of str to str
        For the vault only: kind (``study``, ``series``, ``instance``, ``patient``, ``accession``) to
        surrogate to original.
    """

    row: dict[str, Any]
    object: bytes
    identities: dict[str, dict[str, str]]


def read_instance(
    path: Path, surrogates: Surrogates, *, limits: ReadLimits | None = None
) -> AcceptedInstance | Refusal:
    """Read, check, decode and de-identify one file.

    Parameters
    ----------
    path : Path
        The file.
    surrogates : Surrogates
        The identities of the home.
    limits : ReadLimits, optional
        How much the file may take.

    Returns
    -------
    AcceptedInstance or Refusal
        All frames have been decoded once, so what is accepted can be decoded again.
    """
    allowed = limits or ReadLimits()

    def content() -> bytes:
        if path.stat().st_size > allowed.file_bytes:
            raise RefusedError(RejectionCode.FILE_TOO_LARGE)
        return path.read_bytes()

    return read_content(content, surrogates, limits=allowed)


def read_content(
    content: Callable[[], bytes], surrogates: Surrogates, *, limits: ReadLimits
) -> AcceptedInstance | Refusal:
    """Read, check, decode and de-identify the bytes that a call returns, wherever they lie.

    Parameters
    ----------
    content : callable
        Returns the bytes of one file; a :class:`~meta_dx.dicom.rejections.RefusedError` or an ``OSError`` of
        it becomes a refusal.
    surrogates : Surrogates
        The identities of the home.
    limits : ReadLimits
        How much the file may take.

    Returns
    -------
    AcceptedInstance or Refusal
    """
    try:
        data = _fetched(content)
        with quiet():
            return _read(data, surrogates, limits)
    except RefusedError as fault:
        return fault.refusal
    except MemoryError:
        return Refusal(RejectionCode.MEMORY_LIMIT)
    except Exception as fault:
        # Damaged headers raise anything, RecursionError included. The message may quote the file: only the
        # class.
        return Refusal(RejectionCode.DAMAGED_HEADER, f"parser raised {type(fault).__name__}")


def _fetched(content: Callable[[], bytes]) -> bytes:
    try:
        return content()
    except OSError as fault:  # pydicom raises it, too, of damaged headers: that is no fault of the disk
        raise RefusedError(RejectionCode.UNREADABLE_FILE, type(fault).__name__) from fault


def _read(data: bytes, surrogates: Surrogates, limits: ReadLimits) -> AcceptedInstance:
    dataset = parse(data, limits.decoded_bytes)
    raw = raw_elements(dataset)
    require_identity(dataset)
    require_picture(dataset, limits.decoded_bytes)
    require_allowed(dataset, limits.allow)
    identity, identities = _identify(dataset, surrogates, limits.patients)
    if limits.profile is None:
        kept = deidentified_object(dataset, raw, identity, surrogates)
    else:
        kept = profiled_object(dataset, raw, identity.patient, surrogates, limits.profile)
    # What is described and counted is what everybody will read later, not what the file seemed to hold.
    again = parse_own(kept, dataset.file_meta)
    require_same_meaning(dataset, again)
    stored = decode(again)
    row = {
        "study": identity.study,
        "series": identity.series,
        "instance": identity.instance,
        "patient": identity.patient,
        "accession": identity.accession,
        "object": hashlib.sha256(kept).hexdigest(),
        "content": surrogates.digest(data),
        "pixels": surrogates.digest(_canonical(stored)),
        "sop_class": identity.sop_class,
        "sex": identity.sex,
        "study_date": identity.study_date.isoformat() if identity.study_date else None,
        "manufacturer": identity.manufacturer,
        "model": identity.model,
        **_description(dataset),
        **_pixel_description(again, stored),
        **_geometry(dataset, surrogates),
    }
    return AcceptedInstance(row, kept, identities)


def _identify(
    dataset: Dataset, surrogates: Surrogates, patients: Mapping[str, NamedPatient]
) -> tuple[Identity, dict[str, dict[str, str]]]:
    """Return the surrogates of an instance, and what they stand for."""
    originals = {
        "study": text(dataset, "StudyInstanceUID"),
        "series": text(dataset, "SeriesInstanceUID"),
        "instance": text(dataset, "SOPInstanceUID"),
    }
    uids = {kind: surrogates.uid(uid) for kind, uid in originals.items()}
    identities = {kind: {uids[kind]: uid} for kind, uid in originals.items()}
    patient_id, issuer = text(dataset, "PatientID"), text(dataset, "IssuerOfPatientID")
    patient, held = surrogates.patient(patient_id, issuer), patients.get(uids["study"])
    if held is not None and held.may_be(surrogates.named_patient(patient_id, issuer)):
        patient = held.surrogate
    identities["patient"] = {patient: patient_id}
    number = text(dataset, "AccessionNumber")
    accession = surrogates.accession(number) if number else None
    if accession:
        identities["accession"] = {accession: number}
    day = first_date(dataset)
    sex = text(dataset, "PatientSex")[:1].upper()
    years = age_in_years(dataset)
    identity = Identity(
        **uids,
        patient=patient,
        accession=accession,
        sop_class=uid_surrogate(text(dataset, "SOPClassUID"), surrogates),
        sex=sex if sex in _SEXES else None,
        age=age_string(dataset.get("PatientAge")) or (None if years is None else f"{int(years):03d}Y"),
        study_date=surrogates.shift(day, patient) if day else None,
        manufacturer=device_text(dataset.get("Manufacturer")),
        model=device_text(dataset.get("ManufacturerModelName")),
    )
    return identity, identities


def _description(dataset: Dataset) -> dict[str, Any]:
    years = age_in_years(dataset)
    kinds = text(dataset, "ImageType").split("\\")[:_IMAGE_TYPES]
    image_type = [
        code_string(kind) or "" if safe else "" for kind, safe in zip(kinds, safe_values(kinds), strict=True)
    ]
    return {
        "modality": modality_of(dataset),
        "body_part": code_string(text(dataset, "BodyPartExamined")),
        "laterality": code_string(text(dataset, "ImageLaterality") or text(dataset, "Laterality")),
        "view": view_of(dataset),
        "transfer_syntax": str(dataset.file_meta.TransferSyntaxUID),
        "age_years": float("nan") if years is None else years,
        "image_type": "\\".join(image_type).strip("\\") or None,
        "instance_number": integer(dataset, "InstanceNumber", -1),
        "position": slice_position(dataset),
    }


def _geometry(dataset: Dataset, surrogates: Surrogates) -> dict[str, Any]:
    columns = geometry_columns(dataset)
    original = columns["frame_of_reference"]
    return {**columns, "frame_of_reference": uid_surrogate(original, surrogates) if original else None}


def _pixel_description(dataset: Dataset, stored: StoredPixels) -> dict[str, Any]:
    slope, intercept = rescale_of(dataset)
    low, high, total, squares, count = np.inf, -np.inf, 0.0, 0.0, 0
    values_of = [not is_blank(frame, dataset) for frame in stored.frames]
    for picture, counts in zip(physical_frames(stored, dataset), values_of, strict=True):
        if any(values_of) and not counts:
            continue  # a frame of padding alone has no values
        low, high = min(low, float(picture.min())), max(high, float(picture.max()))
        values = picture.astype(np.float64)
        total += float(values.sum())
        squares += float(np.square(values, out=values).sum())
        count += picture.size
    mean = total / count
    return {
        "photometric": text(dataset, "PhotometricInterpretation").upper(),
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "frames": frame_count(dataset),
        "samples": int(dataset.SamplesPerPixel),
        "bits_stored": int(dataset.BitsStored),
        "rescale_slope": slope,
        "rescale_intercept": intercept,
        "pixel_min": low,
        "pixel_max": high,
        "pixel_std": float(np.sqrt(max(0.0, squares / count - mean**2))),
        **_stored_range(dataset, stored),
    }


def _stored_range(dataset: Dataset, stored: StoredPixels) -> dict[str, float]:
    """Return the smallest and the largest stored value that is no padding; from physical units no way leads back."""
    ends = []
    for frame in stored.frames:
        padding = padding_of(frame, dataset)
        values = frame if padding is None else frame[~padding]
        if values.size:
            ends += [float(values.min()), float(values.max())]
    return {"stored_min": min(ends, default=np.nan), "stored_max": max(ends, default=np.nan)}


def _canonical(stored: StoredPixels) -> memoryview:
    frames = np.ascontiguousarray(stored.frames, stored.frames.dtype.newbyteorder("<"))
    return frames.reshape(-1).view(np.uint8).data


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from quoting values of the file in warnings and logs."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "libjpeg", "openjpeg")]
    # Each change of a level empties the caches of all loggers.
    loggers = [logger for logger in loggers if logger.level <= logging.CRITICAL]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
