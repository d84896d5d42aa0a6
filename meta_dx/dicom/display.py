"""Grey pictures as their own window or VOI LUT shows them (PS3.3 C.11.2), black 0 to white 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from meta_dx.dicom.lookup_tables import lut_of
from meta_dx.dicom.pixels import (
    GREY,
    Picture,
    decode,
    frame_count,
    functional_groups,
    modality_values,
    padding_of,
    photometric_of,
    sum_of_ends,
)


def displayed_pixels(dataset: Dataset, frame: int = 0) -> Picture | None:
    """Return one frame as the object itself wants to be shown.

    The VOI LUT counts before the window, and what a frame says before what all share. Of several windows the first
    one counts. MONOCHROME1 is turned over, and pixel padding is black.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        An instance with pixel data and file meta information.
    frame : int
        Which frame, from 0.

    Returns
    -------
    ndarray of float32, shape (H, W), or None
        From 0 to 255, not rounded; None where the picture is coloured or the object has no usable window or table.

    Raises
    ------
    IndexError
        The instance has no such frame.
    RefusedError
        As :func:`meta_dx.dicom.pixels.physical_pixels`.
    """
    if not 0 <= frame < frame_count(dataset):
        raise IndexError(f"frame {frame} of an instance with {frame_count(dataset)} frames")
    photometric = photometric_of(dataset)
    places = _places(dataset, frame)
    if photometric not in GREY or not any(_speaks(place) for place in places):
        return None
    stored = decode(dataset, frame).frames[0]
    physical = modality_values(stored, dataset, frame)
    for place in places:
        shown = _by_table(physical, place, dataset)
        if shown is None:
            shown = _by_window(physical, place)
        if shown is not None:
            break
    else:
        return None
    if photometric == "MONOCHROME1":
        shown = 255 - shown
    padding = padding_of(stored, dataset)
    if padding is not None and not padding.all():
        shown[padding] = 0
    return shown.astype(np.float32)


def compact(pixels: Picture) -> npt.NDArray[Any]:
    """Return a picture in the smallest type that holds it exactly.

    Parameters
    ----------
    pixels : ndarray of float32, shape (H, W) or (H, W, 3)
        Physical units, or RGB from 0 to 255.

    Returns
    -------
    ndarray
        The same values as int16, uint16 or float32; RGB is rounded to uint8.
    """
    if pixels.ndim == 3:
        return np.rint(pixels).clip(0, 255).astype(np.uint8)
    low, high = float(pixels.min()), float(pixels.max())
    if np.isfinite(low) and np.isfinite(high) and bool((pixels == np.rint(pixels)).all()):
        for dtype in (np.int16, np.uint16):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return pixels.astype(dtype)
    return pixels


def window_of(dataset: Dataset, frame: int = 0) -> tuple[float, float] | None:
    """Return centre and width of the window of a frame; None where there is none.

    In the units of :func:`meta_dx.dicom.pixels.physical_pixels`: of MONOCHROME1 the window is turned over as the values
    are.
    """
    window = next(filter(None, map(_window, _places(dataset, frame))), None)
    if window is None or photometric_of(dataset) != "MONOCHROME1":
        return window
    center, width = window
    return float(sum_of_ends(dataset, frame, int(dataset.BitsStored))) - center, width


def _places(dataset: Dataset, frame: int) -> list[Dataset]:
    groups = (group.get("FrameVOILUTSequence") for group in functional_groups(dataset, frame))
    return [*(sequence[0] for sequence in groups if sequence), dataset]


def _speaks(place: Dataset) -> bool:
    return bool(place.get("VOILUTSequence")) or _window(place) is not None


def _by_table(physical: Picture, place: Dataset, dataset: Dataset) -> npt.NDArray[np.float64] | None:
    sequence = place.get("VOILUTSequence")
    if not sequence or not sequence[0].get("LUTDescriptor") or not sequence[0].get("LUTData"):
        return None
    try:
        table, first, depth = lut_of(sequence[0], dataset)
    except (TypeError, ValueError):
        return None
    if first >= 1 << 15 and float(physical.min()) < 0:
        first -= 1 << 16  # written as an unsigned number
    index = np.clip(np.rint(physical).astype(np.int64) - first, 0, len(table) - 1)
    # Many writers announce 16 bits and fill fewer.
    white = (1 << min(max(depth, 1), 16)) - 1
    top = float(table.max())
    return table[index].astype(np.float64) * (255 / (white if top > white // 2 else max(top, 1.0)))


def _by_window(physical: Picture, place: Dataset) -> npt.NDArray[np.float64] | None:
    window = _window(place)
    if window is None:
        return None
    center, width = window
    values = physical.astype(np.float64)
    function = str(place.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function == "SIGMOID":
        return np.asarray(255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -60, 60))))
    if function == "LINEAR_EXACT" or width <= 1:
        return np.asarray(((values - center) / width + 0.5).clip(0, 1) * 255)
    return np.asarray(((values - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255)


def _window(place: Dataset) -> tuple[float, float] | None:
    numbers = [_first(place.get(keyword)) for keyword in ("WindowCenter", "WindowWidth")]
    center, width = numbers
    return None if center is None or width is None or width <= 0 else (center, width)


def _first(value: Any) -> float | None:
    values = [value] if isinstance(value, str | int | float) else list(value or ())
    try:
        number = float(values[0])
    except (IndexError, TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
