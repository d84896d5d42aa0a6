import hashlib
import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from meta_dx.dicom import reading
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, read_instance
from meta_dx.dicom.rejections import Refusal, RejectionCode
from tests.dicom.builders import build_instance, picture, uid_of, write_instance

SURROGATES = Surrogates(b"a key of the test, 32 bytes long")
NATIVE = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]

STORED = ("stored_min", "stored_max")


def read(path: Path, **limits: int) -> AcceptedInstance | Refusal:
    return read_instance(path, SURROGATES, limits=ReadLimits(**limits))


def refused(path: Path, **limits: int) -> RejectionCode:
    result = read(path, **limits)
    assert isinstance(result, Refusal), "the file was accepted"
    return result.code


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file.bin"
    path.write_bytes(data)
    return path


def test_the_row_says_what_the_header_says(tmp_path):
    pixels = picture(1, (8, 12)) - np.uint16(0)
    path = write_instance(
        tmp_path,
        patient="P1",
        study="S",
        series="R",
        instance="I",
        pixels=pixels,
        Laterality="L",
        Manufacturer="Acme  Imaging",
        ManufacturerModelName="X 1",
        RescaleSlope="2",
        RescaleIntercept="-10",
        InstanceNumber=7,
        ImagePositionPatient=[1, 2, 30.5],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )
    result = read(path)
    assert isinstance(result, AcceptedInstance)
    row = result.row
    physical = pixels * 2.0 - 10.0
    expected = {
        "study": SURROGATES.uid(uid_of("S")),
        "series": SURROGATES.uid(uid_of("R")),
        "instance": SURROGATES.uid(uid_of("I")),
        "patient": SURROGATES.patient("P1"),
        "accession": SURROGATES.accession("ACC S"),
        "object": hashlib.sha256(result.object).hexdigest(),
        "content": SURROGATES.digest(path.read_bytes()),
        "pixels": SURROGATES.digest(pixels.astype("<u2").tobytes()),
        "modality": "CR",
        "body_part": "CHEST",
        "laterality": "L",
        "view": "PA",
        "manufacturer": "Acme Imaging",
        "model": "X 1",
        "sop_class": "1.2.840.10008.5.1.4.1.1.1",
        "transfer_syntax": ExplicitVRLittleEndian,
        "photometric": "MONOCHROME2",
        "rows": 8,
        "columns": 12,
        "frames": 1,
        "samples": 1,
        "bits_stored": 16,
        "rescale_slope": 2.0,
        "rescale_intercept": -10.0,
        "sex": "F",
        "age_years": 54.0,
        "image_type": "ORIGINAL\\PRIMARY",
        "instance_number": 7,
        "position": 30.5,
        "pixel_min": physical.min(),
        "pixel_max": physical.max(),
    }
    assert {name: row[name] for name in expected} == expected
    assert row["pixel_std"] == pytest.approx(physical.std(), rel=1e-6)
    assert row["study_date"] < "2024-02-29"
    assert result.identities["study"] == {row["study"]: uid_of("S")}
    assert result.identities["patient"] == {row["patient"]: "P1"}
    assert result.identities["accession"] == {row["accession"]: "ACC S"}


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEG2000Lossless])
def test_the_object_keeps_the_transfer_syntax_and_every_pixel(tmp_path, syntax):
    pixels = picture(syntax, (2, 33, 35))
    result = read(write_instance(tmp_path, pixels=pixels, transfer_syntax=syntax))
    assert isinstance(result, AcceptedInstance)
    kept = dcmread(BytesIO(result.object))
    assert kept.file_meta.TransferSyntaxUID == syntax == result.row["transfer_syntax"]
    assert np.array_equal(kept.pixel_array, pixels)
    assert result.row["pixels"] == SURROGATES.digest(pixels.astype("<u2").tobytes())


