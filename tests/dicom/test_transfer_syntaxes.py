"""Every transfer syntax decodes to what an independent reader finds in the same file.

Native, RLE, JPEG and JPEG-LS files are decoded by dcmtk as well; JPEG 2000 and HTJ2K codestreams come from other
encoders than OpenJPEG (FFmpeg and OpenJPH) and are held against the formula that drew them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
)

from meta_dx.dicom.header import require_picture
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.parsing import parse
from meta_dx.dicom.pixels import GREY, PALETTE, decode, photometric_of, physical_pixels
from meta_dx.dicom.profile import ProfileOptions
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, read_instance
from meta_dx.dicom.rejections import Refusal, RefusedError, RejectionCode
from tests.dicom import dcmtk
from tests.dicom.builders import build_instance, picture, write_instance

needs_dcmtk = pytest.mark.skipif(not dcmtk.installed(), reason=dcmtk.MISSING)
SURROGATES = Surrogates(b"transfer syntaxes")
CODESTREAMS = Path(__file__).parent / "codestreams"
HTJ2K = UID("1.2.840.10008.1.2.4.203")

# Two decoders of one DCT codestream may each be off by one (ISO 10918-2); in a colour, chroma counts up to 1.772
# times.
GREY_DCT, COLOUR_DCT = 2, 4

NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
ENCODERS = {
    "RLE": ("dcmcrle",),
    "JPEG baseline": ("dcmcjpeg", "+eb"),
    "JPEG baseline 4:4:4": ("dcmcjpeg", "+eb", "+s4"),
    "JPEG baseline RGB": ("dcmcjpeg", "+eb", "+cr"),
    "JPEG extended": ("dcmcjpeg", "+ee"),
    "JPEG spectral selection": ("dcmcjpeg", "+es"),
    "JPEG full progression": ("dcmcjpeg", "+ep"),
    "JPEG lossless, any predictor": ("dcmcjpeg", "+el", "+sv", "4"),
    "JPEG lossless, first predictor": ("dcmcjpeg", "+e1"),
    "JPEG-LS lossless": ("dcmcjpls", "+el"),
    "JPEG-LS lossless by sample": ("dcmcjpls", "+el", "+is"),
    "JPEG-LS near-lossless": ("dcmcjpls", "+en", "+md", "3"),
    "fragments without offsets": ("dcmcjpeg", "+e1", "+fs", "1", "-ot"),
}
PICTURES = {
    "eight": {"shape": (33, 41), "bits": 8},
    "12 bits": {"shape": (33, 41), "bits": 12, "BitsStored": 12, "HighBit": 11},
    "12 bits signed": {
        "shape": (33, 41),
        "bits": 12,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 1,
    },
    "16 bits": {"shape": (33, 41), "bits": 16},
    "16 bits signed": {"shape": (33, 41), "bits": 16, "PixelRepresentation": 1},
    "colour": {"shape": (33, 42, 3), "bits": 8},
    "three frames": {"shape": (3, 33, 41), "bits": 8},
    "12 bits in dirty words": {"shape": (33, 41), "bits": 16, "BitsStored": 12, "HighBit": 11},
    "three frames of colour": {"shape": (3, 34, 42, 3), "bits": 8},
    "inverted": {"shape": (33, 41), "bits": 8, "PhotometricInterpretation": "MONOCHROME1"},
}
LOSSY = {"JPEG baseline", "JPEG baseline 4:4:4", "JPEG baseline RGB", "JPEG extended"} | {
    "JPEG spectral selection",
    "JPEG full progression",
}
ONLY_8_BITS = {"JPEG baseline", "JPEG baseline 4:4:4", "JPEG baseline RGB"}


def smooth(shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Draw waves and a little noise: a picture that lossy coding does not turn into noise of its own."""
    colour = shape[-1] == 3
    rows, columns = shape[-3:-1] if colour else shape[-2:]
    y, x = np.mgrid[:rows, :columns]
    frames = shape[0] if len(shape) == (4 if colour else 3) else 1
    planes = [
        0.5 + 0.4 * np.sin(x / (5 + k) + k) * np.cos(y / (7 + k))
        for k in range(frames * (3 if colour else 1))
    ]
    noise = np.random.default_rng(rows).normal(0, 0.01, (len(planes), rows, columns))
    values = ((np.stack(planes) + noise).clip(0, 1) * ((1 << bits) - 1)).astype(np.int64)
    stacked = values.reshape(frames, 3, rows, columns).transpose(0, 2, 3, 1) if colour else values
    return stacked.reshape(shape).astype(np.uint8 if bits <= 8 else np.uint16)


