"""The lead's figures, counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scipy.stats import binomtest

from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis, Opinion
from meta_dx.review.dashboard import ReadCase, Share, dashboard, read_cases
from meta_dx.review.desk import Desk
from tests.review.conftest import Browser


def case(
    study: str,
    blind: str | None,
    outcome: str | None,
    x: float = 0.9,
    reader: str = "anna",
    day: str = "2026-11-02",
) -> ReadCase:
    return ReadCase(study, reader, blind, outcome, {"X": x, "Y": 1 - x}, day, ("bundle", 1))


@pytest.mark.parametrize(("right", "of"), [(0, 5), (3, 7), (20, 20), (50, 100)])
def test_the_interval_of_a_share_is_wilsons(right: int, of: int) -> None:
    theirs = binomtest(right, of).proportion_ci(method="wilson")
    assert Share(right, of).interval == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_a_share_of_nothing_is_none() -> None:
    assert (Share(0, 0).value, Share(0, 0).interval) == (None, None)


def test_agreement_persuasion_and_accuracy() -> None:
    cases = [
        case("a", "X", "X"),  # agreed from the start
        case("b", "Y", "X"),  # went over
        case("c", "Y", "Y"),  # stood by it
        case("d", None, "cannot_tell"),  # could not tell
        case("e", "Y", None),  # not decided yet
        ReadCase("f", "anna", "X", "X", {}, "2026-11-02"),  # no answer was shown
    ]
    found = dashboard(cases, {"a": "X", "b": "Y", "f": "Y"})
    assert (found.cases, found.decided) == (6, 5)
    assert (found.blind_agreement.right, found.blind_agreement.of) == (1, 4)
    assert (found.agreement.right, found.agreement.of) == (2, 4)
    assert (found.persuaded.right, found.persuaded.of) == (1, 2)
    assert (found.accuracy.right, found.accuracy.of) == (1, 2)
    assert (found.readers_accuracy.right, found.readers_accuracy.of) == (2, 2)
    assert found.served == [("bundle", 1, 5)]


def test_the_model_is_counted_once_for_a_case_that_two_have_read() -> None:
    twice = [case("a", "X", "X"), case("a", "Y", "Y", reader="bert")]
    found = dashboard(twice, {"a": "X"})
    assert (found.accuracy.of, found.readers_accuracy.of) == (1, 2)


def test_confidence_is_held_against_blind_reads_in_bins() -> None:
    cases = [case("a", "X", None, 0.95), case("b", "Y", None, 0.85), case("c", "Y", None, 0.3)]
    found = dashboard(cases, {}).reliability
    assert [(round(mean, 2), share.right, share.of) for mean, share in found] == [(0.7, 1, 1), (0.9, 1, 2)]


def test_weeks_and_diseases_have_their_own_rows() -> None:
    cases = [
        case("a", "X", None, day="2026-01-01"),
        case("b", "Y", None, day="2026-01-08"),
        case("c", "X", None, day="2026-01-08"),
    ]
    found = dashboard(cases, {})
    assert [(name, share.of) for name, share in found.by_week] == [("2026-W01", 1), ("2026-W02", 2)]
    assert [(name, share.right, share.of) for name, share in found.by_disease] == [("X", 2, 2), ("Y", 0, 1)]


def test_times_are_medians_of_what_has_happened() -> None:
    at = "2026-11-02T10:{:02d}:00.000000+00:00".format
    spans = [(at(0), at(1), at(5)), (at(0), at(3), None), (at(0), None, None), (at(0), at(2), at(3))]
    found = dashboard([], {}, spans)
    assert (found.minutes_to_read, found.minutes_to_decide) == (2.0, 2.5)


def test_the_last_decision_counts_and_only_the_first_opinion_is_blind() -> None:
    x, y = Diagnosis("X"), Diagnosis("Y")

    def said(kind: str, content: BlindOpinion | Decision, version: int, run: int | None = None) -> Opinion:
        lineage = ("bundle", 3) if run else (None, None)
        return Opinion("s", "anna", kind, version, content, run, *lineage, "2026-11-02T10:00:00")  # type: ignore[arg-type]

    (found,) = read_cases(
        [
            said("blind", BlindOpinion((x, y), 60), 1),
            said("decision", Decision("accept", x), 1, 7),
            said("decision", Decision("own", y), 2, 7),
        ],
        {(7, "s"): {"X": 0.6, "Y": 0.4}},
    )
    assert (found.blind, found.outcome, found.top, found.served) == ("X", "Y", "X", ("bundle", 3))


def test_the_page_shows_the_figures(desk: Desk, browser: Callable[..., Browser]) -> None:
    lead = browser("lead")
    assert "Went over to the model" in lead.get("/lead").text
    study = lead.cases()[0]
    lead.read(study, "D1")
    lead.post(f"/cases/{study}/decide", verdict="accept")
    page = lead.get("/lead").text
    assert "1 of 1" in page
    assert "Disease 1" in page
    assert 'aria-label="At a confidence of 80 percent 0 percent of 1 blind reads agree.' in page