def test_equal_pixels_have_equal_hashes_whatever_their_transfer_syntax(tmp_path):
    pixels = picture(3, (33, 34))
    rows = [
        read(write_instance(tmp_path, pixels=pixels, transfer_syntax=syntax)).row
        for syntax in [*NATIVE, RLELossless, JPEG2000Lossless]
    ]
    assert len({row["pixels"] for row in rows}) == 1
    assert len({row["object"] for row in rows}) == len(rows)


def test_the_same_file_gives_the_same_bytes(tmp_path):
    path = write_instance(tmp_path)
    one, two = read(path), read(path)
    assert one.object == two.object and one.identities == two.identities
    assert repr(one.row) == repr(two.row)  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("born", "age", "years"),
    [
        ("", "006M", 0.5),
        ("", "010D", 10 / 365.25),
        ("", "003W", 21 / 365.25),
        ("19840229", "", 40.0),
        ("", "fifty", None),
        ("20300101", "", None),
        ("17000101", "", None),
    ],
)
def test_the_age_comes_from_age_or_birth(tmp_path, born, age, years):
    row = read(write_instance(tmp_path, PatientAge=age, PatientBirthDate=born)).row
    assert row["age_years"] == pytest.approx(years) if years is not None else np.isnan(row["age_years"])


def test_optional_attributes_may_be_absent_or_nonsense(tmp_path):
    names = (
        "PatientSex PatientAge AccessionNumber StudyDate BodyPartExamined ViewPosition ImageType"
    ).split()
    row = read(write_instance(tmp_path, InstanceNumber="", **dict.fromkeys(names))).row
    assert row["instance_number"] == -1
    for name in ("sex", "accession", "study_date", "body_part", "view", "image_type", "laterality", "model"):
        assert row[name] is None
    odd = read(
        write_instance(
            tmp_path, PatientSex="unknown", StudyDate="20249999", BodyPartExamined="see letter; Mr X"
        )
    ).row
    assert row["sex"] is None and odd["study_date"] is None and odd["body_part"] is None


def test_the_view_comes_from_its_code_where_it_has_no_name(tmp_path):
    code = Dataset()
    code.CodeValue = "R-10226"
    row = read(write_instance(tmp_path, ViewPosition=None, ViewCodeSequence=Sequence([code]))).row
    assert row["view"] == "R-10226"


def test_the_position_is_measured_along_the_slice_normal(tmp_path):
    rng = np.random.default_rng(5)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    place = rng.normal(size=3) * 100
    row = read(
        write_instance(
            tmp_path,
            ImagePositionPatient=[f"{x:.9f}" for x in place],
            ImageOrientationPatient=[f"{x:.9f}" for x in (*axes[:, 0], *axes[:, 1])],
        )
    ).row
    assert row["position"] == pytest.approx(place @ np.cross(axes[:, 0], axes[:, 1]), abs=1e-5)


def test_an_issuer_makes_another_patient(tmp_path):
    bare = read(write_instance(tmp_path, patient="7")).row["patient"]
    issued = read(write_instance(tmp_path, patient="7", IssuerOfPatientID="north")).row["patient"]
    assert bare == SURROGATES.patient("7") and issued == SURROGATES.patient("7", "north")


def test_a_file_without_preamble_or_meta_group_is_read(tmp_path):
    for number, syntax in enumerate((ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)):
        pixels = picture(number)
        whole = write_instance(tmp_path, pixels=pixels, transfer_syntax=syntax).read_bytes()
        length = struct.unpack("<I", whole[140:144])[0]
        without_preamble = read(written(tmp_path, whole[132:]))
        without_meta = read(written(tmp_path, whole[144 + length :]))
        for result in (without_preamble, without_meta):
            assert isinstance(result, AcceptedInstance)
            assert result.row["transfer_syntax"] == syntax
            assert np.array_equal(dcmread(BytesIO(result.object)).pixel_array, pixels)


