"""The steps of the pipeline as functions of a project: what the Dagster assets and the command line both call.

A step reads what earlier steps left in the home, does its work through the rooms of the library, and leaves its
result in the home. Running a finished step again finds its result and returns it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from meta_dx.errors import MetaDxError
from meta_dx.home import DEFAULT_HOME, Home, write_json
from meta_dx.settings import Settings, load_settings

_COHORT_FILE = "cohort_file.json"


@dataclass(frozen=True)
class Project:
    """One cohort in its home: what every step needs."""

    home: Home
    settings: Settings


def open_project(cohort: Path | str, home: Path | str | None = None) -> Project:
    """Read a cohort file and open its home.

    Parameters
    ----------
    cohort : Path or str
        ``cohort.toml``.
    home : Path or str, optional
        Home folder; ``META_DX_HOME`` or ``.meta_dx`` if absent.

    Returns
    -------
    Project

    Raises
    ------
    MetaDxError
        From the settings, or when the home belongs to another cohort.
    """
    settings = load_settings(cohort)
    root = home or os.environ.get("META_DX_HOME") or DEFAULT_HOME
    opened = Home.open(root, settings.cohort.name)
    remembered, file = opened.root / _COHORT_FILE, str(Path(cohort).resolve())
    if not remembered.exists() or json.loads(remembered.read_text())["file"] != file:
        with contextlib.suppress(MetaDxError):  # a home that may only be read serves commands that only read
            write_json(remembered, {"file": file})
    return Project(opened, settings)


def cohort_file_of(home: Path) -> Path | None:
    """Return the cohort file that a home was last opened with, if it is still there."""
    remembered = home / _COHORT_FILE
    file = Path(json.loads(remembered.read_text())["file"]) if remembered.exists() else None
    return file if file is not None and file.exists() else None
