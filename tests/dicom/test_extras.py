"""What compressed pictures carry besides the picture is blanked, and not a pixel changes."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from meta_dx.dicom.extras import without_extras
from meta_dx.dicom.rejections import Refusal, RefusedError, RejectionCode
from tests.dicom.builders import build_instance, picture

TOKEN = b"QZTOKENQZ"


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">HH", marker, len(content) + 2) + content


def jpeg(*, progressive: bool = False, grey: bool = False) -> bytes:
    pixels = picture("jpeg", (40, 48) if grey else (40, 48, 3), bits=8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=80, progressive=progressive, restart_marker_rows=1)
    return stream.getvalue()


def pixels_of(stream: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(stream)).convert("RGB"))


def frames_of(value: bytes, syntax: str, frames: int = 1) -> bytes:
    return without_extras(
        value[:-8] if value.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0") else value, syntax, frames, 40 * 48
    )


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"grey": True}])
def test_a_jpeg_stream_loses_its_texts_and_no_pixel(options):
    plain = jpeg(**options)
    planted = (
        plain[:2]
        + segment(0xFFE1, b"Exif\0\0" + TOKEN)
        + segment(0xFFFE, TOKEN)
        + segment(0xFFE0, b"JFXX\0" + TOKEN)
        + segment(0xFFEE, TOKEN)
        + plain[2:-2]
        + segment(0xFFFE, TOKEN)
        + plain[-2:]
        + TOKEN
    )
    cleaned = frames_of(encapsulate([planted], has_bot=False), JPEGBaseline8Bit)
    assert TOKEN not in cleaned and len(cleaned) == len(encapsulate([planted], has_bot=False))
    assert np.array_equal(pixels_of(cleaned[16:]), pixels_of(plain))


def test_a_stream_without_texts_keeps_every_byte():
    value = encapsulate([jpeg(), jpeg(grey=True)])
    assert frames_of(value, JPEGBaseline8Bit, 2) == value


def test_what_says_how_colours_are_meant_is_kept():
    plain = jpeg()
    adobe = segment(0xFFEE, b"Adobe\0\x64\0\0\0\0\0" + TOKEN)  # RGB, not YCbCr
    bare = plain[:2] + plain[2 + 2 + struct.unpack(">H", plain[4:6])[0] :]  # without JFIF
    planted = bare[:2] + adobe + bare[2:]
    cleaned = frames_of(encapsulate([planted], has_bot=False), JPEGBaseline8Bit)
    assert TOKEN not in cleaned
    assert np.array_equal(pixels_of(cleaned[16:]), pixels_of(planted))
    assert not np.array_equal(pixels_of(cleaned[16:]), pixels_of(bare))


@pytest.mark.parametrize("place", ["main header", "tile header", "behind the end"])
def test_a_jpeg_2000_stream_loses_its_comments_and_no_pixel(place):
    dataset = build_instance(pixels=picture("j2k", (40, 48), bits=16), transfer_syntax=JPEG2000Lossless)
    stream = get_frame(dataset.PixelData, 0).rstrip(b"\0")
    comment = segment(0xFF64, b"\0\1" + TOKEN)
    tile = stream.index(b"\xff\x90")
    if place == "main header":
        planted = stream[:tile] + comment + stream[tile:]
    elif place == "tile header":
        (length,) = struct.unpack(">I", stream[tile + 6 : tile + 10])
        head = stream[: tile + 6] + struct.pack(">I", length + len(comment)) + stream[tile + 10 : tile + 12]
        planted = head + comment + stream[tile + 12 :]
    else:
        planted = stream + TOKEN
    dataset.PixelData = encapsulate([planted])
    before = dataset.pixel_array
    cleaned = frames_of(dataset.PixelData, JPEG2000Lossless)
    assert TOKEN in dataset.PixelData and TOKEN not in cleaned
    dataset.PixelData = cleaned
    assert np.array_equal(dataset.pixel_array, before)
    assert np.array_equal(before, picture("j2k", (40, 48), bits=16))


def test_boxes_around_a_jpeg_2000_stream_are_blanked():
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content) + 8) + kind + content

    stream = b"\xff\x4f\xff\x51\0\4\0\0\xff\xd9"
    file = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 ") + box(b"xml ", TOKEN) + box(b"uuid", TOKEN)
    size, spaces = box(b"ihdr", bytes(range(14))), box(b"colr", b"\1\0\0\0\0\0\x11" + TOKEN)
    profile = box(b"colr", b"\2\0\0" + TOKEN)
    file += box(b"jp2h", size + box(b"uuid", TOKEN) + spaces + profile)
    file += box(b"jp2c", stream + TOKEN) + TOKEN
    cleaned = frames_of(encapsulate([file], has_bot=False), JPEG2000)
    assert TOKEN not in cleaned and stream in cleaned
    assert size in cleaned and spaces[:15] in cleaned, "what a decoder reads stays"


def test_a_jpeg_ls_stream_loses_its_texts_and_keeps_its_samples():
    samples = (
        bytes(range(256)).replace(b"\xff\xff", b"") * 2 + b"\xff\x41\xff\x7f"
    )  # stuffed bits look like segments
    planted = (
        b"\xff\xd8" + segment(0xFFFE, TOKEN) + segment(0xFFF7, b"\x08") + segment(0xFFDA, b"\1") + samples
    )
    cleaned = frames_of(encapsulate([planted + b"\xff\xd9" + TOKEN], has_bot=False), JPEGLSLossless)
    assert TOKEN not in cleaned and samples in cleaned


@pytest.mark.parametrize("end", [b"", TOKEN, b"\xff", b"\xff\x00\xd9"])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless])
def test_a_stream_without_an_end_is_refused_as_a_text_may_stand_there(end, syntax):
    if syntax == JPEGBaseline8Bit:
        stream = jpeg()
    else:
        stream = get_frame(build_instance(transfer_syntax=syntax).PixelData, 0).rstrip(b"\0")
    assert stream.endswith(b"\xff\xd9")
    value = encapsulate([stream[:-2] + end], has_bot=False)
    with pytest.raises(RefusedError) as fault:
        frames_of(value, syntax)
    assert fault.value.refusal == Refusal(RejectionCode.DAMAGED_PIXELS, "a JPEG stream has no end")


def test_a_text_instead_of_the_end_of_a_jpeg_2000_stream_is_blanked():
    dataset = build_instance(pixels=picture("j2k", (40, 48), bits=16), transfer_syntax=JPEG2000Lossless)
    stream = get_frame(dataset.PixelData, 0).rstrip(b"\0")
    tile = stream.index(b"\xff\x90")
    length = len(stream) - 2 - tile  # of the only tile, written although 0 would do
    planted = stream[: tile + 6] + struct.pack(">I", length) + stream[tile + 10 : -2] + TOKEN
    cleaned = frames_of(encapsulate([planted], has_bot=False), JPEG2000Lossless)
    assert TOKEN not in cleaned and planted[tile : -len(TOKEN)] in cleaned


@pytest.mark.parametrize(
    "pixels", [picture(1, (40, 48), 8), picture(2, (40, 48), 16), picture(3, (40, 48, 3), 8)]
)
def test_a_run_length_stream_loses_what_follows_its_runs(pixels):
    dataset = build_instance(pixels=pixels, transfer_syntax=RLELossless)
    stream = get_frame(dataset.PixelData, 0)
    planted = stream[:-1] + TOKEN + stream[-1:]
    planted = planted[:52] + TOKEN + planted[61:]  # in the unused offsets of the header
    dataset.PixelData = encapsulate([planted])
    cleaned = frames_of(dataset.PixelData, RLELossless)
    assert TOKEN in dataset.PixelData and TOKEN not in cleaned
    dataset.PixelData = cleaned
    assert np.array_equal(dataset.pixel_array, pixels)


def test_frames_that_nobody_counts_are_left_out_and_offsets_are_written_anew():
    first, second = jpeg(), jpeg(grey=True)
    value = encapsulate([first, second, segment(0xFFFE, TOKEN) + TOKEN])
    assert frames_of(value, JPEGBaseline8Bit, 2) == encapsulate([first, second])


def test_a_stream_of_an_unknown_kind_is_refused():
    with pytest.raises(RefusedError):
        frames_of(encapsulate([TOKEN]), "1.2.840.10008.1.2.4.102")
