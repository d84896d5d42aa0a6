"""The encoder, held against pydicom as an independent reader."""

import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from meta_dx.dicom.encoding import Encoder

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
@settings(max_examples=30, deadline=None)
@given(
    comment=st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=64),
    rows=st.integers(0, 65535),
    blob=st.binary(min_size=1, max_size=300),
)
def test_an_independent_reader_reads_what_was_encoded(syntax, comment, rows, blob):
    encoder = Encoder(syntax)
    elements = {
        0x7FE00010: encoder.element(0x7FE00010, "OW", blob),
        0x00280010: encoder.short(0x00280010, rows),
        0x00104000: encoder.text(0x00104000, "LT", comment),
        0x0020000D: encoder.text(0x0020000D, "UI", "1.2.3"),
        0x00081140: encoder.sequence(
            0x00081140, [{0x00081155: encoder.text(0x00081155, "UI", f"1.2.{i}")} for i in range(3)]
        ),
    }
    dataset = dcmread(BytesIO(encoder.file("1.2", "1.2.4", elements)))
    assert [int(tag) for tag in dataset.keys()] == sorted(elements)
    assert dataset.Rows == rows and dataset.StudyInstanceUID == "1.2.3"
    assert str(dataset.PatientComments).rstrip(" ") == comment.rstrip(" ")
    assert dataset.PixelData == blob + b"\0" * (len(blob) % 2)
    assert [item.ReferencedSOPInstanceUID for item in dataset.ReferencedImageSequence] == [
        "1.2.0",
        "1.2.1",
        "1.2.2",
    ]
    assert dataset.file_meta.TransferSyntaxUID == syntax
    assert dataset.file_meta.MediaStorageSOPInstanceUID == "1.2.4"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_length_is_even(syntax):
    encoder = Encoder(syntax)
    for vr, value in (("UI", "1.2.3"), ("LO", "abc"), ("OB", "a")):
        assert len(encoder.text(0x00100020, vr, value)) % 2 == 0


def test_a_value_too_long_for_its_short_form_is_written_as_unknown():
    encoder = Encoder(ExplicitVRLittleEndian)
    values = struct.pack("<40000H", *range(40000))
    encoded = encoder.element(0x00283006, "US", values)
    assert encoded[4:6] == b"UN"
    dataset = dcmread(BytesIO(encoder.file("1.2", "1.2.3", {0x00283006: encoded})))
    assert bytes(dataset[0x00283006].value) == values
