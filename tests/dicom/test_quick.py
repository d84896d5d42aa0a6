"""A quick data set answers as the data set it was made from, also where the file is damaged."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.uid import ExplicitVRLittleEndian

from meta_dx.dicom.encoding import Encoder
from meta_dx.dicom.quick import QuickDataset
from tests.dicom import mutants

KEYWORDS = (
    "SOPClassUID PatientID PatientName ImageType Rows Columns PixelSpacing StudyDate RescaleSlope PixelData "
    "PixelPaddingValue NumberOfFrames RedPaletteColorLookupTableDescriptor SpecificCharacterSet Manufacturer "
    "PerFrameFunctionalGroupsSequence ModalityLUTSequence WindowCenter PatientAge AccessionNumber"
).split()


def _answer(ask, *arguments):
    try:
        value = ask(*arguments)
    except Exception as fault:
        return type(fault)
    return type(value), repr(value)


def _both(data: bytes):
    return dcmread(BytesIO(data), force=True), QuickDataset.of(dcmread(BytesIO(data), force=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", sorted(mutants.seeds()))
def test_every_value_is_the_one_that_pydicom_reads(seed):
    data = mutants.seeds()[seed]
    for content in (data, *(mutants.mutant(data, number) for number in range(60))):
        try:
            plain, quick = _both(content)
        except Exception:  # noqa: S112 - nothing to compare
            continue
        asked = [*KEYWORDS, *filter(None, (keyword_for_tag(tag) for tag in plain.keys()))]
        for keyword in [*asked, *asked]:  # the second time from memory
            assert _answer(plain.get, keyword) == _answer(quick.get, keyword)
            assert _answer(getattr, plain, keyword) == _answer(getattr, quick, keyword)
            assert (keyword in plain) == (keyword in quick)


def test_a_value_that_is_assigned_or_deleted_is_seen():
    _, quick = _both(mutants.seeds()["explicit"])
    assert quick.get("Rows") == quick.Rows
    quick.Rows = 7
    assert (quick.Rows, quick.get("Rows"), quick["Rows"].value) == (7, 7, 7)
    del quick.Rows
    assert quick.get("Rows", "none") == "none"
    assert "Rows" not in quick
    with pytest.raises(AttributeError):
        _ = quick.Rows


def test_the_first_value_of_a_table_has_the_meaning_that_pydicom_gives_it():
    encoder = Encoder(ExplicitVRLittleEndian)
    descriptor = encoder.element(0x00281101, "SS", struct.pack("<hhh", -256, 0, 16))
    plain, quick = _both(encoder.file("1.2", "1.2.3", {0x00281101: descriptor}))
    assert list(quick.RedPaletteColorLookupTableDescriptor) == [65536 - 256, 0, 16]
    assert list(plain.RedPaletteColorLookupTableDescriptor) == [65536 - 256, 0, 16]


def test_the_meta_group_is_quick_too():
    plain, quick = _both(mutants.seeds()["explicit"])
    assert isinstance(quick.file_meta, QuickDataset)
    assert quick.file_meta.TransferSyntaxUID == plain.file_meta.TransferSyntaxUID
    assert quick.file_meta.TransferSyntaxUID.is_little_endian
