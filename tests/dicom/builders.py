"""Small DICOM files for tests: one call writes one valid instance, changed keyword by keyword as needed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

_counter = itertools.count(1)
_NATIVE = {
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}


def uid_of(label: str) -> str:
    """Turn a word into a valid UID, always the same one; a UID stays as it is."""
    if label and set(label) <= set("0123456789."):
        return label
    return f"2.25.{int.from_bytes(hashlib.sha256(label.encode()).digest()[:16], 'big')}"


def picture(seed: int | str = 0, shape: tuple[int, ...] = (16, 16), bits: int = 12) -> npt.NDArray[Any]:
    """Draw smooth noise that differs for each seed."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8], "big"))
    return rng.integers(0, 1 << bits, shape).astype(np.uint8 if bits <= 8 else np.uint16)


def build_instance(
    *,
    patient: str = "P1",
    study: str | None = None,
    series: str | None = None,
    instance: str | None = None,
    pixels: npt.NDArray[Any] | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    edit: Callable[[Dataset], None] | None = None,
    **tags: Any,
) -> Dataset:
    """Make one instance in memory; see :func:`write_instance`."""
    number = next(_counter)
    study = study or f"study of {patient}"
    series = series or f"series of {study}"
    instance = instance or f"instance {number} of {series}"
    pixels = picture(instance) if pixels is None else pixels
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = uid_of(instance)
    dataset.StudyInstanceUID = uid_of(study)
    dataset.SeriesInstanceUID = uid_of(series)
    dataset.PatientID = patient
    dataset.PatientName = f"Name^{patient}"
    dataset.PatientSex = "F"
    dataset.PatientAge = "054Y"
    dataset.AccessionNumber = f"ACC {study}"[:16]
    dataset.StudyDate = "20240229"
    dataset.Modality = "CR"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.InstanceNumber = number
    _describe_pixels(dataset, pixels)
    dataset.PixelData = _little_endian(pixels)
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if edit is not None:
        edit(dataset)
    dataset.file_meta = FileMetaDataset()
    native = transfer_syntax in _NATIVE
    dataset.file_meta.TransferSyntaxUID = transfer_syntax if native else ExplicitVRLittleEndian
    dataset.preamble = b"\0" * 128
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or uid_of(instance)
    if not native:
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    return dataset


def write_instance(folder: Path, *, name: str | None = None, **options: Any) -> Path:
    """Write one valid DICOM instance.

    Parameters
    ----------
    folder : Path
        Where; created if needed.
    name : str, optional
        File name; default ``<running number>.dcm``. May hold a sub-folder.
    patient, study, series, instance : str
        Any words; UIDs are made of them (:func:`uid_of`). The default study is one per patient, the default
        series one per study, the default instance always a new one.
    pixels : ndarray
        (H, W), (H, W, 3), (F, H, W) or (F, H, W, 3) of uint8, int8, uint16 or int16; default a
        16 × 16 picture of 12 bits that depends on the instance.
    transfer_syntax : str
        A native one, or one that pydicom can encode (RLELossless; JPEG2000Lossless from 32 × 32 up).
    edit : callable
        Called with the dataset before it is written (private tags, sequences …).
    **tags
        Keyword and value of any attribute; ``None`` deletes it.

    Returns
    -------
    Path
        The file.
    """
    with config.disable_value_validation():
        return _write(folder, name, build_instance(**options))


def _write(folder: Path, name: str | None, dataset: Dataset) -> Path:
    path = folder / (name or f"{next(_counter):06d}.dcm")
    path.parent.mkdir(parents=True, exist_ok=True)
    big = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    if big and dataset.BitsAllocated > 8:
        words = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")
        dataset.PixelData = words.byteswap().tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_study(folder: Path, *, images: int = 2, study: str = "S1", **options: Any) -> list[Path]:
    """Write one study of one series with that many images."""
    return [
        write_instance(folder, study=study, instance=f"{study} image {i}", InstanceNumber=i + 1, **options)
        for i in range(images)
    ]


def _describe_pixels(dataset: Dataset, pixels: npt.NDArray[Any]) -> None:
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    frames = pixels.shape[0] if pixels.ndim == (4 if colour else 3) else None
    rows, columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.Rows, dataset.Columns = rows, columns
    if frames is not None:
        dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")


def _little_endian(pixels: npt.NDArray[Any]) -> bytes:
    raw = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    return raw + b"\0" * (len(raw) % 2)
