"""Intervals against closed forms and by simulation of their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.metrics.classification import separation
from meta_dx.metrics.intervals import (
    effective_number,
    monte_carlo_half_width,
    paired_difference,
    separation_interval,
    two_level_bootstrap,
    wilson,
)


def cohort(
    generator: np.random.Generator, diseases: int, patients: int, between: float, within: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    disease = np.repeat(np.arange(diseases), patients)
    values = 0.7 + np.repeat(generator.normal(0, between, diseases), patients)
    values = values + generator.normal(0, within, len(disease))
    return values, disease, np.arange(len(disease))


def test_the_estimate_is_the_mean_over_diseases_of_the_mean_over_patients() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 0.5]
    disease = ["a", "a", "a", "b", "b"]
    patient = ["p", "p", "q", "r", "s"]  # p answered twice and is one unit of 0.5
    found = two_level_bootstrap(values, disease, patient)
    assert found.estimate == pytest.approx(np.mean([np.mean([0.5, 0.0]), np.mean([1.0, 0.5])]))
    assert found.low <= found.estimate <= found.high


def test_the_order_of_rows_does_not_matter_to_the_estimate_and_the_seed_fixes_the_interval() -> None:
    generator = np.random.default_rng(0)
    values, disease, patient = cohort(generator, 12, 8, 0.1, 0.2)
    order = generator.permutation(len(values))
    here = two_level_bootstrap(values, disease, patient, seed=3)
    assert here == two_level_bootstrap(values, disease, patient, seed=3)
    assert here != two_level_bootstrap(values, disease, patient, seed=4)
    there = two_level_bootstrap(values[order], disease[order], patient[order], seed=3)
    assert (there.estimate, there.low, there.high) == pytest.approx((here.estimate, here.low, here.high))


def test_with_one_disease_the_width_is_that_of_the_bootstrap_mean() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=400)
    found = two_level_bootstrap(values, np.zeros(400), np.arange(400), resamples=4000)
    # Closed form: the bootstrap variance of a mean is the population variance over n.
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.06)


def test_the_width_is_that_of_the_two_level_closed_form() -> None:
    generator = np.random.default_rng(2)
    values, disease, patient = cohort(generator, 60, 10, 0.15, 0.3)
    table = values.reshape(60, 10)
    # Variance between disease means plus the resampled variance within, over the number of diseases.
    variance = (table.mean(1).var() + (table.var(1) / 10).mean()) / 60
    found = two_level_bootstrap(values, disease, patient, resamples=6000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.sqrt(variance), rel=0.06)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for run in range(300):
        values, disease, patient = cohort(generator, 30, 8, 0.12, 0.35)
        found = two_level_bootstrap(values, disease, patient, resamples=400, seed=run)
        covered += found.low <= 0.7 <= found.high
    assert 0.91 <= covered / 300 <= 0.985


def test_ignoring_diseases_would_not_cover() -> None:
    """The reason for two levels: resampling patients alone is far too sure of itself."""
    generator = np.random.default_rng(4)
    covered = 0
    for run in range(150):
        values, _, patient = cohort(generator, 20, 20, 0.2, 0.2)
        found = two_level_bootstrap(values, np.zeros(len(values)), patient, resamples=300, seed=run)
        covered += found.low <= 0.7 <= found.high
    assert covered / 150 < 0.6


def test_a_paired_difference_is_sure_where_two_intervals_overlap() -> None:
    generator = np.random.default_rng(5)
    first, disease, patient = cohort(generator, 25, 10, 0.25, 0.2)
    second = first - 0.05 + generator.normal(0, 0.05, len(first))
    a, b = (two_level_bootstrap(v, disease, patient) for v in (first, second))
    assert a.low < b.high
    found = paired_difference(first, second, disease, patient)
    assert found.low > 0.03
    assert found.high < 0.07
    swapped = paired_difference(second, first, disease, patient)
    assert swapped.estimate == pytest.approx(-found.estimate)


def test_the_monte_carlo_half_width_is_its_formula_and_covers() -> None:
    generator = np.random.default_rng(6)
    draws = generator.normal(0.6, 0.1, size=(2000, 50))
    assert monte_carlo_half_width(draws[0]) == pytest.approx(1.96 * draws[0].std(ddof=1) / np.sqrt(50))
    covered = np.mean([abs(row.mean() - 0.6) <= monte_carlo_half_width(row) for row in draws])
    assert 0.93 <= covered <= 0.97
    assert np.isnan(monte_carlo_half_width([0.5]))


@pytest.mark.parametrize(
    ("values", "disease", "patient"),
    [([], [], []), ([1.0], [0, 1], [0]), ([np.nan, 1.0], [0, 0], [0, 1])],
)
def test_figures_that_make_no_sense_are_refused(values: list, disease: list, patient: list) -> None:
    with pytest.raises(ValueError, match=r"values|lengths"):
        two_level_bootstrap(values, disease, patient)


def test_methods_that_answered_different_queries_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_difference([1.0, 0.0], [1.0], [0, 0], [0, 1])


def doubts(seed: int, diseases: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, errors, diseases and patients: diseases and patients differ in how well errors are doubted."""
    random = np.random.default_rng(seed)
    disease = np.repeat(np.arange(diseases), 6 * 8)
    patient = np.repeat(np.arange(diseases * 6), 8)
    wrong = random.random(len(disease)) < 0.4
    told = random.normal(0.8, 0.7, diseases)[disease] + random.normal(0, 0.5, diseases * 6)[patient]
    return random.normal(size=len(disease)) + told * wrong, wrong, disease, patient