def written(folder: Path, kind: str, **changes) -> Path:
    options = {**PICTURES[kind], **changes}
    return write_instance(folder, pixels=smooth(options.pop("shape"), options.pop("bits")), **options)


def assert_equal_to_dcmtk(path: Path, folder: Path, tolerance: int = 0) -> None:
    dataset = parse(path.read_bytes(), 1 << 30)
    theirs = dcmtk.stored_values(path, str(dataset.file_meta.TransferSyntaxUID), folder)
    frames = dcmtk.as_rgb(theirs["frames"], theirs["photometric"])
    ours = decode(dataset).frames.astype(np.int64)
    assert ours.shape == frames.shape
    assert np.abs(ours - frames).max() <= tolerance
    for frame in range(len(frames)):  # one by one is the same as all at once
        assert np.array_equal(decode(dataset, frame).frames[0], ours[frame])


@needs_dcmtk
@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("kind", PICTURES)
def test_native_files_hold_the_values_that_dcmtk_finds(tmp_path, name, kind):
    assert_equal_to_dcmtk(written(tmp_path, kind, transfer_syntax=NATIVE[name]), tmp_path)


def can_encode(name: str, kind: str) -> bool:
    """Tell whether dcmtk encodes such a picture: the DCT and near-lossless coding are for values without sign."""
    if name in LOSSY | {"JPEG-LS near-lossless"} and "signed" in kind:
        return False
    return name not in LOSSY or ("12 bits" in kind and name not in ONLY_8_BITS) or "bits" not in kind


@needs_dcmtk
@pytest.mark.parametrize(
    ("name", "kind"), [pair for pair in itertools.product(ENCODERS, PICTURES) if can_encode(*pair)]
)
def test_compressed_files_hold_the_values_that_dcmtk_finds(tmp_path, name, kind):
    packed = tmp_path / "packed.dcm"
    source = written(tmp_path, kind)
    dcmtk.run(*ENCODERS[name], source, packed)
    dct = name in LOSSY
    assert_equal_to_dcmtk(packed, tmp_path, (COLOUR_DCT if "colour" in kind else GREY_DCT) if dct else 0)
    if not dct and "near" not in name:
        assert np.array_equal(decode(dcmread(packed)).frames, decode(dcmread(source)).frames)


def with_planar_configuration(value: int, dataset: Dataset, path: Path) -> Path:
    dataset.PlanarConfiguration = value
    dataset.save_as(path, enforce_file_format=True)
    return path


def kept_object(path: Path, **limits) -> Dataset:
    taken = read_instance(path, SURROGATES, limits=ReadLimits(**limits))
    assert isinstance(taken, AcceptedInstance)
    return dcmread(BytesIO(taken.object))


