"""What MAML++ adds to MAML: rates for each layer and step, batch norm for each step, losses of every step.

Antreas Antoniou, Harrison Edwards, Amos Storkey: *How to train your MAML*, ICLR 2019,
https://arxiv.org/abs/1810.09502

Section 4: the inner rate is a learned number for each layer and each inner step; batch normalisation has
running statistics (BNRS), scale and shift (BNWB) of its own for each inner step; and in the first epochs the
meta-loss is a weighted sum of the query losses after every step, the weights fading to the last step's.

Deviations. The running statistics are moved by a call of their own, so that a meta-gradient changes nothing;
the authors' published code collects them too, but normalises by the batch even when testing. Scale and shift
of each step are meta-learned and stay out of the inner loop, as in that code's settings. The fading is linear
from equal weights to none but the last; that code keeps a small rest of 3 % until the fading ends. Steps
beyond those of meta-training use what the last one has. Section 4's first-order phase is the caller's to
choose, through the ``order`` of the learner.

Not reproduced on a benchmark of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from meta_dx.learners.batch_norm import EpisodicBatchNorm, Statistics


class StepRates(nn.Module):
    """A learned inner rate for each step and layer; weight and bias of a layer share theirs.

    Parameters
    ----------
    names : list of str
        Tensors that are adapted.
    start : float
        Every rate at the start.
    steps : int
        Inner steps in meta-training.
    """

    def __init__(self, names: list[str], start: float, steps: int) -> None:
        super().__init__()
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        self._column = {name: layers.index(name.rpartition(".")[0]) for name in names}
        self.rates = nn.Parameter(torch.full((steps, len(layers)), start))

    def at(self, step: int, name: str) -> Tensor:
        """Return the rate, a scalar, of a tensor at a step."""
        return self.rates[min(step, len(self.rates) - 1), self._column[name]]


class StepNorm(nn.Module):
    """Running statistics, scale and shift of batch norm for each inner step.

    Parameters
    ----------
    layers : list of EpisodicBatchNorm
        The network's layers.
    steps : int
        Inner steps in meta-training; the state after the last one has its own, so there are one more.
    """

    def __init__(self, layers: list[EpisodicBatchNorm], steps: int) -> None:
        super().__init__()
        self._names = [layer.name for layer in layers]
        self.scale, self.shift = nn.ParameterList(), nn.ParameterList()
        for number, layer in enumerate(layers):
            self.scale.append(layer.weight.detach().expand(steps + 1, -1).clone())
            self.shift.append(layer.bias.detach().expand(steps + 1, -1).clone())
            for kind, value in (("mean", layer.running_mean), ("var", layer.running_var)):
                self.register_buffer(f"{kind}_{number}", value.expand(steps + 1, -1).clone())
        self._last = steps

    def affine(self, step: int) -> dict[str, Tensor]:
        """Return scale and shift (C,) at a step, named as the layers' ``weight`` and ``bias``."""
        row, found = min(step, self._last), {}
        for name, scale, shift in zip(self._names, self.scale, self.shift, strict=True):
            found[f"{name}.weight"], found[f"{name}.bias"] = scale[row], shift[row]
        return found

    def statistics(self, step: int) -> Statistics:
        """Return the running mean and variance of each layer at a step."""
        row = min(step, self._last)
        return {
            name: (self.get_buffer(f"mean_{number}")[row], self.get_buffer(f"var_{number}")[row])
            for number, name in enumerate(self._names)
        }

    @torch.no_grad()
    def update(self, step: int, seen: Statistics, momentum: float) -> None:
        """Move the running statistics of a step towards those of a batch (biased variance)."""
        for number, name in enumerate(self._names):
            for kind, value in zip(("mean", "var"), seen[name], strict=True):
                self.get_buffer(f"{kind}_{number}")[step].lerp_(value, momentum)


def step_loss_weights(annealing: float, steps: int) -> list[float]:
    """Return the weights of the query losses after steps 1 … K; they sum to one.

    Parameters
    ----------
    annealing : float
        0: all equal; 1: only the last step counts.
    steps : int
        K.
    """
    other = (1 - annealing) / steps
    return [other] * (steps - 1) + [1 - (steps - 1) * other]
