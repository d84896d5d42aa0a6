"""The lead's figures, counted by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis, Opinion
from meta_dx.records.predictions import Told
from meta_dx.review.dashboard import (
    FEWEST_FOR_A_SHARE,
    ReadCase,
    Served,
    Share,
    dashboard,
    read_cases,
    with_unseen,
)
from meta_dx.review.desk import Desk
from meta_dx.review.drift import Inputs, drift
from tests.review.conftest import Browser


def case(
    study: str,
    blind: str | None,
    outcome: str | None,
    x: float = 0.9,
    reader: str = "anna",
    day: str = "2026-11-02",
) -> ReadCase:
    return ReadCase(study, reader, blind, outcome, {"X": x, "Y": 1 - x}, day, {("bundle", 1): (day, day)})


@pytest.mark.parametrize(("right", "of"), [(0, 5), (3, 7), (20, 20), (50, 100)])
def test_the_interval_of_a_share_is_wilsons(right: int, of: int) -> None:
    theirs = binomtest(right, of).proportion_ci(method="wilson")
    assert Share(right, of).interval == pytest.approx((theirs.low, theirs.high), abs=1e-5)


def test_a_share_of_nothing_is_none() -> None:
    assert (Share(0, 0).value, Share(0, 0).interval) == (None, None)


def test_the_least_number_is_the_first_whose_intervals_span_at_most_half_of_the_scale() -> None:
    def widest(of: int) -> float:
        ends = [Share(right, of).interval or (0.0, 1.0) for right in range(of + 1)]
        return max(high - low for low, high in ends)

    assert widest(FEWEST_FOR_A_SHARE) <= 0.5 < widest(FEWEST_FOR_A_SHARE - 1)
    assert (Share(1, FEWEST_FOR_A_SHARE - 1).enough, Share(1, FEWEST_FOR_A_SHARE).enough) == (False, True)


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
    assert (found.agreement.right, found.agreement.of, found.unnamed) == (2, 3, 1)
    assert (found.blind_unnamed, found.blind_flattered) == (1, 0)
    assert (found.persuaded.right, found.persuaded.of) == (1, 2)
    assert (found.accuracy.right, found.accuracy.of) == (1, 2)
    assert (found.readers_accuracy.right, found.readers_accuracy.of) == (2, 2)
    assert found.served == [Served("bundle", 1, 5, "2026-11-02", "2026-11-02")]


def test_the_model_is_counted_once_for_a_case_that_two_have_read() -> None:
    twice = [case("a", "X", "X"), case("a", "Y", "Y", reader="bert")]
    found = dashboard(twice, {"a": "X"})
    assert (found.accuracy.of, found.readers_accuracy.of) == (1, 2)


def test_two_readers_who_say_the_same_of_a_case_make_no_share_surer_than_one() -> None:
    rng = np.random.default_rng(3)
    once = [case(str(n), str(rng.choice(["X", "X", "X", "Y"])), "X") for n in range(40)]
    twice = [*once, *[replace(one, reader="bert") for one in once]]
    one, two = dashboard(once, {}).blind_agreement, dashboard(twice, {}).blind_agreement
    assert (one.of, two.of, one.people, two.people) == (40, 80, 40, 40)
    assert two.value == one.value
    assert two.interval == pytest.approx(one.interval)
    # Nor do two studies of one patient.
    followed = [*once, *[replace(case, study=f"{case.study}, later") for case in once]]
    known = [replace(case, patient=case.study.split(",")[0]) for case in followed]
    assert dashboard(known, {}).blind_agreement.interval == pytest.approx(one.interval)
    loose, strict = dashboard(followed, {}).blind_agreement, dashboard(known, {}).blind_agreement
    assert (loose.people, strict.people) == (80, 40)


def test_many_reads_of_few_patients_are_too_few() -> None:
    reads = [case(str(n % 3), "X", "X", reader=f"reader {n}") for n in range(30)]
    found = dashboard(reads, {"0": "X", "1": "X", "2": "Y"})
    assert (found.blind_agreement.of, found.blind_agreement.people, found.blind_agreement.enough) == (
        30,
        3,
        False,
    )
    assert (found.accuracy.of, found.readers_accuracy.of) == (3, 30)
    assert found.reliability == []


def test_confidence_is_held_against_blind_reads_in_bins_with_enough_cases() -> None:
    sure = [case(f"a{n}", "X", None, 0.95) for n in range(9)] + [
        case(f"b{n}", "Y", None, 0.85) for n in range(3)
    ]
    less = [case(f"c{n}", "Y", None, 0.3) for n in range(FEWEST_FOR_A_SHARE)]
    rare = [case(f"d{n}", "X", None, 0.55) for n in range(FEWEST_FOR_A_SHARE - 1)]
    found = dashboard([*sure, *less, *rare], {}).reliability
    told = [(round(mean, 3), share.right, share.of) for mean, share in found]
    assert told == [(0.7, 12, 12), (0.925, 9, 12)]


def test_weeks_and_diseases_have_their_own_rows() -> None:
    cases = [
        case("a", "X", None, day="2026-01-01"),
        case("b", "Y", None, day="2026-01-08"),
        case("c", "X", None, day="2026-01-08"),
    ]
    found = dashboard(cases, {})
    assert [(name, share.of) for name, share in found.by_week] == [("2026-W01", 1), ("2026-W02", 2)]
    assert [(name, share.right, share.of) for name, share in found.by_disease] == [("X", 2, 2), ("Y", 0, 1)]


def test_times_are_medians_of_enough_readings() -> None:
    def at(minute: float) -> str:
        return f"2026-11-02T10:{int(minute):02d}:{int(60 * (minute % 1)):02d}.000000+00:00"

    spans = [(at(0), at(n / 2), at(n / 2 + 4)) for n in range(1, FEWEST_FOR_A_SHARE)]
    open_ones = [(at(0), at(FEWEST_FOR_A_SHARE / 2), None), (at(0), None, None)]
    found = dashboard([], {}, [*spans, *open_ones])
    assert (found.minutes_to_read, found.minutes_to_decide) == (3.25, None)
    found = dashboard([], {}, [*spans, (at(0), at(20), at(30))])
    assert (found.minutes_to_read, found.minutes_to_decide) == (3.25, 4.0)


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
        {(7, "s"): Told({"X": 0.6, "Y": 0.4}, support_patient=False)},
        {"s": "p"},
    )
    assert (found.blind, found.outcome, found.top, found.served) == (
        "X",
        "Y",
        "X",
        {("bundle", 3): ("2026-11-02",) * 2},
    )
    assert found.patient == "p"


def test_blind_reads_are_held_against_the_answer_that_they_have_not_changed() -> None:
    x, y = Diagnosis("X"), Diagnosis("Y")

    def said(kind: str, content: BlindOpinion | Decision, version: int, run: int | None = None) -> Opinion:
        lineage = ("bundle", run) if run else (None, None)
        return Opinion("s", "anna", kind, version, content, run, *lineage, "2026-11-02T10:00:00")  # type: ignore[arg-type]

    opinions = [
        said("blind", BlindOpinion((y,), 60), 1),
        said("decision", Decision("override", y, "finding_missed"), 1, 7),
        said("decision", Decision("accept", y), 2, 8),  # after a lesson from this very case
    ]
    answers = {
        (7, "s"): Told({"X": 0.9, "Y": 0.1}, support_patient=False),
        (8, "s"): Told({"X": 0.1, "Y": 0.9}, support_patient=True),
    }
    read = read_cases(opinions, answers, {})
    found = dashboard(read, {"s": "Y"})
    assert (found.blind_agreement.right, found.blind_agreement.of) == (0, 1)
    assert (found.accuracy.right, found.accuracy.of) == (0, 1)
    assert (found.agreement.right, found.agreement.of) == (1, 1)  # the last decision, beside the last answer
    assert found.persuaded.of == 0
    assert x.code == read[0].top != read[0].last_top


def test_it_is_told_which_model_answered_from_when_to_when() -> None:
    def said(reader: str, day: str, version: int, support: int | None, study: str = "s") -> Opinion:
        lineage = (None, None, None) if support is None else (support, "bundle", support)
        decision = Decision("own", Diagnosis("X"))
        return Opinion(study, reader, "decision", version, decision, *lineage, f"{day}T10:00:00")

    blind = [
        Opinion(study, reader, "blind", 1, BlindOpinion((), 0), None, None, None, "2026-11-01T10:00:00")
        for study, reader in (("s", "anna"), ("s", "bert"), ("t", "anna"))
    ]
    decisions = [
        said("bert", "2026-11-02", 1, 2),
        said("anna", "2026-11-03", 1, 1),
        said("bert", "2026-11-04", 2, 2),
        said("anna", "2026-11-05", 2, 2),  # beside another answer than the first time
        said("anna", "2026-11-06", 1, 1, "t"),
        said("anna", "2026-11-09", 2, None, "t"),  # the model is off
    ]
    assert dashboard(read_cases([*blind, *decisions], {}, {}), {}).served == [
        Served("bundle", 2, 2, "2026-11-02", "2026-11-05"),
        Served("bundle", 1, 2, "2026-11-03", "2026-11-06"),
    ]


def test_the_page_tells_from_when_to_when_a_model_answered(
    desk: Desk, browser: Callable[..., Browser]
) -> None:
    cases = [replace(case("a", "X", "X"), served={("b" * 64, 7): ("2026-11-02", "2026-11-05")})]
    desk.dashboard = lambda: dashboard(cases, {})  # type: ignore[method-assign]
    page = browser("lead").get("/lead").text
    assert "<td>7</td><td>2026-11-02</td><td>2026-11-05</td>" in page


def test_a_supplement_agrees_with_the_disease_that_it_adds_to() -> None:
    def said(kind: str, content: BlindOpinion | Decision, run: int | None = None) -> Opinion:
        lineage = ("bundle", run) if run else (None, None)
        return Opinion("s", "anna", kind, 1, content, run, *lineage, "2026-11-02T10:00:00")  # type: ignore[arg-type]

    y = Diagnosis("Y")
    more = Decision("supplemented", y, "finding_missed")
    answers = {(7, "s"): Told({"X": 0.9, "Y": 0.1}, support_patient=False)}
    read = read_cases([said("blind", BlindOpinion((y,), 60)), said("decision", more, 7)], answers, {})
    found = dashboard(read, {})
    assert read[0].outcome == "Y"
    assert (found.agreement.right, found.agreement.of) == (1, 1)
    assert (found.persuaded.right, found.persuaded.of) == (1, 1)
    assert found.blind_agreement.right == 0


def test_an_answer_that_rests_on_the_patient_is_called_neither_right_nor_wrong() -> None:
    cases = [case("a", "X", "X"), replace(case("b", "X", "X"), flattered=True)]
    found = dashboard(cases, {"a": "Y", "b": "X"})
    assert (found.accuracy.right, found.accuracy.of) == (0, 1)
    assert (found.readers_accuracy.right, found.readers_accuracy.of) == (1, 2)
    unseen = with_unseen([replace(case("b", "X", "X"), answer={})], {"b": Told({"X": 0.9, "Y": 0.1}, True)})
    assert dashboard(unseen, {"b": "X"}).accuracy.of == 0
    assert dashboard(unseen, {}).blind_flattered == 1


def test_blind_reads_are_held_against_no_answer_that_rests_on_the_patient() -> None:
    cases = [case(f"a{n}", "X", "X", 0.95) for n in range(FEWEST_FOR_A_SHARE)]
    cases += [replace(case(f"b{n}", "Y", "X", 0.95), flattered=True) for n in range(FEWEST_FOR_A_SHARE)]
    found = dashboard(cases, {})
    right = FEWEST_FOR_A_SHARE
    assert (found.blind_agreement.right, found.blind_agreement.of, found.blind_flattered) == (right,) * 3
    assert [(share.right, share.of) for _, share in found.reliability] == [(right, right)]
    assert [name for name, _ in found.by_disease] == ["X"]
    assert [share.of for _, share in found.by_week] == [right]
    assert found.agreement.of == 2 * right  # how they get on after the answer was shown


@pytest.mark.parametrize("verdict", ["cannot_tell", "bad_image"])
def test_who_names_no_disease_neither_agrees_nor_disagrees(verdict: str) -> None:
    cases = [case("a", "X", "X"), case("b", None, verdict), case("c", "Y", verdict)]
    found = dashboard(cases, {})
    assert (found.blind_agreement.right, found.blind_agreement.of, found.blind_unnamed) == (1, 2, 1)
    assert (found.agreement.right, found.agreement.of, found.unnamed) == (1, 1, 2)
    assert (found.persuaded.right, found.persuaded.of) == (0, 1)  # gave up, but did not go over


def test_a_case_that_two_have_read_is_one_case() -> None:
    cases = [case("a", "X", "X"), case("a", "X", None, reader="bert"), case("b", "X", None)]
    found = dashboard(cases, {})
    assert (found.decided, found.cases, found.decided_readings, found.readings) == (1, 2, 1, 3)


def test_the_page_says_what_is_left_out_and_counts_cases(desk: Desk, browser: Callable[..., Browser]) -> None:
    cases = [
        case("a", "X", "X"),
        case("a", "X", "X", reader="bert"),
        case("b", None, "cannot_tell"),
        replace(case("c", "X", None), flattered=True),
    ]
    desk.dashboard = lambda: dashboard(cases, {})  # type: ignore[method-assign]
    page = " ".join(browser("lead").get("/lead").text.split())
    assert "Left out: 1 that named none, 1 whose patient was among the confirmed cases of the answer." in page
    assert "Left out: 1 that named no disease." in page
    assert "2 <small>decided of 3 read</small>" in page
    assert "Several readers read a case: 3 of 4 readings are decided." in page


def test_the_page_tells_no_share_of_a_case_or_two(desk: Desk, browser: Callable[..., Browser]) -> None:
    lead = browser("lead")
    assert "Went over to the model" in lead.get("/lead").text
    study = lead.cases()[0]
    lead.read(study, "D1")
    lead.post(f"/cases/{study}/decide", verdict="accept")
    page = lead.get("/lead").text
    cards = page[: page.index("Has anything changed?")]
    assert "too few <small>(n = 1)</small>" in cards
    assert "Disease 1" in cards
    assert set(re.findall(r"(\d+) %", cards)) == {"95"}  # of the heads of tables
    assert 'aria-label="At a confidence' not in page


def test_the_page_shows_shares_of_enough_cases(desk: Desk, browser: Callable[..., Browser]) -> None:
    cases = [case(f"a{n}", "X", "X") for n in range(11)] + [case("b", "Y", "X")]
    desk.dashboard = lambda: dashboard(cases, {})  # type: ignore[method-assign]
    page = " ".join(browser("lead").get("/lead").text.split())
    assert "92 % <small>(65 to 99; 11 of 12)</small>" in page  # blind reads and model
    assert "too few <small>(n = 1)</small>" in page  # one reader went over
    row = '<tr><td>Y</td> <td class="number">too few</td><td class="number">–</td> '
    assert row + '<td class="number">1</td><td class="number">1</td></tr>' in page
    assert 'aria-label="At a confidence of 90 percent 92 percent of 12 blind reads agree.' in page


def test_a_comparison_of_too_few_tells_no_share(desk: Desk, browser: Callable[..., Browser]) -> None:
    few = drift(Inputs(kinds={"Manufacturer": ({"A": 1}, {"B": 2})}), [], [])
    ((told, verdict),) = few.comparisons
    assert (told.value, verdict) == (1.0, "too few")
    desk.drift = lambda: few  # type: ignore[method-assign]
    page = browser("lead").get("/lead").text
    page = page[page.index("Has anything changed?") :]
    assert "<td>Manufacturer</td><td>too few to tell</td>" in page
    assert "100" not in page[: page.index("</tbody>")]


def test_a_read_knows_whose_case_it_is(desk: Desk, browser: Callable[..., Browser]) -> None:
    lead = browser("lead")
    study = lead.cases()[0]
    lead.read(study)
    lead.post(f"/cases/{study}/decide", verdict="accept")
    (seen,) = desk._read_cases(desk.cases.everything())
    assert seen.patient == desk.cases.get(study).patient != ""
