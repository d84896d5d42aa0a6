"""Codes and their schemes: real codes are possible, typical slips of them are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_dx.cohort.validation.schemes import family_of, is_valid, verhoeff

# Concepts of SNOMED CT as its browser shows them: diabetes, psoriasis, pneumonia, melanoma, finding.
CONCEPTS = ("44054006", "9014002", "233604007", "372244006", "404684003")


@pytest.mark.parametrize("concept", CONCEPTS)
def test_concepts_of_snomed_are_valid_and_no_slip_of_one_is(concept):
    assert is_valid(concept, "snomed")
    for place, digit in enumerate(concept):
        for other in set("0123456789") - {digit}:
            assert not is_valid(concept[:place] + other + concept[place + 1 :], "snomed")
        swapped = concept[:place] + concept[place : place + 2][::-1] + concept[place + 2 :]
        assert swapped == concept or not is_valid(swapped, "snomed")


def test_a_description_or_a_rounded_number_is_no_concept():
    assert verhoeff("751689013") and not is_valid("751689013", "snomed")  # partition 01: a description
    assert not is_valid("900000000000207000", "snomed")  # 900000000000207008 with fifteen digits
    assert is_valid("900000000000207008", "snomed")


@given(st.integers(10**5, 10**14))
def test_every_number_has_exactly_one_check_digit(number):
    assert sum(verhoeff(f"{number}{digit}") for digit in range(10)) == 1


@pytest.mark.parametrize(
    ("family", "code", "possible"),
    [
        ("icd-10", "L40.0", True),
        ("icd-10", "L400", True),
        ("icd-10", "C4A.9", True),
        ("icd-10", "S72.001A", True),
        ("icd-10", "E14.9+", True),
        ("icd-10", "LA0.0", False),
        ("icd-10", "40.0", False),
        ("icd-10", "L40.", False),
        ("icd-o", "8140/3", True),
        ("icd-o", "8140", False),
        ("radlex", "RID5350", True),
        ("radlex", "RID0", False),
        ("radlex", "5350", False),
    ],
)
def test_forms_of_codes(family, code, possible):
    assert is_valid(code, family) == possible


@pytest.mark.parametrize(
    ("scheme", "family"),
    [
        ("icd10gm", "icd-10"),
        ("i10", "icd-10"),
        ("icdo3", "icd-o"),
        ("sct", "snomed"),
        ("radlex", "radlex"),
        ("icd11", None),
        ("", None),
        (None, None),
    ],
)
def test_families_are_known_by_their_usual_names(scheme, family):
    assert family_of(scheme) == family
