"""Batch normalisation with an explicit mode, for learners that adapt a network's weights.

What stands in for the mean and the variance decides the figures of MAML and Reptile, so the mode has a name
and is printed beside them:

``batch``
    Statistics of whatever batch is put in, queries included: *transductive*, as in the published figures of
    MAML (every query is normalised with all others of its task).
``support``
    Statistics of the support set, also for the queries: nothing of one query reaches another.
``stored``
    Running statistics from training, fixed: for networks that were pre-trained.

Written out from mean and variance: ``torch.func.grad`` of ``vmap`` of ``grad`` through
``torch.nn.BatchNorm2d`` gives silently wrong second-order gradients, this is exact. Outside of ``torch.func``
torch's own kernel is exact too, and faster: ``statistics(fused=True)`` asks for it. Running statistics are
never updated here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: Mean and variance (C,) of each batch-norm layer, by the layer's name.
Statistics = dict[str, tuple[Tensor, Tensor]]


class EpisodicBatchNorm(nn.Module):
    """Batch normalisation over all axes but the channels', statistics as :func:`statistics` says.

    Parameters
    ----------
    layer : nn.BatchNorm1d, nn.BatchNorm2d or nn.BatchNorm3d
        Whose weights and running statistics are taken over.
    name : str
        Under which statistics are recorded and used.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm, name: str) -> None:
        super().__init__()
        size = layer.num_features
        self.name, self.eps = name, layer.eps
        self.weight = nn.Parameter(
            torch.ones(size) if layer.weight is None else layer.weight.detach().clone()
        )
        self.bias = nn.Parameter(torch.zeros(size) if layer.bias is None else layer.bias.detach().clone())
        mean, var = layer.running_mean, layer.running_var
        self.register_buffer("running_mean", torch.zeros(size) if mean is None else mean.detach().clone())
        self.register_buffer("running_var", torch.ones(size) if var is None else var.detach().clone())
        self.stored = self.fused = False
        self.record: Statistics | None = None
        self.use: Statistics | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, *spatial)."""
        # Torch refuses the statistics of one value; its kernel gives none to record or to differentiate.
        kernel = self.fused and self.record is None and (self.stored or self.use is None)
        if kernel and (self.stored or x.numel() > x.shape[1]):
            mean, var = (self.running_mean, self.running_var) if self.stored else (None, None)
            return nn.functional.batch_norm(
                x, mean, var, self.weight, self.bias, training=not self.stored, eps=self.eps
            )
        return self._written_out(x)

    def _written_out(self, x: Tensor) -> Tensor:
        if self.stored:
            mean, var = self.running_mean, self.running_var
        elif self.use is not None:
            mean, var = self.use[self.name]
        else:
            axes = [0, *range(2, x.dim())]
            mean = x.mean(axes)
            var = (x - _shaped(mean, x)).square().mean(axes)  # biased, as torch normalises with
        if self.record is not None:
            self.record[self.name] = (mean, var)
        scale = self.weight * (var + self.eps).rsqrt()
        return (x - _shaped(mean, x)) * _shaped(scale, x) + _shaped(self.bias, x)


def episodic_batch_norm(network: nn.Module) -> nn.Module:
    """Replace every batch-norm layer of a network, in place, by :class:`EpisodicBatchNorm`; returns it."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], EpisodicBatchNorm(module, name))
    return network


def norm_layers(network: nn.Module) -> list[EpisodicBatchNorm]:
    """Return the batch-norm layers of a network after :func:`episodic_batch_norm`."""
    return [module for module in network.modules() if isinstance(module, EpisodicBatchNorm)]


@contextmanager
def statistics(
    network: nn.Module | list[EpisodicBatchNorm],
    *,
    stored: bool = False,
    record: Statistics | None = None,
    use: Statistics | None = None,
    fused: bool = False,
) -> Iterator[None]:
    """Choose the statistics of every batch-norm layer inside the block.

    Parameters
    ----------
    network : nn.Module or list of EpisodicBatchNorm
        After :func:`episodic_batch_norm`, or its layers from :func:`norm_layers`, which saves the search.
    stored : bool
        Use the running statistics.
    record : dict, optional
        Filled with the statistics that a pass through the network uses, with their gradients.
    use : dict, optional
        Statistics to use, recorded earlier.
    fused : bool
        Use torch's own kernel where it does the same. Never inside ``torch.func.grad`` or ``vmap``: its second
        derivatives are wrong there.
    """
    layers = network if isinstance(network, list) else norm_layers(network)
    for layer in layers:
        layer.stored, layer.record, layer.use, layer.fused = stored, record, use, fused
    try:
        yield
    finally:
        for layer in layers:
            layer.stored, layer.record, layer.use, layer.fused = False, None, None, False


def pack(found: Statistics | None) -> dict[str, Tensor]:
    """Return statistics as tensors of a state, ``mean/<layer>`` and ``var/<layer>``; none for None."""
    kinds = ("mean", "var")
    return {f"{kinds[k]}/{name}": both[k] for name, both in (found or {}).items() for k in (0, 1)}


def unpack(state: dict[str, Tensor]) -> Statistics | None:
    """Return the statistics that :func:`pack` put into a state, None where there are none."""
    names = [name.removeprefix("mean/") for name in state if name.startswith("mean/")]
    return {name: (state[f"mean/{name}"], state[f"var/{name}"]) for name in names} or None


def mean_statistics(seen: list[Statistics]) -> Statistics:
    """Return the mean of several batches' statistics."""
    return {
        name: (
            torch.stack([each[name][0] for each in seen]).mean(0),
            torch.stack([each[name][1] for each in seen]).mean(0),
        )
        for name in seen[0]
    }


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """Return (C,) so that it broadcasts over (B, C, *spatial)."""
    return values.reshape(1, -1, *[1] * (like.dim() - 2))
