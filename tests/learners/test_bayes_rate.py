"""Heads without meta-training reach the accuracy of Bayes' rule where that rule is known and they can express it.

The rule knows the true centres; a head sees 200 cases of each class. Both answer the same queries. MANN and Meta-LSTM
have families of tasks of their own (``test_bayes_rate_learned.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from meta_dx.episodes.episode import Episode
from meta_dx.learners.base import Head
from meta_dx.learners.baselines import Logistic, SimpleShot
from meta_dx.learners.cosine_classifier import CosineClassifier
from meta_dx.learners.prototypical import Prototypical
from meta_dx.learners.ridge import Ridge

TASKS, WAYS, SIZE, SHOTS, QUERIES = 40, 4, 6, 200, 75
CHANCE = 1 / WAYS
#: What is allowed between a head and Bayes' rule, and how far below it a broken head must be.
NEAR, FAR = 0.01, 0.03
#: Where the directions start: far enough from the origin that a head which does not centre is wrong.
BASE = torch.linspace(-6.0, 6.0, SIZE)


@dataclass(frozen=True)
class Task:
    """Episodes, and what Bayes' rule answers to their queries (E, Q)."""

    episode: Episode
    rule: Tensor

    @property
    def bayes(self) -> float:
        """Accuracy of the rule."""
        return share(self.rule == self.episode.query_y)


def share(right: Tensor) -> float:
    return float(right.double().mean())


def accuracy(head: Head, episode: Episode) -> float:
    with torch.no_grad():
        logits = head.double().eval().predict(head.adapt(episode.support), episode.query).logits[:, 0]
    return share(logits.argmax(-1) == episode.query_y)


def episode_of(draw: Callable[[Tensor], Tensor], shots: int) -> Episode:
    """Build episodes from a function that draws an example (E, rows, D) for each label (E, rows)."""
    made: list[Tensor] = []
    for rows in (shots, QUERIES):
        y = torch.arange(WAYS).repeat_interleave(rows).expand(TASKS, -1)
        made += [draw(y), y, torch.ones(y.shape, dtype=torch.bool)]
    return Episode(*made, torch.ones(TASKS, WAYS, dtype=torch.bool))


def chosen(centres: Tensor, y: Tensor) -> Tensor:
    return centres.gather(1, y.unsqueeze(-1).expand(-1, -1, centres.shape[-1]))


def round_classes(seed: int, shots: int = SHOTS) -> Task:
    """Unit isotropic Gaussians around random centres: the nearest centre is Bayes' rule."""
    g = torch.Generator().manual_seed(seed)
    centres = 0.8 * torch.randn(TASKS, WAYS, SIZE, generator=g, dtype=torch.float64)

    def draw(y: Tensor) -> Tensor:
        return chosen(centres, y) + torch.randn(*y.shape, SIZE, generator=g, dtype=torch.float64)

    episode = episode_of(draw, shots)
    return Task(episode, torch.cdist(episode.query_x, centres).argmin(-1))


def directions(seed: int, shots: int = SHOTS) -> Task:
    """Isotropic noise around orthogonal directions, stretched by a length that tells nothing, about ``BASE``.

    All centres are of length one, so the largest inner product with a centre is Bayes' rule whatever the length is.
    """
    g = torch.Generator().manual_seed(seed)
    centres = torch.linalg.qr(torch.randn(TASKS, SIZE, SIZE, generator=g, dtype=torch.float64))[0][:, :WAYS]

    def draw(y: Tensor) -> Tensor:
        noise = 0.5 * torch.randn(*y.shape, SIZE, generator=g, dtype=torch.float64)
        length = 0.5 + 3 * torch.rand(*y.shape, 1, generator=g, dtype=torch.float64)
        return BASE + length * (chosen(centres, y) + noise)

    episode = episode_of(draw, shots)
    return Task(episode, ((episode.query_x - BASE) @ centres.transpose(1, 2)).argmax(-1))


def long_classes(seed: int, shots: int = SHOTS) -> Task:
    """Gaussians of one covariance that is far from round: Bayes' rule is linear, but not the nearest centre.

    The last feature is always 10: scaling to unit length then loses little, and a scale of 10 undoes it.
    """
    g = torch.Generator().manual_seed(seed)
    size = SIZE - 1
    centres = torch.randn(TASKS, WAYS, size, generator=g, dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(TASKS, size, size, generator=g, dtype=torch.float64))[0]
    root = turned * torch.tensor([2.5, 1.5, 1.0, 0.6, 0.4], dtype=torch.float64)  # covariance is root rootᵀ

    def draw(y: Tensor) -> Tensor:
        noise = torch.randn(*y.shape, size, generator=g, dtype=torch.float64) @ root.transpose(1, 2)
        return torch.cat([chosen(centres, y) + noise, torch.full((*y.shape, 1), 10.0).double()], -1)

    episode = episode_of(draw, shots)
    whitened = [x @ torch.linalg.inv(root).transpose(1, 2) for x in (episode.query_x[..., :size], centres)]
    return Task(episode, torch.cdist(*whitened).argmin(-1))


def mislabelled(task: Task) -> Episode:
    """Return the episodes with the labels of their support rows shuffled."""
    order = torch.rand(TASKS, WAYS * SHOTS, generator=torch.Generator().manual_seed(0)).argsort(-1)
    return replace(task.episode, support_y=task.episode.support_y.gather(1, order))


CASES = [
    pytest.param(round_classes, lambda: Prototypical(SIZE), id="prototypical"),
    pytest.param(directions, lambda: SimpleShot(SIZE, BASE), id="simpleshot"),
    pytest.param(directions, lambda: Ridge(SIZE, BASE), id="ridge"),
    pytest.param(directions, lambda: CosineClassifier(SIZE, BASE), id="cosine"),
    pytest.param(directions, lambda: Logistic(SIZE, BASE), id="logistic"),
    pytest.param(long_classes, lambda: Logistic(SIZE, scale=10.0), id="logistic-long"),
]


@pytest.mark.parametrize(("drawn", "head"), CASES)
def test_many_cases_bring_a_head_to_the_bayes_rate(
    drawn: Callable[..., Task], head: Callable[[], Head]
) -> None:
    task = drawn(0)
    assert CHANCE + 0.3 < task.bayes < 0.95  # neither hopeless nor easy
    assert abs(accuracy(head(), task.episode) - task.bayes) < NEAR
    one = drawn(1, shots=1)
    assert accuracy(head(), one.episode) < one.bayes - FAR
    assert abs(accuracy(head(), mislabelled(task)) - CHANCE) < FAR


@pytest.mark.parametrize("kind", [SimpleShot, Ridge, CosineClassifier, Logistic])
def test_without_the_base_mean_directions_are_read_wrongly(kind: type[Head]) -> None:
    task = directions(0)
    assert accuracy(kind(SIZE), task.episode) < task.bayes - FAR


def test_the_nearest_centre_does_not_reach_the_rate_of_long_classes() -> None:
    task = long_classes(0)
    assert accuracy(Prototypical(SIZE), task.episode) < task.bayes - FAR
