"""Picture files and a table become a DICOM cohort with its diagnoses (``docs/from-images.md``).

Most public data sets are a folder of PNG or JPEG files and a CSV. What comes out here is read like any other
source. Every identifier is a hash of patient, study and file, so a second run writes the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from meta_dx.dicom.picture_table import PictureRow, checked, read_picture_table, row_fault
from meta_dx.dicom.pictures import PictureError, PictureFile, is_grey, read_picture
from meta_dx.dicom.pixels import decode
from meta_dx.dicom.quarantine import OWN_PICTURES
from meta_dx.dicom.rejections import RefusedError
from meta_dx.errors import MetaDxError
from meta_dx.home import new_folder
from meta_dx.progress import Progress, silent

CODING_SCHEME = "99LOCAL"
_DIAGNOSES = ("study_instance_uid", "patient_id", "accession_number", "code", "coding_scheme", "meaning")
_CLASSES = {
    "XC": VLPhotographicImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "CR": ComputedRadiographyImageStorage,
}  # a secondary capture may have any modality
_RADIOGRAPHS = frozenset({"DX", "CR"})
_SAME_PICTURE = 1.0  # mean difference of two decoders in grey levels; different chroma filters stay below it


@dataclass(frozen=True)
class ImportSummary:
    """What :func:`images_to_dicom` wrote.

    Parameters
    ----------
    images : int
        DICOM files.
    studies, patients : int
        Distinct studies and patients.
    diseases : int
        Distinct codes in ``diagnoses.csv``.
    """

    images: int
    studies: int
    patients: int
    diseases: int


@dataclass(frozen=True)
class _Instance:
    row: PictureRow
    digest: bytes
    modality: str
    study: str
    series: str = ""
    uid: str = ""
    series_number: int = 0
    number: int = 0


def images_to_dicom(table: Path, out: Path, *, progress: Progress = silent) -> ImportSummary:
    """Write a DICOM cohort from picture files.

    Parameters
    ----------
    table : Path
        CSV with the columns path, patient and diagnosis, and optionally study, age, sex, site, date, view,
        modality and code; see ``docs/from-images.md``. Paths are relative to its folder.
    out : Path
        Folder to create: ``studies/<StudyInstanceUID>/<SOPInstanceUID>.dcm`` and ``diagnoses.csv``.
    progress : Progress
        Called with steps done and to do: each picture is checked, then written.

    Returns
    -------
    ImportSummary

    Raises
    ------
    MetaDxError
        ``output_exists``, ``picture_unreadable``, ``colour_radiograph``, what
        :func:`meta_dx.dicom.picture_table.read_picture_table` raises, or a storage fault. Nothing has been
        written then: all rows are checked first, and the folder gets its name when it is complete.
    """
    table, out = Path(table), Path(out).resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise MetaDxError("output_exists", f"{out} exists and is not an empty folder: name a new one.")
    rows = read_picture_table(table)
    instances = _planned(table, rows, progress)
    with new_folder(out) as folder:
        for done, instance in enumerate(instances, start=1):
            path = folder / "studies" / instance.study / f"{instance.uid}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_file_bytes(instance, _picture(table, instance.row, instance.digest)))
            progress(len(rows) + done, 2 * len(rows))
        diagnoses = _diagnoses(instances)
        (folder / "diagnoses.csv").write_bytes(_csv_bytes(diagnoses))
    return ImportSummary(
        images=len(instances),
        studies=len({instance.study for instance in instances}),
        patients=len({row.patient for row in rows}),
        diseases=len({code for _, _, _, code, _, _ in diagnoses}),
    )


def _planned(table: Path, rows: list[PictureRow], progress: Progress) -> list[_Instance]:
    """Open every picture once, and give each row its identifiers, numbers and what its study knows."""
    instances: list[_Instance] = []
    seen: Counter[tuple[str, ...]] = Counter()

    def check(row: PictureRow) -> None:
        picture = _picture(table, row)
        content = picture.digest.hex()
        # The same file again, of the same patient, is another picture of the study, or another study.
        name = ("study", row.patient, row.study) if row.study else ("lone", row.patient, content)
        seen[name] += 1
        study = _uid(*name) if row.study else _uid(*name, str(seen[name]))
        seen[study, content] += 1
        modality = row.modality or ("XC" if picture.colour else "OT")
        uid = _uid("instance", study, content, str(seen[study, content]))
        instances.append(_Instance(row, picture.digest, modality, study, uid=uid))
        progress(len(instances), 2 * len(rows))

    checked(rows, check)
    return _numbered(_with_study_facts(instances))


def _picture(table: Path, row: PictureRow, expected: bytes | None = None) -> PictureFile:
    """Read the picture of a row; grey where it must be grey."""
    try:
        picture = read_picture(row.path)
    except PictureError as fault:
        raise row_fault("picture_unreadable", table, row.number, "path", str(fault)) from fault
    if expected is not None and picture.digest != expected:
        what = "the file changed while the table was worked on; run again"
        raise row_fault("picture_unreadable", table, row.number, "path", what)
    if row.modality in _RADIOGRAPHS and picture.colour:
        if not is_grey(picture.pixels):
            what = f"{row.modality} is for grey pictures, and this one has colours: use another modality"
            raise row_fault("colour_radiograph", table, row.number, "modality", what)
        return replace(picture, pixels=picture.pixels[..., 0].copy(), jpeg=None)
    return picture


def _with_study_facts(instances: list[_Instance]) -> list[_Instance]:
    """Give age, sex and date, stated in any row of a study, to all of them."""
    facts: dict[str, dict[str, Any]] = {}
    for instance in instances:
        row = instance.row
        stated = {"age": row.age, "sex": row.sex, "day": row.day}
        known = {name: value for name, value in stated.items() if value is not None}
        facts.setdefault(instance.study, {}).update(known)
    return [replace(one, row=replace(one.row, **facts[one.study])) for one in instances]


def _numbered(instances: list[_Instance]) -> list[_Instance]:
    """Give images their numbers in the order of the table, and series (by modality and site) theirs."""
    images: Counter[str] = Counter()
    series: dict[str, dict[tuple[str, str], int]] = {}
    numbered = []
    for instance in instances:
        images[instance.study] += 1
        of_study = series.setdefault(instance.study, {})
        kind = (instance.modality, instance.row.site or "")
        number = of_study.setdefault(kind, len(of_study) + 1)
        uid = _uid("series", instance.study, *kind)
        numbered.append(replace(instance, series=uid, series_number=number, number=images[instance.study]))
    return numbered


def _uid(*parts: str) -> str:
    """Return the UID of a thing named by its parts: ``2.25.`` and 128 bits of a SHA-256."""
    # Each part is preceded by its length: no two lists of parts give the same message.
    encoded = [part.encode() for part in ("meta_dx from-images", *parts)]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
    return f"2.25.{int.from_bytes(hashlib.sha256(message).digest()[:16], 'big')}"


def _diagnoses(instances: list[_Instance]) -> list[tuple[str, ...]]:
    """Return one row for each study and code, in the order of the table."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    meanings: dict[str, str] = {}
    for instance in instances:
        row = instance.row
        if row.code:
            meaning = meanings.setdefault(row.code, row.diagnosis)
            one = (instance.study, row.patient, "", row.code, CODING_SCHEME, meaning)
            rows.setdefault((instance.study, row.code), one)
    return list(rows.values())


