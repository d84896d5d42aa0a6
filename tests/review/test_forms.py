"""What a reader typed, as an opinion."""

from __future__ import annotations

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import Diagnosis
from meta_dx.review.forms import diagnosis_of

KNOWN = [Diagnosis("D0", "", "Disease 0"), Diagnosis("D1", "SCT", "Disease 1")]


@pytest.mark.parametrize("scheme", ["", " ", "\t"])
def test_a_new_disease_needs_the_scheme_of_its_code(scheme: str) -> None:
    with pytest.raises(MetaDxError, match="of which coding scheme the code 'Q9' is") as fault:
        diagnosis_of("Q9", KNOWN, scheme, "New disease")
    assert fault.value.code == "unknown_disease"
    assert diagnosis_of("Q9", KNOWN, " I10 ", "New disease") == Diagnosis("Q9", "I10", "New disease")


@pytest.mark.parametrize("typed", ["d0", "Disease 0", "disease 0 (D0)"])
def test_a_known_disease_keeps_what_the_table_says_of_its_scheme(typed: str) -> None:
    assert diagnosis_of(typed, KNOWN, "I10", "") == KNOWN[0]
    with pytest.raises(MetaDxError, match="in the list already"):
        diagnosis_of(typed, KNOWN, "", "another name")


def test_what_is_neither_known_nor_named_is_refused() -> None:
    with pytest.raises(MetaDxError, match="not among the diseases"):
        diagnosis_of("Q9", KNOWN, "I10", " ")
    assert diagnosis_of("  ", KNOWN) is None


def test_a_code_of_no_letter_that_can_be_seen_is_no_code() -> None:
    assert diagnosis_of("\x07\u200b ", KNOWN, "I10", "New disease") is None
