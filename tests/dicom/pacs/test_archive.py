from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_dx.dicom.pacs.archive import FetchFailure, is_uid, listed_instance, listed_study

DOCS = Path(__file__).parents[3] / "docs" / "pacs.md"


def test_the_docs_list_every_code_with_its_sentence() -> None:
    text = DOCS.read_text()
    listed = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 3]
    codes = [line for line in listed if any(f"`{code}`" in line for code in FetchFailure)]
    assert codes == [f"| `{code.value}` | {code.sentence} |" for code in FetchFailure]


@pytest.mark.parametrize("uid", ["1.2.840.10008", "2.25.0", "1.02.3", "1." + "9" * 62])
def test_uids_in_use_are_uids(uid) -> None:
    assert is_uid(uid)


@given(st.text(max_size=80))
def test_what_is_taken_for_a_uid_can_stand_in_an_address(text) -> None:
    if is_uid(text):
        assert set(text) <= set("0123456789.") and ".." not in text and len(text) <= 64


def test_a_mark_changes_with_what_is_said_and_not_with_the_counts() -> None:
    said = {"StudyInstanceUID": "1.2", "SOPInstanceUID": "1.2.3", "PatientID": "P", "Rows": "5"}
    said["NumberOfStudyRelatedInstances"] = "3"

    def marks(**more: str) -> tuple[str, str]:
        values = said | more
        study = listed_study(lambda name: values.get(name, ""))
        assert study is not None
        instance = listed_instance(study, "1.2.1", lambda name: values.get(name, ""))
        assert instance is not None
        return study.mark, instance.mark

    before = marks()
    grown = marks(NumberOfStudyRelatedInstances="4")
    assert grown[0] != before[0] and grown[1] == before[1]
    for change in ({"PatientID": "Q"}, {"Rows": "6"}, {"ContentTime": "1200"}):
        assert marks(**change)[1] != before[1]
    assert marks(NumberOfStudyRelatedInstances="")[0] == "", "without counts nothing tells of a new image"
