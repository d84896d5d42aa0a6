"""The cosine classifier against a plain loop with autograd and a case worked by hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from meta_dx.learners.cosine_classifier import CosineClassifier
from tests.learners.episodes import only, random_episode
from tests.learners.exports import SHAPES, both_answers, exported

UNEVEN = [[1, 4, 2], [3, 3], [5, 1, 1, 2]]
MEAN = torch.linspace(-0.5, 0.7, 8)
tight = {"rtol": 1e-10, "atol": 1e-10}


def support_loss(x: Tensor, y: Tensor, weight: Tensor, scale: float) -> Tensor:
    cosine = cosine_similarity(x[:, None], weight[None], dim=-1)
    each = cross_entropy(scale * cosine, y, reduction="none")
    return torch.stack([each[y == n].mean() for n in range(len(weight))]).sum()


def plain_descent(x: Tensor, y: Tensor, ways: int, scale: float, steps: int, rate: float) -> Tensor:
    weight = normalize(torch.stack([x[y == n].mean(0) for n in range(ways)]), dim=-1).requires_grad_()
    for _ in range(steps):
        (slope,) = torch.autograd.grad(support_loss(x, y, weight, scale), weight)
        weight = (weight - rate * slope).detach().requires_grad_()
    return normalize(weight.detach(), dim=-1)


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_weights_are_those_of_gradient_descent_by_autograd_also_when_ragged(steps: int) -> None:
    episode = random_episode(0, shots=UNEVEN)
    filled = torch.where(episode.support_mask[..., None], episode.support_x, 1e3)
    head = CosineClassifier(8, MEAN, scale=7.0, steps=steps, rate=0.1).double()
    state = head.adapt_tensors(filled, episode.support.onehot())
    for e, counts in enumerate(UNEVEN):
        alone = only(episode, e)
        x = normalize(alone.support_x[0] - MEAN, dim=-1)
        expected = plain_descent(x, alone.support_y[0], len(counts), 7.0, steps, 0.1)
        torch.testing.assert_close(state["weight"][e, : len(counts)], expected, **tight)
        assert (state["weight"][e, len(counts) :] == 0).all()


def test_scores_are_scaled_cosines_whatever_the_lengths() -> None:
    episode = random_episode(1, shots=[[2, 3, 2]])
    head = CosineClassifier(8, scale=4.0).double()
    state = head.adapt(episode.support)
    expected = 4 * cosine_similarity(episode.query_x[:, :, None], state["weight"][:, None], dim=-1)
    torch.testing.assert_close(head.predict_tensors(state, 5 * episode.query_x)[:, 0], expected, **tight)


def test_two_opposite_cases_are_not_moved() -> None:
    # By hand: with x = ±e, w = ±e every slope lies along w, which the cosine does not see.
    head = CosineClassifier(2, scale=3.0)
    x = torch.tensor([[[2.0, 0.0], [-5.0, 0.0]]])
    state = head.adapt_tensors(x, torch.eye(2)[None])
    torch.testing.assert_close(state["weight"][0], torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    p = head.predict_tensors(state, torch.tensor([[[1.0, 1.0]]])).softmax(-1)[0, 0, 0]
    gap = 2 * 3 / np.sqrt(2)
    np.testing.assert_allclose(p, [1 / (1 + np.exp(-gap)), 1 / (1 + np.exp(gap))], rtol=1e-5)


def test_each_step_at_the_default_rate_lowers_the_support_loss() -> None:
    for seed in range(5):
        episode = random_episode(seed, shots=[[1, 5, 3, 2]], size=16)
        x, y = normalize(episode.support_x[0], dim=-1), episode.support_y[0]
        losses = [
            float(
                support_loss(
                    x, y, CosineClassifier(16, steps=steps).double().adapt(episode.support)["weight"][0], 10.0
                )
            )
            for steps in range(0, 101, 10)
        ]
        assert all(later < earlier for earlier, later in itertools.pairwise(losses))


def test_more_cases_of_one_class_do_not_outweigh_another() -> None:
    episode = random_episode(3, shots=[[2, 3, 1]])
    y = episode.support_y[0]
    rows = torch.cat([torch.arange(6), torch.where(y == 1)[0]])
    onehot = torch.nn.functional.one_hot(y[rows], 3).double()[None]
    head = CosineClassifier(8).double()
    torch.testing.assert_close(
        head.adapt_tensors(episode.support_x[:, rows], onehot)["weight"],
        head.adapt(episode.support)["weight"],
        **tight,
    )


def test_an_embedding_equal_to_the_base_mean_gives_no_nan() -> None:
    head = CosineClassifier(8)
    state = head.adapt_tensors(torch.zeros(1, 3, 8), torch.eye(3)[None])
    assert head.predict_tensors(state, torch.zeros(1, 2, 8)).isfinite().all()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return exported(CosineClassifier(16), 16, tmp_path_factory.mktemp("cosine"))


@pytest.mark.parametrize(("shots", "queries", "padded"), SHAPES)
def test_the_exported_graph_descends_as_torch_does(
    graphs: tuple[Path, Path], shots: list, queries: int, padded: int
) -> None:
    found, expected = both_answers(CosineClassifier(16), 16, graphs, shots, queries, padded)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.2