@needs_dcmtk
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("kind", ["colour", "three frames of colour"])
@pytest.mark.parametrize("name", ENCODERS)
def test_colours_of_a_codestream_lie_as_it_says_whatever_the_header_says(tmp_path, name, kind, planar):
    source, packed = written(tmp_path, kind), tmp_path / "packed.dcm"
    dcmtk.run(*ENCODERS[name], source, packed)
    path = with_planar_configuration(planar, dcmread(packed), tmp_path / "planar.dcm")
    assert_equal_to_dcmtk(path, tmp_path, COLOUR_DCT if name in LOSSY else 0)
    assert np.array_equal(decode(dcmread(path)).frames, decode(dcmread(packed)).frames)
    stays = planar if name == "RLE" or "JPEG-LS" in name else 0
    for limits in ({}, {"profile": ProfileOptions()}):
        kept = kept_object(path, **limits)
        assert kept.PlanarConfiguration == stays
        kept.save_as(tmp_path / "kept.dcm")
        assert_equal_to_dcmtk(tmp_path / "kept.dcm", tmp_path, COLOUR_DCT if name in LOSSY else 0)


@needs_dcmtk
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_native_ybr_becomes_the_rgb_that_dcmtk_shows(tmp_path, photometric, syntax):
    ybr = smooth((16, 20, 3), 8)

    def subsample(dataset):
        if photometric == "YBR_FULL_422":
            dataset.PixelData = np.stack(
                [ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]], axis=-1
            ).tobytes()

    path = write_instance(
        tmp_path,
        pixels=ybr,
        PhotometricInterpretation=photometric,
        edit=subsample,
        transfer_syntax=syntax,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1",
    )
    assert_equal_to_dcmtk(path, tmp_path, tolerance=1)  # rounding of the conversion
    assert np.abs(physical_pixels(dcmread(path)) - dcmtk.shown(path, tmp_path)).max() <= 2  # cut off


@needs_dcmtk
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_palettes_show_the_colours_that_dcmtk_shows(tmp_path, depth, packed):
    tables = np.random.default_rng(8).integers(0, 1 << depth, (3, 256)).astype(f"<u{depth // 8}")

    def add_palette(dataset):
        for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
            dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, depth])
            dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())

    path = write_instance(
        tmp_path, pixels=picture(3, (9, 10), 8), PhotometricInterpretation=PALETTE, edit=add_palette
    )
    if packed:
        dcmtk.run("dcmcrle", path, tmp_path / "packed.dcm")
        path = tmp_path / "packed.dcm"
    # From 16 bits to 8 dcmtk cuts off, we divide by 257.
    assert np.abs(physical_pixels(dcmread(path)) - dcmtk.shown(path, tmp_path)).max() <= (depth > 8)


def test_a_segmented_palette_is_expanded_as_the_standard_says():
    # PS3.3, C.7.9.2: a discrete segment of three, a line of four steps up to 50, and the line again.
    segments = np.array(
        [0, 3, 10, 20, 30, 1, 4, 50, 2, 2, 5, 0], "<u2"
    )  # the last: opcode, count, byte offset

    def add_palette(dataset):
        for colour in ("Red", "Green", "Blue"):
            dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [7, 0, 16])
            dataset.add_new(
                f"Segmented{colour}PaletteColorLookupTableData", "OW", segments[:8].astype("<u2").tobytes()
            )

    stored = np.arange(7, dtype=np.uint8).reshape(1, 7)
    dataset = build_instance(pixels=stored, PhotometricInterpretation=PALETTE, edit=add_palette)
    expected = np.array([10, 20, 30, 35, 40, 45, 50]) * 255 / 65535
    np.testing.assert_allclose(physical_pixels(dataset)[0, :, 1], expected, atol=1e-3)


@needs_dcmtk
@pytest.mark.parametrize("high_bit", [11, 13, 15])
@pytest.mark.parametrize("signed", [0, 1])
def test_stored_bits_lie_below_the_high_bit(tmp_path, high_bit, signed):
    values = np.random.default_rng(5).integers(0, 1 << 16, (8, 8)).astype(np.uint16)
    path = write_instance(
        tmp_path, pixels=values, BitsStored=12, HighBit=high_bit, PixelRepresentation=signed
    )
    assert_equal_to_dcmtk(path, tmp_path)
    taken = read_instance(path, SURROGATES)
    assert isinstance(taken, AcceptedInstance)
    (tmp_path / "kept.dcm").write_bytes(taken.object)
    kept = dcmread(tmp_path / "kept.dcm")
    assert np.array_equal(decode(kept).frames, decode(dcmread(path)).frames)


