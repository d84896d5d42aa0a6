"""The processes that ``torchrun`` started: what the first does alone, and what goes from each to all.

The only place that knows of ``torch.distributed``. Without torchrun there is one process, and every function
here is the plain thing. Processes join at their first call. A process that waits has no time limit to speak of,
because ingest and validation may take hours; that another has died shows as a closed connection, or as
torchrun's signal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from meta_dx.errors import MetaDxError

#: Code of the error by which the other processes end where the first has failed, and has said why.
STOPPED = "first_process_stopped"
_LONGEST_WAIT = timedelta(days=7)
_T = TypeVar("_T")


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if _joined() else 0


def device_number() -> int:
    """Return which of its machine's GPUs a process uses."""
    return int(os.environ["LOCAL_RANK"]) if _joined() else 0


def alone(work: Callable[[], _T]) -> _T:
    """Let the first process do something while the others wait, and give its result to all.

    Every process has to call it, in the same order; the work itself must call nothing of this module.

    Parameters
    ----------
    work : callable
        Returns something small that can be pickled.

    Returns
    -------
    object
        What the first process's ``work`` returned.

    Raises
    ------
    MetaDxError
        In the other processes :data:`STOPPED` where it raised; ``process_lost`` where a process has died.
    """
    if not _joined():
        return work()
    told: list[tuple[bool, _T | None]] = [(False, None)]
    if rank() == 0:
        try:
            told = [(True, work())]
        except BaseException:
            with suppress(RuntimeError):  # the fault that is under way says more than a lost process
                dist.broadcast_object_list(told)
            raise
    with _connection():
        dist.broadcast_object_list(told)
    done, result = told[0]
    if not done:
        raise MetaDxError(STOPPED, "The first process has stopped, and its message says why.")
    return result  # type: ignore[return-value] # what ``work`` returned


def gathered(vector: Tensor) -> list[Tensor]:
    """Return every process's vector, of one shape and dtype, in the order of the processes.

    Raises
    ------
    MetaDxError
        ``process_lost`` where a process has died.
    """
    if not _joined():
        return [vector]
    found = [torch.empty_like(vector) for _ in range(count())]
    with _connection():
        dist.all_gather(found, vector)
    return found


def leave() -> None:
    """End what joined the processes; for the end of a run that went well."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _joined() -> bool:
    """Tell whether there are other processes, and join them at the first call."""
    if not dist.is_available():
        return False
    if not dist.is_initialized():
        if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
            return False
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        with _connection():
            # Gloo for tensors of the CPU even where there are GPUs: it waits without keeping a device busy.
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_LONGEST_WAIT)
    return dist.get_world_size() > 1


@contextmanager
def _connection() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as fault:
        reason = str(fault).strip().splitlines()
        raise MetaDxError(
            "process_lost",
            "Another process of this training has ended, or cannot be reached "
            f"({reason[0][:200] if reason else type(fault).__name__}). What it wrote last says why; run the same "
            "torchrun command again to go on from the last checkpoint.",
        ) from fault
