"""A step in equal parts, each of which goes through the network by itself: in turn, or one in each process.

A *shard* is a part of a step's images or episodes, with batch statistics and random draws of its own. Every
shard starts from the buffers (running statistics) that stood before the step. Gradients, metrics and the changes
of the buffers are averaged: added shard after shard, in that order whichever process had which, then divided.
So what a step gives depends on the number of shards and never on the number of processes: on a CPU, with the
same number of threads, it is the same bits with any number of processes that divides the shards. In one process
shards are what gradient accumulation is elsewhere: they save memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Grads, Metrics
from meta_dx.training import processes
from meta_dx.training.task import step_seed


@dataclass(frozen=True)
class Shard:
    """One of the equal parts of a step.

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    index, count : int
        Which part of how many.
    """

    step: int
    index: int = 0
    count: int = 1

    def part(self, whole: int) -> range:
        """Return this shard's places among the ``whole`` images or episodes of its step."""
        size = whole // self.count
        return range(self.index * size, (self.index + 1) * size)

    def seed(self, seed: int, what: str) -> int:
        """Return the seed of what this shard draws at random; a first shard has that of an undivided step."""
        return step_seed(seed, f"{what}/{self.index}" if self.index else what, self.step)


ShardGradients = Callable[[Shard], tuple[Grads, Metrics]]


def require_whole_shards(shards: int) -> None:
    """Refuse a number of processes among which the shards cannot be shared evenly.

    Raises
    ------
    MetaDxError
        ``bad_value``.
    """
    count = processes.count()
    if shards % count:
        raise MetaDxError(
            "bad_value",
            f"torchrun started {count} processes, and [training] shards is {shards}: "
            f"set it to a multiple of {count}.",
        )


def require_one_run(key: str, step: int) -> None:
    """Refuse processes that would not make one run; none goes on before all have come here.

    Parameters
    ----------
    key : str
        Hash of all that decides the result, data included.
    step : int
        Where this process goes on.

    Raises
    ------
    MetaDxError
        ``other_data`` or ``other_checkpoint``; ``process_lost``.
    """
    name = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    names, steps = torch.stack(processes.gathered(torch.tensor([name, step]))).T.tolist()
    if len(set(names)) > 1:
        raise MetaDxError(
            "other_data",
            "Processes of torchrun found other data or options in the home than one another: wait until nothing is "
            "taken into it, and run the same torchrun command again.",
        )
    if len(set(steps)) > 1:
        raise MetaDxError(
            "other_checkpoint",
            f"Processes of torchrun found checkpoints of steps {', '.join(map(str, steps))}: the home has to be one "
            "folder on a disk that all of them share.",
        )


def mean_over_shards(
    objective: ShardGradients, modules: Mapping[str, nn.Module], step: int, shards: int
) -> tuple[Grads, Metrics]:
    """Return the mean over a step's shards of gradients and metrics, and move the buffers by theirs.

    Parameters
    ----------
    objective : callable
        From a shard to its gradients and metrics; may change buffers of the modules.
    modules : mapping of str to Module
        Whose buffers count.
    step : int
        Number of the step.
    shards : int
        Into how many parts it is cut: a multiple of the number of processes. Process r has the shards r,
        r + processes, …

    Returns
    -------
    gradients : dict of str to Tensor
        As the objective names them.
    metrics : dict of str to Tensor
        Scalars.

    Raises
    ------
    MetaDxError
        ``process_lost``.
    """
    if shards == 1:
        return objective(Shard(step))
    buffers = [buffer for module in modules.values() for buffer in module.buffers()]
    moving = [buffer for buffer in buffers if buffer.is_floating_point()]
    before = [buffer.clone() for buffer in buffers]
    start = [buffer for buffer in before if buffer.is_floating_point()]
    total = torch.zeros(())
    for first in range(0, shards, processes.count()):
        _set(buffers, before)
        gradients, metrics = objective(Shard(step, first + processes.rank(), shards))
        # Changes, not values: a buffer that no shard changes stays as it is to the last bit.
        changes = [now - then for now, then in zip(moving, start, strict=True)]
        scalars = [torch.as_tensor(value) for value in metrics.values()]
        parts = [*gradients.values(), *scalars, *changes]
        for vector in processes.gathered(_flattened(parts)):
            total = total + vector
    means = _taken_apart(total / shards, parts)
    averaged = {name: next(means) for name in gradients}, {name: next(means) for name in metrics}
    _set(moving, [then + next(means) for then in start])
    return averaged


def _flattened(parts: list[Tensor]) -> Tensor:
    """Return the numbers of all tensors one after another, on the device of the first."""
    return torch.cat([part.detach().to(parts[0].device).reshape(-1) for part in parts])


def _taken_apart(vector: Tensor, like: list[Tensor]) -> Iterator[Tensor]:
    """Undo :func:`_flattened`."""
    pieces = torch.split(vector, [part.numel() for part in like])
    return (piece.reshape(part.shape).to(part) for piece, part in zip(pieces, like, strict=True))


@torch.no_grad()
def _set(buffers: list[Tensor], values: list[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
