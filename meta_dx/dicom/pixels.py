"""Pixels in physical units: what a learner sees is the same whatever way the scanner stored it.

Stored values come from the decoders of pydicom (numpy, libjpeg, OpenJPEG); everything after that is here:
modality LUT or rescale, padding, MONOCHROME1, palettes and colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.processing import apply_color_lut

from meta_dx.dicom.rejections import RefusedError, RejectionCode

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.float32]

GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
PALETTE = "PALETTE COLOR"


@dataclass(frozen=True)
class StoredPixels:
    """Decoded frames as they were stored.

    Parameters
    ----------
    frames : ndarray, shape (F, H, W) or (F, H, W, 3)
        Stored values; YBR has become RGB already.
    bits : int
        Bits that a stored value uses.
    """

    frames: Array
    bits: int


def physical_pixels(dataset: Dataset, frame: int = 0) -> Picture:
    """Return one frame in physical units, bright where the picture is bright.

    **Processing**, always in this order:

    * The frame is decoded; sub-sampling and YBR become RGB.
    * *Grey*: the Modality LUT, or rescale slope and intercept (of the frame, where an enhanced object has one
      for each), gives physical units: Hounsfield units in CT, otherwise the units of the maker. No window is
      applied.
    * *MONOCHROME1* is turned over within the range that the stored bits can hold, mapped to physical units
      (``lowest + highest - x``), so the result does not depend on the other pixels of the picture.
    * *Pixel padding* becomes the smallest value among the other pixels.
    * *Palette colour* and *colour* become RGB on a scale from 0 to 255, whatever their depth.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        An instance with pixel data and file meta information, such as
        :meth:`meta_dx.cohort.objects.ObjectStore.read` returns.
    frame : int
        Which frame, from 0.

    Returns
    -------
    numpy.ndarray of float32
        * (H, W) for grey pictures, in physical units
        * (H, W, 3) for colour and palette colour, RGB from 0 to 255

    Raises
    ------
    IndexError
        The instance has no such frame.
    RefusedError
        The pixels cannot be described or decoded; ingest has checked every stored object, so this does not
        happen with objects of a home.
    """
    if not 0 <= frame < frame_count(dataset):
        raise IndexError(f"frame {frame} of an instance with {frame_count(dataset)} frames")
    stored = decode(dataset, frame)
    return to_physical(stored.frames[0], dataset, frame, stored.bits)


def frame_count(dataset: Dataset) -> int:
    """Return the number of frames, 1 where the attribute is absent or empty."""
    try:
        return max(1, int(dataset.get("NumberOfFrames") or 1))
    except (TypeError, ValueError) as fault:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "NumberOfFrames is no number") from fault


def decode(dataset: Dataset, frame: int | None = None) -> StoredPixels:
    """Decode one frame, or all of them, to stored values.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        An instance with pixel data and file meta information.
    frame : int, optional
        Which frame, from 0; default all.

    Returns
    -------
    StoredPixels

    Raises
    ------
    RefusedError
        ``unsupported_transfer_syntax``, ``unsupported_photometric``, or ``damaged_pixels`` when the decoder
        fails or returns another shape than the header promises.
    """
    photometric = photometric_of(dataset)
    if photometric not in GREY | COLOUR | {PALETTE}:
        raise RefusedError(RejectionCode.UNSUPPORTED_PHOTOMETRIC)
    try:
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    except NotImplementedError as fault:
        raise RefusedError(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX) from fault
    if not decoder.is_available:
        raise RefusedError(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX)
    try:
        array, properties = decoder.as_array(dataset, index=frame, as_rgb=True, allow_excess_frames=False)
    except MemoryError:
        raise
    except Exception as fault:
        # Any exception: decoders raise whatever their C code and their tables lead them to.
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, f"decoder raised {type(fault).__name__}") from fault
    samples = 1 if photometric in GREY or photometric == PALETTE else 3
    count = 1 if frame is not None else frame_count(dataset)
    shape = (count, int(dataset.Rows), int(dataset.Columns)) + ((3,) if samples == 3 else ())
    if array.size != np.prod(shape):
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "another number of pixels than the header says")
    if samples == 3 and properties["photometric_interpretation"] not in {"RGB", "YBR_ICT", "YBR_RCT"}:
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "the colours could not become RGB")
    return StoredPixels(array.reshape(shape), int(dataset.BitsStored))


def physical_frames(stored: StoredPixels, dataset: Dataset) -> Iterator[Picture]:
    """Yield all decoded frames in physical units, one by one, as :func:`physical_pixels` returns them."""
    for index, frame in enumerate(stored.frames):
        yield to_physical(frame, dataset, index, stored.bits)


def to_physical(stored: Array, dataset: Dataset, frame: int, bits: int) -> Picture:
    """Turn one decoded frame into physical units; see :func:`physical_pixels` for what is done."""
    photometric = photometric_of(dataset)
    if photometric == PALETTE:
        return _palette_to_rgb(stored, dataset)
    if photometric in COLOUR:
        return _scaled(stored, bits)
    physical = _modality(stored, dataset, frame)
    if photometric == "MONOCHROME1":
        ends = np.array(_stored_range(dataset, bits), np.int64)
        low, high = _modality(ends, dataset, frame)
        if dataset.get("ModalityLUTSequence"):
            low, high = _lut_range(dataset)
        physical = (low + high) - physical
    padding = _padding(stored, dataset)
    if padding is not None and padding.any() and not padding.all():
        physical[padding] = physical[~padding].min()
    return physical


def rescale_of(dataset: Dataset, frame: int = 0) -> tuple[float, float]:
    """Return slope and intercept of one frame; (1, 0) where there are none.

    Enhanced objects keep them in the functional groups: those of the frame win over the shared ones, these
    over the attributes at the top.
    """
    for group in _functional_groups(dataset, frame):
        sequence = group.get("PixelValueTransformationSequence")
        if sequence:
            return _slope_and_intercept(sequence[0])
    return _slope_and_intercept(dataset)


def photometric_of(dataset: Dataset) -> str:
    """Return PhotometricInterpretation without blanks, in capitals."""
    return str(dataset.get("PhotometricInterpretation") or "").strip().upper()


def _functional_groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame and frame < len(per_frame):
        yield per_frame[frame]
    shared = dataset.get("SharedFunctionalGroupsSequence")
    if shared:
        yield shared[0]


def _slope_and_intercept(dataset: Dataset) -> tuple[float, float]:
    try:
        slope = float(dataset.get("RescaleSlope") or 1.0)
        intercept = float(dataset.get("RescaleIntercept") or 0.0)
    except (TypeError, ValueError) as fault:
        raise RefusedError(
            RejectionCode.PIXEL_DESCRIPTION, "rescale slope or intercept is no number"
        ) from fault
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "rescale slope or intercept is not finite")
    return slope, intercept


def _modality(stored: Array, dataset: Dataset, frame: int) -> Picture:
    if dataset.get("ModalityLUTSequence"):
        table, first = _modality_lut(dataset)
        return table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
    slope, intercept = rescale_of(dataset, frame)
    # float64 before rounding: 16 bits times a slope of many digits does not fit float32 exactly.
    return (stored * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def _modality_lut(dataset: Dataset) -> tuple[Picture, int]:
    item = dataset.ModalityLUTSequence[0]
    entries, first, depth = (int(value) for value in item.LUTDescriptor)
    data = item["LUTData"].value
    if isinstance(data, bytes):
        words = (
            np.frombuffer(data, _word(dataset)) if depth > 8 or len(data) >= 2 * (entries or 65536) else None
        )
        data = np.frombuffer(data, np.uint8) if words is None else words
    table = np.asarray(data, np.float32).reshape(-1)[: entries or 65536]
    return table, _signed(first, dataset)


def _lut_range(dataset: Dataset) -> tuple[np.float32, np.float32]:
    table, _ = _modality_lut(dataset)
    return table.min(), table.max()


def _stored_range(dataset: Dataset, bits: int) -> tuple[int, int]:
    if int(dataset.PixelRepresentation) == 1:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _padding(stored: Array, dataset: Dataset) -> npt.NDArray[np.bool_] | None:
    value = dataset.get("PixelPaddingValue")
    if value is None or isinstance(value, str | bytes):
        return None
    start = _signed(int(value), dataset)
    limit = dataset.get("PixelPaddingRangeLimit")
    end = start if limit is None or isinstance(limit, str | bytes) else _signed(int(limit), dataset)
    low, high = min(start, end), max(start, end)
    return np.asarray((stored >= low) & (stored <= high))


def _signed(value: int, dataset: Dataset) -> int:
    """Undo a wrong choice between US and SS: the value has the sign of the pixels."""
    allocated = int(dataset.BitsAllocated)
    if int(dataset.PixelRepresentation) == 1:
        half = 1 << (allocated - 1)
        return (value + half) % (2 * half) - half
    return value % (1 << allocated) if value < 0 else value


def _palette_to_rgb(stored: Array, dataset: Dataset) -> Picture:
    if "RedPaletteColorLookupTableData" not in dataset:
        # Segmented palettes are rare and intricate: pydicom expands them.
        colours = apply_color_lut(stored, dataset)[..., :3]
        return _scaled(colours, 8 * colours.dtype.itemsize)
    entries, first, depth = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
    tables = [_palette_table(dataset, colour, entries or 65536) for colour in ("Red", "Green", "Blue")]
    index = np.clip(stored.astype(np.int64) - _signed(first, dataset), 0, min(map(len, tables)) - 1)
    colours = np.stack([table[index] for table in tables], axis=-1)  # (H, W, 3)
    # Many writers announce 16 bits and fill 8 of them.
    deep = depth > 8 and max(int(table.max()) for table in tables) > 255
    return _scaled(colours, 16 if deep else 8)


def _palette_table(dataset: Dataset, colour: str, entries: int) -> Array:
    data = bytes(dataset[f"{colour}PaletteColorLookupTableData"].value)
    if len(data) >= 2 * entries:
        return np.frombuffer(data[: 2 * entries], _word(dataset))
    packed = data + b"\0" * (len(data) % 2)
    table = np.frombuffer(packed, _word(dataset)).astype("<u2").view(np.uint8)
    if len(table) < entries:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "the palette is shorter than it says")
    return table[:entries]


def _word(dataset: Dataset) -> str:
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    return "<u2" if little else ">u2"


def _scaled(colours: Array, bits: int) -> Picture:
    if bits == 8:
        return colours.astype(np.float32)
    return (colours * np.float64(255.0 / ((1 << bits) - 1))).astype(np.float32)
