"""Fine-tuning with augmentation: the plain transfer baseline, without meta-training.

Yunhui Guo, Noel C. Codella, Leonid Karlinsky, James V. Codella, John R. Smith, Kate Saenko, Tajana Rosing,
Rogerio Feris: *A Broader Study of Cross-Domain Few-Shot Learning*, ECCV 2020,
https://arxiv.org/abs/1912.07200 (section 4.2: on medical pictures fine-tuning was ahead of meta-learning).

A new linear classifier is put on the pre-trained encoder and trained on the support set, first alone, on the
embeddings of the support images and of some augmented views of them; then the whole network takes small steps
on freshly augmented images. Nothing is learned from one task for the next.

Departures: the classifier starts from zero, not at random, so that permuting the labels permutes the answer;
Adam with two rates in the place of stochastic descent with one; every class has the same total weight, so
that the number of confirmed cases at hand does not become a prior on the disease; batch norm keeps the
pre-training's statistics unless told otherwise (:mod:`meta_dx.learners.batch_norm`), while the authors'
network takes those of each batch and moves its own; whatever the network draws at random (dropout) is off.

Not reproduced on a benchmark of the paper. On the rare diseases of ``derm``, 5-way, 50 episodes, with 95 % intervals
(``docs/results.md``): 1-shot 51.3 (44.8–57.7), 5-shot 67.6 (57.9–77.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.func import functional_call

from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Capabilities, State
from meta_dx.learners.batch_norm import (
    EpisodicBatchNorm,
    Statistics,
    episodic_batch_norm,
    pack,
    statistics,
    unpack,
)
from meta_dx.learners.body import BodyLearner, Task
from meta_dx.learners.body_options import FineTuningOptions
from meta_dx.learners.classifier import Classifier

#: Changes images (B, …) without changing what they show, by a generator on their device.
Augment = Callable[[Tensor, torch.Generator], Tensor]
_ENCODER, _WEIGHT, _BIAS, _COUNT = "encoder/", "linear/weight", "linear/bias", "count"


class FineTuning(BodyLearner):
    """A linear classifier on the pre-trained encoder, then the whole network, fitted to the support set.

    Parameters
    ----------
    network : Classifier
        With ``ways=None`` and a pre-trained encoder. Its batch-norm layers are replaced in place: load weights
        before.
    options : FineTuningOptions, optional
        Steps, rates, batch norm.
    augment : callable, optional
        ``augment(images, generator)`` returns images of the same shape, float, in the same units. It is
        seeded by ``options.seed`` for each support set, so the same support set gives the same answer; the
        order of its rows decides which change falls on which image. Without it images stay as they are.
    """

    network: Classifier
    capabilities = Capabilities(order_invariant=False, serves_from_state=False)

    def __init__(
        self, network: Classifier, options: FineTuningOptions | None = None, augment: Augment | None = None
    ) -> None:
        episodic_batch_norm(network)
        super().__init__(network, None)
        self.options, self.augment = options or FineTuningOptions(), augment
        normalised = any(isinstance(module, EpisodicBatchNorm) for module in network.modules())
        self.capabilities = replace(
            self.capabilities, transductive=normalised and self.options.batch_norm == "batch"
        )

    def adapt_task(self, support_x: Tensor, support_y: Tensor, ways: int) -> State:
        """Fit the classifier, then everything.

        Parameters
        ----------
        support_x : Tensor, shape (S, …)
            Images, or embeddings where the encoder is the identity.
        support_y : Tensor, shape (S,), int64
            Their classes.
        ways : int
            N; a class without a row gets no probability.

        Returns
        -------
        State
            The adapted weights, ``encoder/<name>``, ``linear/weight`` (N, D) and ``linear/bias`` (N,),
            ``count`` (N,), and with ``batch_norm = "support"`` the support set's statistics,
            ``mean/<layer>`` and ``var/<layer>``.
        """
        generator = torch.Generator(support_x.device).manual_seed(self.options.seed)
        encoder = {name: p.detach().clone() for name, p in self.network.encoder.named_parameters()}
        count = torch.bincount(support_y, minlength=ways)
        weight, bias = self._fit_classifier(encoder, support_x, support_y, count, generator)
        self._fit_network(encoder, weight, bias, support_x, support_y, count, generator)
        seen: Statistics = {}
        if self.options.batch_norm == "support":
            with torch.no_grad(), statistics(self.network, record=seen):
                self._embed(encoder, support_x)
        named = {_ENCODER + name: value.detach() for name, value in encoder.items()}
        return {**named, _WEIGHT: weight.detach(), _BIAS: bias.detach(), _COUNT: count, **pack(seen)}

    def predict_task(self, state: State, query_x: Tensor) -> Tensor:
        """Score queries (Q, …) with the adapted weights: logits (Q, N), -inf for classes without support."""
        encoder = {n.removeprefix(_ENCODER): v for n, v in state.items() if n.startswith(_ENCODER)}
        use = unpack(state)
        mode = self._norm() if use is None else statistics(self.network, use=use)
        with mode:
            embedded = self._embed(encoder, query_x)
        return _logits(embedded, state[_WEIGHT], state[_BIAS], state[_COUNT])

    def _settled(self, state: State) -> tuple[State, Statistics | None]:
        named = {"encoder." + n.removeprefix(_ENCODER): v for n, v in state.items() if n.startswith(_ENCODER)}
        bias = state[_BIAS].masked_fill(state[_COUNT] == 0, float("-inf"))
        return {**named, "linear.weight": state[_WEIGHT], "linear.bias": bias}, unpack(state)

    def task_gradients(
        self,
        task: Task,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> NoReturn:
        """Refuse: there is nothing to meta-train, and gradients of zero would look like training.

        Raises
        ------
        MetaDxError
            ``not_meta_trained``, always.
        """
        raise MetaDxError(
            "not_meta_trained",
            "Fine-tuning learns nothing from one task for the next: evaluate it on the pre-trained encoder as it is.",
        )

    def _norm(self) -> AbstractContextManager[None]:
        """Choose the statistics of batch norm while adapting, and of queries unless the support's are used."""
        return statistics(self.network, stored=self.options.batch_norm == "stored", fused=True)

    def _embed(self, encoder: Mapping[str, Tensor], x: Tensor) -> Tensor:
        embedded: Tensor = functional_call(self.network.encoder, dict(encoder), (x,))
        return embedded

    def _views(self, x: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Return the images as they are and changed versions of them, ``views`` batches in all."""
        if self.augment is None:
            return [x]
        return [x, *(self.augment(x, generator) for _ in range(self.options.views - 1))]

    def _fit_classifier(
        self, encoder: Mapping[str, Tensor], x: Tensor, y: Tensor, count: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Fit a linear layer on embeddings that stay: weight (N, D) and bias (N,)."""
        with torch.no_grad(), self._norm():
            embedded = torch.cat([self._embed(encoder, view) for view in self._views(x, generator)])
        labels = y.repeat(len(embedded) // len(y))
        weight = embedded.new_zeros(len(count), embedded.shape[1]).requires_grad_()
        bias = embedded.new_zeros(len(count)).requires_grad_()
        optimiser = torch.optim.Adam([weight, bias], lr=self.options.classifier_rate)
        for _ in range(self.options.classifier_steps):
            _descend(optimiser, _loss(_logits(embedded, weight, bias, count), labels, count))
        return weight, bias

    def _fit_network(
        self,
        encoder: Mapping[str, Tensor],
        weight: Tensor,
        bias: Tensor,
        x: Tensor,
        y: Tensor,
        count: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Fit everything in place, on augmented batches drawn without replacement."""
        moving = [value.requires_grad_() for value in encoder.values()]
        optimiser = torch.optim.Adam([*moving, weight, bias], lr=self.options.network_rate)
        for _ in range(self.options.network_steps):
            rows = torch.arange(len(x), device=x.device)
            if len(x) > self.options.batch_size:
                drawn = torch.randperm(len(x), generator=generator, device=x.device)
                rows = drawn[: self.options.batch_size]
            images = x[rows] if self.augment is None else self.augment(x[rows], generator)
            with self._norm():
                embedded = self._embed(encoder, images)
            _descend(optimiser, _loss(_logits(embedded, weight, bias, count), y[rows], count))


def _logits(embedded: Tensor, weight: Tensor, bias: Tensor, count: Tensor) -> Tensor:
    scores = nn.functional.linear(embedded, weight, bias)
    return scores.masked_fill(count == 0, float("-inf"))


def _loss(logits: Tensor, y: Tensor, count: Tensor) -> Tensor:
    """Return the cross-entropy with rows weighted by 1/K of their class, so that classes count alike."""
    each = nn.functional.cross_entropy(logits, y, reduction="none")
    share = 1 / count.to(logits.dtype)[y]
    return (share * each).sum() / share.sum()


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()
