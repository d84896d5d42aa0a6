"""What compressed pictures carry besides the picture: comments, application segments, trailing bytes.

A JPEG stream inside a DICOM object may hold the name of a file, EXIF, or a thumbnail. It is overwritten with
zeros where it stands: every byte of the coded picture keeps its value and its place, so no offset changes and
every decoder gives the same pixels.

What stands between the last coded sample and the end of a stream cannot be told from samples. So a JPEG or JPEG-LS
stream without an end (EOI) is refused: it was cut, and what lies where its end should be may be a text.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise

from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, RLELossless

from meta_dx.dicom.codestreams import fragments_of_frames
from meta_dx.dicom.rejections import RefusedError, RejectionCode

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
# Frames, tables, restart interval, lines, hierarchy, JPEG-LS frame and parameters: what a decoder reads.
_CODED = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xE0), 0xF7, 0xF8})
_AFTER_A_SCAN = {
    False: re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])"),  # JPEG: neither a stuffed byte nor a restart
    True: re.compile(rb"\xff+([\x80-\xcf\xd8-\xfe])"),  # JPEG-LS stuffs a bit: below 0x80 it is data
}
# Application segments that say how the samples are meant, and how many of their bytes say it.
_MEANING = ((0xE0, b"JFIF\0", 12), (0xEE, b"Adobe", 12), (0xE8, b"mrfx", 5))
_J2K_START, _J2K_TILE, _J2K_DATA, _J2K_END, _J2K_COMMENT = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF64
_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_JP2_BOXES = frozenset({b"jP  ", b"ftyp"})
_JP2_HEADER_BOXES = frozenset({b"ihdr", b"bpcc", b"pclr", b"cmap", b"cdef", b"res "})
_JP2_COLOUR = 3  # bytes before the colour space, or before an ICC profile with texts
_ENUMERATED = 1

# By the first byte of a run (PS3.5, G.3.1): samples that it makes, bytes that it takes. 128 does nothing.
_RLE_RUN = (*range(1, 129), 0, *range(128, 1, -1))
_RLE_STEP = (*range(2, 130), 1, *[2] * 127)

_Spans = Iterator[tuple[int, int]]


def without_extras(
    value: bytes,
    transfer_syntax: str,
    frames: int,
    pixels: int,
    extended: tuple[bytes, bytes] | None = None,
) -> bytes:
    """Overwrite everything in encapsulated pixel data that is not the picture.

    Parameters
    ----------
    value : bytes
        Items, the first of them the offset table, without the delimiter at the end.
    transfer_syntax : str
        UID of the transfer syntax.
    frames : int
        Number of frames.
    pixels : int
        Pixels of a frame.
    extended : tuple of bytes, optional
        ExtendedOffsetTable and ExtendedOffsetTableLengths.

    Returns
    -------
    bytes
        Every fragment is as long as it was. The basic offset table is written anew where there was one, or an
        extended one, which is not needed any more; it stays empty where there was none.

    Raises
    ------
    RefusedError
        ``unsupported_transfer_syntax`` where it is not known what belongs to the picture, ``damaged_pixels``
        where a JPEG stream has no end.
    """
    spans = _spans_of(transfer_syntax, pixels)
    pieces, starts = [], []
    place = 0
    for fragments in islice(fragments_of_frames(value, frames, extended), frames):
        starts.append(place)
        for fragment in _split(_blanked(b"".join(fragments), spans), [len(part) for part in fragments]):
            pieces.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment)
            place += len(fragment) + 8
    wanted = value[4:8] != b"\0\0\0\0" or extended is not None
    return _offset_table(starts if wanted and place < 1 << 32 else ()) + b"".join(pieces)


def _offset_table(starts: Sequence[int]) -> bytes:
    table = b"".join(struct.pack("<I", start) for start in starts)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table


def _split(data: bytes, lengths: Sequence[int]) -> Iterator[bytes]:
    place = 0
    for length in lengths:
        yield data[place : place + length]
        place += length


def _spans_of(transfer_syntax: str, pixels: int) -> Callable[[bytes], _Spans]:
    if transfer_syntax in JPEG2000TransferSyntaxes:
        return _in_jpeg_2000
    if transfer_syntax in JPEGLSTransferSyntaxes:
        return lambda data: _in_jpeg(data, True)
    if transfer_syntax == RLELossless:
        return lambda data: _in_rle(data, pixels)
    if transfer_syntax.startswith("1.2.840.10008.1.2.4.") and 50 <= int(transfer_syntax[20:]) <= 70:
        return lambda data: _in_jpeg(data, False)
    raise RefusedError(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX)


def _blanked(data: bytes, spans: Callable[[bytes], _Spans]) -> bytes:
    found = [(begin, end) for begin, end in spans(data) if data[begin:end].strip(b"\0")]
    if not found:
        return data
    blank = bytearray(data)
    for begin, end in found:
        blank[begin:end] = bytes(len(blank[begin:end]))
    return bytes(blank)


def _in_jpeg(data: bytes, lossless_new: bool) -> _Spans:
    """Yield what is no picture in a JPEG or JPEG-LS stream: parts of segments, and what follows the end.

    Raises
    ------
    RefusedError
        ``damaged_pixels``: there is no end.
    """
    place = 0
    while match := _AFTER_A_SCAN[lossless_new].search(data, place):
        marker, begin = match[1][0], match.end()
        yield place, match.start()  # bytes between two segments, which decoders skip
        place = begin
        if marker in _STANDALONE:
            continue
        if marker == _EOI:
            yield begin, len(data)
            return
        (length,) = struct.unpack(">H", data[begin : begin + 2].ljust(2, b"\0"))
        place = begin + max(length, 2)
        if marker not in _CODED:
            yield begin + 2 + _meaning(marker, data[begin + 2 : place]), place
        if marker == _SOS:
            end = _AFTER_A_SCAN[lossless_new].search(data, place)
            place = end.start() if end else len(data)
    raise RefusedError(RejectionCode.DAMAGED_PIXELS, "a JPEG stream has no end")


def _in_rle(data: bytes, pixels: int) -> _Spans:
    """Yield the unused part of the header and what follows the last run of each segment (PS3.5, annex G)."""
    (count,) = struct.unpack("<I", data[:4].ljust(4, b"\0"))
    count = min(count, 15)
    yield 4 + 4 * count, 64
    offsets = struct.unpack(f"<{count}I", data[4 : 4 + 4 * count].ljust(4 * count, b"\0"))
    places = sorted({64, *(min(offset, len(data)) for offset in offsets), len(data)})
    for begin, end in pairwise(places):
        place, decoded = begin, 0 if begin in offsets else pixels
        while decoded < pixels and place < end:
            control = data[place]
            decoded += _RLE_RUN[control]
            place += _RLE_STEP[control]
        yield place, end


def _meaning(marker: int, content: bytes) -> int:
    for known, name, length in _MEANING:
        if marker == known and content.startswith(name):
            return length
    return 0


def _in_jpeg_2000(data: bytes) -> _Spans:
    """Yield the comments of a JPEG 2000 codestream, what follows its end, and foreign boxes around it."""
    if not data.startswith(_JP2_SIGNATURE):
        yield from _in_codestream(data, 0, len(data))
        return
    yield from _in_boxes(data, 0, len(data), _JP2_BOXES)


def _in_boxes(data: bytes, place: int, stop: int, known: frozenset[bytes]) -> _Spans:
    while place + 8 <= stop:
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        header = 8
        if length == 1:
            (length,) = struct.unpack(">Q", data[place + 8 : place + 16].ljust(8, b"\0"))
            header = 16
        begin, end = place + header, stop if length == 0 else min(place + max(length, header), stop)
        if kind == b"jp2c":
            yield from _in_codestream(data, begin, end)
        elif kind == b"jp2h":
            yield from _in_boxes(data, begin, end, _JP2_HEADER_BOXES)
        elif kind == b"colr":
            yield begin + _JP2_COLOUR + (4 if data[begin : begin + 1] == bytes([_ENUMERATED]) else 0), end
        elif kind not in known:
            yield begin, end
        place = end
    yield place, stop


def _in_codestream(data: bytes, begin: int, stop: int) -> _Spans:
    place = begin + 2  # after the start of the codestream
    tile = tile_end = 0
    while place + 4 <= stop:
        marker, length = struct.unpack(">HH", data[place : place + 4])
        if marker == _J2K_END:
            yield place + 2, stop
            return
        if marker == _J2K_TILE:
            (part,) = struct.unpack(">I", data[place + 6 : place + 10].ljust(4, b"\0"))
            tile, tile_end = place, place + part if part else _last_end(data, place, stop)
        if marker == _J2K_DATA:
            if not tile < tile_end <= stop:
                return  # the stream ends early, or lies: all that follows is samples
            place = tile_end
            continue
        if marker == _J2K_COMMENT:
            yield place + 4, place + 2 + length
        if marker < 0xFF00 or length < 2:
            if tile_end == place:
                yield place, stop  # behind the last tile, where the end of the codestream should be
            return
        place += 2 + length


def _last_end(data: bytes, place: int, stop: int) -> int:
    end = data.rfind(b"\xff\xd9", place, stop)
    return end if end > 0 else stop
