"""Learners that adapt the weights of a whole network: what MAML, Reptile and Meta-LSTM have in common.

The network maps examples to N logits: an encoder with a classifier on images, or a linear layer on cached
embeddings. Tasks are answered one by one, each without its padding, so that batch statistics and the number
of rows are those of the task; a learner may override :meth:`BodyLearner.meta_gradients` to batch over tasks
on a GPU. The adapted weights are the ``State``: too large to live in a bundle, so these learners are for
comparison.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from meta_dx.episodes.episode import Episode, Query, Support
from meta_dx.errors import MetaDxError
from meta_dx.learners.adapted import fixed_network
from meta_dx.learners.base import Capabilities, Grads, Metrics, Prediction, State
from meta_dx.learners.batch_norm import Statistics, unpack


@dataclass(frozen=True)
class Task:
    """One task of an episode without its padding: images or embeddings and their classes.

    Parameters
    ----------
    support_x, query_x : Tensor, shape (S, …) and (Q, …)
        Examples.
    support_y, query_y : Tensor, shape (S,) and (Q,), int64
        Classes 0 … N-1.
    ways : int
        N.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    ways: int


class BodyLearner(nn.Module, ABC):
    """A learner over images (or embeddings) that adapts a network's weights.

    Parameters
    ----------
    network : nn.Module
        Maps examples (B, …) to logits (B, N).
    ways : int or None
        N of the network's last layer; None where the learner builds that layer from the support set.
    """

    capabilities: Capabilities = Capabilities(
        fixed_ways=True, order_invariant=True, label_equivariant=False, serves_from_state=False
    )

    #: Weight decay of meta-training.
    weight_decay: float = 0.0
    #: The option, as it is written in ``cohort.toml``, that makes the learner transductive.
    transductive_option: str = 'batch_norm = "batch"'

    def __init__(self, network: nn.Module, ways: int | None) -> None:
        super().__init__()
        self.network = network
        self.ways = ways
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the network stays in evaluation mode, so that it draws nothing at random."""
        super().train(mode)
        self.network.eval()
        return self

    @abstractmethod
    def adapt_task(self, support_x: Tensor, support_y: Tensor, ways: int) -> State:
        """Adapt to one support set, with gradients enabled; pure: the learner does not change.

        Parameters
        ----------
        support_x : Tensor, shape (S, …)
            Examples.
        support_y : Tensor, shape (S,), int64
            Their classes.
        ways : int
            N.

        Returns
        -------
        State
            Everything that :meth:`predict_task` needs, without a leading axis.
        """

    @abstractmethod
    def predict_task(self, state: State, query_x: Tensor) -> Tensor:
        """Score queries (Q, …) of one task from its adapted state: logits (Q, N)."""

    @abstractmethod
    def task_gradients(
        self,
        task: Task,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return the meta-gradient of one task and its ``loss`` and ``accuracy``, detached scalars."""

    def adapt(self, support: Support, *, noise: Tensor | None = None) -> State:
        """Adapt to each support set of a batch; pure: the learner does not change.

        Returns
        -------
        State
            Detached, each tensor with leading axis E.

        Raises
        ------
        MetaDxError
            ``other_ways`` when an episode does not have the N that the learner was built for.
        """
        states = []
        for e, ways in enumerate(self._ways_of(support.class_mask)):
            real = support.mask[e]
            with torch.inference_mode(False), torch.enable_grad():
                # A clone: what was made under inference_mode cannot be differentiated.
                state = self.adapt_task(support.x[e][real].clone(), support.y[e][real].clone(), ways)
            states.append({name: value.detach() for name, value in state.items()})
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def predict(self, state: State, query: Query, *, noise: Tensor | None = None) -> Prediction:
        """Predict queries from adapted states: logits (E, 1, Q, N), zero in padded rows."""
        answers = []
        for e, real in enumerate(query.mask):
            with torch.no_grad():
                found = self.predict_task({name: value[e] for name, value in state.items()}, query.x[e][real])
            padded = found.new_zeros(len(real), found.shape[1])
            padded[real] = found
            answers.append(padded)
        return Prediction(torch.stack(answers).unsqueeze(1))

    def adapted_network(self, state: State) -> nn.Module:
        """Return the adapted network by itself: examples (B, …) to logits (B, N), each answered alone.

        Parameters
        ----------
        state : State
            Of one task, as :meth:`predict_task` takes it.

        Returns
        -------
        nn.Module
            In evaluation mode; it shares nothing with the learner.

        Raises
        ------
        MetaDxError
            ``transductive`` where queries influence one another: no network by itself answers like that.
        """
        if self.capabilities.transductive:
            raise MetaDxError(
                "transductive",
                f"{type(self).__name__} was trained with {self.transductive_option}, where all queries are answered "
                "together, so no network answers a picture by itself: change that option and train again.",
            )
        return fixed_network(self.network, *self._settled(state))

    def _settled(self, state: State) -> tuple[State, Statistics | None]:
        """Return the adapted weights by their names in the network, and what batch norm normalises with."""
        return {n: v for n, v in state.items() if not n.startswith(("mean/", "var/"))}, unpack(state)

    def meta_gradients(
        self,
        episode: Episode,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return the mean of the tasks' meta-gradients; the training loop reduces and applies them.

        Parameters
        ----------
        episode : Episode
            Tasks, padded.
        parameters : mapping of str to Parameter, optional
            What to differentiate by, under the names of the answer; all of the learner's own by default.
        generator : torch.Generator, optional
            Source of randomness on the CPU, for learners that need one.

        Returns
        -------
        gradients : dict of str to Tensor
            Under the names in ``parameters``.
        metrics : dict of str to Tensor
            ``loss`` (nats) and ``accuracy`` of the real queries, mean over tasks, detached scalars.
        """
        found = [
            self.task_gradients(task, parameters=parameters, generator=generator)
            for task in self.tasks(episode)
        ]
        count = len(found)
        gradients = {name: sum(g[name] for g, _ in found) / count for name in found[0][0]}
        metrics = {name: sum(m[name] for _, m in found) / count for name in found[0][1]}
        return gradients, metrics  # type: ignore[return-value] # sums of tensors start from 0

    def tasks(self, episode: Episode) -> list[Task]:
        """Take an episode apart into its E tasks, without padding.

        Raises
        ------
        MetaDxError
            ``other_ways``.
        """
        return [
            Task(
                episode.support_x[e][episode.support_mask[e]],
                episode.support_y[e][episode.support_mask[e]],
                episode.query_x[e][episode.query_mask[e]],
                episode.query_y[e][episode.query_mask[e]],
                ways,
            )
            for e, ways in enumerate(self._ways_of(episode.class_mask))
        ]

    def _ways_of(self, class_mask: Tensor) -> list[int]:
        """Return N of each task, padded ways included; where N is fixed, another N or padding is refused."""
        width = class_mask.shape[1]
        counts = class_mask.sum(1).tolist()
        if self.capabilities.fixed_ways and any(count != self.ways for count in (*counts, width)):
            raise MetaDxError(
                "other_ways",
                f"{type(self).__name__} was built for {self.ways} classes; an episode has {min(counts)}: train one for "
                "that number, or choose a learner that accepts any (prototypical, proto_maml, anp).",
            )
        return [width] * len(counts)
