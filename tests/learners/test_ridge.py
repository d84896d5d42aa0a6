"""Ridge regression against the closed forms, primal and dual, and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge

from meta_dx.learners.ridge import STEPS, Ridge, fit_ridge
from tests.learners.episodes import only, random_episode
from tests.learners.exports import SHAPES, both_answers, exported
from tests.learners.test_logistic import features


def fitted(x: np.ndarray, labels: np.ndarray, **options: float) -> tuple[np.ndarray, np.ndarray]:
    onehot = torch.nn.functional.one_hot(torch.from_numpy(labels)).to(torch.from_numpy(x).dtype)
    weight, bias = fit_ridge(torch.from_numpy(x)[None], onehot[None], **options)  # type: ignore[arg-type]
    return weight[0].numpy(), bias[0].numpy()


def balance(labels: np.ndarray) -> np.ndarray:
    count = np.bincount(labels)
    return (len(labels) / (len(count) * count))[labels]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=8),
    size=st.sampled_from([3, 16, 60]),
    penalty=st.sampled_from([0.03, 1.0, 20.0]),
    balanced=st.booleans(),
)
@example(
    seed=112, counts=[2, 7, 8], size=16, penalty=0.03, balanced=True
)  # a residual that fell early, far away
def test_scikit_learn_finds_the_same_weights_and_intercept(
    seed: int, counts: list[int], size: int, penalty: float, balanced: bool
) -> None:
    x, labels = features(seed, counts, size)
    model = SklearnRidge(alpha=penalty, solver="cholesky")
    model.fit(x, np.eye(len(counts))[labels], balance(labels) if balanced else None)
    weight, bias = fitted(x, labels, penalty=penalty, balanced=balanced, steps=300)
    np.testing.assert_allclose(weight, model.coef_, atol=1e-5)
    np.testing.assert_allclose(bias, model.intercept_, atol=1e-5)


def test_with_fewer_rows_than_features_the_answer_is_the_dual_closed_form() -> None:
    x, labels = features(1, [3, 5, 1, 4], 200)
    w = balance(labels)
    y = np.eye(4)[labels]
    centred, target = x - np.average(x, 0, w), y - np.average(y, 0, w)
    root = np.sqrt(w)[:, None]
    kernel = (root * centred) @ (root * centred).T
    dual = (root * centred).T @ np.linalg.solve(kernel + 0.5 * np.eye(13), root * target)  # equation 6
    weight, bias = fitted(x, labels, penalty=0.5)
    np.testing.assert_allclose(weight, dual.T, atol=1e-6)
    np.testing.assert_allclose(bias, np.average(y, 0, w) - np.average(x, 0, w) @ dual, atol=1e-6)


def test_as_many_steps_as_rows_are_enough() -> None:
    x, labels = features(2, [2, 3, 2], 64)
    exact = fitted(x, labels, penalty=1e-3, steps=500)[0]
    np.testing.assert_allclose(fitted(x, labels, penalty=1e-3, steps=6)[0], exact, atol=1e-7)
    assert np.abs(fitted(x, labels, penalty=1e-3, steps=3)[0] - exact).max() > 1e-3


@pytest.mark.parametrize(
    ("counts", "size"), [([20] * 100, 640), ([400] * 5, 192), ([1, 700, 3, 1200, 90], 192)]
)
def test_two_thousand_rows_in_single_precision_have_the_scores_of_the_closed_form(
    counts: list[int], size: int
) -> None:
    x, labels = features(3, counts, size, scale=1.0)
    w, y = balance(labels), np.eye(len(counts))[labels]
    mean, level = np.average(x, 0, w), np.average(y, 0, w)
    centred = x - mean
    exact = np.linalg.solve(
        centred.T @ (w[:, None] * centred) + np.eye(size), centred.T @ (w[:, None] * (y - level))
    )
    weight, bias = fitted(x.astype(np.float32), labels)
    assert STEPS == 100
    np.testing.assert_allclose(x @ weight.T + bias, centred @ exact + level, atol=3e-5)


def test_balanced_support_is_no_prior() -> None:
    labels = np.array([0] * 9 + [1] * 2 + [2])
    nothing = np.zeros((12, 4))
    np.testing.assert_allclose(fitted(nothing, labels)[1], 1 / 3)
    np.testing.assert_allclose(fitted(nothing, labels, balanced=False)[1], [9 / 12, 2 / 12, 1 / 12])


def test_the_head_regresses_on_centred_unit_features_and_scales_the_scores() -> None:
    episode, mean = random_episode(4, shots=[[2, 5, 3]]), torch.arange(8.0) / 8
    head = Ridge(8, mean, penalty=0.7, scale=4.0).double()
    logits = head.predict(head.adapt(episode.support), episode.query).logits[0, 0]
    moved = [(x[0] - mean).numpy() for x in (episode.support_x, episode.query_x)]
    support, query = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in moved)
    labels = episode.support_y[0].numpy()
    model = SklearnRidge(alpha=0.7).fit(support, np.eye(3)[labels], balance(labels))
    np.testing.assert_allclose(logits, 4 * model.predict(query), atol=1e-5)


def test_ragged_episodes_and_absent_classes_are_answered_as_if_alone() -> None:
    episode = random_episode(5, shots=[[1, 4, 2], [3, 3], [5, 1, 1, 2]])
    head = Ridge(8).double()
    logits = head.predict(head.adapt(episode.support), episode.query).logits
    for e, ways in enumerate((3, 2, 4)):
        alone = only(episode, e)
        expected = head.predict(head.adapt(alone.support), alone.query).logits[0, 0]
        torch.testing.assert_close(logits[e, 0, : len(expected), :ways], expected, rtol=1e-6, atol=1e-6)
        assert (logits[e, 0, :, ways:] == -torch.inf).all()


def test_an_embedding_equal_to_the_base_mean_gives_no_nan() -> None:
    head = Ridge(8)
    state = head.adapt_tensors(torch.zeros(1, 3, 8), torch.eye(3)[None])
    assert head.predict_tensors(state, torch.zeros(1, 2, 8)).isfinite().all()


def test_a_penalty_that_leaves_the_answer_open_is_refused() -> None:
    with pytest.raises(ValueError, match="penalty"):
        Ridge(8, penalty=0.0)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return exported(Ridge(16), 16, tmp_path_factory.mktemp("ridge"))


@pytest.mark.parametrize(("shots", "queries", "padded"), SHAPES)
def test_the_exported_graph_fits_as_torch_does(
    graphs: tuple[Path, Path], shots: list, queries: int, padded: int
) -> None:
    found, expected = both_answers(Ridge(16), 16, graphs, shots, queries, padded)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.2
