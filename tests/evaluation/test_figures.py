"""Averages and intervals of the protocols."""

import numpy as np
import pytest

from meta_dx.evaluation.asking import Asked
from meta_dx.evaluation.figures import Tally, method_result
from meta_dx.metrics.intervals import two_level_bootstrap


def asked(ways: int, diseases: int, episodes: int, seed: int) -> Asked:
    """Episodes of ``ways`` of the diseases, with one to five queries a class."""
    random = np.random.default_rng(seed)
    classes = np.array([random.choice(diseases, ways, replace=False) for _ in range(episodes)])
    counts = random.integers(1, 6, size=classes.shape)
    episode = np.repeat(np.arange(episodes), counts.sum(1))
    label = np.concatenate([np.repeat(np.arange(ways), row) for row in counts])
    disease = classes[episode, label]
    return Asked(
        episode,
        label,
        np.array([f"D{d:02d}" for d in disease]),
        np.array([f"P{d}-{p}" for d, p in zip(disease, random.integers(0, 8, len(disease)), strict=True)]),
        np.array([[f"D{d:02d}" for d in row] for row in classes]),
    )


def test_the_mean_weighs_classes_within_an_episode_and_episodes_alike() -> None:
    queries = asked(3, 6, 30, seed=0)
    values = np.random.default_rng(1).random(len(queries.label))
    expected = np.mean(
        [
            np.mean([values[(queries.episode == e) & (queries.label == n)].mean() for n in range(3)])
            for e in range(30)
        ]
    )
    assert Tally(queries, 0).mean(values) == pytest.approx(expected)


def test_where_every_episode_holds_every_disease_the_interval_is_the_plain_bootstrap() -> None:
    queries = asked(5, 5, 40, seed=2)
    values = np.random.default_rng(3).random(len(queries.label))
    tally = Tally(queries, 7)
    low, high = tally.interval(values)
    plain = two_level_bootstrap(values, queries.disease, queries.patient, seed=7)
    assert high - low == pytest.approx(plain.high - plain.low)
    assert low - plain.low == pytest.approx(tally.mean(values) - plain.estimate)


def test_a_disease_that_makes_others_be_missed_widens_the_interval() -> None:
    queries = asked(4, 12, 400, seed=4)
    confusing = np.array([f"D{d:02d}" for d in range(4)])
    with_one = np.isin(queries.classes, confusing).sum(1)[queries.episode]
    others = ~np.isin(queries.disease, confusing)
    values = np.where(others & (with_one > 0), 0.4, np.where(others, 0.9, 0.5))
    low, high = Tally(queries, 0).interval(values)
    plain = two_level_bootstrap(values, queries.disease, queries.patient, seed=0)
    assert high - low > 1.2 * (plain.high - plain.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(40):
        random = np.random.default_rng(100 + seed)
        queries = asked(4, 20, 150, seed=seed)
        recall = dict(zip([f"D{d:02d}" for d in range(20)], random.beta(4, 2, 20), strict=True))
        chance = np.array([recall[code] for code in queries.disease])
        low, high = Tally(queries, seed).interval((random.random(len(chance)) < chance).astype(float))
        held += low <= 4 / 6 <= high
    assert held >= 34


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_the_calibration_error_is_its_bootstrap_spelled_out(seed: int) -> None:
    queries = asked(3, 9, 12, seed=seed)
    p = np.random.default_rng(seed).dirichlet(np.ones(3), len(queries.label))
    found = method_result(Tally(queries, seed), p)
    gap = (p.argmax(1) == queries.label) - p.max(1)
    place = np.ceil(p.max(1) * 15).astype(int) - 1
    patients = [sorted(set(queries.patient[queries.disease == code])) for code in np.unique(queries.disease)]
    generator, errors = np.random.default_rng(seed), []
    for _ in range(400):
        total = np.zeros(15)
        for d in generator.integers(len(patients), size=len(patients)):
            drawn = [patients[d][i] for i in generator.integers(len(patients[d]), size=len(patients[d]))]
            rows = np.concatenate([np.flatnonzero(queries.patient == who) for who in drawn])
            total += np.bincount(place[rows], gap[rows], 15) / len(rows) / len(patients)
        errors.append(np.abs(total).sum())
    shifted = np.quantile(errors, [0.025, 0.975]) - np.mean(errors) + found.ece
    assert found.ece_ci95 == pytest.approx(shifted.clip(0, 1), abs=1e-12)
