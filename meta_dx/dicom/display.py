"""Grey pictures as their own window or VOI LUT shows them (PS3.3 C.11.2), black 0 to white 255."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    physical_pixels,
    sum_of_ends,
)

WHITE = 65535
"""What :func:`shown_pixels` gives where the object wants white; black is 0."""


class Window(NamedTuple):
    """What a picture is opened with.

    Parameters
    ----------
    center, width : float
        In the units of :func:`meta_dx.dicom.pixels.physical_pixels`, or from 0 to :data:`WHITE` where curved.
    curved : bool
        A table or a sigmoid shapes the picture: no window shows the physical values as the object wants them, only
        :func:`shown_pixels` does.
    """

    center: float
    width: float
    curved: bool = False


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


def shown_pixels(dataset: Dataset, frame: int = 0) -> npt.NDArray[Any]:
    """Return one frame as the object itself wants to be shown, deep enough to be windowed once more.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        An instance with pixel data and file meta information.
    frame : int
        Which frame, from 0.

    Returns
    -------
    ndarray of uint16, shape (H, W)
        As :func:`displayed_pixels`, from 0 to :data:`WHITE`; over its whole range where the object does not say.
        A coloured picture is returned as :func:`compact` returns it.

    Raises
    ------
    IndexError, RefusedError
        As :func:`displayed_pixels`.
    """
    shown = displayed_pixels(dataset, frame)
    if shown is None:
        shown = physical_pixels(dataset, frame)
        if shown.ndim == 3:
            return compact(shown)
        low, high = float(shown.min()), float(shown.max())
        shown = (shown - low) * (255 / max(high - low, 1e-6))
    return np.asarray(np.rint(shown * (WHITE / 255)), np.uint16)


def window_of(dataset: Dataset, frame: int = 0) -> Window | None:
    """Return what a frame is opened with; None where the object does not say.

    Of MONOCHROME1 the window is turned over as the values are. Values of CT are left as they are, since they have a
    unit that readers set windows in.
    """
    for place in _places(dataset, frame):
        window, table = _window(place), _table(place, dataset)
        if window is None and table is None:
            continue
        curved = table is not None or _function(place) == "SIGMOID"
        if curved and dataset.get("Modality") != "CT" and photometric_of(dataset) in GREY:
            return Window(WHITE / 2, float(WHITE), curved=True)
        if window is not None:
            center, width = window
            if photometric_of(dataset) == "MONOCHROME1":
                center = float(sum_of_ends(dataset, frame, int(dataset.BitsStored))) - center
            return Window(center, width)
    return None


def _places(dataset: Dataset, frame: int) -> list[Dataset]:
    groups = (group.get("FrameVOILUTSequence") for group in functional_groups(dataset, frame))
    return [*(sequence[0] for sequence in groups if sequence), dataset]


def _speaks(place: Dataset) -> bool:
    return bool(place.get("VOILUTSequence")) or _window(place) is not None


def _table(place: Dataset, dataset: Dataset) -> tuple[Picture, int, int] | None:
    sequence = place.get("VOILUTSequence")
    if not sequence or not sequence[0].get("LUTDescriptor") or not sequence[0].get("LUTData"):
        return None
    try:
        return lut_of(sequence[0], dataset)
    except (TypeError, ValueError):
        return None


def _by_table(physical: Picture, place: Dataset, dataset: Dataset) -> npt.NDArray[np.float64] | None:
    if (found := _table(place, dataset)) is None:
        return None
    table, first, depth = found
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
    function = _function(place)
    if function == "SIGMOID":
        return np.asarray(255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -60, 60))))
    if function == "LINEAR_EXACT" or width <= 1:
        return np.asarray(((values - center) / width + 0.5).clip(0, 1) * 255)
    return np.asarray(((values - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255)


def _function(place: Dataset) -> str:
    return str(place.get("VOILUTFunction") or "LINEAR").strip().upper()


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
