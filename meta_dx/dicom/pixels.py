"""Pixels in physical units: what a learner sees is the same whatever way the scanner stored it.

Stored values come from the decoders of pydicom (numpy, libjpeg, OpenJPEG), each transfer syntax always from the
same one; everything after that is here: modality LUT or rescale, padding, MONOCHROME1, palettes and colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGLSLossless,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from meta_dx.dicom.codestreams import COLOUR_BY_PIXEL, RETIRED, codestreams, measured, mended
from meta_dx.dicom.lookup_tables import (
    modality_lut,
    palette_bytes,
    palette_to_rgb,
    scaled_to_255,
    with_the_sign_of_the_pixels,
)
from meta_dx.dicom.rejections import RefusedError, RejectionCode

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.float32]

GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
PALETTE = "PALETTE COLOR"
_RESIZED_BY_PYDICOM = frozenset({*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes})
#: Their codestreams may hold whole words, unused bits included, which pydicom takes for part of the value.
_LOSSLESS_WHOLE_WORDS = frozenset({JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL, JPEGLSLossless})


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
    * *Pixel padding* becomes the smallest value among the other pixels; a frame of padding alone has no value, and
      becomes 0, or what is nearest to it among the values that the stored bits can hold.
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
    """Return the number of frames, 1 where the attribute is absent, empty or 0."""
    try:
        count = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError) as fault:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "NumberOfFrames is no number") from fault
    if count < 1:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "NumberOfFrames is negative")
    return count


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
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    decoder = _decoder(syntax)
    shape = (int(dataset.Rows), int(dataset.Columns), 3 if photometric in COLOUR else 1)
    source, options = _source(dataset, syntax, shape, frame)
    try:
        array, properties = decoder.as_array(
            source, as_rgb=True, allow_excess_frames=False, photometric_interpretation=photometric, **options
        )
    except MemoryError:
        raise
    except Exception as fault:
        # Any exception: decoders raise whatever their C code and their tables lead them to.
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, f"decoder raised {type(fault).__name__}") from fault
    count = 1 if frame is not None else frame_count(dataset)
    if array.size != count * np.prod(shape):
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "another number of pixels than the header says")
    if shape[2] == 3 and properties["photometric_interpretation"] not in {"RGB", "YBR_ICT", "YBR_RCT"}:
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "the colours could not become RGB")
    stored = array.reshape(count, *(shape if shape[2] == 3 else shape[:2]))
    bits = int(dataset.BitsStored)
    if syntax in _LOSSLESS_WHOLE_WORDS and bits < 8 * stored.dtype.itemsize:
        stored = _without_unused_bits(stored, bits)
    unused = high_bit_of(dataset) + 1 - bits
    return StoredPixels(stored >> unused if unused else stored, bits)


def _without_unused_bits(stored: Array, bits: int) -> Array:
    """Remove what stands above the stored bits, and carry the sign on."""
    unused = 8 * stored.dtype.itemsize - bits
    return np.right_shift(np.left_shift(stored, unused), unused)


def high_bit_of(dataset: Dataset) -> int:
    """Return HighBit, ``BitsStored - 1`` where it is absent.

    Raises
    ------
    RefusedError
        ``pixel_description``: the bits that are stored would lie outside of those allocated, or somewhere else
        than at the bottom of a sample of a codestream.
    """
    bits, value = int(dataset.BitsStored), dataset.get("HighBit")
    if value is None:
        return bits - 1
    encapsulated = UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated
    highest = bits if encapsulated or bits == 1 else int(dataset.BitsAllocated)
    if not isinstance(value, int) or not bits - 1 <= value < highest:
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "HighBit contradicts BitsStored")
    return value


def planar_configuration_of(dataset: Dataset) -> int:
    """Return PlanarConfiguration, 0 where the codestream alone says how its colours lie.

    PS3.5 (8.2) wants 0 with JPEG and JPEG 2000; not every writer changes it when it compresses. With RLE and JPEG-LS
    either was right once, and no decoder looks at it: there it stays as it is.
    """
    by_codestream = UID(dataset.file_meta.TransferSyntaxUID) in COLOUR_BY_PIXEL
    return 1 if dataset.get("PlanarConfiguration") == 1 and not by_codestream else 0


def _decoder(syntax: UID) -> Decoder:
    try:
        decoder = get_decoder(RETIRED.get(syntax, syntax))
    except NotImplementedError as fault:
        raise RefusedError(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX) from fault
    if not decoder.is_available:
        raise RefusedError(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX)
    return decoder


def _source(
    dataset: Dataset, syntax: UID, shape: tuple[int, int, int], frame: int | None
) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes for the decoder, and everything that it needs to know about them."""
    rows, columns, samples = shape
    allocated, count = int(dataset.BitsAllocated), frame_count(dataset)
    options: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": samples,
        "bits_allocated": allocated,
        "bits_stored": high_bit_of(dataset) + 1,
        "pixel_representation": int(dataset.PixelRepresentation),
        "pixel_keyword": "PixelData",
        "number_of_frames": count,
    }
    if samples == 3:
        options["planar_configuration"] = planar_configuration_of(dataset)
    if not syntax.is_encapsulated:
        # Bytes in words of a big-endian file are swapped; elsewhere the representation means nothing.
        options |= {"index": frame, "pixel_vr": dataset["PixelData"].VR}
        return dataset.PixelData, options
    frames = [mended(stream, syntax) for stream in codestreams(dataset, count, frame)]
    precision = measured(frames, syntax, shape)
    if precision > allocated:
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "a codestream announces more bits than the header")
    if precision and syntax not in _RESIZED_BY_PYDICOM:
        # libjpeg answers in the smallest container, whatever the header has allocated.
        container = 8 if precision <= 8 else 16
        stored = min(options["bits_stored"], container)
        options |= {"bits_allocated": container, "bits_stored": stored}
    # One and the same decoder for everybody: pydicom would try one after the other, as they are installed.
    plugin = "pydicom" if syntax == RLELossless else "pylibjpeg"
    options |= {"number_of_frames": len(frames), "decoding_plugin": plugin}
    return encapsulate(frames, has_bot=len(frames) > 1), options


