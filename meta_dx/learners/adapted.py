"""One adapted network by itself: the end of an adaptation as an ordinary network that answers pictures one by one.

What a learner keeps apart (adapted weights, statistics of batch norm, a last layer built from the support set)
is put into a copy of its network, so that nothing of the learner is needed to use it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from meta_dx.learners.batch_norm import Statistics, norm_layers


def fixed_network(network: nn.Module, weights: Mapping[str, Tensor], use: Statistics | None) -> nn.Module:
    """Return a copy of a network with these weights, whose batch norm has fixed statistics.

    Parameters
    ----------
    network : nn.Module
        After :func:`~meta_dx.learners.batch_norm.episodic_batch_norm`; a
        :class:`~meta_dx.learners.classifier.Classifier` without a last layer gets one.
    weights : mapping of str to Tensor
        All of its parameters by name.
    use : dict or None
        Mean and variance of each batch-norm layer; None: the running statistics.

    Returns
    -------
    nn.Module
        Examples (B, …) to logits (B, N), in evaluation mode; the answer to one does not depend on the others.

    Raises
    ------
    ValueError
        When the weights are not those of the network.
    """
    fixed = copy.deepcopy(network)
    if "linear.weight" in weights and getattr(fixed, "linear", None) is None:
        ways, size = weights["linear.weight"].shape
        fixed.linear = nn.Linear(size, ways).to(weights["linear.weight"])
    parameters = dict(fixed.named_parameters())
    if set(parameters) != set(weights):
        raise ValueError(f"weights do not fit the network: {sorted(set(parameters) ^ set(weights))}")
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
        for layer in norm_layers(fixed):
            if use is not None:
                layer.running_mean.copy_(use[layer.name][0])
                layer.running_var.copy_(use[layer.name][1])
            layer.stored = layer.fused = True
    return fixed.requires_grad_(False).eval()