def _csv_bytes(rows: Iterable[tuple[str, ...]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_DIAGNOSES, *rows])
    return text.getvalue().encode()


def _file_bytes(instance: _Instance, picture: PictureFile) -> bytes:
    dataset = _header(instance)
    if instance.modality in _RADIOGRAPHS:
        _add_radiograph(dataset, instance.modality)
    elif instance.modality == "XC":
        dataset.AcquisitionContextSequence = []
    else:
        dataset.ConversionType = "WSD"
    _describe_pixels(dataset, picture)
    if not _keep_jpeg(dataset, picture):
        _add_pixels(dataset, picture.pixels)
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _header(instance: _Instance) -> Dataset:
    """Return everything but the pixels; what the table does not say is empty, never invented."""
    row = instance.row
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SOPClassUID = _CLASSES.get(instance.modality, SecondaryCaptureImageStorage)
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = instance.uid, instance.study
    dataset.SeriesInstanceUID = instance.series
    dataset.StudyDate = row.day.strftime("%Y%m%d") if row.day else ""
    dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.Modality, dataset.Manufacturer = instance.modality, ""
    dataset.PatientName = dataset.PatientBirthDate = ""
    dataset.PatientID, dataset.PatientSex = row.patient, row.sex or ""
    if row.age is not None:
        dataset.PatientAge = f"{row.age:03d}Y"
    if row.site:
        dataset.BodyPartExamined = row.site
    if row.view:
        dataset.ViewPosition = row.view
    dataset.SeriesNumber, dataset.InstanceNumber = instance.series_number, instance.number
    dataset.PatientOrientation = ""
    meta = dataset.file_meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID, meta.ImplementationVersionName = OWN_PICTURES, "META_DX"
    return dataset


def _add_radiograph(dataset: Dataset, modality: str) -> None:
    for keyword in ("BodyPartExamined", "ViewPosition"):
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    if modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.AnatomicRegionSequence = []
        dataset.AcquisitionContextSequence = []


def _describe_pixels(dataset: Dataset, picture: PictureFile) -> None:
    dataset.Rows, dataset.Columns = picture.pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if picture.colour else 1
    dataset.PhotometricInterpretation = "RGB" if picture.colour else "MONOCHROME2"
    if picture.colour:
        dataset.PlanarConfiguration = 0
    bits = 8 * picture.pixels.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.LossyImageCompression = "01" if picture.lossy else "00"
    if picture.lossy:
        dataset.LossyImageCompressionRatio = f"{picture.pixels.nbytes / picture.file_bytes:.2f}"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"


def _keep_jpeg(dataset: Dataset, picture: PictureFile) -> bool:
    """Store the JPEG stream of a picture as it is, if the decoder of ingest reads the same from it."""
    if picture.jpeg is None:
        return False
    before = dataset.PhotometricInterpretation
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    if picture.colour:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = encapsulate([picture.jpeg])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    try:
        read = decode(dataset).frames[0]
    except RefusedError:
        read = None
    if read is None or np.abs(read.astype(np.int16) - picture.pixels).mean() > _SAME_PICTURE:
        dataset.PhotometricInterpretation = before
        return False
    return True


def _add_pixels(dataset: Dataset, pixels: npt.NDArray[Any]) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    raw = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    dataset["PixelData"].is_undefined_length = False
