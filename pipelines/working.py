"""Which runs a living process works on: each holds a lock that the system frees when the process dies, however it dies.

Dagster writes down that a run has started; a process that is killed cannot write down that it has ended. Its run
would count as started for good, and with one run at a time nothing would ever run again.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

#: Locks of this process. They belong to a process, not to its children, and closing any other handle frees them.
_held: dict[Path, IO[str]] = {}


def take_up(instance: dg.DagsterInstance, run_id: str) -> None:
    """Say that this process works on a run until it ends; saying it twice changes nothing."""
    path = _lock_file(instance, run_id)
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Locked before it has its name: to others, an unlocked lock file is that of a dead process.
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    stream = beside.open("w")
    fcntl.lockf(stream, fcntl.LOCK_EX)
    stream.write(f"{socket.gethostname()} {os.getpid()}\n")
    stream.flush()
    _held[path] = stream  # before it has its name, too: other threads of this process look here
    beside.replace(path)


@contextmanager
def working_on(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Work on a run for the length of a block, in a process that outlives the run."""
    take_up(instance, run_id)
    try:
        yield
    finally:
        path = _lock_file(instance, run_id)
        path.unlink(missing_ok=True)
        _held.pop(path).close()


def is_dead(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Tell whether the process that worked on a run is gone; of a run that nobody took up here, it cannot be told."""
    path = _lock_file(instance, run_id)
    if path in _held:
        return False
    try:
        with path.open() as stream:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or no such file
        return False
    return True


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the runs of dead processes as failed, so that those that wait for them can start.

    Returns
    -------
    list of str
        Their run ids.
    """
    ended = []
    for path in sorted(_folder(instance).glob("*.lock")):
        run_id = path.stem
        if not is_dead(instance, run_id):
            continue
        run = instance.get_run_by_id(run_id)  # read after the death: what the process still wrote is in it
        if run is not None and not run.is_finished:
            instance.report_run_failed(
                run,
                "The process of this run died (killed, out of memory, or the machine went down): run it again.",
            )
            ended.append(run_id)
        path.unlink(missing_ok=True)
    return ended


def _folder(instance: dg.DagsterInstance) -> Path:
    return Path(instance.root_directory) / "working"


def _lock_file(instance: dg.DagsterInstance, run_id: str) -> Path:
    return _folder(instance) / f"{run_id}.lock"