@pytest.mark.parametrize("high_bit", [10, 16])
def test_a_high_bit_that_cannot_be_is_refused(tmp_path, high_bit):
    path = write_instance(tmp_path, BitsStored=12, HighBit=high_bit)
    refusal = read_instance(path, SURROGATES)
    assert isinstance(refusal, Refusal) and refusal.code is RejectionCode.PIXEL_DESCRIPTION


def drawn(name: str) -> np.ndarray:
    """Return the picture in ``codestreams/``, (32, 40) of 12 bits or (32, 40, 3) of 8."""
    y, x = np.mgrid[:32, :40]
    if name.startswith("grey12"):
        return (91 * x + 57 * y + 7 * ((13 * x * y) % 97)) % 4096
    return np.stack([x * 6 % 256, y * 8 % 256, x * y % 256], axis=-1)


def with_codestream(name: str, syntax: UID) -> Dataset:
    stream = (CODESTREAMS / name).read_bytes()
    expected = drawn(name)
    colour = expected.ndim == 3
    dataset = build_instance(
        pixels=expected.astype(np.uint8 if colour else np.uint16),
        BitsStored=8 if colour else 12,
        HighBit=7 if colour else 11,
        PhotometricInterpretation="YBR_RCT" if colour else "MONOCHROME2",
    )
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    return dataset


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("grey12.ffmpeg.j2k", JPEG2000Lossless),
        ("rgb8.ffmpeg.j2k", JPEG2000Lossless),
        ("grey12.openjph.j2c", HTJ2KLossless),
        ("grey12.openjph.j2c", HTJ2KLosslessRPCL),
        ("rgb8.openjph.j2c", HTJ2KLossless),
        ("rgb8.openjph.j2c", HTJ2K),
    ],
)
def test_codestreams_of_other_encoders_show_what_was_drawn(name, syntax):
    assert np.array_equal(decode(with_codestream(name, syntax)).frames[0], drawn(name))


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("rgb8.ffmpeg.j2k", JPEG2000Lossless),
        ("rgb8.ffmpeg.j2k", JPEG2000),
        ("rgb8.openjph.j2c", HTJ2KLossless),
        ("rgb8.openjph.j2c", HTJ2KLosslessRPCL),
        ("rgb8.openjph.j2c", HTJ2K),
    ],
)
def test_colours_of_jpeg_2000_lie_pixel_by_pixel_whatever_the_header_says(tmp_path, name, syntax, planar):
    path = with_planar_configuration(planar, with_codestream(name, syntax), tmp_path / "planar.dcm")
    kept = kept_object(path)
    assert kept.PlanarConfiguration == 0
    for dataset in (dcmread(path), kept):
        assert np.array_equal(decode(dataset).frames[0], drawn(name))


def test_a_lossy_htj2k_codestream_shows_what_openjph_shows():
    header = b"P5\n40 32\n4095\n"
    reference = (CODESTREAMS / "grey12-lossy.openjph.pgm").read_bytes()
    assert reference.startswith(header)
    theirs = np.frombuffer(reference[len(header) :], ">u2").reshape(32, 40).astype(int)
    ours = decode(with_codestream("grey12-lossy.openjph.j2c", HTJ2K)).frames[0].astype(int)
    assert np.abs(ours - theirs).max() <= 1  # the last bit of an irreversible transform


def extended_with_fault(folder: Path, kind: str = "12 bits") -> tuple[Path, Path]:
    """Return a 12-bit JPEG file, and the same one with the fault of many archives: its scans end at 0."""
    sound, faulty = folder / "sound.dcm", folder / "faulty.dcm"
    dcmtk.run("dcmcjpeg", "+ee", written(folder, kind), sound)
    dataset = dcmread(sound)
    frames = []
    for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1))):
        scan = frame.index(b"\xff\xda")
        end = scan + int.from_bytes(frame[scan + 2 : scan + 4], "big")
        assert frame[end - 1 : end + 2] == b"\0\x3f\0"
        frames.append(frame[:end] + b"\0" + frame[end + 1 :])
    dataset.PixelData = encapsulate(frames)
    dataset.save_as(faulty)
    return sound, faulty


