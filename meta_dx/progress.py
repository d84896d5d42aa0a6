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
    started = time.monotonic()
    last = started

    def report(done: int, total: int, message: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LINE_EVERY:
            return
        last = now
        left = (now - started) / max(done, 1) * (total - done)
        log.info("%s: %d of %d, %.0f s left %s", title, done, total, left, message)

    return report
