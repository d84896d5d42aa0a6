"""What every learner is: adapt to a support set, predict queries, give meta-gradients, name its capabilities.

A :class:`Head` works on embeddings; a :class:`~meta_dx.learners.body.BodyLearner` adapts the network's own
weights. ``State`` is what ``adapt`` hands to ``predict``: a dict of tensors with leading axis E, so that it
can be cached, tested against a formula, and passed from ``adapt.onnx`` to ``predict.onnx``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from meta_dx.episodes.episode import Episode, Query, Support

State = dict[str, Tensor]
#: Gradients by parameter name.
Grads = dict[str, Tensor]
#: Detached scalars by name.
Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Capabilities:
    """Facts of the paper; the shared test bench proves each one declared and shows the others false.

    Parameters
    ----------
    fixed_ways : bool
        The learner only works with the number of ways that it was trained with.
    order_invariant : bool
        The order of the support rows does not change the answer.
    label_equivariant : bool
        Permuting the class labels permutes the probabilities and changes nothing else.
    transductive : bool
        Queries may influence one another.
    serves_from_state : bool
        ``adapt`` gives a small state that ``predict`` serves from, so the learner can live in a bundle.
    """

    fixed_ways: bool = False
    order_invariant: bool = True
    label_equivariant: bool = True
    transductive: bool = False
    serves_from_state: bool = True


@dataclass(frozen=True)
class Prediction:
    """Answers for queries.

    Parameters
    ----------
    logits : Tensor, shape (E, M, Q, N)
        Class scores for each of M noise samples (M = 1 for deterministic learners); -inf where
        ``class_mask`` is false.
    attention : Tensor or None, shape (E, Q, S)
        Weight of each support row for each query among the rows of its class, where the learner has one:
        they sum to one over each class that takes part, and are zero where padded.
    """

    logits: Tensor
    attention: Tensor | None = None

    def probabilities(self) -> Tensor:
        """Return the mean over the M samples of the softmax, shape (E, Q, N)."""
        return self.logits.softmax(-1).mean(1)


class Head(nn.Module, ABC):
    """A learner over embeddings.

    A head is defined by two pure tensor functions, :meth:`adapt_tensors` and :meth:`predict_tensors`;
    everything else, ONNX export included, is derived from them.
    """

    capabilities: Capabilities = Capabilities()
    #: Names of the tensors in the state, in the order in which the ONNX graphs pass them.
    state_names: tuple[str, ...] = ()
    #: L, numbers of standard normal noise that a sample needs for each class; 0: the head is deterministic.
    noise_size: int = 0
    #: Weight decay of meta-training on frozen embeddings.
    weight_decay: float = 0.0

    @abstractmethod
    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        """Adapt to a support set.

        Parameters
        ----------
        support_x : Tensor, shape (E, S, D)
            Embeddings; padded rows are ignored because their labels are all zero.
        support_onehot : Tensor, shape (E, S, N)
            Labels; a class without any row does not take part.

        Returns
        -------
        State
            The tensors named by ``state_names``, each with leading axis E.
        """

    @abstractmethod
    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Score queries.

        Parameters
        ----------
        state : State
            From :meth:`adapt_tensors`.
        query_x : Tensor, shape (E, Q, D)
            Embeddings.
        noise : Tensor, optional, shape (E, M, N, L)
            Standard normal numbers, where ``noise_size`` L is not 0; without it one sample at the mean.

        Returns
        -------
        Tensor, shape (E, M, Q, N)
            Logits; -inf for classes that do not take part.
        """

    def attention_tensors(self, state: State, query_x: Tensor) -> Tensor | None:
        """Return the weight of each support row for each query within its class, (E, Q, S), or None."""
        return None

    def adapt(self, support: Support, *, noise: Tensor | None = None) -> State:
        """Adapt to a support set; pure: the head does not change."""
        return self.adapt_tensors(support.x, support.onehot())

    def predict(self, state: State, query: Query, *, noise: Tensor | None = None) -> Prediction:
        """Predict queries from an adapted state; the same noise gives the same answer, bit for bit."""
        logits = self.predict_tensors(state, query.x, noise)
        return Prediction(logits, self.attention_tensors(state, query.x))

    def draw_noise(
        self, episode: Episode, samples: int, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Draw noise for M samples, shape (E, M, N, L); None for a deterministic head.

        Drawn on the CPU from a generator of the CPU, so that every device gets the same numbers.
        """
        if not self.noise_size:
            return None
        tasks, ways = episode.class_mask.shape
        drawn = torch.randn(tasks, samples, ways, self.noise_size, generator=generator)
        return drawn.to(episode.query_x.device, episode.query_x.dtype)

    def loss(self, episode: Episode, *, generator: torch.Generator | None = None) -> tuple[Tensor, Metrics]:
        """Return the loss that meta-training lowers.

        Parameters
        ----------
        episode : Episode
            Over embeddings.
        generator : torch.Generator, optional
            Source of noise on the CPU, for heads that need one.

        Returns
        -------
        loss : Tensor, scalar
            Mean cross-entropy of the real queries, in nats.
        metrics : dict of str to Tensor
            ``loss`` and ``accuracy`` (fraction of the real queries), detached scalars.
        """
        logits = self.predict(self.adapt(episode.support), episode.query).logits  # (E, M, Q, N)
        return query_loss(logits, episode)

    def meta_gradients(
        self,
        episode: Episode,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return the gradients of the loss; the training loop reduces and applies them.

        Parameters
        ----------
        episode : Episode
            Over embeddings, attached to the graph of the encoder where that is to be trained.
        parameters : mapping of str to Parameter, optional
            What to differentiate by: the encoder's parameters and the head's. The head's own by default.
        generator : torch.Generator, optional
            Source of noise on the CPU, for heads that need one.

        Returns
        -------
        gradients : dict of str to Tensor
            Under the names in ``parameters``; zero where the loss does not depend on a parameter.
        metrics : dict of str to Tensor
            As in :meth:`loss`.
        """
        loss, metrics = self.loss(episode, generator=generator)
        return gradients_of(loss, self, parameters), metrics


def gradients_of(loss: Tensor, learner: nn.Module, parameters: Mapping[str, nn.Parameter] | None) -> Grads:
    """Return the gradients of a loss by some parameters, or by all of a learner's own.

    Parameters
    ----------
    loss : Tensor, scalar
        With its graph, which is used up.
    learner : nn.Module
        Whose parameters are taken where ``parameters`` is None.
    parameters : mapping of str to Parameter or None
        What to differentiate by.

    Returns
    -------
    dict of str to Tensor
        Under the names of the parameters; zero where the loss does not depend on one.
    """
    chosen = dict(learner.named_parameters()) if parameters is None else parameters
    found = torch.autograd.grad(loss, list(chosen.values()), allow_unused=True)
    pairs = zip(chosen.items(), found, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}


def query_loss(logits: Tensor, episode: Episode) -> tuple[Tensor, Metrics]:
    """Return the mean cross-entropy of the real queries under the mean of M samples, in nats.

    Parameters
    ----------
    logits : Tensor, shape (E, M, Q, N)
        Class scores; -inf for absent classes.
    episode : Episode
        Labels and masks of the queries.

    Returns
    -------
    loss : Tensor, scalar
        -log of the mean over the M samples of the true class's probability, mean over real queries.
    metrics : dict of str to Tensor
        ``loss`` and ``accuracy`` (fraction of the real queries), detached scalars.
    """
    mask = episode.query_mask
    # Absent classes have -inf, where the gradient of a sum over M is NaN: pick the true class first.
    label = episode.query_y[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    picked = logits.log_softmax(-1).gather(-1, label).squeeze(-1)  # (E, M, Q)
    log_p = picked.masked_fill(~mask.unsqueeze(1), 0.0).logsumexp(1) - math.log(logits.shape[1])  # (E, Q)
    weight = mask.to(log_p.dtype)
    loss = -(log_p * weight).sum() / weight.sum()
    answer = logits.detach().softmax(-1).mean(1).argmax(-1)  # (E, Q)
    right = ((answer == episode.query_y) & mask).sum() / weight.sum()
    return loss, {"loss": loss.detach(), "accuracy": right}


def mask_absent_classes(logits: Tensor, class_count: Tensor) -> Tensor:
    """Set the logits of classes without support to -inf.

    Parameters
    ----------
    logits : Tensor, shape (E, M, Q, N)
        Scores.
    class_count : Tensor, shape (E, N)
        Support rows of each class.

    Returns
    -------
    Tensor, shape (E, M, Q, N)
    """
    absent = (class_count == 0)[:, None, None, :]
    return logits.masked_fill(absent, float("-inf"))
