"""What applies gradients in a stage, and how fast from step to step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from meta_dx.learners.base import Grads

Kind = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "linear"]
_LARGEST_GRADIENT = 5.0  # norm over all parameters
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


def optimizer_of(
    modules: Mapping[str, nn.Module], rates: Mapping[str, float], weight_decay: float, kind: Kind
) -> torch.optim.Optimizer:
    """Return the optimizer of the modules that have a learning rate, which each group keeps as ``highest``.

    Parameters
    ----------
    modules : mapping of str to Module
        On their device.
    rates : mapping of str to float
        Highest learning rate of each module that is trained.
    weight_decay : float
        Of matrices and convolutions; vectors such as biases have none.
    kind : {"adamw", "sgd"}
        ``sgd`` has neither momentum nor weight decay.
    """
    if kind == "sgd":
        plain = [
            {"params": list(modules[name].parameters()), "highest": rate} for name, rate in rates.items()
        ]
        return torch.optim.SGD(plain, lr=0.0)
    groups: list[dict[str, Any]] = []
    for name, highest in rates.items():
        parameters = list(modules[name].parameters())
        for matrices in (True, False):
            chosen = [p for p in parameters if (p.dim() > 1) == matrices]
            decay = weight_decay if matrices else 0.0
            if chosen:
                groups.append({"params": chosen, "highest": highest, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def rate_share(step: int, steps: int, schedule: Schedule) -> float:
    """Return the share of the highest learning rate: linear warm-up, then half a cosine to zero; or a line."""
    if schedule == "linear":
        return 1 - step / steps
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm + 1) / (steps - warm + 1)))


def shortened(gradients: Grads) -> Grads:
    """Return gradients whose norm over all parameters is 5 at most."""
    length = nn.utils.get_total_norm(list(gradients.values()))
    factor = (_LARGEST_GRADIENT / (length + 1e-6)).clamp_max(1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}


def unclipped(gradients: Grads) -> Grads:
    """Leave gradients as they are."""
    return gradients