@needs_dcmtk
@pytest.mark.parametrize("kind", ["12 bits", "three frames"])
def test_a_jpeg_whose_scan_ends_at_0_is_decoded_and_kept_as_it_is(tmp_path, kind):
    sound, faulty = extended_with_fault(tmp_path, kind)
    taken = read_instance(faulty, SURROGATES)
    assert isinstance(taken, AcceptedInstance)
    (tmp_path / "kept.dcm").write_bytes(taken.object)
    kept = dcmread(tmp_path / "kept.dcm")
    assert kept.file_meta.TransferSyntaxUID == JPEGExtended12Bit
    assert kept.PixelData == dcmread(faulty).PixelData
    for frame in range(taken.row["frames"]):
        assert np.array_equal(physical_pixels(kept, frame), physical_pixels(dcmread(sound), frame))


@needs_dcmtk
def test_a_codestream_that_announces_another_picture_is_not_decoded(tmp_path, monkeypatch):
    packed = tmp_path / "packed.dcm"
    dcmtk.run("dcmcjpeg", "+e1", written(tmp_path, "12 bits"), packed)
    dataset = dcmread(packed)
    place = dataset.PixelData.index(b"\xff\xc3")
    swollen = bytearray(dataset.PixelData)
    swollen[place + 5 : place + 9] = b"\xff\xff\xff\xff"  # 65,535 × 65,535: 8 GiB for the decoder
    dataset.PixelData = bytes(swollen)
    monkeypatch.setattr("libjpeg.decode_pixel_data", lambda *_, **__: pytest.fail("was decoded"))
    with pytest.raises(RefusedError) as refusal:
        decode(dataset)
    assert refusal.value.refusal.code is RejectionCode.DAMAGED_PIXELS


@needs_dcmtk
def test_a_codestream_that_is_deeper_than_the_header_shows_in_the_range_of_stored_values(tmp_path):
    packed = tmp_path / "packed.dcm"
    dcmtk.run(*ENCODERS["JPEG-LS near-lossless"], written(tmp_path, "16 bits"), packed)
    dataset = dcmread(packed)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(packed)
    taken = read_instance(packed, SURROGATES)
    assert isinstance(taken, AcceptedInstance) and taken.row["stored_max"] > 4095


@pytest.mark.data
@needs_dcmtk
def test_real_files_of_many_vendors_hold_the_values_that_dcmtk_finds(real_data, tmp_path):
    compared = Counter()
    for path in sorted((real_data / "dicom-corpus").rglob("*")):
        if not path.is_file():
            continue
        try:
            dataset = parse(path.read_bytes(), 1 << 30)
            require_picture(dataset, 1 << 30)
            ours = decode(dataset).frames.astype(np.int64)
        except RefusedError:
            continue
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        if not dcmtk.decodes(syntax):
            continue
        try:
            theirs = dcmtk.stored_values(path, syntax, tmp_path)
        except RuntimeError:
            compared["refused by dcmtk"] += 1
            continue
        difference = np.abs(ours - dcmtk.as_rgb(theirs["frames"], theirs["photometric"])).max()
        dct = syntax[-2:] in {"50", "51", "53", "55"}
        grey = photometric_of(dataset) in GREY | {PALETTE}
        limit = (GREY_DCT if grey else COLOUR_DCT) if dct else int("YBR" in theirs["photometric"])
        assert difference <= limit, f"{path.name}: {difference}"
        compared[syntax] += 1
    assert compared["refused by dcmtk"] <= 1
    assert sum(compared.values()) >= 200 and len(compared) >= 13
