"""Faults of ours, told without what they quote.

The message of an exception that a library raises may hold a value of a file, a path or an identifier. Where it went
wrong is told by classes, files and lines alone; the messages go to the owner's folder of the home.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import meta_dx.home as homes
from meta_dx.errors import MetaDxError

log = logging.getLogger("meta_dx")

_FOLDER = "faults"
_KEPT = 20  # newest files, all different


class UnexpectedError(Exception):
    """A fault of ours whose message is :func:`told`; raised ``from None`` in the place of what it tells of."""


def causes(fault: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that led to it, also what it was raised in the place of; each once."""
    seen = set[int]()
    while fault is not None and id(fault) not in seen:  # one that is raised again may lead in a circle
        seen.add(id(fault))
        yield fault
        fault = fault.__cause__ or fault.__context__


def told(fault: BaseException, root: Path) -> str:
    """Say what went wrong and where, and keep what must not be said.

    Parameters
    ----------
    fault : BaseException
        Any exception.
    root : Path
        The home. Where there is one, the whole traceback is written into its ``private/faults``, once if it comes
        again.

    Returns
    -------
    str
        Several lines: class and places of each exception of the chain, no message of any, and where these are.
    """
    if isinstance(fault, UnexpectedError):
        return str(fault)
    kept = _keep(fault, root)
    where = (
        f"what it said, which may quote a patient, is in {kept}"
        if kept
        else "there was no home that could keep what it said"
    )
    return f"A fault of ours; {where}.\n" + "\n".join(line for one in causes(fault) for line in _places(one))


def quietly(work: Callable[[], object], root: Path) -> None:
    """Do something that nobody waits for; what fails is logged as :func:`told`, and nothing is raised.

    Parameters
    ----------
    work : callable
        Without arguments.
    root : Path
        The home.
    """
    try:
        work()
    except MetaDxError as fault:
        log.error("meta-dx: %s", fault)
    except Exception as fault:
        log.error("meta-dx: %s", told(fault, root))


def _places(fault: BaseException) -> Iterator[str]:
    kind = type(fault)
    yield f"{kind.__module__}.{kind.__qualname__}"
    for frame, line in traceback.walk_tb(fault.__traceback__):
        yield f"  {frame.f_code.co_filename}:{line} {frame.f_code.co_name}"


def _keep(fault: BaseException, root: Path) -> Path | None:
    # Each by itself: a chain leaves out what was raised ``from None``, whose place is told all the same.
    lines = (line for one in causes(fault) for line in traceback.format_exception(one, chain=False))
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    try:
        if not (root / "home.json").exists():
            return None
        said = "".join(lines).encode(errors="backslashreplace")  # names of files need not be valid text
        folder = homes.Home(root).private / _FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = sorted(folder.iterdir())
        for old in kept:  # one that comes back every half minute must not push out all others
            if _content(old) == said:
                return old
        path = folder / f"{now}-{os.getpid()}.txt"
        _write(path, said)
        for old in [*kept, path][:-_KEPT]:
            old.unlink(missing_ok=True)
    except Exception:  # a full disk must not hide the fault
        return None
    return path


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # another process has just made room
        return None


def _write(path: Path, said: bytes) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(said)
    except OSError:
        path.unlink(missing_ok=True)
        raise
