"""Which cohort file a command finds, and what it takes from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta_dx.cli.common import ingest_options, project_of
from meta_dx.cohort.ingest_options import IngestOptions
from meta_dx.errors import MetaDxError


def cohort(path: Path, workers: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'[cohort]\nname = "c"\nsources = ["s"]\n[ingest]\nworkers = {workers}\n')
    return path


def test_the_limits_of_ingest_are_those_of_the_first_cohort_file_that_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("META_DX_COHORT", raising=False)
    home = tmp_path / "home"
    assert ingest_options(None, home) == IngestOptions()
    of_home = cohort(tmp_path / "home's" / "c.toml", 2)
    project_of(of_home, home)  # the home remembers it
    assert ingest_options(None, home).workers == project_of(None, home).settings.ingest.workers == 2
    cohort(tmp_path / "cohort.toml", 3)
    assert ingest_options(None, home).workers == project_of(None, home).settings.ingest.workers == 3
    monkeypatch.setenv("META_DX_COHORT", str(cohort(tmp_path / "environment.toml", 4)))
    assert ingest_options(None, home).workers == project_of(None, home).settings.ingest.workers == 4
    named = cohort(tmp_path / "named.toml", 5)
    assert ingest_options(named, home).workers == project_of(named, home).settings.ingest.workers == 5


def test_a_cohort_file_that_is_named_and_missing_is_no_default(tmp_path: Path) -> None:
    with pytest.raises(MetaDxError) as refused:
        ingest_options(tmp_path / "missing.toml", tmp_path / "home")
    assert refused.value.code == "no_settings"
