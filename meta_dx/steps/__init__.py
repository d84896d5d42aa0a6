"""The steps of the pipeline as functions of a project: what the Dagster assets and the command line both call.

A step reads what earlier steps left in the home, does its work through the rooms of the library, and leaves its
result in the home. Running a finished step again finds its result and returns it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from meta_dx.home import DEFAULT_HOME, Home
from meta_dx.settings import Settings, load_settings


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
    return Project(Home.open(root, settings.cohort.name), settings)
