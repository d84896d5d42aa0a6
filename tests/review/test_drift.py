"""Drift: what has changed is found, what has not is not called so, and few cases show nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import update

from meta_dx.errors import MetaDxError
from meta_dx.records.cases import NewCase
from meta_dx.records.predictions import PredictedStudy, latest_predictions, save_prediction_run
from meta_dx.records.schema import CaseRow
from meta_dx.review.answered import FEWEST_TO_COMPARE, AgreedCase, AnsweredCase, agreements
from meta_dx.review.dashboard import ReadCase
from meta_dx.review.desk import Desk
from meta_dx.review.drift import Drift, Inputs, drift
from tests.review.conftest import Browser

Rng = np.random.Generator
NAMES = np.array(list("ABCDEF"))


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(7)


def counts(rng: Rng, cases: int, shares: Sequence[float]) -> dict[str, int]:
    return dict(zip(NAMES.tolist(), rng.multinomial(cases, shares).tolist(), strict=False))


def inputs(
    rng: Rng, here: int = 60, before: int = 300, shift: float = 0.0, makers: Sequence[float] = (0.6, 0.3, 0.1)
) -> Inputs:
    return Inputs(
        {name: [(rng.normal(shift, 1, here), rng.normal(0, 1, before))] for name in ("dark", "bright")},
        {"Manufacturer": (counts(rng, here, makers), counts(rng, before, (0.6, 0.3, 0.1)))},
        (rng.gamma(2, 1, here), rng.gamma(2, 1, 90)),
    )


def weeks(rng: Rng, cases: int = 120, newest: Sequence[float] | None = None) -> list[AnsweredCase]:
    """Answers of some weeks, 20 a week; the newest one may have another mix of diseases."""
    found = []
    for n in range(cases):
        last = n >= cases - 20
        shares = newest if last and newest is not None else np.full(6, 1 / 6)
        doubt = rng.gamma(2, 0.1, 2)
        found.append(AnsweredCase(f"2026-W{10 + n // 20}", str(rng.choice(NAMES, p=shares)), *doubt))
    return found


def reads(rng: Rng, newest: float = 0.75) -> list[AgreedCase]:
    said = rng.random(120) < np.where(np.arange(120) >= 80, newest, 0.75)
    return [AgreedCase(f"2026-W{10 + n // 40}", bool(same)) for n, same in enumerate(said)]


def called(found: Drift) -> set[str]:
    return {one.what for one, verdict in found.comparisons if verdict == "drift"}


def test_where_nothing_has_changed_about_one_look_in_a_hundred_says_otherwise(rng: Rng) -> None:
    looks = [drift(inputs(rng), weeks(rng), reads(rng)) for _ in range(200)]
    assert len(looks[0].comparisons) == 8
    alarms = sum(look.changed for look in looks)
    assert alarms <= 8  # of 2 expected; more in one of 4,000 such tests
    quiet = next(look for look in looks if not look.changed)
    assert quiet.sentence.startswith("Nothing has changed")


def test_other_grey_values_are_drift_of_the_inputs(rng: Rng) -> None:
    found = drift(inputs(rng, shift=1.0), weeks(rng), reads(rng))
    assert called(found) == {"dark", "bright"}
    assert "scanner" in found.sentence
    assert "shadow" in found.sentence


def test_another_manufacturer_is_drift_of_the_inputs(rng: Rng) -> None:
    found = drift(inputs(rng, makers=(0.2, 0.2, 0.6)), weeks(rng), reads(rng))
    assert called(found) == {"Manufacturer"}
    said = next(one.said for one, _ in found.comparisons if one.what == "Manufacturer")
    assert said.startswith("C: ") or said.startswith("A: ")


def test_pictures_that_lie_farther_from_the_training_are_drift_and_nearer_ones_are_not(rng: Rng) -> None:
    given = inputs(rng)
    here, before = given.distances or (np.zeros(0), np.zeros(0))
    assert called(drift(replace(given, distances=(here + 2, before)), [], [])) == {
        "Pictures as the network sees them"
    }
    assert called(drift(replace(given, distances=(here / 10, before)), [], [])) == set()


def test_another_mix_of_diseases_is_drift_of_the_answers(rng: Rng) -> None:
    found = drift(inputs(rng), weeks(rng, newest=(0.8, 0.04, 0.04, 0.04, 0.04, 0.04)), reads(rng))
    assert called(found) == {"Diseases that come first"}
    assert "other patients are sent" in found.sentence.replace("\n", " ")


def test_readers_who_agree_less_are_drift_of_the_outcome(rng: Rng) -> None:
    found = drift(inputs(rng), weeks(rng), reads(rng, newest=0.2))
    assert called(found) == {"Blind reads that agree with the model"}
    assert "adjudicated" in found.sentence


def test_too_few_cases_show_nothing_however_different(rng: Rng) -> None:
    few = FEWEST_TO_COMPARE - 1
    given = Inputs(
        {
            "dark": [(rng.normal(50, 1, few), rng.normal(0, 1, 500))],
            "bright": [(rng.normal(50, 1, 500), np.zeros(few))],
        },
        {"Manufacturer": ({"X": few}, {"A": 500})},
        (np.full(few, 9.0), np.full(500, 1.0)),
    )
    found = drift(
        given, [AnsweredCase("2026-W01", "A", 0.1, 0.1)] * few, [AgreedCase("2026-W01", False)] * few
    )
    assert {verdict for _, verdict in found.comparisons} == {"too few"}
    assert found.sentence.startswith("Too few patients to tell")


def test_nothing_at_all_is_too_few() -> None:
    found = drift(Inputs({"dark": [(np.zeros(0), np.zeros(0))], "bright": []}, {"Maker": ({}, {})}), [], [])
    assert not found.changed
    assert found.weeks == ()


def test_a_difference_that_does_not_matter_is_none_however_many_cases_show_it(rng: Rng) -> None:
    given = inputs(rng, here=20_000, before=20_000, shift=0.1)
    found = drift(given, [], [])
    assert called(found) == set()
    assert min(one.chance for one, _ in found.comparisons) < 1e-6


def test_a_second_reader_of_the_same_case_adds_no_evidence(rng: Rng) -> None:
    """Cases are hard or easy for both readers: nothing has changed, and counted twice it often looks so."""
    alarms = 0
    for _ in range(200):
        read = []
        for case in range(80):
            easy = rng.beta(0.5, 0.5)
            day = "2026-01-05" if case < 60 else "2026-01-12"
            read += [
                ReadCase(str(case), reader, "A" if rng.random() < easy else "B", "A", {"A": 1.0}, day)
                for reader in ("first", "second")
            ]
        found = drift(Inputs(), [], agreements(read))
        ((one, _),) = found.comparisons
        assert (one.here, one.before) == (20, 60)
        alarms += found.changed
    assert alarms <= 7  # of 2 expected; more in one of 1,000 such tests


def test_of_a_case_the_first_read_with_an_answer_counts() -> None:
    unsure = ReadCase("1", "b", None, None, {"A": 1.0}, "2026-01-05")
    first = replace(unsure, reader="c", blind="A", day="2026-01-12")
    later = replace(unsure, reader="d", blind="B", day="2026-01-19")
    unanswered = replace(unsure, study="2", blind="B", answer={})
    assert agreements([unsure, first, later, unanswered]) == [AgreedCase("2026-W03", True)]


def test_the_interval_of_a_mix_is_that_of_the_difference(rng: Rng) -> None:
    """With few earlier cases the later ones alone seem more certain than the comparison is."""
    given = Inputs({}, {"Manufacturer": ({"A": 600, "B": 200, "C": 200}, {"A": 10, "B": 5, "C": 5})})
    ((one, verdict),) = drift(given, [], []).comparisons
    assert (one.value, one.rest) == pytest.approx((0.1, 0.0))
    assert verdict == "alike"
    assert (one.low, one.high) == pytest.approx((-0.103, 0.303), abs=2e-3)
    assert one.unit == "points"


def test_weeks_have_means_with_intervals_and_a_leading_disease(rng: Rng) -> None:
    doubts = rng.random(FEWEST_TO_COMPARE)
    found = drift(Inputs(), [AnsweredCase("2026-W01", "A", float(x), 0.5) for x in doubts], []).weeks
    ((name, cases, epistemic, top),) = [(w.name, w.cases, w.epistemic, w.top) for w in found]
    assert (name, cases, top) == ("2026-W01", FEWEST_TO_COMPARE, "A")
    # Student's t with 19 degrees of freedom
    half = 2.093 * doubts.std(ddof=1) / FEWEST_TO_COMPARE**0.5
    assert epistemic == pytest.approx((doubts.mean(), doubts.mean() - half, doubts.mean() + half), abs=1e-3)


def test_answers_to_a_few_cases_are_on_no_row() -> None:
    def of(week: str, cases: int) -> list[AnsweredCase]:
        return [AnsweredCase(week, "A", 0.1, 0.5)] * cases

    found = drift(Inputs(), [*of("2026-W01", FEWEST_TO_COMPARE - 1), *of("2026-W02", FEWEST_TO_COMPARE)], [])
    assert [week.name for week in found.weeks] == ["2026-W02"]
    assert not found.comparisons
    enough = [*of("2026-W01", FEWEST_TO_COMPARE), *of("2026-W02", FEWEST_TO_COMPARE)]
    assert len(drift(Inputs(), enough, []).comparisons) == 3


class FakeInsight:
    def __init__(self, given: Inputs) -> None:
        self.given, self.recent = given, list[str]()

    def inputs(self, recent: Sequence[str]) -> Inputs:
        self.recent = list(recent)
        return self.given


def test_the_leads_page_says_in_a_sentence_what_has_changed_and_what_to_do(
    desk: Desk, browser: Callable[..., Browser], rng: Rng
) -> None:
    lead = browser("lead")
    desk.insight = FakeInsight(inputs(rng))  # type: ignore[assignment]
    assert "Nothing has changed beyond chance" in lead.get("/lead").text
    desk.insight = FakeInsight(inputs(rng, shift=2.0))  # type: ignore[assignment]
    page = lead.get("/lead").text
    assert "what has changed at the scanner" in page
    assert page.count("<b>drift</b>") == 2
    assert set(desk.insight.recent) == set(desk.cases.waiting())  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", [MetaDxError("damaged", "The bundle is damaged."), RuntimeError("secret")])
def test_a_broken_model_leaves_the_lead_the_page_and_its_switch(
    desk: Desk, browser: Callable[..., Browser], fault: Exception
) -> None:
    asked = []

    class Broken:
        def inputs(self, recent: Sequence[str]) -> Inputs:
            asked.append(recent)
            raise fault

    desk.insight = Broken()  # type: ignore[assignment]
    lead = browser("lead")
    answer = lead.get("/lead")
    assert answer.status_code == 200
    assert "It could not be compared." in answer.text
    assert ("The bundle is damaged." in answer.text) is isinstance(fault, MetaDxError)
    assert "secret" not in answer.text
    assert 'action="/lead/model"' in answer.text
    assert lead.post("/lead/model", mode="off").status_code == 303
    assert "It could not be compared." not in lead.get("/lead").text
    assert len(asked) == 1, "nothing is asked of a model that is off"


def test_a_home_whose_newest_week_brings_other_diseases_says_so(desk: Desk, rng: Rng) -> None:
    (saved,) = latest_predictions(desk.records)
    studies = [f"9.{n}" for n in range(80)]
    made = NewCase("", "", "b0001", "CT", None, None, None, None, 1, 1)
    desk.cases.add(replace(made, study=study, patient=study) for study in studies)
    with desk.records.transaction() as session:
        session.execute(update(CaseRow).values(added_at="2026-01-05T10:00:00.000000+00:00", state="done"))
        late = update(CaseRow).where(CaseRow.study.in_(studies[:30]))
        session.execute(late.values(added_at="2026-02-05T10:00:00.000000+00:00"))

    def answer(shares: dict[str, float]) -> Drift:
        rows = [PredictedStudy(one, {"D0": p, "D1": 1 - p}, 0.5) for one, p in shares.items()]
        save_prediction_run(desk.records, saved.run, rows)
        return desk.drift()

    alike = {study: float(rng.random()) for study in studies}
    assert not answer(alike).changed
    assert called(answer({**alike, **dict.fromkeys(studies[:30], 0.9)})) == {"Diseases that come first"}


def test_in_shadow_the_figures_compare_though_nobody_sees_an_answer(
    desk: Desk, browser: Callable[..., Browser]
) -> None:
    lead, reader = browser("lead"), browser()
    lead.post("/lead/model", mode="shadow")
    study = reader.cases()[0]
    reader.read(study, "D0")
    assert "80 %" not in reader.get(f"/cases/{study}").text
    assert desk.dashboard().blind_agreement.of == 0, "the case is not done"
    reader.post(f"/cases/{study}/decide", verdict="own", diagnosis="D0")
    found = desk.dashboard()
    assert (found.blind_agreement.right, found.blind_agreement.of) == (1, 1)
    assert found.agreement.of == found.persuaded.of == 0, "nobody was shown anything"
    assert found.served == []
