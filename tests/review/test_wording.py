"""What the pages say about the model's doubt."""

from __future__ import annotations

from typing import Any

import pytest

from meta_dx.records.opinions import Shown
from meta_dx.records.predictions import NearestCase, PredictedStudy
from meta_dx.review.desk import Answer
from meta_dx.review.wording import Bar, bars, doubt

NAMES = {"A": "Alpha", "B": "Beta"}


def said(a: float, b: float, **more: Any) -> str:
    rest = {"C": 1 - a - b} if a + b < 1 else {}
    return doubt(
        Answer(Shown(1, "b", 1), PredictedStudy("s", {"A": a, "B": b, **rest}, 0.5, **more), {}), NAMES
    )


def test_a_case_that_lies_farther_than_nearly_all_confirmed_ones_is_called_far() -> None:
    assert said(0.9, 0.1, remoteness=0.97).startswith("Far from every confirmed case: 97 % of the confirmed")
    assert "Far" not in said(0.9, 0.1, remoteness=0.94)
    assert said(0.9, 0.1, remoteness=0.4).startswith("40 % of the confirmed cases have a nearer")


def test_without_a_measured_distance_none_is_claimed() -> None:
    assert "nearer" not in said(0.9, 0.1)
    assert said(0.9, 0.1) == "This head does not tell where its doubt comes from."


@pytest.mark.parametrize(("codes", "both"), [("AB", True), ("AA", False), ("BC", False)])
def test_two_close_diseases_are_named_with_what_the_nearest_cases_show(codes: str, both: bool) -> None:
    near = tuple(NearestCase(f"s{n}", code, 0.5) for n, code in enumerate(codes))
    found = said(0.45, 0.4, nearest=near)
    assert found.startswith("Mostly between Alpha and Beta")
    assert ("among the nearest" in found) is both


def test_the_larger_part_of_the_doubt_decides_otherwise() -> None:
    assert "too few confirmed cases" in said(0.6, 0.2, epistemic=0.4, aleatoric=0.1)
    assert "several diseases" in said(0.6, 0.2, epistemic=0.1, aleatoric=0.4)


@pytest.mark.parametrize(("epistemic", "aleatoric"), [(0.3, 0.1), (0.1, 0.3)])
def test_a_disease_far_ahead_leaves_little_doubt_wherever_it_comes_from(
    epistemic: float, aleatoric: float
) -> None:
    more = {"epistemic": epistemic, "aleatoric": aleatoric}
    assert said(0.9, 0.1, **more) == "Little doubt between the diseases that are offered."
    assert said(0.9, 0.1, remoteness=0.97, **more).startswith("Far from every confirmed case")
    assert "Little doubt" not in said(0.89, 0.1, **more)


def test_a_disease_that_the_reader_has_named_is_shown_however_improbable() -> None:
    probabilities = {code: p / 28 for p, code in enumerate("HGFEDCBA")}
    answer = Answer(Shown(1, "b", 1), PredictedStudy("s", probabilities, 0.5), {})
    assert [bar.code for bar in bars(answer, NAMES)] == list("ABCDEF")
    assert [bar.code for bar in bars(answer, NAMES, {"H", "B", "X"})] == [*"ABCDEF", "H"]


@pytest.mark.parametrize(
    ("probability", "low", "high", "value", "ends"),
    [
        (0.33, 0.301, 0.362, "33 %", "30 to 36"),
        (0.031, 0.028, 0.034, "3 %", "2.8 to 3.4"),
        (0.002, 0.001, 0.004, "< 1 %", "0.1 to 0.4"),
        (0.0031, 0.0029, 0.0033, "< 1 %", "0.29 to 0.33"),
        (0.0001, 0.00005, 0.0002, "< 1 %", "under 0.1"),
        (0.997, 0.996, 0.999, "> 99 %", "99.6 to 99.9"),
        (1.0, None, None, "100 %", ""),
        (0.0, None, None, "0 %", ""),
    ],
)
def test_what_is_possible_is_never_called_impossible(
    probability: float, low: float | None, high: float | None, value: str, ends: str
) -> None:
    bar = Bar("Alpha", "A", probability, low, high)
    assert (bar.value, bar.ends) == (value, ends)
