"""Bad input gives one clear sentence (what, where, what to do), exit status 2, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.catalog import Catalog
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.dicom.builders import write_instance


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture):  # type: ignore[no-untyped-def]
    """Run a command that must be refused; return its one sentence."""

    def refused(*arguments: object) -> str:
        caplog.clear()
        assert meta_dx([str(argument) for argument in arguments]) == 2
        lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(lines) == 1
        assert "\n" not in lines[0]
        return lines[0]

    return refused


def some_studies(folder: Path, patients: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(patients):
        study = f"1.2.3.{number + 1}"
        pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
        write_instance(folder, patient=f"P{number}", study=study, pixels=pixels)
        rows.append({"study_instance_uid": study, "patient_id": f"P{number}", "accession_number": ""})
    table = pd.DataFrame(rows)
    return table.assign(code="D1", coding_scheme="99T", meaning="Disease one")


def cohort_file(folder: Path, name: str = "small") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f'[cohort]\nname = "{name}"\nsources = ["studies"]\ndiagnoses = "diagnoses.csv"\n')
    return path


def test_an_empty_or_missing_folder_and_one_without_dicom(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    assert "empty" in told("ingest", tmp_path / "empty", "--home", tmp_path / "h")
    assert "nowhere" in told("ingest", tmp_path / "nowhere", "--home", tmp_path / "h")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("not a picture")
    assert "DICOM" in told("ingest", tmp_path / "letters", "--home", tmp_path / "h")
    for folder in ("empty", "letters"):
        sentence = told("deidentify", tmp_path / folder, tmp_path / "out", "--key", tmp_path / "key")
        assert f"{folder} holds no DICOM" in sentence


@pytest.mark.parametrize("command", ["train", "validate"])
def test_training_and_validation_say_what_ingest_says_of_such_a_folder_and_leave_no_batch(  # type: ignore[no-untyped-def]
    tmp_path: Path, told, command: str
) -> None:
    some_studies(tmp_path / "elsewhere").to_csv(tmp_path / "diagnoses.csv", index=False)
    (tmp_path / "studies").mkdir()
    options = ("--cohort", cohort_file(tmp_path), "--home", tmp_path / "h")
    assert told(command, *options) == told("ingest", tmp_path / "studies", "--home", tmp_path / "h")
    (tmp_path / "studies" / "a.txt").write_text("not a picture")
    (tmp_path / "studies" / "b.dcm").write_text("not a picture either")
    sentence = told(command, *options)
    assert "no DICOM file (2 files" in sentence
    assert str(tmp_path / "studies") in sentence
    assert sentence == told("ingest", tmp_path / "studies", "--home", tmp_path / "h")
    home = Home.open(tmp_path / "h")
    assert Catalog(home).batches() == []
    assert Vault.open(home).batches() == []


def test_files_that_are_all_damaged_are_told_with_their_codes(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    some_studies(tmp_path / "studies").to_csv(tmp_path / "diagnoses.csv", index=False)
    for path in (tmp_path / "studies").rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-700])
    sentence = told("train", "--cohort", cohort_file(tmp_path), "--home", tmp_path / "h")
    assert "(truncated)" in sentence
    assert str(tmp_path / "studies") in sentence


def test_validate_takes_the_cohort_in_and_checks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some_studies(tmp_path / "studies").to_csv(tmp_path / "diagnoses.csv", index=False)
    options = ("--cohort", str(cohort_file(tmp_path)), "--home", str(tmp_path / "h"))
    assert meta_dx(["validate", *options, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert {(one["name"], one["checked"]) for one in results} >= {
        ("batch_has_images", 3),
        ("study_ingested", 3),
    }


def test_validate_names_what_failed_as_the_hospital_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some_studies(tmp_path / "studies").to_csv(tmp_path / "diagnoses.csv", index=False)
    damaged = next((tmp_path / "studies").rglob("*.dcm"))
    study = str(dcmread(damaged).StudyInstanceUID)
    damaged.write_bytes(damaged.read_bytes()[:-700])
    options = ("--cohort", str(cohort_file(tmp_path)), "--home", str(tmp_path / "h"))
    meta_dx(["validate", *options, "--json"])
    results = json.loads(capsys.readouterr().out)["results"]
    (failed,) = (one for one in results if not one["passed"])
    assert failed["failing"] == [study]


def test_diagnoses_with_missing_columns_name_the_columns(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    some_studies(tmp_path / "studies").drop(columns="code").to_csv(tmp_path / "diagnoses.csv", index=False)
    sentence = told("train", "--cohort", cohort_file(tmp_path), "--home", tmp_path / "h")
    assert "code" in sentence
    assert "diagnoses.csv" in sentence
    assert not Catalog(Home.open(tmp_path / "h")).batches(), "told before anything is taken in"


def test_diagnoses_of_other_studies_are_refused(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    table = some_studies(tmp_path / "studies")
    table.assign(study_instance_uid="9.9.9").to_csv(tmp_path / "diagnoses.csv", index=False)
    sentence = told("train", "--cohort", cohort_file(tmp_path), "--home", tmp_path / "h")
    assert "diagnoses.csv" in sentence
    assert "9.9.9" not in sentence


def test_a_disease_with_one_patient_cannot_be_split_and_the_counts_are_told(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    some_studies(tmp_path / "studies", 1).to_csv(tmp_path / "diagnoses.csv", index=False)
    sentence = told("train", "--cohort", cohort_file(tmp_path), "--home", tmp_path / "h")
    assert "D1 1" in sentence
    assert "_min" in sentence


def test_a_missing_diagnosis_table_is_named(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    some_studies(tmp_path / "studies")
    assert "diagnoses.csv" in told("train", "--cohort", cohort_file(tmp_path), "--home", tmp_path / "h")
    assert not Catalog(Home.open(tmp_path / "h")).batches()


def test_a_corrupt_picture_is_rejected_with_a_code_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some_studies(tmp_path / "studies")
    victim = sorted((tmp_path / "studies").rglob("*.dcm"))[0]
    victim.write_bytes(victim.read_bytes()[:-700])
    assert meta_dx(["ingest", str(tmp_path / "studies"), "--home", str(tmp_path / "h"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accepted"] == 2
    assert sum(found["rejected"].values()) == 1


def test_the_home_of_another_cohort_is_refused_and_untouched(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    some_studies(tmp_path / "studies").to_csv(tmp_path / "diagnoses.csv", index=False)
    told("train", "--cohort", cohort_file(tmp_path), "--home", tmp_path / "h")
    before = sorted(path for path in (tmp_path / "h").rglob("*") if path.is_file())
    sentence = told("train", "--cohort", cohort_file(tmp_path, "other"), "--home", tmp_path / "h")
    assert "small" in sentence
    assert "--home" in sentence
    assert sorted(path for path in (tmp_path / "h").rglob("*") if path.is_file()) == before


def test_no_bundle_and_no_support_are_told_with_what_to_do(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "support.csv").write_text("study_instance_uid,code\n1.2.3,A\n")
    sentence = told(
        "predict", "--bundle", tmp_path, "--support", tmp_path / "support.csv", "--studies", tmp_path
    )
    assert "export" in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path, told) -> None:  # type: ignore[no-untyped-def]
    some_studies(tmp_path / "studies")
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "locked" in told("ingest", tmp_path / "studies", "--home", tmp_path / "locked" / "h")


@pytest.mark.system
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root to mount a full disk"
)
def test_a_full_disk_is_reported_and_the_run_ends_well_after_more_room(tmp_path: Path) -> None:
    some_studies(tmp_path / "studies", 200)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=True)
    try:
        command = [
            sys.executable,
            "-m",
            "meta_dx.cli",
            "ingest",
            str(tmp_path / "studies"),
            "--home",
            str(small / "h"),
        ]
        full = subprocess.run(command, capture_output=True, text=True, check=False)
        assert full.returncode == 2, full.stderr
        assert "full" in full.stderr.lower()
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["accepted"] == 200
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
