"""Visible progress: one bar on a terminal, one line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger("meta_dx")

_LINE_EVERY = 10.0  # seconds between lines where there is no terminal


class Progress(Protocol):
    """What long steps call: ``progress(done, total, message)``; ``message`` is a short state such as a loss."""

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Report that ``done`` of ``total`` units are finished."""


def silent(done: int, total: int, message: str = "") -> None:
    """Report nothing."""


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """Show the progress of one step on stderr until the block ends.

    Parameters
    ----------
    title : str
        What is being done, in two or three words.

    Yields
    ------
    Progress
        Callable to report with.
    """
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("    {task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[message]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None, message="")

        def report(done: int, total: int, message: str = "") -> None:
            shown.update(task, completed=done, total=total, message=message)

        yield report


def _lines(title: str) -> Progress:
    last = time.monotonic()
    first: tuple[float, int] | None = None
    before = 0

    def report(done: int, total: int, message: str = "") -> None:
        nonlocal last, first, before
        now = time.monotonic()
        # A step that is resumed does not begin at 0, and what comes before its first unit says nothing of its speed.
        # Where the count falls, another part has begun.
        first = (now, done) if first is None or done < before else first
        before = done
        if now - last < _LINE_EVERY:
            return
        last = now
        since, ahead = now - first[0], done - first[1]
        left = f"{since / ahead * (total - done):.0f} s left" if ahead > 0 else ""
        log.info("%s: %s", title, ", ".join(filter(None, (f"{done} of {total}", left, message))))

    return report
