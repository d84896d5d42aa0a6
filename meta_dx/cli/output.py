"""How commands answer: one JSON object on stdout, or lines for people."""

from __future__ import annotations

import json
import sys
from pathlib import PurePath
from typing import Any


def emit_json(value: Any) -> None:
    """Write one JSON value and a newline to stdout."""
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    # Names of files may hold bytes that are no text; what is written for them, JSON reads back.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def say(line: str = "") -> None:
    """Write one line for a person to stdout."""
    sys.stdout.write(line + "\n")


def counted(number: int, one: str, many: str) -> str:
    """Return a number with the word that fits it."""
    return f"{number} {one if number == 1 else many}"


def table(headings: list[str], rows: list[list[Any]]) -> None:
    """Write an aligned table to stdout; numbers to the right."""
    cells = [headings, *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    numeric = [
        all(isinstance(row[i], int | float) for row in rows) and bool(rows) for i in range(len(headings))
    ]
    for row in cells:
        padded = [
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)
        ]
        say("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    # Whoever names the files in an archive must not write to the terminal of whoever lists them.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
