"""Options that several commands share."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    from meta_dx.cohort.ingest_options import IngestOptions
    from meta_dx.home import Home
    from meta_dx.settings import Settings
    from meta_dx.steps import Project

log = logging.getLogger("meta_dx")

_HERE = Path("cohort.toml")

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Home folder; META_DX_HOME or .meta_dx if absent.")
]
CohortOption = Annotated[
    Path | None,
    typer.Option("--cohort", help="cohort.toml; META_DX_COHORT, ./cohort.toml or the home's own if absent."),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Take pictures of this kind too: secondary_capture, ultrasound, burned_in_annotation, "
        "recognizable_features; may be given several times."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")]


def home_root(home: Path | None) -> Path:
    """Return the home folder that a command works in."""
    from meta_dx.home import DEFAULT_HOME

    return Path(home or os.environ.get("META_DX_HOME") or DEFAULT_HOME)


def existing_home(home: Path | None) -> Path:
    """Return the home folder, which must exist already.

    Raises
    ------
    MetaDxError
        ``no_home``, or ``adapted_network`` where one adapted network is named, which takes no confirmed cases.
    """
    from meta_dx.inference.manifest import refuse_adapted

    root = home_root(home)
    if not (root / "home.json").exists():
        refuse_adapted(root)
        inside = sorted(str(home.parent) for home in root.glob("*/home.json"))
        raise MetaDxError(
            "no_home",
            f"There is no home at {root}, but at {', '.join(inside)}: name it with --home."
            if inside
            else f"There is no home at {root}: name it with --home, or create one with 'make run'.",
        )
    return root


def require_batch(home: Home, batch: str) -> None:
    """Refuse a batch that a home has never planned.

    Raises
    ------
    MetaDxError
        ``unknown_batch``.
    """
    from contextlib import closing

    from meta_dx.records.vault import Vault

    with closing(Vault.open(home)) as vault:
        known = [one.id for one in vault.batches()]
    if batch not in known:
        there = f"it has {', '.join(known)}" if known else "it has none yet"
        raise MetaDxError("unknown_batch", f"The home {home.root} has no batch '{batch}': {there}.")


def project_of(cohort: Path | None, home: Path | None) -> Project:
    """Open the project that ``--cohort`` and ``--home`` name."""
    from meta_dx.steps import open_project

    return open_project(_cohort_file(cohort, home) or _HERE, home_root(home))


def settings_at_hand(cohort: Path | None, home: Path | None) -> Settings | None:
    """Read the cohort file that a command finds, for one that can do without; None where there is none.

    Parameters
    ----------
    cohort, home : Path, optional
        ``--cohort`` and ``--home``; the home need not exist.
    """
    from meta_dx.settings import load_settings

    file = _cohort_file(cohort, home)
    return None if file is None else load_settings(file)


def ingest_options(cohort: Path | None, home: Path | None) -> IngestOptions:
    """Return section ``[ingest]`` of the cohort file that a command finds, or its defaults where there is none."""
    from meta_dx.cohort.ingest_options import IngestOptions

    settings = settings_at_hand(cohort, home)
    return IngestOptions() if settings is None else settings.ingest


def _cohort_file(cohort: Path | None, home: Path | None) -> Path | None:
    """Find the cohort file: the one that is named, the one that lies here, the one of the home."""
    from meta_dx.steps import cohort_file_of

    named = cohort or os.environ.get("META_DX_COHORT")
    return Path(named) if named else _HERE if _HERE.exists() else cohort_file_of(home_root(home))


def take_in_new(project: Project) -> None:
    """Take in the new and changed files of all sources, with a bar for each batch.

    Raises
    ------
    MetaDxError
        From ingest, or because there is nothing to take in and nothing was taken in before.
    """
    from meta_dx.progress import bar
    from meta_dx.steps import incoming, pacs

    pacs.fetch_new(project, bar)
    incoming.require_batch(project)
    for sentence in incoming.idle_sources(project):
        log.warning("%s", sentence)
    for batch in incoming.pending_batches(project):
        with bar(f"reading {batch.id}") as progress:
            incoming.take_in(project, batch.id, progress)
