"""The logistic solver against scikit-learn, which finds the same minimum by another road."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from meta_dx.learners.softmax_regression import fit_softmax_regression

Arrays = tuple[np.ndarray, np.ndarray]


def features(seed: int, counts: list[int], size: int, *, spread: float = 1.0, scale: float = 3.0) -> Arrays:
    """Clusters with a falling spectrum, as embeddings have, at the length that the head gives them."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, size + 1) ** -0.7
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.normal(size=(len(counts), size)) * spectrum
    x = centres[labels] + spread * rng.normal(size=(len(labels), size)) * spectrum
    return scale * x / np.linalg.norm(x, axis=1, keepdims=True), labels


def ours(x: np.ndarray, labels: np.ndarray, query: np.ndarray, **options: object) -> np.ndarray:
    onehot = torch.nn.functional.one_hot(torch.from_numpy(labels)).float()[None]
    weight, bias = fit_softmax_regression(torch.from_numpy(x).float()[None], onehot, **options)  # type: ignore[arg-type]
    logits = torch.from_numpy(query).float() @ weight[0].T + bias[0]
    return logits.softmax(-1).numpy()


def theirs(x: np.ndarray, labels: np.ndarray, query: np.ndarray, *, c: float, balanced: bool) -> np.ndarray:
    model = LogisticRegression(
        C=c, tol=1e-10, max_iter=20000, class_weight="balanced" if balanced else None
    ).fit(x, labels)
    return np.asarray(model.predict_proba(query))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(1, 12), min_size=3, max_size=20).filter(lambda counts: sum(counts) <= 100),
    c=st.sampled_from([0.1, 1.0, 3.0]),
    balanced=st.booleans(),
)
def test_up_to_100_rows_agree_with_scikit_learn_to_1e4(
    seed: int, counts: list[int], c: float, balanced: bool
) -> None:
    x, labels = features(seed, counts, 64)
    query = np.concatenate([features(seed + 1, [5] * 4, 64)[0], x])
    expected = theirs(x, labels, query, c=c, balanced=balanced)
    np.testing.assert_allclose(ours(x, labels, query, c=c, balanced=balanced), expected, atol=1e-4)


@pytest.mark.parametrize("spread", [0.5, 1.5])
def test_1800_rows_of_100_diseases_agree_to_1e3(spread: float) -> None:
    x, labels = features(0, [18] * 100, 192, spread=spread)
    expected = theirs(x, labels, x, c=1.0, balanced=True)
    np.testing.assert_allclose(ours(x, labels, x), expected, atol=1e-3)


def test_uneven_support_of_many_rows_agrees() -> None:
    x, labels = features(1, [1, 40, 3, 90, 2, 7, 60, 1], 128, spread=0.7)
    for balanced in (True, False):
        expected = theirs(x, labels, x, c=1.0, balanced=balanced)
        np.testing.assert_allclose(ours(x, labels, x, balanced=balanced), expected, atol=1e-4)


def test_two_classes_are_scikit_learn_at_twice_c() -> None:
    x, labels = features(2, [9, 4], 32)
    expected = theirs(x, labels, x, c=2.0, balanced=True)
    np.testing.assert_allclose(ours(x, labels, x, c=1.0), expected, atol=1e-4)


def test_balanced_support_is_no_prior() -> None:
    # Features that say nothing: only the number of rows could.
    labels = np.array([0] * 9 + [1] * 2 + [2])
    x = np.zeros((12, 4))
    np.testing.assert_allclose(ours(x, labels, x[:1]), 1 / 3, atol=1e-5)
    np.testing.assert_allclose(ours(x, labels, x[:1], balanced=False)[0], [9 / 12, 2 / 12, 1 / 12], atol=1e-4)


def test_the_gradient_at_the_answer_is_zero_in_double_precision() -> None:
    x, labels = features(3, [3, 5, 2, 4], 16)
    data, target = torch.from_numpy(x), torch.from_numpy(labels)
    onehot = torch.nn.functional.one_hot(target).double()[None]
    weight, bias = (
        t[0].requires_grad_() for t in fit_softmax_regression(data[None], onehot, c=2.0, balanced=False)
    )
    logits = data @ weight.T + bias
    loss = (
        2.0 * torch.nn.functional.cross_entropy(logits, target, reduction="sum") + 0.5 * weight.square().sum()
    )
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 1e-4


def test_an_absent_class_and_padded_rows_change_nothing_for_the_others() -> None:
    x, labels = features(4, [3, 5, 2], 16)
    plain = (
        torch.from_numpy(x).float()[None],
        torch.nn.functional.one_hot(torch.from_numpy(labels)).float()[None],
    )
    padded_x = torch.cat([plain[0], torch.full((1, 4, 16), 50.0)], 1)
    padded_y = torch.zeros(1, 14, 4)
    padded_y[:, :10, [0, 1, 3]] = plain[1]  # class 2 is absent
    (weight, bias), (wide_weight, wide_bias) = (
        fit_softmax_regression(*plain),
        fit_softmax_regression(padded_x, padded_y),
    )
    torch.testing.assert_close(wide_weight[:, [0, 1, 3]], weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(wide_bias[:, [0, 1, 3]], bias, rtol=1e-4, atol=1e-4)
    assert (wide_weight[:, 2] == 0).all()


def test_one_class_and_no_row_at_all_give_finite_answers() -> None:
    weight, bias = fit_softmax_regression(
        torch.randn(2, 3, 5), torch.tensor([[[1.0], [1], [1]], [[0], [0], [0]]])
    )
    assert weight.isfinite().all()
    assert bias.isfinite().all()


def test_the_exported_loop_equals_the_eager_one() -> None:
    class Fit(torch.nn.Module):
        def forward(self, x: torch.Tensor, onehot: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return fit_softmax_regression(x, onehot, iterations=60)

    x, labels = features(5, [2, 3, 4], 8)
    inputs = (
        torch.from_numpy(x).float()[None],
        torch.nn.functional.one_hot(torch.from_numpy(labels)).float()[None],
    )
    exported = torch.export.export(Fit(), inputs)
    assert "scan" in str(exported.graph)
    for graph, eager in zip(exported.module()(*inputs), Fit()(*inputs), strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-4, atol=1e-4)


def test_a_task_that_converges_at_once_stays_put_while_harder_ones_go_on() -> None:
    """Two orthogonal rows are solved in a few steps; beyond there float32 once divided noise by noise."""
    generator = torch.Generator().manual_seed(3)
    easy = torch.nn.functional.normalize(torch.randn(40, 2, 64, generator=generator), dim=-1) * 3.0
    onehot = torch.eye(2).expand(40, 2, 2)
    for iterations in (20, 60, 250):
        weight, bias = fit_softmax_regression(easy, onehot, iterations=iterations)
        assert torch.isfinite(weight).all()
        assert torch.isfinite(bias).all()
    alone = torch.stack([fit_softmax_regression(easy[i : i + 1], onehot[i : i + 1])[0][0] for i in range(40)])
    torch.testing.assert_close(weight, alone, rtol=1e-4, atol=1e-5)
