"""Scoring predictions of hidden diagnoses."""

import numpy as np
import pytest

from meta_dx.evaluation.holdout import score_holdout


def test_figures_are_means_over_diseases() -> None:
    predictions = {
        "s1": {"A": 0.7, "B": 0.2, "C": 0.08, "D": 0.02},
        "s2": {"A": 0.05, "B": 0.6, "C": 0.2, "D": 0.15},
        "s3": {"A": 0.4, "B": 0.3, "C": 0.2, "D": 0.1},
        "s4": {"A": 0.9, "B": 0.1, "C": 0.0, "D": 0.0},
        "not hidden": {"A": 1.0},
    }
    truth = {"s1": "A", "s2": "A", "s3": "B", "s4": "X", "s5": "A"}
    patients = {study: f"P{study}" for study in truth}
    found = score_holdout(predictions, truth, patients)
    assert (found.studies, found.diseases, found.not_offered, found.not_predicted) == (3, 2, 1, 1)
    assert found.top1 == pytest.approx((0.5 + 0.0) / 2)
    assert found.top3 == pytest.approx((0.5 + 1.0) / 2)
    assert found.truth == pytest.approx(((0.7 + 0.05) / 2 + 0.3) / 2)
    assert found.chance == pytest.approx(0.25)
    assert found.top1_ci95[0] <= found.top1 <= found.top1_ci95[1]


def test_nothing_to_score_is_said_and_not_a_fault() -> None:
    found = score_holdout({}, {"s1": "A"}, {"s1": "P1"})
    assert (found.studies, found.not_predicted) == (0, 1)
    assert np.isnan(found.top1)


def test_guessing_scores_chance() -> None:
    random = np.random.default_rng(0)
    codes = [f"D{i}" for i in range(8)]
    truth = {f"s{i}": codes[i % 8] for i in range(240)}
    predictions = {study: dict(zip(codes, random.dirichlet(np.ones(8)), strict=True)) for study in truth}
    found = score_holdout(predictions, truth, {study: study for study in truth})
    assert found.top1_ci95[0] < 1 / 8 < found.top1_ci95[1]
    assert found.top3_ci95[0] < 3 / 8 < found.top3_ci95[1]
