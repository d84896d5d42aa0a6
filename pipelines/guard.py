"""What a failure of ``make run`` and ``make dagster`` becomes: one sentence where the user can mend it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import meta_dx.home as homes
from assets.faults import machine_fault
from meta_dx.errors import MetaDxError
from meta_dx.faults import UnexpectedError, causes, told

log = logging.getLogger("meta_dx")

_LEAST_ROOM = 64 << 20  # bytes; Dagster's own tables and one bundle need about half of it


def guarded(work: Callable[[], int], home: Path) -> int:
    """Do the work of a command.

    Parameters
    ----------
    work : callable
        Returns the exit status.
    home : Path
        The home; named where a fault of its disk names no file.

    Returns
    -------
    int
        What ``work`` returned, 2 for what the user can mend, 130 after Ctrl-C, 1 for a fault of ours.
    """
    try:
        return work()
    except MetaDxError as fault:
        return _refuse(str(fault))
    except KeyboardInterrupt:
        return _refuse("stopped. Nothing is half written; run the same command again to go on.", 130)
    except Exception as fault:
        known = machine_fault(fault, home)
        if known is not None:
            return _refuse(str(known))
        told_already = next((one for one in causes(fault) if isinstance(one, UnexpectedError)), fault)
        log.error("meta_dx: %s", told(told_already, home))
        return 1


def require_room(home: Path) -> None:
    """Refuse a home on a disk that is read-only or nearly full, before Dagster opens its tables there.

    Raises
    ------
    MetaDxError
        ``disk_full``, ``read_only`` or ``not_writable``.
    """
    probe = homes.Home.open(home).root / ".room"
    homes.write_bytes(probe, b"")
    probe.unlink(missing_ok=True)
    free = shutil.disk_usage(home).free
    if free < _LEAST_ROOM:
        raise MetaDxError(
            "disk_full",
            f"Cannot work in {home}: its disk has {free / 1e6:.0f} MB left, a run needs {_LEAST_ROOM / 1e6:.0f}: "
            "free some space and run the same command again.",
        )


def _refuse(sentence: str, status: int = 2) -> int:
    log.error("meta_dx: %s", " ".join(sentence.split()))
    return status
