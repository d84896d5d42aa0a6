"""The papers' protocols on Omniglot, one recipe a training run, and what the papers report.

A recipe makes a :class:`Run`: what a step does, and how test episodes are answered. Everything that a step sees
is a function of the seed and the step's number, so that a run that is stopped and resumed is the same run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.reproduction.omniglot import Omniglot
from meta_dx.backbones import BackboneOptions, build_encoder
from meta_dx.episodes.episode import Episode
from meta_dx.learners.prototypical import Prototypical

TEST_QUERIES = 15


@dataclass(frozen=True)
class Figure:
    """One figure of a paper: accuracy in percent and its half interval, None where none is published."""

    ways: int
    shots: int
    accuracy: float | None
    half: float | None = None


class Run(ABC):
    """A training run of one recipe.

    Parameters
    ----------
    data : Omniglot
        Training classes.
    seed : int
        Seed of weights and episodes.
    """

    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer

    def __init__(self, data: Omniglot, seed: int) -> None:
        self.data, self.seed = data, seed

    def rng(self, step: int) -> np.random.Generator:
        """Return the generator of a step's episodes."""
        return np.random.default_rng([self.seed, step])

    @abstractmethod
    def step(self, step: int) -> Mapping[str, float]:
        """Make one meta-step; returns ``loss`` and ``accuracy`` of its training episodes."""

    @abstractmethod
    def correct(self, episode: Episode) -> npt.NDArray[np.float32]:
        """Return the share of right answers in each of E test tasks, shape (E,)."""


@dataclass(frozen=True)
class Recipe:
    """A paper's protocol.

    Parameters
    ----------
    name : str
        Of the run.
    method, mode : str
        As they stand in the table.
    figures : tuple of Figure
        What is tested, and what the paper reports.
    iterations : int or None
        Of the paper; None where it trains until validation stops improving.
    make : callable
        From training classes and seed to the run.
    side : int
        Pixels.
    """

    name: str
    method: str
    mode: str
    figures: tuple[Figure, ...]
    iterations: int | None
    make: Callable[[Omniglot, int], Run]
    side: int = 28


class PrototypicalRun(Run):
    """Snell 2017, section 3.1: 60-way training episodes of the test's shots, 5 queries a class, Adam."""

    ways, queries = 60, 5

    def __init__(self, data: Omniglot, seed: int, shots: int) -> None:
        super().__init__(data, seed)
        self.shots = shots
        torch.manual_seed(seed)
        encoder = build_encoder(BackboneOptions(name="conv4"), 1)
        encoder.set_normalisation(torch.zeros(1), torch.full((1,), 255.0))
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = Prototypical(encoder.embedding_size, learned_scale=False)
        self.modules = {"encoder": self.encoder, "head": self.head}
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), lr=1e-3)

    def step(self, step: int) -> Mapping[str, float]:
        """One episode; the learning rate is halved every 2000."""
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 ** (step // 2000)
        episode = self.data.episode(self.rng(step), 1, self.ways, self.shots, self.queries)
        self.encoder.train()
        loss, metrics = self.head.loss(self._embedded(episode))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {name: float(value) for name, value in metrics.items()}

    def correct(self, episode: Episode) -> npt.NDArray[np.float32]:
        """Answer in evaluation mode: every picture is embedded by itself."""
        self.encoder.eval()
        with torch.inference_mode():
            embedded = self._embedded(episode)
            answer = self.head.predict(self.head.adapt(embedded.support), embedded.query).probabilities()
        return (answer.argmax(-1) == episode.query_y).float().mean(1).numpy()

    def _embedded(self, episode: Episode) -> Episode:
        tasks, support = episode.support_y.shape
        pictures = torch.cat([episode.support_x.flatten(0, 1), episode.query_x.flatten(0, 1)])
        embedded = self.encoder(pictures.contiguous(memory_format=torch.channels_last))
        return episode.with_x(
            embedded[: tasks * support].unflatten(0, (tasks, support)),
            embedded[tasks * support :].unflatten(0, (tasks, -1)),
        )


def _prototypical(shots: int, figures: tuple[Figure, ...]) -> Recipe:
    return Recipe(
        name=f"prototypical-{shots}shot",
        method="Prototypical Networks",
        mode="inductive; stored batch statistics",
        figures=figures,
        iterations=None,
        make=lambda data, seed: PrototypicalRun(data, seed, shots),
    )


#: By name, in the order of the page.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _prototypical(1, (Figure(5, 1, 98.8), Figure(20, 1, 96.0))),
        _prototypical(5, (Figure(5, 5, 99.7), Figure(20, 5, 98.9))),
    )
}
