"""Training runs by the papers' protocols on Omniglot: what a step does, and how test tasks are answered.

Everything that a step sees is a function of the seed and the step's number, so that a run that is stopped and resumed
is the same run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.reproduction.omniglot import Omniglot
from meta_dx.backbones import BackboneOptions, build_encoder
from meta_dx.backbones.encoder import Encoder
from meta_dx.episodes.episode import Episode
from meta_dx.learners.base import Grads, Metrics
from meta_dx.learners.body_options import MamlOptions, ReptileOptions
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.maml import Maml
from meta_dx.learners.mann import Mann, accuracy_by_presentation, sequence_loss
from meta_dx.learners.prototypical import Prototypical
from meta_dx.learners.reptile import Reptile

TEST_QUERIES = 15


@dataclass(frozen=True)
class Figure:
    """One figure of a paper: accuracy in percent and its half interval, None where none is published.

    ``presentation`` is for sequences: accuracy at the k-th time that a class is shown. ``mode`` says how queries are
    answered, where one training run is tested in several ways.
    """

    ways: int
    shots: int
    accuracy: float | None
    half: float | None = None
    presentation: int = 0
    mode: str = ""

    @property
    def task(self) -> str:
        """Name of the task."""
        if self.presentation:
            return f"{self.ways} classes, presentation {self.presentation}"
        return f"{self.ways}-way {self.shots}-shot"


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
    device = torch.device("cpu")

    def __init__(self, data: Omniglot, seed: int) -> None:
        self.data, self.seed = data, seed
        torch.manual_seed(seed)

    def rng(self, step: int) -> np.random.Generator:
        """Return the generator of a step's episodes."""
        return np.random.default_rng([self.seed, step])

    def to(self, device: torch.device) -> Self:
        """Move modules and optimizer to a device, and all episodes from now on; returns the run."""
        self.device = device
        for module in self.modules.values():
            module.to(device)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # which puts it where the parameters are
        return self

    @abstractmethod
    def step(self, step: int, steps: int) -> Mapping[str, float]:
        """Make one meta-step of so many; returns ``loss`` and ``accuracy`` of its training episodes."""

    @abstractmethod
    def right(
        self, classes: Omniglot, figures: Sequence[Figure], rng: np.random.Generator, tasks: int
    ) -> npt.NDArray[np.float32]:
        """Draw test tasks and return the share of right answers in each, shape (figures, tasks).

        All figures are of the same ways and shots, and are measured on the same tasks.
        """


class EpisodicRun(Run):
    """A run that is tested on few-shot episodes."""

    def right(
        self, classes: Omniglot, figures: Sequence[Figure], rng: np.random.Generator, tasks: int
    ) -> npt.NDArray[np.float32]:
        """Draw episodes and compare the answers with the labels."""
        ways, shots = figures[0].ways, figures[0].shots
        episode = classes.episode(rng, tasks, ways, shots, TEST_QUERIES).to(self.device)
        right = [self.answer(episode, figure) == episode.query_y for figure in figures]
        return torch.stack(right).float().mean(-1).cpu().numpy()

    @abstractmethod
    def answer(self, episode: Episode, figure: Figure) -> torch.Tensor:
        """Return the class named for each query, shape (E, Q)."""


