"""Meta-LSTM: a recurrent network is the optimiser that adapts a network.

Sachin Ravi, Hugo Larochelle: *Optimization as a Model for Few-Shot Learning*, ICLR 2017,
https://openreview.net/forum?id=rJY0-Kcll

Gradient descent, θ_t = θ_{t-1} - α ∇L, has the form of an LSTM's cell, c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t, with f = 1, c
= θ, i = α and c̃ = -∇L. So the weights of a network are taken for the cell of an LSTM, whose gates learn how
far each weight moves and how much of it is kept; the cell's start c_0 is the initialisation, learned too.
Every weight is a coordinate: it has its own state, and all coordinates share the LSTM's weights.

Letters of the paper, after equation 2 (the cell above): i_t = σ(W_I [∇L_t, L_t, θ_{t-1}, i_{t-1}] + b_I), f_t =
σ(W_F [∇L_t, L_t, θ_{t-1}, f_{t-1}] + b_F). "Parameter sharing and preprocessing": gradients and losses enter as numbers
of comparable size, after appendix A of Andrychowicz et al. 2016 (https://arxiv.org/abs/1606.04474): x becomes
(log|x| / p, sign x) where |x| ≥ e^-p, else (-1, e^p x), with p = 10. "Gradient independence assumption": the loss
and its gradient are taken as constants, so the meta-gradient is of first order; it flows through the chain of
cells, the gates, and θ_{t-1} inside the gates. "Initialization": at the start f is close to 1 and i small. In the
experiments the rule has two layers: a usual LSTM reads the preprocessed gradient and loss, and its output takes
their place in the gates above; each step sees the whole support set.

From the authors' code (https://github.com/twitter/meta-learning-lstm) where the paper is silent: 20 units in the
first layer, all weights from U(-0.01, 0.01), b_F from 4 … 5 and b_I from -5 … -4 (here their middle, or the
options'), gates of zero before the first step. Not taken from there, where it differs from the paper: it
divides the mean gradient once more by the number of support rows, and feeds back gates before their sigmoid.
Batch norm has an explicit mode (:mod:`meta_dx.learners.batch_norm`). The paper trains with the batch statistics
of the queries and tests with running averages of the support set; here one mode holds for both.

Not reproduced on a benchmark of the paper. On the rare diseases of ``derm``, 5-way, with 95 % intervals
(``docs/results.md``): 1-shot 47.9 (44.2–51.8), 5-shot 65.2 (59.7–70.8).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from meta_dx.learners.base import Grads, Metrics, State, gradients_of
from meta_dx.learners.batch_norm import Statistics, episodic_batch_norm, norm_layers, pack, statistics, unpack
from meta_dx.learners.body import BodyLearner, Task
from meta_dx.learners.body_options import MamlOptions, MetaLstmOptions
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.maml import Maml

_P = 10.0  # p of the preprocessing
_SPREAD = 0.01  # of the weights at the start, as in the authors' code


def preprocess(x: Tensor, p: float = _P) -> Tensor:
    """Return numbers of any size as pairs of comparable size (Andrychowicz et al. 2016, appendix A).

    Parameters
    ----------
    x : Tensor, shape (…)
        Gradients or losses.
    p : float
        Numbers below e^-p count as small.

    Returns
    -------
    Tensor, shape (…, 2)
        (log|x| / p, sign x) where |x| ≥ e^-p; else (-1, e^p x).
    """
    large = x.abs() >= math.exp(-p)
    size = torch.where(large, x.abs().clamp_min(math.exp(-p)).log() / p, -1.0)
    return torch.stack([size, torch.where(large, x.sign(), math.exp(p) * x)], -1)


@dataclass(frozen=True)
class RuleState:
    """What the rule remembers of each of P coordinates between steps.

    Parameters
    ----------
    hidden, cell : Tensor, shape (P, units)
        State of the first layer.
    keep, move : Tensor, shape (P, 1)
        The gates f and i of the last step.
    """

    hidden: Tensor
    cell: Tensor
    keep: Tensor
    move: Tensor


class UpdateRule(nn.Module):
    """The LSTM that is the update rule, shared by all coordinates.

    Parameters
    ----------
    units : int
        Size of the first layer.
    keep_bias, move_bias : float
        b_F and b_I at the start.
    """

    def __init__(self, units: int = 20, keep_bias: float = 4.5, move_bias: float = -4.5) -> None:
        super().__init__()
        self.first = nn.LSTMCell(4, units)
        self.keep = nn.Linear(units + 2, 1)
        self.move = nn.Linear(units + 2, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -_SPREAD, _SPREAD)
        nn.init.constant_(self.keep.bias, keep_bias)
        nn.init.constant_(self.move.bias, move_bias)

    def start(self, theta: Tensor) -> RuleState:
        """Return the state before the first step, zero, for coordinates (P,)."""
        layer, gate = theta.new_zeros(len(theta), self.first.hidden_size), theta.new_zeros(len(theta), 1)
        return RuleState(layer, layer, gate, gate)

    def forward(
        self, theta: Tensor, gradient: Tensor, loss: Tensor, state: RuleState
    ) -> tuple[Tensor, RuleState]:
        """Make one step: c_t = f_t ⊙ c_{t-1} + i_t ⊙ (-∇L_t).

        Parameters
        ----------
        theta : Tensor, shape (P,)
            The weights, c_{t-1}.
        gradient : Tensor, shape (P,)
            ∇L_t at them, a constant.
        loss : Tensor, scalar
            L_t, a constant.
        state : RuleState
            After the step before.

        Returns
        -------
        theta : Tensor, shape (P,)
            c_t.
        state : RuleState
            After this step.
        """
        told = torch.cat([preprocess(loss).expand(len(theta), 2), preprocess(gradient)], 1)  # (P, 4)
        hidden, cell = self.first(told, (state.hidden, state.cell))
        seen = torch.cat([hidden, theta.unsqueeze(1)], 1)  # (P, units + 1)
        keep = self.keep(torch.cat([seen, state.keep], 1)).sigmoid()
        move = self.move(torch.cat([seen, state.move], 1)).sigmoid()
        moved = keep.squeeze(1) * theta - move.squeeze(1) * gradient
        return moved, RuleState(hidden, cell, keep, move)


class MetaLstm(BodyLearner):
    """A network adapted by a learned update rule, from learned weights.

    Parameters
    ----------
    network : nn.Module
        Maps examples (B, …) to logits (B, N): a :class:`~meta_dx.learners.classifier.Classifier`, or a linear
        layer on cached embeddings. Its weights are c_0. Its batch-norm layers are replaced in place: load
        weights before.
    ways : int
        N.
    options : MetaLstmOptions, optional
        Steps, gates at the start, batch norm.
    """

    def __init__(self, network: nn.Module, ways: int, options: MetaLstmOptions | None = None) -> None:
        episodic_batch_norm(network)
        super().__init__(network, ways)
        self.options = options or MetaLstmOptions()
        self.rule = UpdateRule(self.options.units, self.options.keep_bias, self.options.move_bias)
        transductive = self.options.batch_norm == "batch" and bool(norm_layers(network))
        self.capabilities = replace(self.capabilities, transductive=transductive)

    def adapt_task(self, support_x: Tensor, support_y: Tensor, ways: int) -> State:
        """Run the update rule over the support set.

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
        with torch.no_grad():  # the inner gradients enable what they need
            weights = self._adapted(support_x, support_y)
            return {**weights, **pack(self._support_statistics(weights, support_x))}

    def predict_task(self, state: State, query_x: Tensor) -> Tensor:
        """Score queries (Q, …) with the adapted weights: logits (Q, N)."""
        weights = {name: state[name] for name, _ in self.network.named_parameters()}
        return self._logits(weights, query_x, use=unpack(state))

    def task_gradients(
        self,
        task: Task,
        *,
        parameters: Mapping[str, nn.Parameter] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Grads, Metrics]:
        """Return the meta-gradient of one task, by the rule and c_0, and its ``loss`` and ``accuracy``."""
        weights = self._adapted(task.support_x, task.support_y)
        use = self._support_statistics(weights, task.support_x)
        logits = self._logits(weights, task.query_x, use=use)
        loss = nn.functional.cross_entropy(logits, task.query_y)
        right = (logits.detach().argmax(-1) == task.query_y).to(logits.dtype).mean()
        return gradients_of(loss, self, parameters), {"loss": loss.detach(), "accuracy": right}

    def clipped(self, gradients: Grads) -> Grads:
        """Shorten meta-gradients to length ``clip_norm`` over all parameters, as the authors do before a step."""
        length = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        factor = (self.options.clip_norm / length.clamp_min(1e-12)).clamp_max(1.0)
        return {name: factor * gradient for name, gradient in gradients.items()}

    def _adapted(self, support_x: Tensor, support_y: Tensor) -> dict[str, Tensor]:
        """Return the network's weights after all steps, in the graph of c_0 and the rule."""
        start = dict(self.network.named_parameters())
        sizes = [weight.numel() for weight in start.values()]
        theta = torch.cat([weight.flatten() for weight in start.values()])  # (P,)

        def named(flat: Tensor) -> dict[str, Tensor]:
            parts = zip(start.items(), torch.split(flat, sizes), strict=True)
            return {name: part.view_as(weight) for (name, weight), part in parts}

        state = self.rule.start(theta)
        for _ in range(self.options.steps):
            with torch.enable_grad():
                # Detached: loss and gradient are constants to the meta-gradient.
                at = theta.detach().requires_grad_()
                loss = nn.functional.cross_entropy(self._logits(named(at), support_x), support_y)
                (gradient,) = torch.autograd.grad(loss, at)
            theta, state = self.rule(theta, gradient, loss.detach(), state)
        return named(theta)

    def _logits(
        self,
        weights: Mapping[str, Tensor],
        x: Tensor,
        *,
        use: Statistics | None = None,
        record: Statistics | None = None,
    ) -> Tensor:
        stored = self.options.batch_norm == "stored"
        with statistics(self.network, stored=stored, use=use, record=record, fused=True):
            logits: Tensor = functional_call(self.network, dict(weights), (x,))
        return logits

    def _support_statistics(self, weights: Mapping[str, Tensor], support_x: Tensor) -> Statistics | None:
        """Return what normalises the queries, or None where the mode says otherwise."""
        if self.options.batch_norm != "support":
            return None
        record: Statistics = {}
        self._logits(weights, support_x, record=record)
        return record or None


def sgd_twin(
    network: Classifier, options: MetaLstmOptions, *, rate: float = 0.01, learned_rates: bool = True
) -> Maml:
    """Return the learner to compare with: as many plain gradient steps from a learned start, first order.

    Parameters
    ----------
    network : Classifier
        Copied: the same c_0.
    options : MetaLstmOptions
        Whose number of steps and batch norm it takes over.
    rate : float
        Step size; where rates are learned, their start.
    learned_rates : bool
        Learn a rate for each layer and step, so that what is left of the difference is what the rule sees:
        the gradient, the loss and the weight.

    Returns
    -------
    Maml
    """
    chosen = MamlOptions(
        order="first",
        inner_rate=rate,
        steps=options.steps,
        test_steps=options.steps,
        batch_norm=options.batch_norm,
        learned_rates=learned_rates,
    )
    return Maml(copy.deepcopy(network), chosen)
