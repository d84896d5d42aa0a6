"""From encapsulated pixel data to codestreams that a decoder may be given.

A decoder of compressed pictures believes the codestream, not the header of the DICOM object: it allocates what
the codestream announces and answers with whatever size that gives. So every codestream is measured before it
is decoded, and the one fault that is common in archives and plain to see is mended, in the copy that goes to
the decoder only.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragmented_frames
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from meta_dx.dicom.rejections import RefusedError, RejectionCode

#: Retired syntaxes that libjpeg decodes, and the one under whose name pydicom hands it the same bytes.
RETIRED = {
    UID("1.2.840.10008.1.2.4.53"): JPEGExtended12Bit,  # spectral selection, processes 6 and 8
    UID("1.2.840.10008.1.2.4.55"): JPEGExtended12Bit,  # full progression, processes 10 and 12
}
_JPEG = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, *RETIRED})
_JPEG_LS = frozenset(JPEGLSTransferSyntaxes)
_JPEG_2000 = frozenset(JPEG2000TransferSyntaxes)  # HTJ2K among them
#: Syntaxes whose decoders answer pixel by pixel, whatever PlanarConfiguration says.
COLOUR_BY_PIXEL = _JPEG | _JPEG_2000

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_SEQUENTIAL_DCT = frozenset({0xC0, 0xC1})
_START_OF_SCAN = 0xDA
_AFTER_A_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte nor a restart
_SIZE_OF_IMAGE = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Measure:
    """What a codestream says about its picture.

    Parameters
    ----------
    rows, columns : int
        Size in pixels.
    samples : int
        Components.
    precision : int
        Bits of a sample.
    """

    rows: int
    columns: int
    samples: int
    precision: int


def codestreams(dataset: Dataset, count: int, frame: int | None = None) -> list[bytes]:
    """Return one codestream for each frame, or the one of a single frame.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        An instance with encapsulated pixel data.
    count : int
        Its number of frames.
    frame : int, optional
        Which frame, from 0; default all.

    Returns
    -------
    list of bytes

    Raises
    ------
    RefusedError
        ``damaged_pixels``: the items cannot be told apart, or there are fewer codestreams than frames.
    """
    tables = [dataset.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    extended = (tables[0], tables[1]) if all(isinstance(table, bytes) and table for table in tables) else None
    first, last = (0, count) if frame is None else (frame, frame + 1)
    found = fragments_of_frames(dataset.PixelData, count, extended)
    frames = [b"".join(fragments) for fragments in islice(found, first, last)]
    if len(frames) < last - first:
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "there are fewer codestreams than frames")
    return frames


def fragments_of_frames(
    value: bytes, count: int, extended: tuple[bytes, bytes] | None
) -> Iterator[tuple[bytes, ...]]:
    """Yield the fragments of each frame of encapsulated pixel data.

    Parameters
    ----------
    value : bytes
        Of the element, without the delimiter at its end.
    count : int
        Number of frames.
    extended : tuple of bytes, optional
        Extended offset table and lengths.

    Yields
    ------
    tuple of bytes

    Raises
    ------
    RefusedError
        ``damaged_pixels``: the items cannot be told apart.
    """
    try:
        yield from generate_fragmented_frames(value, number_of_frames=count, extended_offsets=extended)
    except MemoryError:
        raise
    except Exception as fault:
        # Broken lengths and offsets raise ValueError, struct.error, OverflowError …
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "the items of the pixel data are damaged") from fault


def measured(frames: Sequence[bytes], syntax: UID, expected: tuple[int, int, int]) -> int:
    """Hold the codestreams against the header and return the bits of a sample.

    Parameters
    ----------
    frames : sequence of bytes
        Codestreams of one instance.
    syntax : pydicom.uid.UID
        Their transfer syntax.
    expected : tuple of int
        Rows, columns and samples that the header of the instance promises.

    Returns
    -------
    int
        Bits of a sample, the same in all frames; 0 for RLE, which does not say.

    Raises
    ------
    RefusedError
        ``damaged_pixels``: a codestream has no header, or announces another picture than the instance does.
    """
    if syntax == RLELossless:
        return 0
    measure = _measure_jpeg_2000 if syntax in _JPEG_2000 else _measure_jpeg
    try:
        measures = {measure(frame) for frame in frames}
    except (struct.error, IndexError) as fault:
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "a codestream has no header") from fault
    if {(found.rows, found.columns, found.samples) for found in measures} != {expected}:
        raise RefusedError(
            RejectionCode.DAMAGED_PIXELS, "a codestream announces another size than the header"
        )
    precisions = {found.precision for found in measures}
    if len(precisions) > 1:
        raise RefusedError(RejectionCode.DAMAGED_PIXELS, "the frames have samples of different depth")
    return precisions.pop()


def mended(frame: bytes, syntax: UID) -> bytes:
    """Return a codestream whose scan headers a strict decoder takes.

    Some writers of 12-bit JPEG end the spectral selection of their sequential scans at 0 instead of 63
    (ISO 10918-1, table B.3). Such a scan would hold no coefficient but the first, so nothing else can be meant.

    Parameters
    ----------
    frame : bytes
        A codestream.
    syntax : pydicom.uid.UID
        Its transfer syntax.

    Returns
    -------
    bytes
        The same object where nothing is wrong.
    """
    if syntax not in _JPEG:
        return frame
    marker, place = _segment(frame, _START_OF_FRAME)
    if marker not in _SEQUENTIAL_DCT:
        return frame
    copy = None
    while place < len(frame):
        marker, place = _segment(frame, {_START_OF_SCAN}, place)
        if marker is None:
            break
        length = int.from_bytes(frame[place + 2 : place + 4], "big")
        end_of_selection = place + length  # of Ss, Se, Ah/Al, the last three bytes, this is the second
        if frame[end_of_selection - 1 : end_of_selection + 1] == b"\0\0":
            copy = copy or bytearray(frame)
            copy[end_of_selection] = 63
        following = _AFTER_A_SCAN.search(frame, place + 2 + length)
        place = following.start() if following else len(frame)
    return frame if copy is None else bytes(copy)


def _segment(frame: bytes, wanted: frozenset[int] | set[int], place: int = 2) -> tuple[int | None, int]:
    """Return the first wanted marker from a place on and where it stands; ``None`` where there is none."""
    while place + 4 <= len(frame):
        if frame[place] != 0xFF:
            break
        marker = frame[place + 1]
        if marker == 0xFF:  # markers may be preceded by any number of fill bytes
            place += 1
            continue
        if marker in wanted:
            return marker, place
        if marker == _START_OF_SCAN:
            break
        place += 2 + max(2, int.from_bytes(frame[place + 2 : place + 4], "big"))
    return None, len(frame)


def _measure_jpeg(frame: bytes) -> Measure:
    if frame[:2] != b"\xff\xd8":
        raise IndexError("no start of image")
    _, place = _segment(frame, _START_OF_FRAME)
    precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, place + 4)
    return Measure(rows, columns, samples, precision)


def _measure_jpeg_2000(frame: bytes) -> Measure:
    # The codestream may stand inside the boxes of a JP2 file, although PS3.5 (A.4.4) forbids it.
    place = frame.find(_SIZE_OF_IMAGE)
    if place < 0:
        raise IndexError("no codestream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, place + 8)
    samples, depth = struct.unpack_from(">HB", frame, place + 40)
    return Measure(bottom - top, right - left, samples, (depth & 0x7F) + 1)