def test_the_interval_of_a_separation_is_that_of_the_bootstrap_spelled_out() -> None:
    scores, wrong, disease, patient = doubts(0)
    low, high = separation_interval(scores, wrong, ~wrong, disease, patient, resamples=4000)
    random, drawn = np.random.default_rng(1), []
    for _ in range(1500):
        rows = []
        for d in random.integers(12, size=12):
            own = np.unique(patient[disease == d])
            rows += [np.flatnonzero(patient == p) for p in random.choice(own, len(own))]
        chosen = np.concatenate(rows)
        drawn.append(separation(scores[chosen], wrong[chosen], ~wrong[chosen]))
    expected = np.quantile(drawn, [0.025, 0.975]) - np.mean(drawn) + separation(scores, wrong, ~wrong)
    assert (low, high) == pytest.approx(expected, abs=0.015)
    assert high - low > 0.1


def test_the_interval_of_a_separation_covers_the_truth_and_is_not_much_wider_than_the_figure_moves() -> None:
    truth = np.mean([separation(s, w, ~w) for s, w, *_ in (doubts(seed, 200) for seed in range(20))])
    cohorts = [doubts(1000 + k, 30) for k in range(120)]
    ends = np.array([separation_interval(s, w, ~w, d, p) for s, w, d, p in cohorts])
    assert np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) >= 0.9
    spread = 2 * 1.96 * np.std([separation(s, w, ~w) for s, w, *_ in cohorts])
    assert 0.9 < np.mean(ends[:, 1] - ends[:, 0]) / spread < 1.4


def test_a_separation_without_one_of_its_sides_has_no_interval() -> None:
    assert separation_interval([1, 2], [1, 1], [0, 0], ["a", "a"], ["p", "q"]) is None


@given(st.integers(0, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_wilson_solves_its_equation(right: int, n: int) -> None:
    share = min(right, n) / n
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / n), abs=1e-9)
    assert high > low


def test_answers_about_one_patient_each_count_in_full() -> None:
    assert effective_number([True, False, True], ["a", "b", "c"]) == 3
    assert effective_number([True, True, True], ["a", "b", "c"]) == 3


def test_answers_that_follow_from_each_other_count_once_a_patient() -> None:
    assert effective_number([1, 1, 0, 0, 1, 1], ["a", "a", "b", "b", "c", "c"]) == pytest.approx(3)
    assert effective_number([True] * 4, ["a", "a", "b", "b"]) == pytest.approx(2), (
        "nothing tells, so none is counted twice"
    )
    assert effective_number([True, False, True], ["a", "a", "a"]) == pytest.approx(1)
    # One of three answers alone, two about one patient: (2 + 1)² / (2² + 1²) patients of equal weight.
    assert effective_number([True, True, True], ["a", "a", "b"]) == pytest.approx(9 / 5)


def test_the_correlation_within_patients_is_that_of_the_table_of_variances() -> None:
    right, patient = [1, 1, 1, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    groups = [np.array(right)[np.array(patient) == k] for k in range(4)]
    between = sum(len(g) * (g.mean() - 0.6) ** 2 for g in groups) / 3
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / 6
    usual = (10 - (9 + 9 + 4 + 4) / 10) / 3
    rho = (between - within) / (between + (usual - 1) * within)
    assert effective_number(right, patient) == pytest.approx(10 / (1 + (2.6 - 1) * rho))


@pytest.mark.parametrize("patients", [12, 40, 150])
@pytest.mark.parametrize("truth", [0.6, 0.9])
@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_with_two_readers_the_interval_of_a_share_covers_the_truth_whether_or_not_they_say_the_same(
    patients: int, truth: float, alike: float
) -> None:
    """Of ``alike`` of the patients the second reader says what the first says, of the rest what chance says."""
    generator, looks = np.random.default_rng([patients, round(10 * truth), round(10 * alike)]), 2000
    first, own = generator.random((2, looks, patients)) < truth
    second = np.where(generator.random((looks, patients)) < alike, first, own)
    right = np.concatenate([first, second], axis=1)
    patient = np.tile(np.arange(patients), 2)

    def covered(n: list[float]) -> float:
        ends = np.array([wilson(share, each) for share, each in zip(right.mean(1), n, strict=True)])
        return float(np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])))

    robust = covered([effective_number(row, patient) for row in right])
    assert (
        0.915 <= robust <= 0.99
    )  # a share of few jumps, and so does the coverage: from 0.926 to 0.980 of 6,000
    if alike == 1.0:
        assert covered([2.0 * patients] * looks) < robust - 0.05, "counted as independent they are too sure"
