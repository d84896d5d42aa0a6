"""The deployment view: the support it draws, and its figures in known worlds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort.examples import Examples
from meta_dx.errors import MetaDxError
from meta_dx.evaluation.deployment import DeploymentResult, draw_deployment, evaluate_deployment
from tests.evaluation.worlds import FakePredictor, World, gaussian_world, reordered, shuffled


def evaluate(world: World, **options: object) -> DeploymentResult:
    chosen = {"offered": world.examples.diseases, "cap": 5, "seed": 3, "repeats": 10} | options
    return evaluate_deployment(FakePredictor(), world.vectors, world.examples, **chosen)  # type: ignore[arg-type]


@st.composite
def cohorts(draw: st.DrawFn) -> Examples:
    """Patients with several studies, some with several diseases."""
    rows = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=2, max_size=40))
    n = len(rows)
    return Examples(
        np.array([f"S{i}" for i in range(n)]),
        np.array([f"P{p}" for p, _ in rows]),
        np.array([f"D{d}" for _, d in rows]),
        tuple(np.array([i]) for i in range(n)),
    )


@given(cohorts(), st.integers(1, 6), st.integers(0, 99), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_no_patient_is_on_both_sides_and_the_caps_hold(
    examples: Examples, cap: int, seed: int, index: int
) -> None:
    offered = examples.diseases
    plan = draw_deployment(examples, offered, cap, seed, index)
    rows = plan.rows
    assert len(set(examples.patient[rows])) == len(rows)
    for code, support, query in zip(plan.classes, plan.support, plan.query, strict=True):
        assert set(examples.code[np.concatenate([support, query])]) <= {code}
        assert len(support) <= cap
    # Nobody is lost: each patient of an offered disease is support or query once.
    assert set(examples.patient[rows]) == set(examples.patient)


def test_support_is_the_cap_or_all_but_one() -> None:
    world = gaussian_world([1, 2, 5, 6, 20], seed=0, distance=2.0)
    plan = draw_deployment(world.examples, world.examples.diseases, 5, 0, 0)
    assert [len(rows) for rows in plan.support] == [1, 1, 4, 5, 5]
    assert [len(rows) for rows in plan.query] == [0, 1, 1, 1, 15]
    result = evaluate(world)
    assert result.untested == ("D00",)
    assert result.one_short == ("D01", "D02")
    assert (result.shots.min, result.shots.max, result.queries) == (1, 5, 18)
    assert {row.code for row in result.comparison.per_disease} == {"D01", "D02", "D03", "D04"}


def test_diseases_that_the_bundle_knows_are_answers_and_never_questions() -> None:
    world = gaussian_world([4, 6, 9, 12], seed=6, distance=2.0)
    plan = draw_deployment(world.examples, world.examples.diseases, 5, 0, 0, tested={"D01", "D03"})
    assert [len(rows) for rows in plan.support] == [4, 5, 5, 5]
    assert [len(rows) for rows in plan.query] == [0, 1, 0, 7]
    result = evaluate(world, tested={"D01", "D03"})
    assert (result.only_offered, result.untested) == (("D00", "D02"), ())
    assert len(result.offered) == 4
    assert {row.code for row in result.comparison.per_disease} == {"D01", "D03"}


def test_shuffled_diagnoses_score_chance_at_every_depth() -> None:
    world = shuffled(gaussian_world([20] * 10, seed=1, distance=5.0), seed=1)
    found = evaluate(world).comparison.served
    for value, ends, chance in (
        (found.accuracy, found.ci95, 0.1),
        (found.top3, found.top3_ci95, 0.3),
        (found.top5, found.top5_ci95, 0.5),
        (found.auroc, found.auroc_ci95, 0.5),
    ):
        assert value is not None
        assert ends is not None
        assert ends[0] < chance < ends[1]
        assert abs(value - chance) < 0.08


def test_a_separable_world_is_solved() -> None:
    found = evaluate(gaussian_world([9] * 12, seed=2, distance=20.0)).comparison
    assert found.served.accuracy == found.served.top3 == found.served.top5 == 1.0
    assert found.served.auroc == 1.0
    assert found.confused == ()
    assert all(row.ci95[0] < 1.0 for row in found.per_disease)  # nine patients prove no perfection


def test_a_frequent_disease_gains_from_the_support_prior() -> None:
    world = gaussian_world([3, 3, 3, 60], seed=3, distance=1.5)
    recalls = [
        {row.code: row.recall for row in evaluate(world, cap=40, prior=prior).comparison.per_disease}
        for prior in ("uniform", "support")
    ]
    assert recalls[1]["D03"] > recalls[0]["D03"] + 0.1
    rare = ("D00", "D01", "D02")
    assert sum(recalls[1][code] for code in rare) < sum(recalls[0][code] for code in rare)


def test_the_support_prior_counts_patients_above_the_cap() -> None:
    world = gaussian_world([4, 4, 4, 60], seed=3, distance=1.5)
    recalls = [
        {row.code: row.recall for row in evaluate(world, cap=3, prior=prior).comparison.per_disease}
        for prior in ("uniform", "support")
    ]  # three cases of every disease either way
    assert recalls[1]["D03"] > recalls[0]["D03"] + 0.1


def test_the_order_of_the_rows_changes_nothing() -> None:
    world = gaussian_world([4, 6, 9, 12], seed=4, distance=2.0)
    first, second = evaluate(world), evaluate(reordered(world, seed=0))
    assert first.comparison.served.accuracy == pytest.approx(second.comparison.served.accuracy)
    assert [row.code for row in first.comparison.per_disease] == [
        row.code for row in second.comparison.per_disease
    ]


def test_offered_diseases_without_examples_are_named() -> None:
    world = gaussian_world([4, 6], seed=5, distance=2.0)
    assert evaluate(world, offered=["D00", "D01", "X"]).absent == ("X",)
    with pytest.raises(MetaDxError, match="at least 2"):
        evaluate(world, offered=["D00", "X"])
    with pytest.raises(MetaDxError, match="nobody is left"):
        evaluate(gaussian_world([1, 1], seed=5, distance=2.0))
