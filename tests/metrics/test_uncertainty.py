"""The split of uncertainty against other forms of the same quantities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from meta_dx.metrics.uncertainty import credible_interval, expected_entropy, mutual_information, uncertainty


def drawn(seed: int, *shape: int, sharpness: float = 1.0) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).normal(size=shape)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), sharpness=st.sampled_from([0.01, 1.0, 20.0]))
def test_epistemic_is_the_mean_divergence_of_the_samples_from_their_mean(seed: int, sharpness: float) -> None:
    p = drawn(seed, 3, 7, 4, sharpness=sharpness)
    expected = [np.mean([entropy(sample, of.mean(0)) for sample in of]) for of in p]  # KL form
    np.testing.assert_allclose(mutual_information(p), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_both_parts_sum_to_the_entropy_of_the_mean_probability(seed: int) -> None:
    p = drawn(seed, 2, 5, 9, 3, sharpness=3.0)
    found = uncertainty(p)
    np.testing.assert_allclose(found.aleatoric + found.epistemic, entropy(p.mean(-2), axis=-1), atol=1e-12)
    np.testing.assert_allclose(found.aleatoric, entropy(p, axis=-1).mean(-1), atol=1e-12)


def test_samples_that_are_sure_of_different_classes_are_all_epistemic_and_coins_all_aleatoric() -> None:
    sure, coins = np.eye(2), np.full((2, 2), 0.5)
    found = uncertainty(np.stack([sure, coins]))
    np.testing.assert_allclose(found.epistemic, [math.log(2), 0], atol=1e-15)
    np.testing.assert_allclose(found.aleatoric, [0, math.log(2)], atol=1e-15)
    np.testing.assert_allclose(found.probability, 0.5)


def test_an_absent_class_changes_nothing() -> None:
    p = drawn(0, 6, 3)
    wide = np.insert(p, 1, 0.0, axis=-1)
    assert mutual_information(wide) == pytest.approx(mutual_information(p))
    assert expected_entropy(wide) == pytest.approx(expected_entropy(p))
    low, high = credible_interval(wide)
    assert low[1] == high[1] == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), samples=st.integers(1, 40))
def test_nothing_is_negative_and_the_interval_contains_the_probability(seed: int, samples: int) -> None:
    found = uncertainty(drawn(seed, 4, samples, 5, sharpness=30.0).astype(np.float32))
    assert (found.epistemic >= 0).all()
    assert (found.aleatoric >= 0).all()
    assert (found.low <= found.probability).all()
    assert (found.probability <= found.high).all()
    assert (found.low >= 0).all()
    assert (found.high <= 1).all()


def test_the_interval_leaves_out_a_fortieth_of_the_samples_at_each_end() -> None:
    first = np.linspace(0, 1, 1001)
    p = np.stack([first, 1 - first], -1)
    low, high = credible_interval(np.random.default_rng(0).permutation(p))
    np.testing.assert_allclose(low, 0.025, atol=1e-12)
    np.testing.assert_allclose(high, 0.975, atol=1e-12)


def test_the_interval_is_widened_to_a_mean_that_a_few_samples_pull_away() -> None:
    first = np.array([0.01] * 99 + [0.99])
    low, high = credible_interval(np.stack([first, 1 - first], -1))
    assert high[0] == pytest.approx(first.mean())
    assert low[1] == pytest.approx(1 - first.mean())


def test_a_single_sample_has_no_epistemic_part_and_no_width() -> None:
    p = drawn(1, 2, 1, 3)
    found = uncertainty(p)
    assert (found.epistemic == 0).all()
    np.testing.assert_array_equal(found.low, p[:, 0])
    np.testing.assert_array_equal(found.high, p[:, 0])


@pytest.mark.parametrize(
    "wrong", [[0.5, 0.5], [[0.5, 0.6]], [[1.5, -0.5]], [[math.nan, 1.0]], np.empty((0, 2))], ids=str
)
def test_what_is_no_probability_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        uncertainty(wrong)  # type: ignore[arg-type]


def test_a_level_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"95"):
        credible_interval(drawn(2, 3, 2), level=95)