def physical_frames(stored: StoredPixels, dataset: Dataset) -> Iterator[Picture]:
    """Yield all decoded frames in physical units, one by one, as :func:`physical_pixels` returns them."""
    for index, frame in enumerate(stored.frames):
        yield to_physical(frame, dataset, index, stored.bits)


def to_physical(stored: Array, dataset: Dataset, frame: int, bits: int) -> Picture:
    """Turn one decoded frame into physical units; see :func:`physical_pixels` for what is done."""
    photometric = photometric_of(dataset)
    if photometric == PALETTE:
        return palette_to_rgb(stored, dataset)
    if photometric in COLOUR:
        return scaled_to_255(stored, bits)
    physical = modality_values(stored, dataset, frame)
    if photometric == "MONOCHROME1":
        physical = sum_of_ends(dataset, frame, bits) - physical
    padding = padding_of(stored, dataset)
    if padding is not None and padding.any():
        # The number for padding says nothing in physical units: as Hounsfield units it may be -33792.
        blank = padding.all()
        physical[padding] = np.clip(0, *_ends(dataset, frame, bits)) if blank else physical[~padding].min()
    return physical


def is_blank(stored: Array, dataset: Dataset) -> bool:
    """Tell whether a grey frame is padding alone: its values mean nothing."""
    padding = padding_of(stored, dataset) if photometric_of(dataset) in GREY else None
    return padding is not None and bool(padding.all())


def sum_of_ends(dataset: Dataset, frame: int, bits: int) -> np.float32:
    """Return the lowest plus the highest physical value of the stored bits: in MONOCHROME1, x becomes this minus x."""
    return np.float32(sum(_ends(dataset, frame, bits)))


