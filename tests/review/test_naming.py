"""Diseases as readers type them: what is in the list keeps its scheme and name, and nothing that was typed is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import Diagnosis
from meta_dx.review.forms import blind_of, diagnosis_of
from tests.review.conftest import Browser

LUNG = Diagnosis("39607008", "SCT", "Carcinoma of lung")
OTHER = Diagnosis("C34", "ICD-10", "Lung")
KNOWN = [LUNG, OTHER]


@pytest.mark.parametrize(
    ("typed", "scheme", "meaning"),
    [
        ("39607008", "", ""),
        ("39607008", "snomed", "carcinoma  of lung"),
        ("Carcinoma of lung (39607008)", "", "Carcinoma of lung"),
        ("39607008", "RADLEX", ""),  # a scheme alone names no new disease
    ],
)
def test_a_disease_of_the_list_is_taken_as_it_is(typed: str, scheme: str, meaning: str) -> None:
    assert diagnosis_of(typed, KNOWN, scheme, meaning) == LUNG


@pytest.mark.parametrize(
    ("typed", "scheme", "meaning"),
    [
        ("39607008", "RADLEX", "Carcinoma of lung"),
        ("39607008", "SCT", "Benign cyst"),
        ("C34", "I10C", "Lung"),
    ],
)
def test_another_name_or_scheme_for_a_code_of_the_list_is_refused(
    typed: str, scheme: str, meaning: str
) -> None:
    with pytest.raises(MetaDxError, match="in the list already"):
        diagnosis_of(typed, KNOWN, scheme, meaning)


def test_schemes_are_kept_as_the_standard_calls_them() -> None:
    assert diagnosis_of("Q1", KNOWN, "ICD-10", "New") == Diagnosis("Q1", "I10", "New")
    assert diagnosis_of("C34", KNOWN, "I10", "Lung") == OTHER


def test_scheme_and_name_are_about_the_rank_that_is_new() -> None:
    form = {"confidence": "70", "new_scheme": "99T", "new_meaning": "New"}
    found = blind_of({**form, "rank1": "39607008", "rank2": "Q1"}, KNOWN)
    assert found.ranked == (LUNG, Diagnosis("Q1", "99T", "New"))
    with pytest.raises(MetaDxError, match="in the list already"):
        blind_of({**form, "rank1": "39607008"}, KNOWN)


@pytest.mark.parametrize("confidence", ["²", "٣", "9" * 4400, "101", "-1", ""])
def test_a_confidence_that_is_no_percentage_is_asked_for_again(
    browser: Callable[..., Browser], confidence: str
) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    answer = person.post(f"/cases/{study}/read", rank1="D0", confidence=confidence)
    assert answer.status_code == 400
    assert "onfiden" in answer.text
    assert 'id="blind"' in answer.text


def test_values_that_no_page_sends_are_answered_by_a_page(browser: Callable[..., Browser]) -> None:
    lead = browser("lead")
    for answer in (
        lead.get("/worklist?page=0"),
        lead.post("/teach", new_scheme="http://snomed.info/sct"),
        lead.post("/lead/queue", count=""),
    ):
        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("text/html")
    assert "new scheme" in lead.post("/teach", new_scheme="http://snomed.info/sct").text
