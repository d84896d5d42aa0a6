from pathlib import Path

import pytest

from meta_dx.dicom.rejections import Refusal, RejectionCode

DOCS = Path(__file__).parents[2] / "docs" / "rejections.md"


@pytest.mark.parametrize("code", RejectionCode)
def test_every_code_has_one_sentence_and_the_docs_say_it(code):
    assert code.sentence.endswith(".") and code.sentence.count(". ") == 0
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{code.value}` |"))
    assert code.sentence in row
    assert f"| {code.outcome.replace('_', ' ')} |" in row


def test_the_docs_list_no_other_code():
    listed = [line.split("`")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert sorted(listed) == sorted(code.value for code in RejectionCode)


def test_a_detail_becomes_part_of_the_sentence():
    assert Refusal(RejectionCode.MISSING_IDENTIFIER, "SOPClassUID").reason.endswith("missing: SOPClassUID.")
    assert Refusal(RejectionCode.EMPTY_FILE).reason == RejectionCode.EMPTY_FILE.sentence
