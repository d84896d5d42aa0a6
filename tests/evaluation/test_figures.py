"""Averages and intervals of the protocols."""

import numpy as np
import pytest

from benchmarks.interval_coverage import cohort
from meta_dx.evaluation.asking import Asked
from meta_dx.evaluation.deployment import draw_deployment
from meta_dx.evaluation.figures import Tally, as_negatives, method_result, outranked
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
def test_what_a_query_does_as_a_negative_is_the_slope_of_the_auroc_in_its_weight(seed: int) -> None:
    queries = asked(4, 9, 3, seed=seed)
    random = np.random.default_rng(seed)
    p = random.integers(1, 9, (len(queries.label), 4)) / 9.0  # with ties
    found, own = as_negatives(queries, p), outranked(queries, p)

    def auroc(weight: np.ndarray, rows: np.ndarray) -> float:
        each = []
        for c in range(4):
            w, score, mine = weight[rows], p[rows, c], queries.label[rows] == c
            wins = (score[:, None] > score) + 0.5 * (score[:, None] == score)
            pairs = w[:, None] * w * np.outer(mine, ~mine)
            each.append((pairs * wins).sum() / pairs.sum())
        return float(np.mean(each))

    for j in range(len(queries.label)):
        rows = np.flatnonzero(queries.episode == queries.episode[j])
        same = rows[queries.label[rows] == queries.label[j]]
        ends = []
        for step in (1e-5, -1e-5):
            weight = np.ones(len(queries.label))
            weight[j] += step
            ends.append(auroc(weight, rows))
        slope = (ends[0] - ends[1]) / 2e-5
        expected = own[j] - own[same].mean() + found[j]
        assert 4 * len(same) * slope == pytest.approx(expected, abs=1e-6)


def test_the_auroc_of_the_deployment_view_is_held_about_as_often_as_its_interval_says() -> None:
    random = np.random.default_rng(7)

    def answered(index: int) -> tuple[Tally, np.ndarray]:
        examples, vectors = cohort(random, 14, 5)
        plans = [draw_deployment(examples, examples.diseases, 5, index, k) for k in range(3)]
        shares = []
        for plan in plans:
            centres = np.stack([vectors[rows].mean(0) for rows in plan.support])
            distance = ((vectors[np.concatenate(plan.query)][:, None] - centres) ** 2).sum(2)
            share = np.exp(distance.min(1, keepdims=True) - distance)
            shares.append(share / share.sum(1, keepdims=True))
        return Tally(Asked.of(plans, examples), index), np.concatenate(shares)

    truth = np.mean([tally.mean(outranked(tally.asked, p)) for tally, p in map(answered, range(120))])
    held, wider = 0, []
    for index in range(60):
        tally, p = answered(index)
        low, high = method_result(tally, p).auroc_ci95
        alone = tally.interval(outranked(tally.asked, p))
        held += low <= truth <= high
        wider.append((high - low) / (alone[1] - alone[0]))
    assert held >= 52
    assert np.mean(wider) > 1.15


def test_episodes_of_different_diseases_show_by_themselves_what_one_does_to_others() -> None:
    queries = asked(4, 12, 30, seed=5)
    p = np.random.default_rng(5).dirichlet(np.ones(4), len(queries.label))
    tally = Tally(queries, 0)
    assert method_result(tally, p).auroc_ci95 == tally.interval(outranked(queries, p))


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
