"""Picture files as they come from cameras and public data sets: their pixels, upright, and nothing else.

Besides the pixels such files carry dates, places, names of devices and thumbnails of what was cropped. Pixels
are therefore taken out of the file, or, of a JPEG file, the coded picture alone (:func:`bare_jpeg`).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_ORIENTATION = 0x0112  # of EXIF
_PHOTOMETRIC = 262  # of TIFF
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_UPRIGHT = frozenset({0, 1})
_LARGEST_SIDE = 65535
_NEXT_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])", re.DOTALL)  # neither a stuffed 0xFF nor a restart
_EOI, _SOS, _SOF0, _APP0, _APP14 = 0xD9, 0xDA, 0xC0, 0xE0, 0xEE
_CODED = frozenset({_SOF0, _SOS, 0xDB, 0xC4, 0xDD})  # frame, scan; quantisation, Huffman, restart interval
_TEXTS = frozenset({*range(0xE0, 0xF0), 0xFE})  # application segments and comments


class PictureError(Exception):
    """A file that cannot become an image; the text says why and names no value of the file."""


@dataclass(frozen=True)
class PictureFile:
    """A picture that was read.

    Parameters
    ----------
    digest : bytes
        SHA-256 of the file.
    pixels : ndarray, shape (H, W) of uint8 or uint16, or (H, W, 3) of uint8
        Upright, as Pillow decodes them.
    file_bytes : int
        Size of the file.
    lossy : bool
        The file was JPEG, or a TIFF with JPEG in it.
    jpeg : bytes, optional
        The bare JPEG stream, where the file is a baseline JPEG that is upright already.
    """

    digest: bytes
    pixels: npt.NDArray[Any]
    file_bytes: int
    lossy: bool
    jpeg: bytes | None

    @property
    def colour(self) -> bool:
        """Whether there are three samples for each pixel."""
        return self.pixels.ndim == 3


def read_picture(path: Path) -> PictureFile:
    """Read and decode one picture file.

    Parameters
    ----------
    path : Path
        A PNG, JPEG, TIFF or BMP file with one picture.

    Returns
    -------
    PictureFile
        Grey pictures (palettes of greys too) keep 8 or 16 bits, colours have 8. Transparency is dropped: the
        colour under it counts.

    Raises
    ------
    PictureError
        The file cannot be read or decoded, or holds what DICOM could only keep by changing it: several pages,
        floating point, signed or 32-bit values.
    """
    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return _decoded(data, image)
    except PictureError:
        raise
    except OSError as fault:
        raise PictureError("the file cannot be read as PNG, JPEG, TIFF or BMP, or it is cut short") from fault
    except Exception as fault:
        # Decoders raise whatever their C code and their tables lead them to.
        raise PictureError(f"the picture cannot be decoded ({type(fault).__name__})") from fault


def _decoded(data: bytes, image: Image.Image) -> PictureFile:
    if image.format in {"PNG", "TIFF"} and getattr(image, "n_frames", 1) > 1:
        raise PictureError("the file holds several pictures: save each as a file of its own")
    if max(image.size) > _LARGEST_SIDE:
        raise PictureError(f"the picture has more than {_LARGEST_SIDE} pixels on a side")
    if image.format == "PNG" and data[24:26] == b"\x10\x04":  # Pillow would cut it to 8 bits
        raise PictureError("16-bit grey with transparency is not supported: save it without transparency")
    jpeg = image.format in {"JPEG", "MPO"}
    lossy = jpeg or image.info.get("compression") in {"jpeg", "tiff_jpeg"}
    white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    image.load()
    upright = image.getexif().get(_ORIENTATION, 1) in _UPRIGHT
    pixels = _pixels(ImageOps.exif_transpose(image))
    if white_is_zero and pixels.dtype == np.uint16:  # Pillow turns over 8 bits, but not 16
        pixels = 65535 - pixels
    stream = bare_jpeg(data) if jpeg and upright else None
    return PictureFile(hashlib.sha256(data).digest(), pixels, len(data), lossy, stream)


def _pixels(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError("the values do not fit 16 bits without a sign: rescale them first")
        return values.astype(np.uint16)
    if image.mode == "F":
        raise PictureError("the values are floating-point numbers: save whole numbers of 8 or 16 bits")
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))
    colours = np.asarray(image.convert("RGB"))
    return colours[..., 0].copy() if image.mode in {"P", "PA"} and is_grey(colours) else colours


def is_grey(colours: npt.NDArray[Any]) -> bool:
    """Tell whether all pixels of a picture (H, W, 3) have three equal samples."""
    return bool((colours == colours[..., :1]).all())


def bare_jpeg(data: bytes) -> bytes | None:
    """Return a baseline JPEG stream with nothing in it but the picture.

    The coded picture is copied bit for bit. Comments, EXIF, XMP, colour profiles, thumbnails and whatever
    follows the end of the picture stay behind; of the JFIF and Adobe segments the colour space is kept.

    Parameters
    ----------
    data : bytes
        A JPEG file.

    Returns
    -------
    bytes or None
        ``None`` where the file is not 8-bit baseline (ITU-T T.81, SOF0) in grey or YCbCr.
    """
    kept: dict[int, bytes] = {}
    coded: list[bytes] = []
    frame = b""
    for marker, content, scan in _segments(data):
        if marker == _EOI:
            if not _is_grey_or_ycc(frame, kept):
                return None
            return b"".join([b"\xff\xd8", *kept.values(), *coded, b"\xff\xd9"])
        if marker in (_APP0, _APP14):
            short = _without_extras(marker, content)
            if short:
                kept.setdefault(marker, _segment(marker, short))
        elif marker in _CODED:
            frame = content if marker == _SOF0 else frame
            coded += [_segment(marker, content), scan]
        elif marker not in _TEXTS:
            return None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield marker, content and entropy-coded data of each segment, up to the end of the picture."""
    place = 2  # after the start of the picture
    while match := _NEXT_MARKER.search(data, place):
        marker, begin = match[1][0], match.end()
        if marker == _EOI:
            yield marker, b"", b""
            return
        (length,) = struct.unpack(">H", data[begin : begin + 2].ljust(2, b"\0"))
        content, place = data[begin + 2 : begin + length], begin + max(length, 2)
        scan = b""
        if marker == _SOS:
            end = _NEXT_MARKER.search(data, place)
            scan = data[place : end.start() if end else len(data)]
            place += len(scan)
        yield marker, content, scan


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def _without_extras(marker: int, content: bytes) -> bytes:
    """Return a JFIF segment without its thumbnail, or an Adobe segment; nothing for any other."""
    if marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 14:
        return content[:12] + b"\0\0"
    return content[:12] if marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12 else b""


def _is_grey_or_ycc(frame: bytes, kept: Mapping[int, bytes]) -> bool:
    """Tell whether a decoder will take the samples for grey or YCbCr, by the rules of libjpeg."""
    if len(frame) < 9 or frame[0] != 8 or frame[5] not in (1, 3):
        return False
    if frame[5] == 1 or _APP0 in kept:
        return True
    if _APP14 in kept:
        return kept[_APP14][-1] == 1  # the transform: 0 is RGB, 1 is YCbCr
    return frame[6::3][:3] == b"\1\2\3"
