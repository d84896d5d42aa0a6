"""Reptile.

Alex Nichol, Joshua Achiam, John Schulman: *On First-Order Meta-Learning Algorithms*, 2018,
https://arxiv.org/abs/1803.02999

Algorithm 2 (the batched version of algorithm 1): from shared weights φ a few optimizer steps on each of E
tasks give W~; then φ ← φ + ε mean(W~ - φ). There is no query set in training and no gradient of a gradient.
Section 6.1 and appendix A: the inner optimizer is Adam with β1 = 0, ε falls linearly from 1 to 0.

**How to apply its meta-gradient.** It is φ - mean(W~), so plain SGD of rate ε makes the paper's step: rate 1.0
falling linearly to 0 over the training, no momentum, no weight decay, no clipping, every parameter of the
learner alike (``optimizer``, ``learning_rate``). Training tasks have ``train_shots`` rows a class *in all*: an
episode's support and query rows are used together, whatever they are.

**Moments of Adam.** In the authors' code (supervised-reptile) Adam's second moments are never reset: they go
on from task to task in training, and testing starts from them each time. Here they are parameters too, moved
by the same step as the weights: every task of a batch starts from the shared moments, and the mean over the
tasks of where they end takes the place of the last one's. The sum of the weights that bias correction divides
by moves along, so the corrected moment stays a weighted mean of squared gradients. With one task and ε = 1
this is exactly what the authors' code does; with more, that code runs the tasks of a batch one after another.

**Batch norm** always has batch statistics. When testing, *transductive* puts all queries into one batch; else
each query goes alone with the whole support set, as in the authors' code. Inner batches are drawn as there:
shuffled passes over the rows, cut into batches, a batch reaching over into the next pass. When adapting, the
shuffles have a fixed seed. Deviations: Adam's ε stands as in torch, outside of the bias correction; whatever
the network draws at random in training (dropout) is off.

On Omniglot, 5-way, 1692 test classes (``docs/reproduction.md``), after 2,000 of the paper's 100,000 steps, the paper's
figure in brackets: 1-shot 92.56 ± 0.38 (95.39 ± 0.09) one query at a time and 94.32 ± 0.30 (97.68 ± 0.04)
transductive, 5-shot 98.39 ± 0.13 (98.9 ± 0.1) and 98.60 ± 0.12 (99.48 ± 0.06). Its 20-way figures were not run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from meta_dx.episodes.episode import Support
from meta_dx.learners.base import Capabilities, Grads, Metrics, State
from meta_dx.learners.batch_norm import Statistics, episodic_batch_norm, norm_layers, statistics
from meta_dx.learners.body import BodyLearner, Task
from meta_dx.learners.body_options import ReptileOptions

_BETA2, _EPS = 0.999, 1e-8
_ROWS_AT_ONCE = 1024  # of support sets that go along with a query: bounds the memory of predicting
_SEED = 0  # of the shuffles when adapting


@dataclass(frozen=True)
class InnerAdam:
    """State of Adam with β1 = 0.

    Parameters
    ----------
    moments : tuple of Tensor
        Mean of squared gradients of each weight, decaying by β2.
    missing : Tensor, scalar
        β2 to the power of the steps made: the weight that the zero at the start still has.
    """

    moments: tuple[Tensor, ...]
    missing: Tensor

    def step(
        self, weights: list[Tensor], gradients: tuple[Tensor, ...], rate: float
    ) -> tuple[list[Tensor], InnerAdam]:
        """Return the weights after one step and the state after it."""
        missing = self.missing * _BETA2
        moments, moved = [], []
        for weight, gradient, moment in zip(weights, gradients, self.moments, strict=True):
            now = _BETA2 * moment + (1 - _BETA2) * gradient.square()
            moved.append(weight - rate * gradient / ((now / (1 - missing)).sqrt() + _EPS))
            moments.append(now)
        return moved, InnerAdam(tuple(moments), missing)


class Reptile(BodyLearner):
    """Optimizer steps on the task, from weights that are pulled towards where such steps end.

    Parameters
    ----------
    network : nn.Module
        Maps examples (B, …) to logits (B, N). Its batch-norm layers are replaced in place: load weights before.
    ways : int
        N.
    options : ReptileOptions, optional
        Inner steps, batches and rate.

    Attributes
    ----------
    optimizer, learning_rate : str and float
        How the training loop has to apply the meta-gradient; the rate falls linearly to 0.
    """

    capabilities = Capabilities(
        fixed_ways=True, order_invariant=False, label_equivariant=False, serves_from_state=False
    )
    optimizer = "sgd"
    learning_rate = 1.0
    transductive_option = "transductive = true"

    def __init__(self, network: nn.Module, ways: int, options: ReptileOptions | None = None) -> None:
        super().__init__(episodic_batch_norm(network), ways)
        self.options = options or ReptileOptions()
        self._layers = norm_layers(network)
        transductive = self.options.transductive and bool(self._layers)
        self.capabilities = replace(self.capabilities, transductive=transductive)
        self._names = [name for name, _ in network.named_parameters()]
        self.moments = nn.ParameterList(torch.zeros_like(p) for p in network.parameters())
        self.missing = nn.Parameter(torch.ones(()))

    def adapt(self, support: Support, *, noise: Tensor | None = None) -> State:
        """Adapt to each support set of a batch; pure: the learner does not change.

        Returns
        -------
        State
            As of :meth:`adapt_task`, with leading axis E. Where queries are normalised together with the support
            set, that is kept too, padded: ``support_x`` (E, S, …) and ``support_mask`` (E, S).

        Raises
        ------
        MetaDxError
            ``other_ways``.
        """
        state = super().adapt(support, noise=noise)
        if self._needs_support:
            state.update(support_x=support.x.detach(), support_mask=support.mask)
        return state

    def adapt_task(self, support_x: Tensor, support_y: Tensor, ways: int) -> State:
        """Take the inner steps for testing.

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
            The adapted weights by their names in the network; :meth:`adapt` adds the support set.
        """
        o, generator = self.options, torch.Generator().manual_seed(_SEED)
        batches = mini_batches(len(support_x), o.test_batch, o.test_steps, generator)
        return dict(zip(self._names, self._inner(support_x, support_y, batches)[0], strict=True))

    def predict_task(self, state: State, query_x: Tensor) -> Tensor:
        """Score queries (Q, …): logits (Q, N), each query with the support set or all queries together."""
        weights = {name: state[name] for name in self._names}
        if not self._needs_support:
            return self._logits(weights, query_x)
        support = state["support_x"][state["support_mask"]]

        def one(query: Tensor) -> Tensor:
            return self._logits(weights, torch.cat([support, query.unsqueeze(0)]))[-1]

        answers: Tensor = vmap(one, chunk_size=max(1, _ROWS_AT_ONCE // (len(support) + 1)))(query_x)
        return answers

    def _settled(self, state: State) -> tuple[State, Statistics | None]:
        """Normalise with the support set alone: a network by itself knows no support images to go along."""
        weights = {name: state[name] for name in self._names}
        record: Statistics = {}
        if self._needs_support:
            with torch.no_grad():
                self._logits(weights, state["support_x"][state["support_mask"]], record=record)
        return weights, record or None

    def task_gradients(
        self,
        task: Task,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return φ - W~ of one task, for weights and moments.

        Parameters
        ----------
        task : Task
            Support and query rows are used alike.
        parameters : mapping of str to Parameter, optional
            Parameters of the learner by the names of the answer; anything else has a gradient of zero.
        generator : torch.Generator, optional
            Draws the inner batches; a fixed seed without it.

        Returns
        -------
        gradients : dict of str to Tensor
            Under the names in ``parameters``.
        metrics : dict of str to Tensor
            ``loss`` (nats) and ``accuracy`` on the inner batches, each before its step, mean over the steps.
        """
        x, y = torch.cat([task.support_x, task.query_x]), torch.cat([task.support_y, task.query_y])
        drawn = generator or torch.Generator().manual_seed(_SEED)
        batches = mini_batches(len(x), self.options.inner_batch, self.options.steps, drawn)
        weights, adam, metrics = self._inner(x, y, batches)
        start = [*self.network.parameters(), *self.moments, self.missing]
        end = [*weights, *adam.moments, adam.missing]
        moved = {id(p): p.detach() - now for p, now in zip(start, end, strict=True)}
        chosen = dict(self.named_parameters()) if parameters is None else parameters
        return {
            n: moved[id(p)] if id(p) in moved else torch.zeros_like(p) for n, p in chosen.items()
        }, metrics

    @property
    def _needs_support(self) -> bool:
        return bool(self._layers) and not self.options.transductive

    def _inner(self, x: Tensor, y: Tensor, batches: Tensor) -> tuple[list[Tensor], InnerAdam, Metrics]:
        """Return weights and optimizer after one step for each row of ``batches``, and their mean metrics."""
        weights = [parameter.detach() for parameter in self.network.parameters()]
        adam = InnerAdam(tuple(moment.detach() for moment in self.moments), self.missing.detach())
        losses, hits = [], []
        for batch in batches.to(x.device):
            at = [weight.detach().requires_grad_() for weight in weights]
            with torch.enable_grad():
                logits = self._logits(dict(zip(self._names, at, strict=True)), x[batch], fused=True)
                loss = nn.functional.cross_entropy(logits, y[batch])
            gradients = torch.autograd.grad(loss, at)
            weights, adam = adam.step(weights, gradients, self.options.inner_rate)
            losses.append(loss.detach())
            hits.append((logits.detach().argmax(-1) == y[batch]).to(logits.dtype).mean())
        metrics = {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(hits).mean()} if losses else {}
        return weights, adam, metrics

    def _logits(
        self, weights: State, x: Tensor, *, fused: bool = False, record: Statistics | None = None
    ) -> Tensor:
        with statistics(self._layers, fused=fused, record=record):
            logits: Tensor = functional_call(self.network, weights, (x,))
        return logits


def mini_batches(rows: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw inner batches: shuffled passes over the rows, one after another, cut into batches.

    Parameters
    ----------
    rows : int
        Rows of the task.
    size : int
        Rows in a batch; more than there are reach over into the next pass.
    count : int
        Batches.
    generator : torch.Generator
        Source of the shuffles.

    Returns
    -------
    Tensor, shape (count, size), int64
        Numbers of rows, on the generator's device.
    """
    passes = math.ceil(count * size / rows)
    shuffled = [torch.randperm(rows, generator=generator, device=generator.device) for _ in range(passes)]
    return torch.cat([*shuffled, torch.empty(0, dtype=torch.int64, device=generator.device)])[
        : count * size
    ].view(count, size)