def test_a_meta_group_without_its_length_is_read(tmp_path):
    for syntax in NATIVE:
        pixels = picture(syntax)
        whole = write_instance(tmp_path, pixels=pixels, transfer_syntax=syntax).read_bytes()
        result = read(written(tmp_path, whole[:132] + whole[144:]))
        assert isinstance(result, AcceptedInstance)
        assert np.array_equal(dcmread(BytesIO(result.object)).pixel_array, pixels)


def _seg(dataset: Dataset) -> None:
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"


def _unknown_syntax(folder: Path) -> Path:
    path = write_instance(folder, transfer_syntax=RLELossless)
    return written(folder, path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.9.9.9\0"))


def _packed_without_meta(folder: Path) -> Path:
    whole = write_instance(folder, transfer_syntax=RLELossless).read_bytes()
    return written(folder, whole[144 + struct.unpack("<I", whole[140:144])[0] :])


def _damaged_jpeg(folder: Path) -> Path:
    dataset = build_instance(pixels=picture(0, (16, 16), 8))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([b"\xff\xd8 this is no JPEG \xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(folder / "damaged.dcm", enforce_file_format=False)
    return folder / "damaged.dcm"


def _short_native(folder: Path) -> Path:
    return write_instance(folder, edit=lambda dataset: setattr(dataset, "Rows", 17))


def _nested(folder: Path) -> Path:
    whole = write_instance(folder).read_bytes()
    meta = 144 + struct.unpack("<I", whole[140:144])[0]
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return written(folder, whole[:meta] + sequence * 3000)


def _directory(folder: Path) -> Path:
    dataset = build_instance(DirectoryRecordSequence=Sequence([Dataset()]))
    dataset.save_as(folder / "DICOMDIR", enforce_file_format=False)
    return folder / "DICOMDIR"


def _bad_deflate(folder: Path) -> Path:
    whole = write_instance(folder, transfer_syntax=DeflatedExplicitVRLittleEndian).read_bytes()
    meta = 144 + struct.unpack("<I", whole[140:144])[0]
    return written(folder, whole[:meta] + b"\xff" * 100)


PLANTED = {
    "empty": (RejectionCode.EMPTY_FILE, lambda f: written(f, b"")),
    "text": (RejectionCode.NOT_DICOM, lambda f: written(f, b"patient,diagnosis\n1,2\n" * 20)),
    "short": (RejectionCode.NOT_DICOM, lambda f: written(f, b"\x08\0")),
    "png": (RejectionCode.NOT_DICOM, lambda f: written(f, b"\x89PNG\r\n\x1a\n" + bytes(300))),
    "like DICOM": (RejectionCode.NOT_DICOM, lambda f: written(f, b"\x08\0\x05\0\x04\0\0\0ABCD" * 40)),
    "gone": (RejectionCode.UNREADABLE_FILE, lambda f: f / "gone.dcm"),
    "folder": (RejectionCode.UNREADABLE_FILE, lambda f: f),
    "only the mark": (RejectionCode.TRUNCATED, lambda f: written(f, bytes(128) + b"DICM")),
    "no study": (RejectionCode.MISSING_IDENTIFIER, lambda f: write_instance(f, StudyInstanceUID="")),
    "no class": (RejectionCode.MISSING_IDENTIFIER, lambda f: write_instance(f, SOPClassUID=None)),
    "no patient": (RejectionCode.MISSING_PATIENT, lambda f: write_instance(f, PatientID=None)),
    "blank patient": (RejectionCode.MISSING_PATIENT, lambda f: write_instance(f, PatientID="  ")),
    "no modality": (RejectionCode.MISSING_MODALITY, lambda f: write_instance(f, Modality="")),
    "segmentation": (RejectionCode.NOT_A_PICTURE, lambda f: write_instance(f, edit=_seg)),
    "float pixels": (RejectionCode.NOT_A_PICTURE, lambda f: write_instance(f, FloatPixelData=bytes(4))),
    "report": (RejectionCode.NO_PIXEL_DATA, lambda f: write_instance(f, PixelData=None)),
    "empty pixels": (RejectionCode.NO_PIXEL_DATA, lambda f: write_instance(f, PixelData=b"")),
    "no rows": (RejectionCode.PIXEL_DESCRIPTION, lambda f: write_instance(f, Rows=None)),
    "zero columns": (RejectionCode.PIXEL_DESCRIPTION, lambda f: write_instance(f, Columns=0)),
    "17 bits of 16": (RejectionCode.PIXEL_DESCRIPTION, lambda f: write_instance(f, BitsStored=17)),
    "two samples": (RejectionCode.PIXEL_DESCRIPTION, lambda f: write_instance(f, SamplesPerPixel=2)),
    "no photometric": (
        RejectionCode.PIXEL_DESCRIPTION,
        lambda f: write_instance(f, PhotometricInterpretation=""),
    ),
    "endless slope": (
        RejectionCode.PIXEL_DESCRIPTION,
        lambda f: write_instance(f, RescaleSlope="inf", RescaleIntercept="0"),
    ),
    "CMYK": (
        RejectionCode.UNSUPPORTED_PHOTOMETRIC,
        lambda f: write_instance(f, PhotometricInterpretation="CMYK"),
    ),
    "unknown syntax": (RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, _unknown_syntax),
    "packed, nobody says how": (RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, _packed_without_meta),
    "no JPEG": (RejectionCode.DAMAGED_PIXELS, _damaged_jpeg),
    "fewer pixels": (RejectionCode.DAMAGED_PIXELS, _short_native),
    "nested": (RejectionCode.DAMAGED_HEADER, _nested),
    "bad deflate": (RejectionCode.DAMAGED_HEADER, _bad_deflate),
    "directory": (RejectionCode.MEDIA_DIRECTORY, _directory),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_each_fault_is_refused_with_its_code(tmp_path, fault):
    code, plant = PLANTED[fault]
    assert refused(plant(tmp_path)) is code


def test_a_file_over_the_limit_is_not_read(tmp_path):
    path = write_instance(tmp_path)
    assert refused(path, file_bytes=path.stat().st_size - 1) is RejectionCode.FILE_TOO_LARGE
    assert isinstance(read(path, file_bytes=path.stat().st_size), AcceptedInstance)


def test_pixels_that_would_unpack_over_the_limit_are_not_decoded(tmp_path):
    path = write_instance(tmp_path, pixels=np.zeros((4, 100, 100), np.uint16), transfer_syntax=RLELossless)
    assert refused(path, decoded_bytes=79_999) is RejectionCode.EXPANSION_LIMIT
    assert isinstance(read(path, decoded_bytes=80_000), AcceptedInstance)


def test_a_deflate_bomb_is_refused_before_it_swells(tmp_path):
    whole = write_instance(tmp_path, transfer_syntax=DeflatedExplicitVRLittleEndian).read_bytes()
    meta = 144 + struct.unpack("<I", whole[140:144])[0]
    engine = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(engine.compress(bytes(1 << 20)) for _ in range(300)) + engine.flush()
    path = written(tmp_path, whole[:meta] + bomb)
    assert len(bomb) < 400_000
    tracemalloc.start()
    assert refused(path, decoded_bytes=16 << 20) is RejectionCode.EXPANSION_LIMIT
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20


def test_no_memory_is_a_refusal(tmp_path, monkeypatch):
    def exhausted(dataset):
        raise MemoryError

    monkeypatch.setattr(reading, "decode", exhausted)
    assert refused(write_instance(tmp_path)) is RejectionCode.MEMORY_LIMIT


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless])
def test_no_file_that_was_cut_anywhere_is_accepted(tmp_path, syntax):
    pixels = picture(1, (5, 7), 8)
    path = write_instance(tmp_path, instance="I", pixels=pixels, transfer_syntax=syntax, InstanceNumber=1)
    whole = path.read_bytes()
    meta = 144 + struct.unpack("<I", whole[140:144])[0]
    complete = len(whole) - (syntax == DeflatedExplicitVRLittleEndian)  # its last byte may be padding
    native = syntax not in (DeflatedExplicitVRLittleEndian, RLELossless)
    value = len(whole) - 36 if native else complete - 100  # from here on there are only pixels
    for length in {*range(0, complete, 7), *range(complete - 70, complete)}:
        result = read(written(tmp_path, whole[:length]))
        assert isinstance(result, Refusal), f"accepted after {length} of {len(whole)} bytes"
        if 132 <= length <= meta or length > value:
            assert result.code is RejectionCode.TRUNCATED, length


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_bytes_change_only_codes_come_out(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mutated")
    syntax = data.draw(st.sampled_from([*NATIVE, RLELossless]))
    pixels = picture(1, (6, 6), 8)
    path = write_instance(folder, instance="I", pixels=pixels, transfer_syntax=syntax, InstanceNumber=1)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(128, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    result = read(written(folder, bytes(whole)), decoded_bytes=1 << 24)
    if isinstance(result, AcceptedInstance):
        assert dcmread(BytesIO(result.object)).pixel_array.size > 0
    else:
        assert result.code in RejectionCode


def test_nothing_of_the_file_stands_in_the_reason_or_the_log(tmp_path, caplog, recwarn):
    token = "TOKENXYZ"  # noqa: S105
    paths = [
        write_instance(tmp_path, patient=token, StudyInstanceUID=token, Rows=None),
        write_instance(tmp_path, patient=token, RescaleSlope="1", RescaleIntercept="0", StudyDate=token),
        write_instance(tmp_path, patient=token, PatientAge=token, PixelData=b"\0\0"),
    ]
    with caplog.at_level("DEBUG"):
        results = [read(path) for path in paths]
    said = " ".join(r.reason for r in results if isinstance(r, Refusal))
    said += caplog.text + " ".join(str(w.message) for w in recwarn)
    assert said and token not in said


def test_a_frame_of_padding_alone_does_not_count_among_the_values(tmp_path):
    pixels = picture(5, (3, 6, 6)).astype(np.int16)
    tags = {"PixelPaddingValue": -32768, "RescaleIntercept": -1024, "RescaleSlope": 1}
    without = read(write_instance(tmp_path, pixels=pixels[[0, 2]], **tags))
    pixels[1] = -32768
    padded = read(write_instance(tmp_path, pixels=pixels, **tags))
    alone = read(write_instance(tmp_path, pixels=pixels[1], **tags))
    names = ("pixel_min", "pixel_max", "pixel_std")
    assert [padded.row[name] for name in names] == [without.row[name] for name in names]
    assert [alone.row[name] for name in names] == [0, 0, 0]
    assert [padded.row[name] for name in STORED] == [without.row[name] for name in STORED]
    assert np.isnan([alone.row[name] for name in STORED]).all()


def add_modality_lut(dataset):
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [1024, 0, 16])
    table.add_new("LUTData", "OW", (60 * np.arange(1024)).astype("<u2").tobytes())
    table.ModalityLUTType = "OD"
    dataset.ModalityLUTSequence = [table]


def add_slopes(dataset):
    frames = []
    for slope, intercept in [(0.1, 0), (2, -4000), (30, 7)]:
        frame, rescale = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = slope, intercept, "US"
        frame.PixelValueTransformationSequence = [rescale]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames


@pytest.mark.parametrize(("edit", "frames"), [(add_modality_lut, 1), (add_slopes, 3)])
def test_the_range_of_the_stored_values_is_known_where_no_slope_leads_back_to_it(tmp_path, edit, frames):
    pixels = picture("stored", (frames, 6, 6)) % 1024
    row = read(write_instance(tmp_path, pixels=pixels, BitsStored=10, HighBit=9, edit=edit)).row
    assert [row[name] for name in STORED] == [pixels.min(), pixels.max()]
    assert row["pixel_max"] > 1023 * row["rescale_slope"]