def _ends(dataset: Dataset, frame: int, bits: int) -> tuple[np.float32, np.float32]:
    """Return the lowest and the highest physical value that the stored bits can hold."""
    lut = modality_lut(dataset)
    ends = (
        modality_values(np.array(_stored_range(dataset, bits), np.int64), dataset, frame)
        if lut is None
        else lut[0]
    )
    return ends.min(), ends.max()


def rescale_of(dataset: Dataset, frame: int = 0) -> tuple[float, float]:
    """Return slope and intercept of one frame; (1, 0) where there are none.

    Enhanced objects keep them in the functional groups: those of the frame win over the shared ones, these
    over the attributes at the top. An item that has neither of the two says nothing.
    """
    for group in functional_groups(dataset, frame):
        sequence = group.get("PixelValueTransformationSequence")
        if sequence and any(_is_given(sequence[0], name) for name in ("RescaleSlope", "RescaleIntercept")):
            return _slope_and_intercept(sequence[0])
    return _slope_and_intercept(dataset)


def _is_given(dataset: Dataset, keyword: str) -> bool:
    return dataset.get(keyword) not in (None, "")


def photometric_of(dataset: Dataset) -> str:
    """Return PhotometricInterpretation without blanks, in capitals."""
    return str(dataset.get("PhotometricInterpretation") or "").strip().upper()


def require_same_meaning(original: Dataset, kept: Dataset) -> None:
    """Refuse an instance if its stored values would mean something else in the object that is kept of it.

    An attribute that is no valid number, or stands in a representation that it cannot have, does not travel;
    without its rescale a picture would quietly be another one.

    Parameters
    ----------
    original, kept : pydicom.dataset.Dataset
        The instance, and the header of what is kept of it.

    Raises
    ------
    RefusedError
        ``pixel_description``
    """
    for index in range(len(original.get("PerFrameFunctionalGroupsSequence") or [()])):
        if rescale_of(original, index) != rescale_of(kept, index):
            raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "rescale slope or intercept is damaged")
    ours, theirs = modality_lut(original), modality_lut(kept)
    if (ours is None) != (theirs is None) or (ours and theirs and not np.array_equal(ours[0], theirs[0])):
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "the modality LUT is damaged")
    if _padding_range(original) != _padding_range(kept):
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "the padding value is damaged")
    if photometric_of(original) == PALETTE and palette_bytes(original) != palette_bytes(kept):
        raise RefusedError(RejectionCode.PIXEL_DESCRIPTION, "the palette is damaged")


def functional_groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    """Yield the functional groups of a frame: its own, then those that all share."""
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


def modality_values(stored: Array, dataset: Dataset, frame: int) -> Picture:
    """Return stored values (…) in physical units, before anything is turned over."""
    lut = modality_lut(dataset)
    if lut is not None:
        table, first = lut
        return table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
    slope, intercept = rescale_of(dataset, frame)
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float32)  # the same numbers in a third of the time
    # float64 before rounding: 16 bits times a slope of many digits does not fit float32 exactly.
    return (stored * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def _stored_range(dataset: Dataset, bits: int) -> tuple[int, int]:
    if int(dataset.PixelRepresentation) == 1:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def padding_of(stored: Array, dataset: Dataset) -> npt.NDArray[np.bool_] | None:
    """Tell which stored values are no picture; None where the object names no padding."""
    ends = _padding_range(dataset)
    return None if ends is None else np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _padding_range(dataset: Dataset) -> tuple[int, int] | None:
    value, limit = (dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not isinstance(value, int):
        return None
    start = with_the_sign_of_the_pixels(value, dataset)
    end = with_the_sign_of_the_pixels(limit, dataset) if isinstance(limit, int) else start
    return min(start, end), max(start, end)
