"""What ``make run`` says when it cannot go on: one sentence and exit status 2, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meta_dx.cohort.catalog import Catalog
from meta_dx.home import Home
from tests.dicom.builders import write_instance
from tests.pipelines.conftest import ROOT


def cohort(folder: Path, diagnoses: str = "") -> Path:
    path = folder / "c.toml"
    path.write_text(f'[cohort]\nname = "c"\nsources = ["studies"]\ndiagnoses = "{diagnoses}"\n')
    return path


def some_studies(folder: Path, patients: int = 3) -> None:
    rng = np.random.default_rng(0)
    for number in range(patients):
        pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
        write_instance(folder, patient=f"P{number}", study=f"1.2.{number + 1}", pixels=pixels)


def run(cohort: Path, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.run", "--cohort", str(cohort), "--home", str(home)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)


def refused(cohort: Path, home: Path) -> str:
    """Run the pipeline, which must refuse; return its last line."""
    done = run(cohort, home)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("files", [0, 2])
def test_a_folder_without_dicom_is_named_and_leaves_no_batch(tmp_path: Path, files: int) -> None:
    (tmp_path / "studies").mkdir()
    for number in range(files):
        (tmp_path / "studies" / f"{number}.txt").write_text("not a picture")
    sentence = refused(cohort(tmp_path), tmp_path / "home")
    assert f"The folder {tmp_path / 'studies'} holds no" in sentence
    assert Catalog(Home.open(tmp_path / "home")).batches() == []
