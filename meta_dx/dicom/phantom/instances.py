"""Turns a drawn image into the bytes of a DICOM file, as one of several invented machines would send it.

The machine is drawn for each study without looking at the disease, so that no header says anything about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    UltrasoundImageStorage,
)

from meta_dx.dicom.phantom.drawing import draw
from meta_dx.dicom.phantom.plan import Image, Study, stream, uid_of
from meta_dx.dicom.quarantine import OWN_DRAWINGS

_CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "US": UltrasoundImageStorage,
}
_SHARES = {"CR": 0.2, "DX": 0.25, "CT": 0.2, "MR": 0.2, "US": 0.15}
_MAKERS = {
    "Nordlicht Medizintechnik": ("Aurora 5", "Polaris"),
    "Asama Imaging": ("Kita 300", "Kita 700"),
    "Cordillera Systems": ("Puna", "Altiplano S"),
}
_SITES = ("Sankt Marien Klinikum", "Hospital del Valle", "Riverside General")


@dataclass(frozen=True)
class Machine:
    """How a study was made and stored.

    Parameters
    ----------
    modality, maker, model, site : str
        As in the header.
    bits : int
        Bits stored.
    signed : bool
        Two's complement pixels.
    slope, intercept : float
        From stored to physical values.
    inverted : bool
        MONOCHROME1: low values are shown white.
    packed : bool
        JPEG 2000 lossless instead of explicit little endian.
    view : str
        View position of a projection, else ``""``.
    """

    modality: str
    maker: str
    model: str
    site: str
    bits: int
    signed: bool
    slope: float
    intercept: float
    inverted: bool
    packed: bool
    view: str


def machine_of(seed: int, study: Study) -> Machine:
    """Draw the machine that made a study; the disease has no say in it."""
    rng = stream(seed, "machine", study.origin)
    modality = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    maker = str(rng.choice(list(_MAKERS)))
    model, site = str(rng.choice(_MAKERS[maker])), str(rng.choice(_SITES))
    projection = modality in ("CR", "DX")
    signed = modality == "CT" and rng.random() < 0.5
    bits = {
        "CR": int(rng.choice([10, 12])),
        "DX": int(rng.choice([12, 14, 16])),
        "CT": 16 if signed else 12,
        "MR": int(rng.choice([12, 16])),
        "US": 8,
    }[modality]
    slope, intercept = 1.0, 0.0
    if modality == "CT":
        intercept = 0.0 if signed else -1024.0
    elif modality == "MR" and rng.random() < 0.5:
        slope, intercept = 0.25, -16.0
    return Machine(
        modality,
        maker,
        model,
        site,
        bits,
        signed,
        slope,
        intercept,
        inverted=bool(projection and rng.random() < 0.4),
        packed=bool(modality != "US" and rng.random() < 0.4),
        view=str(rng.choice(["PA", "AP"])) if projection else "",
    )


def encode(seed: int, study: Study, image: Image) -> bytes:
    """Draw an image and return the bytes of its DICOM file (PS3.10).

    Parameters
    ----------
    seed : int
        Seed of the cohort.
    study : Study
        The study that the image belongs to.
    image : Image
        The instance.

    Returns
    -------
    bytes
        The same for the same arguments.
    """
    machine = machine_of(seed, study)
    rng = stream(seed, "draw", study.origin, image.number)
    shown = draw(study.look, image.rows, image.columns, rng, speckle=machine.modality == "US")
    dataset = _header(seed, study, image, machine)
    _add_pixels(dataset, stored_values(shown, machine), machine)
    return file_bytes(dataset)


def stored_values(
    shown: npt.NDArray[np.float32], machine: Machine
) -> npt.NDArray[np.uint16 | np.int16 | np.uint8]:
    """Map display intensities 0 … 1 to the values that the machine stores."""
    if machine.signed:  # Hounsfield units as they are
        return np.round(shown * 2000.0 - 1000.0).astype(np.int16)
    top = 2**machine.bits - 1
    values = np.round((1 - shown if machine.inverted else shown) * np.float32(0.9 * top))
    return values.astype(np.uint8) if machine.bits == 8 else values.astype(np.uint16)


def file_bytes(dataset: Dataset) -> bytes:
    """Write a data set with its file meta information, always the same way."""
    stream_ = BytesIO()
    dcmwrite(stream_, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return stream_.getvalue()


def _header(seed: int, study: Study, image: Image, machine: Machine) -> Dataset:
    dataset = _patient(study)
    date, time = study.day.strftime("%Y%m%d"), _clock(study.second + 20 * image.number)
    dataset.SOPClassUID = _CLASSES[machine.modality]
    dataset.SOPInstanceUID = image.uid
    dataset.StudyInstanceUID = study.uid
    dataset.SeriesInstanceUID = image.series_uid
    dataset.StudyID = study.accession[-6:]
    dataset.AccessionNumber = study.accession
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = date
    dataset.StudyTime, dataset.SeriesTime = _clock(study.second), _clock(study.second + 10 * image.series)
    dataset.ContentTime = dataset.AcquisitionTime = time
    dataset.Modality = machine.modality
    dataset.Manufacturer, dataset.ManufacturerModelName = machine.maker, machine.model
    dataset.InstitutionName = machine.site
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = f"{machine.modality} {study.look.body}"
    dataset.SeriesDescription = f"{study.look.body} {machine.view}".strip()
    dataset.BodyPartExamined = study.look.body
    dataset.SeriesNumber, dataset.InstanceNumber = image.series, image.number
    dataset.ImageType = ["ORIGINAL", "PRIMARY"] + (["AXIAL"] if machine.modality == "CT" else [])
    if machine.view:
        dataset.ViewPosition = machine.view
        dataset.PatientOrientation = ["L", "F"]
    if machine.modality in ("CT", "MR"):
        _add_geometry(dataset, seed, study, image)
    return dataset


def _patient(study: Study) -> Dataset:
    dataset = Dataset()
    person = study.person
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = person.name, person.id
    dataset.PatientBirthDate, dataset.PatientSex = person.birth.strftime("%Y%m%d"), person.sex
    dataset.PatientAge = f"{(study.day - person.birth).days // 365:03d}Y"
    return dataset


def _add_geometry(dataset: Dataset, seed: int, study: Study, image: Image) -> None:
    dataset.FrameOfReferenceUID = uid_of(seed, "frame", study.uid)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-160, -160, 12.5 * image.number]
    dataset.PixelSpacing = [3.0, 3.0]
    dataset.SliceThickness = 5


def _add_pixels(
    dataset: Dataset, values: npt.NDArray[np.uint16 | np.int16 | np.uint8], machine: Machine
) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if machine.inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = 8 * values.itemsize
    dataset.BitsStored, dataset.HighBit = machine.bits, machine.bits - 1
    dataset.PixelRepresentation = int(machine.signed)
    if machine.modality in ("CT", "DX") or machine.slope != 1.0:
        dataset.RescaleSlope, dataset.RescaleIntercept = machine.slope, machine.intercept
        dataset.RescaleType = "HU" if machine.modality == "CT" else "US"
    if machine.modality == "DX":
        dataset.PresentationLUTShape = "INVERSE" if machine.inverted else "IDENTITY"
    meta = dataset.file_meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
    )
    meta.ImplementationClassUID, meta.ImplementationVersionName = OWN_DRAWINGS, "ARCHIVE_4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if machine.packed:
        dataset.compress(JPEG2000Lossless, values, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    else:
        dataset.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"


def _clock(second: int) -> str:
    return f"{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}"
