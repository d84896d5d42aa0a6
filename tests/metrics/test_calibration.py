"""Calibration figures against closed forms and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss

from meta_dx.metrics.calibration import (
    brier_score,
    class_weights,
    expected_calibration_error,
    log_loss,
    reliability,
)


def answers(seed: int, n: int = 200, ways: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(ways), generator.integers(ways, size=n - ways)])
    probabilities = generator.dirichlet(np.full(ways, 0.7), size=n)
    return probabilities, labels


def slow_ece(probabilities: np.ndarray, labels: np.ndarray, classes: list[str], bins: int) -> float:
    """The definition, spelled out with one loop over bins and one over queries."""
    count = {c: classes.count(c) for c in classes}
    error = 0.0
    for b in range(1, bins + 1):
        weight = right = confidence = 0.0
        for p, y, c in zip(probabilities, labels, classes, strict=True):
            if (b - 1) / bins < p.max() <= b / bins:
                w = 1 / (len(count) * count[c])
                weight += w
                right += w * (p.argmax() == y)
                confidence += w * p.max()
        error += abs(right - confidence)
    return error


@given(st.integers(0, 10_000), st.sampled_from([5, 15]))
@settings(max_examples=15, deadline=None)
def test_the_error_is_the_definition_spelled_out(seed: int, bins: int) -> None:
    probabilities, labels = answers(seed)
    classes = [f"D{y % 3}" for y in labels]
    expected = slow_ece(probabilities, labels, classes, bins)
    assert expected_calibration_error(probabilities, labels, classes, bins) == pytest.approx(expected)


def test_certain_and_always_right_has_no_error_and_certain_and_wrong_has_all() -> None:
    right = np.eye(3)[[0, 1, 2]]
    assert expected_calibration_error(right, [0, 1, 2]) == 0.0
    assert expected_calibration_error(right, [1, 2, 0]) == 1.0
    assert brier_score(right, [1, 2, 0]) == 2.0
    assert log_loss(right, [0, 1, 2]) == 0.0


def test_honest_probabilities_have_an_error_near_zero() -> None:
    generator = np.random.default_rng(7)
    probabilities = generator.dirichlet(np.ones(5), size=60_000)
    labels = (probabilities.cumsum(1) > generator.random((60_000, 1))).argmax(1)
    assert expected_calibration_error(probabilities, labels) < 0.01
    sharper = probabilities**2 / (probabilities**2).sum(1, keepdims=True)
    assert expected_calibration_error(sharper, labels) > 0.08


def test_a_frequent_class_does_not_drown_a_rare_one() -> None:
    probabilities = np.tile([0.8, 0.2], (100, 1))
    labels = np.array([0] * 90 + [1] * 10)
    # Weighted by class, half of the answers are right, whatever the 90 say.
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.3)


def test_weights_give_each_class_the_same_total() -> None:
    weights = class_weights(["a", "b", "b", "b", "c"])
    assert weights.tolist() == pytest.approx([1 / 3, 1 / 9, 1 / 9, 1 / 9, 1 / 3])


def test_log_loss_and_brier_are_the_class_weighted_textbook_sums() -> None:
    probabilities, labels = answers(1)
    weights = 1.0 / np.bincount(labels)[labels]
    assert log_loss(probabilities, labels) == pytest.approx(
        sklearn_log_loss(labels, probabilities, sample_weight=weights)
    )
    squares = [
        sum((p[c] - (c == y)) ** 2 for c in range(4)) for p, y in zip(probabilities, labels, strict=True)
    ]
    assert brier_score(probabilities, labels) == pytest.approx(np.average(squares, weights=weights))


def test_a_probability_of_zero_costs_much_but_not_infinity() -> None:
    assert log_loss([[0.0, 1.0]], [0]) == pytest.approx(-np.log(1e-12))


def test_the_reliability_curve_sums_to_the_error_and_skips_empty_bins() -> None:
    probabilities, labels = answers(2)
    curve = reliability(probabilities, labels)
    assert curve.weight.sum() == pytest.approx(1.0)
    assert len(curve.weight) <= 15
    assert (np.diff(curve.confidence) > 0).all()
    assert curve.error == expected_calibration_error(probabilities, labels)