class PrototypicalRun(EpisodicRun):
    """Snell 2017, section 3.1: 60-way training episodes of the test's shots, 5 queries a class, Adam.

    Parameters
    ----------
    data : Omniglot
        Training classes.
    seed : int
        Seed of weights and episodes.
    shots : int
        Of a training episode, as of a test's.
    halved_every : int
        Steps after which the learning rate is halved; the paper's are 2000.
    bf16 : bool
        Train the encoder in bfloat16 mixed precision; tests are always in 32 bit.
    """

    ways, queries = 60, 5

    def __init__(
        self, data: Omniglot, seed: int, shots: int, *, halved_every: int = 2000, bf16: bool = False
    ) -> None:
        super().__init__(data, seed)
        self.shots, self.halved_every, self.bf16 = shots, halved_every, bf16
        self.encoder = _encoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = Prototypical(self.encoder.embedding_size, learned_scale=False)
        self.modules = {"encoder": self.encoder, "head": self.head}
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), lr=1e-3)

    def step(self, step: int, steps: int) -> Mapping[str, float]:
        """One episode."""
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 ** (step // self.halved_every)
        episode = self.data.episode(self.rng(step), 1, self.ways, self.shots, self.queries).to(self.device)
        self.encoder.train()
        loss, metrics = self.head.loss(self._embedded(episode))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {name: float(value) for name, value in metrics.items()}

    def answer(self, episode: Episode, figure: Figure) -> torch.Tensor:
        """Answer in evaluation mode: every picture is embedded by itself."""
        self.encoder.eval()
        with torch.inference_mode():
            embedded = self._embedded(episode)
            found = self.head.predict(self.head.adapt(embedded.support), embedded.query).probabilities()
        return found.argmax(-1)

    def _embedded(self, episode: Episode) -> Episode:
        tasks, support = episode.support_y.shape
        pictures = torch.cat([episode.support_x.flatten(0, 1), episode.query_x.flatten(0, 1)])
        # Distances between embeddings are always taken in 32 bit.
        with torch.autocast(
            pictures.device.type, torch.bfloat16, enabled=self.bf16 and self.encoder.training
        ):
            embedded = self.encoder(pictures.contiguous(memory_format=torch.channels_last)).float()
        return episode.with_x(
            embedded[: tasks * support].unflatten(0, (tasks, support)),
            embedded[tasks * support :].unflatten(0, (tasks, -1)),
        )


class MamlRun(EpisodicRun):
    """Finn 2017, section 5.2 and appendix A.1: transductive batch norm, as many training queries as shots."""

    def __init__(self, data: Omniglot, seed: int, ways: int, shots: int, batch_norm: str) -> None:
        super().__init__(data, seed)
        self.ways, self.shots = ways, shots
        few = ways == 5
        self.tasks = 32 if few else 16
        options = MamlOptions(
            inner_rate=0.4 if few else 0.1,
            steps=1 if few else 5,
            test_steps=3 if few else 5,
            batch_norm=batch_norm,  # type: ignore[arg-type] # one of its modes
        )
        encoder = _encoder()
        self.learner = Maml(Classifier(encoder, encoder.embedding_size, ways), options)
        self.modules = {"learner": self.learner}
        self.optimizer = torch.optim.Adam(self.learner.parameters(), lr=1e-3)

    def step(self, step: int, steps: int) -> Mapping[str, float]:
        """One meta-batch."""
        episode = self.data.episode(self.rng(step), self.tasks, self.ways, self.shots, self.shots).to(
            self.device
        )
        return _applied(self.learner, self.learner.train().meta_gradients(episode), self.optimizer)

    def answer(self, episode: Episode, figure: Figure) -> torch.Tensor:
        """Adapt to each task and answer its queries."""
        learner = self.learner.eval()
        return learner.predict(learner.adapt(episode.support), episode.query).probabilities().argmax(-1)


class ReptileRun(EpisodicRun):
    """Nichol 2018, table of Omniglot hyper-parameters: 5 tasks, outer rate from 1 to 0."""

    tasks = 5

    def __init__(self, data: Omniglot, seed: int, ways: int) -> None:
        super().__init__(data, seed)
        self.ways = ways
        few = ways == 5
        self.options = ReptileOptions(
            inner_rate=1e-3 if few else 5e-4,
            inner_batch=10 if few else 20,
            steps=5 if few else 10,
            test_batch=5 if few else 10,
        )
        encoder = _encoder()
        self.learner = Reptile(Classifier(encoder, encoder.embedding_size, ways), ways, self.options)
        self.modules = {"learner": self.learner}
        self.optimizer = torch.optim.SGD(self.learner.parameters(), lr=1.0)

    def step(self, step: int, steps: int) -> Mapping[str, float]:
        """One meta-batch of tasks without a query set."""
        for group in self.optimizer.param_groups:
            group["lr"] = 1 - step / steps
        half = self.options.train_shots // 2  # support and query rows are used alike
        episode = self.data.episode(self.rng(step), self.tasks, self.ways, half, half).to(self.device)
        drawn = torch.Generator().manual_seed(int(self.rng(step).integers(2**62)))
        found = self.learner.train().meta_gradients(episode, generator=drawn)
        return _applied(self.learner, found, self.optimizer)

    def answer(self, episode: Episode, figure: Figure) -> torch.Tensor:
        """Adapt to each task; queries together, or each with the support set alone."""
        learner = self.learner.eval()
        learner.options = replace(self.options, transductive=figure.mode == TRANSDUCTIVE)
        return learner.predict(learner.adapt(episode.support), episode.query).probabilities().argmax(-1)


class MannRun(Run):
    """Santoro 2016, section 4: sequences of 50 (5 classes, 10 drawings each), 16 at once.

    The paper does not give the optimiser's settings in a form that we have; Adam at 1e-3, length of the gradient at
    most 10.
    """

    ways, each, batch = 5, 10, 16

    def __init__(self, data: Omniglot, seed: int) -> None:
        super().__init__(data, seed)
        self.learner = Mann(data.drawings.shape[-1] ** 2, self.ways)
        self.modules = {"learner": self.learner}
        self.optimizer = torch.optim.Adam(self.learner.parameters(), lr=1e-3)

    def step(self, step: int, steps: int) -> Mapping[str, float]:
        """One batch of sequences."""
        x, onehot = self._sequences(self.data, self.rng(step), self.batch)
        logits = self.learner.run_sequence(x, onehot)
        loss = sequence_loss(logits, onehot)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 10.0)
        self.optimizer.step()
        right = (logits.argmax(-1) == onehot.argmax(-1)).float().mean()
        return {"loss": float(loss.detach()), "accuracy": float(right)}

    def right(
        self, classes: Omniglot, figures: Sequence[Figure], rng: np.random.Generator, tasks: int
    ) -> npt.NDArray[np.float32]:
        """Return in each sequence the share of classes that are right at each figure's presentation."""
        x, onehot = self._sequences(classes, rng, tasks)
        with torch.inference_mode():
            logits = self.learner.eval().run_sequence(x, onehot)
        found = [accuracy_by_presentation(logits[e : e + 1], onehot[e : e + 1]) for e in range(tasks)]
        chosen = [figure.presentation - 1 for figure in figures]
        return torch.stack(found, 1)[chosen].float().cpu().numpy()

    def _sequences(
        self, classes: Omniglot, rng: np.random.Generator, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        episode = classes.episode(rng, count, self.ways, self.each, 0)
        order = torch.from_numpy(rng.permuted(np.tile(np.arange(self.ways * self.each), (count, 1)), axis=1))
        x = episode.support_x.flatten(2) / 255  # (E, T, D)
        x = x.gather(1, order.unsqueeze(-1).expand_as(x))
        onehot = nn.functional.one_hot(episode.support_y.gather(1, order), self.ways).float()
        return x.to(self.device), onehot.to(self.device)


def _encoder() -> Encoder:
    encoder = build_encoder(BackboneOptions(name="conv4"), 1)
    encoder.set_normalisation(torch.zeros(1), torch.full((1,), 255.0))
    return encoder


def _applied(
    learner: nn.Module, found: tuple[Grads, Metrics], optimizer: torch.optim.Optimizer
) -> Mapping[str, float]:
    for name, parameter in learner.named_parameters():
        parameter.grad = found[0][name]
    optimizer.step()
    return {name: float(value) for name, value in found[1].items()}


TRANSDUCTIVE, INDUCTIVE = "transductive", "one query at a time"
