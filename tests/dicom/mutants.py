"""Damaged DICOM files for the fuzz: small sound files of every transfer syntax, and a seeded way to break them."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.dicom.builders import build_instance, picture, write_instance

#: Stands in every text of a seed that tells who it is; nothing that comes out may hold it.
TOKEN = "TOKENXYZQ"  # noqa: S105
CODESTREAMS = Path(__file__).parent / "codestreams"
_PROGRESSIVE = UID("1.2.840.10008.1.2.4.55")
_STREAMS = {
    "baseline": ("rgb8.baseline.jpg", JPEGBaseline8Bit),
    "extended": ("grey12.extended.jpg", JPEGExtended12Bit),
    "progressive": ("grey12.progressive.jpg", _PROGRESSIVE),
    "lossless": ("grey12.lossless.jpg", JPEGLosslessSV1),
    "ls": ("grey12.jls", JPEGLSLossless),
    "ls-colour": ("rgb8.jls", JPEGLSLossless),
    "j2k": ("grey12.ffmpeg.j2k", JPEG2000Lossless),
    "j2k-colour": ("rgb8.ffmpeg.j2k", JPEG2000Lossless),
    "htj2k": ("grey12.openjph.j2c", HTJ2KLossless),
}
_NATIVE = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
}
_REPRESENTATIONS = (
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN "
    b"SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV ZZ"
)
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_LENGTHS = (0, 1, 2, 3, 0xFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_WORDS = (0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 255, 256, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
_TEXTS = (
    b"",
    b"0",
    b"-1",
    b"99999999",
    b"2147483648",
    b"1e308",
    b"nan",
    b"inf",
    b"1\\2\\3",
    b"\xff\xfe",
    b"1A",
)
_PIXEL_WORDS = tuple(
    struct.pack("<HH", 0x28, element)
    for element in (0x02, 0x06, 0x08, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103, 0x120, 0x1052, 0x1053)
)


@dataclass(frozen=True)
class Element:
    """Where an element lies: from ``start`` on its header, from ``value`` to ``end`` its value."""

    start: int
    value: int
    end: int
    explicit: bool


def seeds() -> dict[str, bytes]:
    """Return sound files by name, each below 12 kB."""
    found = {}
    for name, syntax in _NATIVE.items():
        found[name] = _file(pixels=picture(1, (9, 7)), transfer_syntax=syntax)
    colour, frames = picture(2, (6, 8, 3), 8), picture(3, (3, 5, 6))
    for name in ("explicit", "big", "rle"):
        found[f"{name}-colour"] = _file(pixels=colour, transfer_syntax=_NATIVE[name])
        found[f"{name}-frames"] = _file(pixels=frames, transfer_syntax=_NATIVE[name], edit=_enhance)
    found["palette"] = _file(
        pixels=picture(4, (7, 7), 8), PhotometricInterpretation="PALETTE COLOR", edit=_palette
    )
    found["lut"] = _file(
        pixels=picture(5, (7, 7), 8), PhotometricInterpretation="MONOCHROME1", edit=_modality_lut
    )
    found["signed"] = _file(
        pixels=picture(6, (7, 7)).astype(np.int16),
        BitsStored=12,
        HighBit=11,
        PixelPaddingValue=-5,
        RescaleSlope="2.5",
        RescaleIntercept="-1024",
    )
    found["bare"] = _file(pixels=picture(7, (6, 6)), transfer_syntax=ImplicitVRLittleEndian)[132:]
    for name, (file, syntax) in _STREAMS.items():
        found[name] = _encapsulated((CODESTREAMS / file).read_bytes(), file, syntax)
    return found


def mutant(seed: bytes, number: int) -> bytes:
    """Return damaged bytes; the same number damages in the same way."""
    rng = random.Random(number)
    content = bytearray(seed)
    inner = _inflated(seed) if rng.random() < 0.8 else None
    if inner is not None:
        head, content = inner[0], bytearray(inner[1])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(content) < 16:
            break
        content = rng.choice(_DAMAGES)(content, rng)
    if inner is None:
        return bytes(content)
    engine = zlib.compressobj(wbits=-15)
    return head + engine.compress(bytes(content)) + engine.flush()


def _file(**options: Any) -> bytes:
    stream = BytesIO()
    texts = {"PatientBirthDate": "19500101", "StudyDescription": TOKEN, "InstitutionName": TOKEN}
    edit = options.pop("edit", None)

    def private(dataset: Dataset) -> None:
        dataset.add_new(0x00091001, "LO", TOKEN)
        if edit is not None:
            edit(dataset)

    options |= {
        "patient": TOKEN,
        "study": "S",
        "instance": "I",
        "AccessionNumber": TOKEN,
        "InstanceNumber": 1,
    }
    with config.disable_value_validation():
        dataset = build_instance(**options, **texts, edit=private)
        if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _encapsulated(codestream: bytes, name: str, syntax: UID) -> bytes:
    colour = name.startswith("rgb8")
    pixels = picture(1, (32, 40, 3), 8) if colour else picture(1, (32, 40))
    photometric = (
        "MONOCHROME2" if not colour else {"jpg": "YBR_FULL_422", "j2k": "YBR_RCT"}.get(name[-3:], "RGB")
    )
    bits = 8 if colour else 12
    stored = BytesIO(
        _file(pixels=pixels, BitsStored=bits, HighBit=bits - 1, PhotometricInterpretation=photometric)
    )
    dataset = dcmread(stored)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([codestream], has_bot=colour)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def _enhance(dataset: Dataset) -> None:
    def group(slope: float, place: float) -> Dataset:
        values, position, whole = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, -5, "HU"
        position.ImagePositionPatient = [0, 0, place]
        whole.PixelValueTransformationSequence = Sequence([values])
        whole.PlanePositionSequence = Sequence([position])
        return whole

    orientation, shared = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group(1 + k, 2.5 * k) for k in range(3)])


def _palette(dataset: Dataset) -> None:
    for index, colour in enumerate(("Red", "Green", "Blue")):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [64, 4, 16])
        table = np.arange(64, dtype="<u2") * (index + 1) * 300
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.astype("<u2").tobytes())


def _modality_lut(dataset: Dataset) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [100, 10, 16])
    item.ModalityLUTType = "HU"
    item.add_new("LUTData", "US", list(range(0, 1000, 10)))
    dataset.ModalityLUTSequence = Sequence([item])


def _inflated(seed: bytes) -> tuple[bytes, bytes] | None:
    """Return what stands before a deflated data set, and the data set; ``None`` of any other file."""
    if seed[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in seed[:400]:
        return None
    start = 144 + struct.unpack("<I", seed[140:144])[0]
    return seed[:start], zlib.decompress(seed[start:], -15)


def _elements(content: bytes) -> list[Element]:
    """Find the elements at the top; none where the parser fails."""
    try:
        with config.disable_value_validation():
            dataset = dcmread(BytesIO(content), force=True)
        raw = [dataset.get_item(tag) for tag in dataset.keys()]
    except Exception:
        return []
    found = []
    for element in raw:
        if not isinstance(element, RawDataElement) or element.value_tell > len(content):
            continue
        explicit = not element.is_implicit_VR
        long = explicit and str(element.VR).encode() in _LONG
        end = element.value_tell + len(element.value or b"")
        found.append(Element(element.value_tell - (12 if long else 8), element.value_tell, end, explicit))
    return [element for element in found if 0 <= element.start < element.value <= element.end <= len(content)]


def _flip(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(min(128, len(content) - 1), len(content))] ^= 1 << rng.randrange(8)
    return content


def _scribble(content: bytearray, rng: random.Random) -> bytearray:
    place = rng.randrange(len(content))
    content[place : place + rng.choice((1, 2, 4, 40))] = rng.randbytes(rng.choice((1, 2, 4, 40)))
    return content


def _cut(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(len(content))]


def _drop(content: bytearray, rng: random.Random) -> bytearray:
    place = rng.randrange(len(content))
    del content[place : place + rng.choice((1, 2, 8, 64, 500))]
    return content


def _repeat(content: bytearray, rng: random.Random) -> bytearray:
    place, length = rng.randrange(len(content)), rng.choice((2, 8, 64, 500))
    content[place:place] = content[place : place + length] * rng.choice((1, 2, 50))
    return content


def _of_an_element(damage: Callable[[bytearray, Element, random.Random], None]) -> Any:
    def wrapped(content: bytearray, rng: random.Random) -> bytearray:
        elements = _elements(bytes(content))
        if not elements:
            return _flip(content, rng)
        about_pixels = [e for e in elements if bytes(content[e.start : e.start + 4]) in _PIXEL_WORDS]
        chosen = rng.choice(about_pixels if about_pixels and rng.random() < 0.4 else elements)
        damage(content, chosen, rng)
        return content

    return wrapped


@_of_an_element
def _other_length(content: bytearray, element: Element, rng: random.Random) -> None:
    long = not element.explicit or element.value - element.start == 12
    known = element.end - element.value
    length = rng.choice((*_LENGTHS, known + 1, known - 1, known + 8, known * 2, rng.randrange(1 << 16)))
    form = "<I" if long else "<H"
    place = element.value - struct.calcsize(form)
    content[place : element.value] = struct.pack(form, length % (1 << 8 * struct.calcsize(form)))


@_of_an_element
def _other_representation(content: bytearray, element: Element, rng: random.Random) -> None:
    if element.explicit:
        content[element.start + 4 : element.start + 6] = rng.choice(_REPRESENTATIONS.split())


@_of_an_element
def _other_tag(content: bytearray, element: Element, rng: random.Random) -> None:
    content[element.start : element.start + 4] = rng.choice((*_PIXEL_WORDS, rng.randbytes(4)))


@_of_an_element
def _twice(content: bytearray, element: Element, rng: random.Random) -> None:
    place = rng.choice((element.start, element.end))
    content[place:place] = content[element.start : element.end]


@_of_an_element
def _gone(content: bytearray, element: Element, rng: random.Random) -> None:
    del content[element.start : element.end]


@_of_an_element
def _other_value(content: bytearray, element: Element, rng: random.Random) -> None:
    length = element.end - element.value
    if length == 2:
        value = struct.pack("<H", rng.choice(_WORDS))
    elif rng.random() < 0.5:
        value = rng.choice(_TEXTS).ljust(length, rng.choice((b" ", b"\0", b"9")))[:length]
    else:
        value = rng.randbytes(min(length, 4096)).ljust(length, b"\0")
    content[element.value : element.end] = value


@_of_an_element
def _nested(content: bytearray, element: Element, rng: random.Random) -> None:
    depth, undefined = rng.choice((3, 40, 200, 2000)), rng.random() < 0.5
    inner = b""
    head = struct.pack("<HH", *rng.choice(((0x0008, 0x1140), (0x5200, 0x9230), (0x0009, 0x1010))))
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF if undefined else len(inner)) + inner
        item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) if undefined else b""
        length = 0xFFFFFFFF if undefined else len(item)
        form = head + (b"SQ\0\0" if element.explicit else b"") + struct.pack("<I", length)
        inner = form + item + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if undefined else b"")
    content[element.start : element.start] = inner


@_of_an_element
def _vast(content: bytearray, element: Element, rng: random.Random) -> None:
    elements = [e for e in _elements(bytes(content)) if bytes(content[e.start : e.start + 4]) in _PIXEL_WORDS]
    for other in elements:
        tag = bytes(content[other.start : other.start + 4])
        length = other.end - other.value
        if tag in _PIXEL_WORDS[3:5] and rng.random() < 0.7:
            content[other.value : other.end] = struct.pack("<H", rng.choice((0xFFFF, 0xFF00, 0x8000)))[
                :length
            ]
        elif tag == _PIXEL_WORDS[2]:
            content[other.value : other.end] = b"9" * length
    count = (
        struct.pack("<HH", 0x28, 0x08) + (b"IS\x08\0" if element.explicit else b"\x08\0\0\0") + b"99999999"
    )
    if rng.random() < 0.5:
        content[element.start : element.start] = count


def _encapsulation(content: bytearray, rng: random.Random) -> bytearray:
    """Break the items of the pixel data: their tags, lengths, order or offsets."""
    places, place = [], content.find(b"\xe0\x7f\x10\0")
    while place >= 0:
        place = content.find(b"\xfe\xff\0\xe0", place + 1)
        if place >= 0:
            places.append(place)
    if not places:
        return _flip(content, rng)
    place = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        content[place + 4 : place + 8] = struct.pack("<I", rng.choice(_LENGTHS))
    elif kind == 1:
        content[place : place + 4] = rng.choice((b"\xfe\xff\xdd\xe0", b"\xfe\xff\x0d\xe0", rng.randbytes(4)))
    elif kind == 2:
        del content[place : place + rng.choice((8, 12, 200))]
    elif kind == 3:
        content[place:place] = content[place : place + rng.choice((8, 40, 3000))]
    else:
        content[places[0] + 4 : places[0] + 8] = struct.pack("<I", 8) + struct.pack(
            "<II", 0, rng.choice(_LENGTHS)
        )
    return content


def _within_pixels(content: bytearray, rng: random.Random) -> bytearray:
    """Change bytes of the codestream, more often of its header."""
    start = content.rfind(b"\xe0\x7f\x10\0")
    if start < 0 or start + 40 >= len(content):
        return _flip(content, rng)
    last = min(len(content), start + rng.choice((80, 300, len(content))))
    for _ in range(rng.choice((1, 1, 2, 10))):
        place = rng.randrange(start + 12, last)
        content[place] = rng.choice((0, 0xFF, content[place] ^ (1 << rng.randrange(8)), rng.randrange(256)))
    return content


_DAMAGES = (
    _flip,
    _scribble,
    _cut,
    _drop,
    _repeat,
    _other_length,
    _other_representation,
    _other_tag,
    _twice,
    _gone,
    _other_value,
    _other_value,
    _nested,
    _vast,
    _encapsulation,
    _within_pixels,
    _within_pixels,
)


def written_seeds(folder: Path) -> list[Path]:
    """Write all seeds into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in seeds().items():
        paths.append(folder / f"{name}.dcm")
        paths[-1].write_bytes(content)
    return paths


__all__ = ["TOKEN", "mutant", "seeds", "write_instance", "written_seeds"]
