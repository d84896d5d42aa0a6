"""Model-agnostic meta-learning (MAML), with ANIL and Proto-MAML.

**MAML.** Chelsea Finn, Pieter Abbeel, Sergey Levine: *Model-Agnostic Meta-Learning for Fast Adaptation of
Deep Networks*, ICML 2017, https://arxiv.org/abs/1703.03400. A task's weights are a few gradient steps on its
support set away from shared ones, θ' = θ - α ∇L(θ) (section 2.2); the shared ones are trained so that θ' does
well on the task's queries (equation 1, algorithm 2). The gradient goes through the inner gradients (second
order) or takes them as constants (first order, section 5.2).

**ANIL.** Aniruddh Raghu, Maithra Raghu, Samy Bengio, Oriol Vinyals: *Rapid Learning or Feature Reuse? Towards
Understanding the Effectiveness of MAML*, ICLR 2020, https://arxiv.org/abs/1909.09157. Section 4: almost no
inner loop, only the last layer is adapted.

**Proto-MAML.** Eleni Triantafillou et al.: *Meta-Dataset: A Dataset of Datasets for Learning to Learn from
Few Examples*, ICLR 2020, https://arxiv.org/abs/1903.03096. Section 3 ("Proto-MAML"): the last layer starts at
the prototypical network it equals, w_n = 2 c_n and b_n = -||c_n||², and the meta-gradient flows through that
start. Any number of classes goes. A factor s on the distance can be learned beside, which the paper has not.

MAML++ options are in :mod:`meta_dx.learners.maml_plus_plus`. Deviations: the published MAML figures are
transductive (``batch_norm = "batch"``); the default here is not. Whatever the network draws at random in
training (dropout) is off. The inner gradient of Proto-MAML is the partial one: the last layer counts as a
constant start, not as a function of the encoder's weights that are being adapted.

On Omniglot, 5-way 1-shot, 1692 test classes, transductive (``docs/reproduction.md``), MAML reaches 96.46 ± 0.25 after
2,127 of the paper's 60,000 steps; the paper 98.7 ± 0.4. Its other figures were not run; ANIL and Proto-MAML are not
reproduced on a benchmark of their papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Capabilities, Grads, Metrics, State, gradients_of
from meta_dx.learners.batch_norm import (
    Statistics,
    episodic_batch_norm,
    mean_statistics,
    norm_layers,
    pack,
    statistics,
    unpack,
)
from meta_dx.learners.body import BodyLearner, Task
from meta_dx.learners.body_options import MamlOptions, ProtoMamlOptions
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.maml_plus_plus import StepNorm, StepRates, step_loss_weights

#: Tensors by their names in the network.
Weights = dict[str, Tensor]
_cross_entropy = nn.functional.cross_entropy


@dataclass(frozen=True)
class _Run:
    """How one pass through the inner loop is made: number of steps, and what the caller needs of it."""

    steps: int
    training: bool  # to be differentiated, with per-step batch norm in training mode
    vectorised: bool = False  # inside torch.func.vmap
    records: list[Statistics] | None = None  # filled with the batch statistics of each step


class Maml(BodyLearner):
    """Gradient steps on the support set, from learned weights.

    Parameters
    ----------
    network : Classifier
        Its batch-norm layers are replaced in place: load weights before.
    options : MamlOptions, optional
        Rate, steps, batch norm.
    vectorised : bool, optional
        Batch meta-gradients over tasks of equal size with ``torch.func.vmap``; by default on a GPU only, as it
        is slower on a CPU.

    Attributes
    ----------
    annealing : float
        With ``multi_step_loss``: 0 weighs the query losses of all steps equally, 1 counts only the last. The
        training loop raises it from 0 towards 1 over all of its steps.
    """

    network: Classifier

    def __init__(
        self, network: Classifier, options: MamlOptions | None = None, *, vectorised: bool | None = None
    ) -> None:
        episodic_batch_norm(network)
        super().__init__(network, network.ways)
        self.options, self.vectorised, self.annealing = options or MamlOptions(), vectorised, 0.0
        self._layers = layers = norm_layers(network)
        mode = self.options.batch_norm
        self.capabilities = replace(self.capabilities, transductive=mode == "batch" and bool(layers))
        self.step_norm = StepNorm(layers, self.options.steps) if mode == "per_step" else None
        # With scale and shift of their own for each step, the layers' single ones have no part.
        self._fixed = {f"{layer.name}.{kind}" for layer in layers for kind in ("weight", "bias")}
        self._fixed = self._fixed if self.step_norm else set()
        start = self.options.inner_rate
        self.rates = (
            StepRates(self._adapted_names(), start, self.options.steps)
            if self.options.learned_rates
            else None
        )

    def adapt_task(self, support_x: Tensor, support_y: Tensor, ways: int) -> State:
        """Take the gradient steps.

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
            The adapted weights by their names in the network; with ``batch_norm = "support"`` also the support
            set's statistics under them, ``mean/<layer>`` and ``var/<layer>``.
        """
        run = _Run(self.options.test_steps, training=False)
        *_, weights = self._trajectory(run, support_x, support_y, ways)
        return {**weights, **pack(self._support_statistics(run, weights, support_x))}

    def predict_task(self, state: State, query_x: Tensor) -> Tensor:
        """Score queries (Q, …) with the adapted weights: logits (Q, N)."""
        run = _Run(self.options.test_steps, training=False)
        return self._logits(run, state, query_x, run.steps, use=unpack(state))

    def _settled(self, state: State) -> tuple[State, Statistics | None]:
        if self.step_norm is None:
            return super()._settled(state)
        last = self.options.test_steps
        return {**state, **self.step_norm.affine(last)}, self.step_norm.statistics(last)

    def task_gradients(
        self,
        task: Task,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return the meta-gradient of one task and its ``loss`` and ``accuracy``, detached scalars."""
        run = _Run(self.options.steps, training=True)
        loss, accuracy = self._task_loss(run, task)
        return gradients_of(loss, self, parameters), {"loss": loss.detach(), "accuracy": accuracy}

    def meta_gradients(
        self,
        episode: Episode,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return the mean of the tasks' meta-gradients, all tasks at once where that pays.

        Parameters and answer are those of :meth:`BodyLearner.meta_gradients`.
        """
        wanted = episode.support_x.is_cuda if self.vectorised is None else self.vectorised
        if not wanted or not (episode.support_mask.all() and episode.query_mask.all()):
            return super().meta_gradients(episode, parameters=parameters, generator=generator)
        ways = self._ways_of(episode.class_mask)[0]
        run = _Run(self.options.steps, training=True, vectorised=True)

        def one(sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> tuple[Tensor, Tensor]:
            return self._task_loss(run, Task(sx, sy, qx, qy, ways))

        found = vmap(one)(episode.support_x, episode.support_y, episode.query_x, episode.query_y)
        loss, accuracy = found[0].mean(), found[1].mean()
        return gradients_of(loss, self, parameters), {"loss": loss.detach(), "accuracy": accuracy}

    def update_statistics(self, episode: Episode, momentum: float = 0.1) -> None:
        """Move the running statistics of ``batch_norm = "per_step"``.

        The training loop calls it with the tasks of each step, after their meta-gradient and before that is applied,
        as batch norm moves its statistics in the forward pass.

        Parameters
        ----------
        episode : Episode
            Training tasks.
        momentum : float
            Share of the new statistics, the mean over the tasks.
        """
        if self.step_norm is None:
            return
        seen = []
        for task in self.tasks(episode):
            run = _Run(
                self.options.steps, training=False, records=[{} for _ in range(self.options.steps + 1)]
            )
            *_, weights = self._trajectory(run, task.support_x, task.support_y, task.ways)
            self._logits(run, weights, task.query_x, run.steps)
            seen.append(run.records or [])
        for step in range(self.options.steps + 1):
            self.step_norm.update(step, mean_statistics([records[step] for records in seen]), momentum)

    # The inner loop.

    def _adapted_names(self) -> list[str]:
        return [name for name, _ in self.network.named_parameters() if name not in self._fixed]

    def _start(self, run: _Run, support_x: Tensor, support_y: Tensor, ways: int) -> tuple[Weights, Weights]:
        """Return the weights that stay and those that are adapted, at their start."""
        parameters: Weights = dict(self.network.named_parameters())
        fast = {name: parameters.pop(name) for name in self._adapted_names() if name in parameters}
        return parameters, fast

    def _prepared(self, run: _Run, weights: Weights, support_x: Tensor) -> Tensor:
        """Return what the inner loop reads again at each step."""
        return support_x

    def _inner_logits(self, run: _Run, weights: Weights, prepared: Tensor, step: int) -> Tensor:
        return self._logits(run, weights, prepared, step)

    def _trajectory(self, run: _Run, support_x: Tensor, support_y: Tensor, ways: int) -> Iterator[Weights]:
        """Yield the weights before the first and after each inner step."""
        fixed, start = self._start(run, support_x, support_y, ways)
        # Views: the inner gradient is by this use of a weight, not by a last layer that was built from it.
        fast = {name: w.view_as(w) for name, w in start.items()}
        yield {**fixed, **fast}
        prepared = self._prepared(run, {**fixed, **fast}, support_x)
        for step in range(run.steps):

            def loss(weights: Weights, step: int = step) -> Tensor:
                logits = self._inner_logits(run, {**fixed, **weights}, prepared, step)
                return _cross_entropy(logits, support_y)

            gradient = self._inner_gradient(run, loss, fast)
            fast = {name: self._stepped(step, name, w, gradient[name]) for name, w in fast.items()}
            if not run.training:
                fast = {name: w.detach().requires_grad_() for name, w in fast.items()}
            yield {**fixed, **fast}

    def _inner_gradient(self, run: _Run, loss: Callable[[Weights], Tensor], fast: Weights) -> Weights:
        second = run.training and self.options.order == "second"
        if run.vectorised:
            found: Weights = torch.func.grad(loss)(fast)
            return found if second else {name: g.detach() for name, g in found.items()}
        gradients = torch.autograd.grad(loss(fast), list(fast.values()), create_graph=second)
        return dict(zip(fast, gradients, strict=True))

    def _stepped(self, step: int, name: str, weight: Tensor, gradient: Tensor) -> Tensor:
        if self.rates is None:
            return torch.sub(weight, gradient, alpha=self.options.inner_rate)
        return weight - self.rates.at(step, name) * gradient

    # What is lowered.

    def _task_loss(self, run: _Run, task: Task) -> tuple[Tensor, Tensor]:
        """Return the query loss of a task, a scalar with its graph, and the accuracy after the last step."""
        trajectory = list(self._trajectory(run, task.support_x, task.support_y, task.ways))
        weights = [0.0] * run.steps + [1.0]
        if self.options.multi_step_loss:
            weights = [0.0, *step_loss_weights(self.annealing, run.steps)]
        losses = []
        for step, weight in enumerate(weights):
            if weight:
                use = self._support_statistics(run, trajectory[step], task.support_x)
                logits = self._logits(run, trajectory[step], task.query_x, step, use=use)
                losses.append(weight * _cross_entropy(logits, task.query_y))
        right = (logits.detach().argmax(-1) == task.query_y).to(logits.dtype)
        return torch.stack(losses).sum(), right.mean()

    # The network with given weights.

    def _logits(
        self, run: _Run, weights: Weights, x: Tensor, step: int, *, use: Statistics | None = None
    ) -> Tensor:
        return _last_layer(weights, self._embed(run, weights, x, step, use=use))

    def _embed(
        self,
        run: _Run,
        weights: Weights,
        x: Tensor,
        step: int,
        *,
        use: Statistics | None = None,
        record: Statistics | None = None,
    ) -> Tensor:
        """Return embeddings (B, D) of examples under the weights that an inner step has."""
        if run.records is not None:
            record = run.records[step]
        if self.step_norm is not None:
            weights = {**weights, **self.step_norm.affine(step)}
            if not run.training and run.records is None:
                use = self.step_norm.statistics(step)
        own = {n.removeprefix("encoder."): w for n, w in weights.items() if n.startswith("encoder.")}
        stored = self.options.batch_norm == "stored"
        with statistics(self._layers, stored=stored, record=record, use=use, fused=not run.vectorised):
            embeddings: Tensor = functional_call(self.network.encoder, own, (x,))
        return embeddings

    def _support_statistics(self, run: _Run, weights: Weights, support_x: Tensor) -> Statistics | None:
        """Return what normalises the queries, or None where the mode says otherwise."""
        if self.options.batch_norm != "support":
            return None
        record: Statistics = {}
        self._embed(run, weights, support_x, run.steps, record=record)
        return record


class Anil(Maml):
    """MAML of the last layer only: the support set is embedded once.

    Raises
    ------
    MetaDxError
        ``bad_value`` for batch norm per step: the encoder is the same at each.
    """

    def __init__(
        self, network: Classifier, options: MamlOptions | None = None, *, vectorised: bool | None = None
    ) -> None:
        super().__init__(network, options, vectorised=vectorised)
        if self.step_norm is not None:
            raise MetaDxError(
                "bad_value",
                "batch_norm is 'per_step', but anil adapts nothing in the encoder: allowed are support, batch, stored.",
            )

    def _adapted_names(self) -> list[str]:
        return ["linear.weight", "linear.bias"]

    def _prepared(self, run: _Run, weights: Weights, support_x: Tensor) -> Tensor:
        return self._embed(run, weights, support_x, 0)

    def _inner_logits(self, run: _Run, weights: Weights, prepared: Tensor, step: int) -> Tensor:
        return _last_layer(weights, prepared)


class ProtoMaml(Maml):
    """MAML whose last layer starts as the prototypical network of the support set; accepts any N.

    The classifier is built without a last layer (``ways`` None). Classes without support have a bias of -inf
    and so take no part. With :class:`ProtoMamlOptions` of ``learned_scale`` the last layer starts s times as
    long, s = exp(``log_scale``) meta-learned.
    """

    capabilities = Capabilities(
        fixed_ways=False, order_invariant=True, label_equivariant=True, serves_from_state=False
    )

    def __init__(
        self, network: Classifier, options: MamlOptions | None = None, *, vectorised: bool | None = None
    ) -> None:
        super().__init__(network, options, vectorised=vectorised)
        learned = isinstance(self.options, ProtoMamlOptions) and self.options.learned_scale
        # As in Prototypical: squared distances grow with D, and a softmax of hundreds learns nothing.
        start = -0.5 * math.log(network.embedding_size)
        self.log_scale = nn.Parameter(torch.tensor(start)) if learned else None

    def _adapted_names(self) -> list[str]:
        return [*super()._adapted_names(), "linear.weight", "linear.bias"]

    def _start(self, run: _Run, support_x: Tensor, support_y: Tensor, ways: int) -> tuple[Weights, Weights]:
        fixed, fast = super()._start(run, support_x, support_y, ways)
        embeddings = self._embed(run, {**fixed, **fast}, support_x, 0)  # (S, D)
        scale = None if self.log_scale is None else self.log_scale.exp()
        fast["linear.weight"], fast["linear.bias"] = prototype_layer(embeddings, support_y, ways, scale)
        return fixed, fast


def prototype_layer(
    embeddings: Tensor, labels: Tensor, ways: int, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the linear layer that scores as a prototypical network does, up to a constant of each query.

    Parameters
    ----------
    embeddings : Tensor, shape (S, D)
        Support set.
    labels : Tensor, shape (S,), int64
        Classes 0 … N-1.
    ways : int
        N.
    scale : Tensor, optional, scalar
        s, factor on the squared distance; 1 if absent, as in the paper.

    Returns
    -------
    weight : Tensor, shape (N, D)
        2 s c_n.
    bias : Tensor, shape (N,)
        -s ||c_n||²; -inf for a class without support.
    """
    onehot = nn.functional.one_hot(labels, ways).to(embeddings.dtype)  # (S, N)
    count = onehot.sum(0)
    prototypes = onehot.T @ embeddings / count.clamp_min(1).unsqueeze(-1)  # (N, D)
    weight, bias = 2 * prototypes, -prototypes.square().sum(-1)
    if scale is not None:
        weight, bias = scale * weight, scale * bias
    return weight, bias.masked_fill(count == 0, float("-inf"))


def _last_layer(weights: Weights, embeddings: Tensor) -> Tensor:
    return nn.functional.linear(embeddings, weights["linear.weight"], weights["linear.bias"])
