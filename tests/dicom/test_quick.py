"""A quick data set answers as the data set it was made from, also where the file is damaged."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag

from meta_dx.dicom.quick import QuickDataset
from tests.dicom import mutants

KEYWORDS = (
    "SOPClassUID PatientID PatientName ImageType Rows Columns PixelSpacing StudyDate RescaleSlope PixelData "
    "PixelPaddingValue NumberOfFrames RedPaletteColorLookupTableDescriptor SpecificCharacterSet Manufacturer "
    "PerFrameFunctionalGroupsSequence ModalityLUTSequence WindowCenter PatientAge AccessionNumber"
).split()


def _answer(ask):
    try:
        value = ask()
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
            assert _answer(lambda k=keyword: plain.get(k)) == _answer(lambda k=keyword: quick.get(k))
            assert _answer(lambda k=keyword: getattr(plain, k)) == _answer(lambda k=keyword: getattr(quick, k))
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


def test_the_meta_group_is_quick_too():
    plain, quick = _both(mutants.seeds()["explicit"])
    assert isinstance(quick.file_meta, QuickDataset)
    assert quick.file_meta.TransferSyntaxUID == plain.file_meta.TransferSyntaxUID
    assert quick.file_meta.TransferSyntaxUID.is_little_endian
