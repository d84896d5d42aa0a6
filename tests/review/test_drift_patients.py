"""Several answers about one patient are no independent evidence: what is called drift where nothing has changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meta_dx.review.answered import FEWEST_TO_COMPARE, AgreedCase, AnsweredCase, newest_weeks, weeks
from meta_dx.review.desk import Desk
from meta_dx.review.drift import Drift, Inputs, drift
from meta_dx.review.two_groups import chance, design_effect, superiority, widening

Rng = np.random.Generator
Told = tuple[list[AnsweredCase], list[AgreedCase]]
NAMES = np.array(list("ABCDEF"))


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(11)


def visits(rng: Rng, week: int, patient: str, studies: int, shares: np.ndarray | None = None) -> Told:
    """Studies of one visit: mostly the same disease, much the same doubt, and as hard for the reader."""
    first, doubt, hard = rng.choice(NAMES, p=shares), rng.gamma(2, 0.1, 2), rng.beta(0.5, 0.5)
    name = f"2026-W{10 + week}"
    answered, agreed = [], []
    for _ in range(studies):
        top = str(first if rng.random() < 0.95 else rng.choice(NAMES))
        nats = doubt * np.exp(rng.normal(0, 0.1, 2))
        answered.append(AnsweredCase(name, top, float(nats[0]), float(nats[1]), patient))
        agreed.append(AgreedCase(name, bool(rng.random() < hard), patient))
    return answered, agreed


def told(rng: Rng, newest: np.ndarray | None = None) -> Told:
    """Eight weeks with twelve patients each, of whom one has three studies on average; the last may be another mix."""
    answered, agreed = list[AnsweredCase](), list[AgreedCase]()
    for week in range(8):
        for number in range(12):
            mix = newest if week >= 6 else None
            more = visits(rng, week, f"{week}-{number}", 1 + rng.poisson(2), mix)
            answered += more[0]
            agreed += more[1]
    return answered, agreed


def of_nobody_known(given: Told) -> Told:
    answered, agreed = given
    return [replace(one, patient="") for one in answered], [replace(one, patient="") for one in agreed]


def called(found: Drift) -> set[str]:
    return {one.what for one, verdict in found.comparisons if verdict == "drift"}


def test_where_nothing_has_changed_several_studies_of_a_patient_are_not_called_drift(rng: Rng) -> None:
    looks = [told(rng) for _ in range(80)]
    assert {len(drift(Inputs(), *look).comparisons) for look in looks[:5]} == {4}
    alarms = sum(drift(Inputs(), *look).changed for look in looks)
    assert alarms <= 5  # of 0.8 expected; more in one of 5,000 such tests
    ignored = sum(drift(Inputs(), *of_nobody_known(look)).changed for look in looks)
    assert ignored > 20, "counted as independent they look like drift"


def test_another_mix_of_diseases_is_found_among_patients_with_several_studies(rng: Rng) -> None:
    found = drift(Inputs(), *told(rng, newest=np.array([0.85, 0.03, 0.03, 0.03, 0.03, 0.03])))
    assert called(found) == {"Diseases that come first"}


def test_patients_who_come_back_with_a_disease_of_their_own_are_no_drift(rng: Rng) -> None:
    """Had each counted with the newest study only, they would be missing among the weeks before."""
    alarms = 0
    for _ in range(60):
        answered, agreed = list[AnsweredCase](), list[AgreedCase]()
        ill = [(f"{number}, first", str(rng.choice(NAMES[:2]))) for number in range(20)]
        for week in range(10):
            for place in range(20):
                if rng.random() < 0.1:  # somebody else with such a disease comes instead from now on
                    ill[place] = (f"{place}, since {week}", str(rng.choice(NAMES[:2])))
                if rng.random() < 0.5:
                    patient, top = ill[place]
                    answered.append(AnsweredCase(f"2026-W{10 + week}", top, 0.1, 0.1, patient))
            for number in range(15):
                more = visits(rng, week, f"{week}-{number}", 1)
                answered += more[0]
                agreed += more[1]
        alarms += drift(Inputs(), answered, agreed).changed
    assert alarms <= 5  # of 0.6 expected; more in one of 20,000 such tests


def test_too_few_patients_show_nothing_however_many_their_studies(rng: Rng) -> None:
    few = [f"p{n % (FEWEST_TO_COMPARE - 1)}" for n in range(200)]
    newer = [AnsweredCase("2026-W20", "A", 0.9, 0.9, one) for one in few]
    older = [AnsweredCase("2026-W10", "B", 0.1, 0.1, f"old {n}") for n in range(200)]
    agreed = [AgreedCase(one.week, one.top == "A", one.patient) for one in [*older, *newer]]
    found = drift(Inputs(), [*older, *newer], agreed)
    assert {verdict for _, verdict in found.comparisons} <= {"too few"}
    assert [week.name for week in found.weeks] == ["2026-W10"]


def test_the_newest_weeks_hold_enough_patients_not_studies() -> None:
    def of(week: int, patients: range, studies: int) -> list[AgreedCase]:
        return [AgreedCase(f"2026-W{week}", True, str(n)) for n in patients for _ in range(studies)]

    cases = [*of(10, range(100, 130), 1), *of(11, range(15), 1), *of(12, range(5, 15), 9)]
    newest, before = newest_weeks(cases)
    assert {one.week for one in newest} == {"2026-W10", "2026-W11", "2026-W12"}, (
        "15 patients in two weeks are too few"
    )
    newest, before = newest_weeks([*cases, *of(13, range(50, 70), 1)])
    assert {one.week for one in newest} == {"2026-W13"}
    assert len(before) == len(cases)


def test_a_weeks_intervals_are_those_of_its_patients(rng: Rng) -> None:
    doubt = rng.gamma(2, 0.1, FEWEST_TO_COMPARE)
    once = [
        AnsweredCase("2026-W10", "A" if x > 0.2 else "B", float(x), float(x), str(n))
        for n, x in enumerate(doubt)
    ]
    (one,), (twice,) = weeks(once), weeks([case for case in once for _ in range(2)])
    assert (one.cases, twice.cases) == (FEWEST_TO_COMPARE, 2 * FEWEST_TO_COMPARE)
    assert twice.share.interval == pytest.approx(one.share.interval)
    assert twice.share.people == FEWEST_TO_COMPARE
    assert one.epistemic is not None
    assert twice.epistemic is not None
    widths = [high - low for _, low, high in (one.epistemic, twice.epistemic)]
    assert widths[1] == pytest.approx(widths[0], rel=0.03)  # by n - 1 of the standard deviation


def test_a_comparison_of_values_that_come_twice_is_that_of_the_values(rng: Rng) -> None:
    x, y = rng.normal(0.4, 1, 40), rng.normal(0, 1, 90)
    doubled, wider = (np.repeat(x, 2), np.repeat(y, 2)), widening((80, 180), (2.0, 2.0))
    assert wider == pytest.approx(np.sqrt(2))
    assert superiority([doubled], wider) == pytest.approx(superiority([(x, y)]), abs=2e-3)
    assert chance([doubled], wider=wider) == pytest.approx(chance([(x, y)]), rel=0.05)
    assert chance([doubled]) < 0.5 * chance([(x, y)])


def test_the_design_effect_of_names_is_how_much_their_shares_stray(rng: Rng) -> None:
    assert design_effect(["A", "B", "A"], ["1", "2", "3"]) == 1
    assert design_effect(["A", "A", "B", "B", "C", "C"], list("112233")) == pytest.approx(2)
    assert design_effect(["A", "A", "A"], list("112")) == pytest.approx(5 / 3), (
        "nothing tells: taken for the worst"
    )
    patients, sizes = np.arange(60), rng.integers(1, 6, 60)
    whose = np.repeat(patients, sizes)
    shares, found = [], []
    for _ in range(400):
        own = rng.choice(NAMES, 60)[whose]
        names = np.where(rng.random(len(whose)) < 0.8, own, rng.choice(NAMES, len(whose)))
        shares.append([(names == name).mean() for name in NAMES])
        found.append(design_effect(names.tolist(), whose.astype(str).tolist()))
    measured = np.var(shares, axis=0).mean() / (1 / 6 * 5 / 6 / len(whose))
    assert np.mean(found) == pytest.approx(measured, rel=0.15)


def test_the_desk_knows_whose_the_answers_are(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[AnsweredCase] = []

    def take(inputs: Inputs, answered: list[AnsweredCase], agreed: list[AgreedCase]) -> Drift:
        given.extend(answered)
        return Drift((), (), "")

    monkeypatch.setattr("meta_dx.review.desk.drift", take)
    waiting = set(desk.cases.waiting())
    monkeypatch.setattr(type(desk.cases), "done", lambda _: waiting)
    desk.drift()
    assert {one.patient for one in given} == {desk.cases.get(study).patient for study in waiting}
