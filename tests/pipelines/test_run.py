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
from meta_dx.steps import open_project
from meta_dx.steps.cohort import usable_catalog
from meta_dx.steps.incoming import usable_batches
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


def test_a_mended_export_goes_on_after_it_was_refused(tmp_path: Path) -> None:
    some_studies(tmp_path / "studies", 24)
    whole = {path: path.read_bytes() for path in sorted((tmp_path / "studies").rglob("*.dcm"))}
    for path in list(whole)[:8]:
        path.write_bytes(whole[path][:-700])
    sentence = refused(cohort(tmp_path), tmp_path / "home")
    assert "few_files_damaged (8 of 24)" in sentence
    assert "mend the files where they lie and run again" in sentence
    assert "'meta-dx validate --accept b0001 --reason WHY'" in sentence
    for path, data in whole.items():
        path.write_bytes(data)
    done = run(cohort(tmp_path), tmp_path / "home")
    assert "Cohort, training, bundle, evaluation" in done.stderr, (
        "the batches passed; this cohort has no diagnoses"
    )
    project = open_project(tmp_path / "c.toml", tmp_path / "home")
    assert usable_batches(project) == ["b0001", "b0002"]
    assert len(usable_catalog(project).instances()) == 24


def test_a_refused_label_table_is_to_be_mended(tmp_path: Path) -> None:
    some_studies(tmp_path / "studies")
    header = "study_instance_uid,patient_id,accession_number,code,coding_scheme,meaning"
    rows = [f"1.2.{number + 1},P{number},,n/a,99T,Unknown" for number in range(3)]
    (tmp_path / "d.csv").write_text("\n".join([header, *rows]) + "\n")
    sentence = refused(cohort(tmp_path, "d.csv"), tmp_path / "home")
    assert "code_not_placeholder (3 of 3)" in sentence
    assert "mend the label table and run again" in sentence
    assert "--accept" not in sentence
