"""Series whose every pixel says where it lies: what comes back wrong shows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from tests.dicom.builders import build_instance, uid_of

Floats = npt.NDArray[np.float64]
Edit = Callable[[Dataset, int], None]


def code_of(points: Floats) -> npt.NDArray[np.int64]:
    """Return the Hounsfield units that the test object has at some points (..., 3), LPS in mm."""
    x, y, z = np.moveaxis(np.rint(np.asarray(points) * 4).astype(np.int64), -1, 0)
    return (7 * x + 31 * y + 101 * z) % 1999 - 999


def slices_at(
    positions: Sequence[npt.ArrayLike],
    *,
    across: npt.ArrayLike = (1, 0, 0),
    down: npt.ArrayLike = (0, 1, 0),
    spacing: tuple[float, float] = (1.0, 1.0),
    size: tuple[int, int] = (5, 6),
    series: str = "S",
    slope: int = 1,
    edit: Edit | None = None,
    **tags: Any,
) -> list[Dataset]:
    """Make CT slices of the test object, one for each position of the first pixel."""
    made = []
    for number, place in enumerate(positions):
        position = np.asarray(place, dtype=float)
        rows, columns = (np.arange(n, dtype=float) for n in size)
        points = (
            position
            + rows[:, None, None] * spacing[0] * np.asarray(down, float)
            + columns[:, None] * spacing[1] * np.asarray(across, float)
        )
        stored = ((code_of(points) * slope + 1024 * slope) // slope).astype(np.uint16)
        dataset = build_instance(
            series=series,
            instance=f"{number} of {series}",
            pixels=stored,
            SOPClassUID=CTImageStorage,
            Modality="CT",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            InstanceNumber=(37 * number) % 101,
            ImageOrientationPatient=[f"{v:.9g}" for v in (*np.ravel(across), *np.ravel(down))],
            ImagePositionPatient=[f"{v:.9g}" for v in position],
            PixelSpacing=[f"{v:.9g}" for v in spacing],
            FrameOfReferenceUID=uid_of("frame of reference"),
            RescaleSlope=1,
            RescaleIntercept=-1024,
            **tags,
        )
        if edit is not None:
            edit(dataset, number)
        made.append(dataset)
    return made


def along_z(places: Sequence[float], **options: Any) -> list[Dataset]:
    """Make axial slices at these heights."""
    return slices_at([(0.0, 0.0, place) for place in places], **options)


def enhanced(slices: Sequence[Dataset], **of_frame: Sequence[Any]) -> Dataset:
    """Join classic slices to one enhanced multi-frame object; ``of_frame`` goes to FrameContentSequence."""
    pixels = np.stack([np.frombuffer(s.PixelData, "<u2").reshape(s.Rows, s.Columns) for s in slices])
    dataset = build_instance(pixels=pixels, SOPClassUID=EnhancedCTImageStorage, Modality="CT", series="E")
    dataset.ImageType, dataset.FrameOfReferenceUID = slices[0].ImageType, slices[0].FrameOfReferenceUID
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = Items([_item(slices[0], "PixelSpacing")])
    shared.PlaneOrientationSequence = Items([_item(slices[0], "ImageOrientationPatient")])
    for number, one in enumerate(slices):
        frame, content = Dataset(), Dataset()
        for keyword, values in of_frame.items():
            setattr(content, keyword, values[number])
        frame.FrameContentSequence = Items([content])
        frame.PlanePositionSequence = Items([_item(one, "ImagePositionPatient")])
        frame.PixelValueTransformationSequence = Items([_item(one, "RescaleSlope", "RescaleIntercept")])
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    return dataset


def _item(source: Dataset, *keywords: str) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        setattr(item, keyword, source[keyword].value)
    return item
