"""Accuracy, top-k and AUROC against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, top_k_accuracy_score

from meta_dx.metrics.classification import (
    auroc,
    auroc_of_each,
    auroc_per_class,
    class_mean,
    class_mean_accuracy,
    hits,
    separation,
    top_k_accuracy,
)


def answers(seed: int, n: int = 60, ways: int = 5, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(ways), generator.integers(ways, size=n - ways)])
    scores = generator.gamma(1.0, size=(n, ways)) + 1.5 * np.eye(ways)[labels]
    probabilities = scores / scores.sum(1, keepdims=True)
    return (np.round(probabilities, 1) if ties else probabilities), labels


@given(st.integers(0, 10_000), st.integers(2, 7))
@settings(max_examples=25, deadline=None)
def test_accuracy_is_the_balanced_accuracy_of_scikit_learn(seed: int, ways: int) -> None:
    probabilities, labels = answers(seed, ways=ways)
    expected = balanced_accuracy_score(labels, probabilities.argmax(1))
    assert class_mean_accuracy(probabilities, labels) == pytest.approx(expected)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_top_k_hits_are_those_of_scikit_learn(seed: int, k: int) -> None:
    probabilities, labels = answers(seed)
    expected = top_k_accuracy_score(labels, probabilities, k=k, normalize=False)
    assert hits(probabilities, labels, k).sum() == pytest.approx(expected)


def test_every_class_weighs_the_same_however_many_queries_it_has() -> None:
    labels = np.array([0] * 98 + [1, 1])
    always_zero = np.tile([0.9, 0.1], (100, 1))
    assert class_mean_accuracy(always_zero, labels) == 0.5


def test_ties_are_worth_the_chance_of_a_random_order() -> None:
    uniform = np.full((4, 4), 0.25)
    labels = np.array([0, 1, 2, 3])
    assert hits(uniform, labels).tolist() == [0.25] * 4
    assert top_k_accuracy(uniform, labels, 3) == pytest.approx(0.75)
    assert top_k_accuracy(uniform, labels, 9) == 1.0


@given(st.integers(0, 10_000), st.booleans(), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_auroc_is_the_macro_one_against_rest_of_scikit_learn_with_and_without_ties(
    seed: int, ties: bool, ways: int
) -> None:
    probabilities, labels = answers(seed, ways=ways, ties=ties)
    expected = [roc_auc_score(labels == c, probabilities[:, c]) for c in range(ways)]
    assert auroc_per_class(probabilities, labels) == pytest.approx(expected)
    assert auroc(probabilities, labels) == pytest.approx(np.mean(expected))


def test_auroc_leaves_out_classes_that_do_not_occur() -> None:
    probabilities, labels = answers(3, ways=4)
    wider = np.hstack([probabilities, np.zeros((len(labels), 1))])
    assert auroc(wider, labels) == pytest.approx(auroc(probabilities, labels))
    assert np.isnan(auroc_per_class(wider, labels)[4])


def test_auroc_of_one_class_alone_is_not_a_number() -> None:
    assert np.isnan(auroc(np.full((3, 2), 0.5), [1, 1, 1]))


def test_the_share_of_each_query_averages_to_the_auroc_of_its_class() -> None:
    probabilities, labels = answers(5, ties=True)
    share = auroc_of_each(probabilities, labels)
    for c in range(5):
        assert share[labels == c].mean() == pytest.approx(roc_auc_score(labels == c, probabilities[:, c]))
    assert class_mean(share, labels) == pytest.approx(auroc(probabilities, labels))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_figures_do_not_change_when_classes_are_renumbered(seed: int) -> None:
    probabilities, labels = answers(seed, ties=True)
    order = np.random.default_rng(seed).permutation(5)
    renumbered, new_labels = probabilities[:, order], np.argsort(order)[labels]
    for figure in (class_mean_accuracy, auroc, lambda p, y: top_k_accuracy(p, y, 2)):
        assert figure(renumbered, new_labels) == pytest.approx(figure(probabilities, labels))


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.zeros((0, 3)), []),
        (np.zeros((2, 3)), [0]),
        (np.zeros((2, 3)), [0, 3]),
        (np.zeros((2, 3)), [0, -1]),
        (np.full((2, 3), np.nan), [0, 1]),
    ],
)
def test_answers_that_make_no_sense_are_refused(probabilities: np.ndarray, labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"labels|probabilities"):
        hits(probabilities, labels)


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_separation_is_the_weighted_auroc_with_ties(seed: int, n: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    score = random.integers(0, levels, n).astype(float)
    high, low = random.random(n) * (random.random(n) > 0.3), random.random(n) * (random.random(n) > 0.3)
    pairs = [
        (up * down, 1.0 if a > b else 0.5 if a == b else 0.0)
        for a, up in zip(score, high, strict=True)
        for b, down in zip(score, low, strict=True)
    ]
    total = sum(weight for weight, _ in pairs)
    found = separation(score, high, low)
    if total == 0:
        assert found is None
    else:
        assert found == pytest.approx(sum(weight * win for weight, win in pairs) / total)
