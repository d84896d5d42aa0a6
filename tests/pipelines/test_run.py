"""What ``make run`` says when it cannot go on: one sentence and exit status 2, never a traceback."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

import pipelines.run
from meta_dx.cohort.catalog import Catalog
from meta_dx.home import Home
from meta_dx.steps import open_project
from meta_dx.steps.cohort import usable_catalog
from meta_dx.steps.incoming import usable_batches
from pipelines.guard import guarded, require_room
from pipelines.progress import failed_check_line, step_lines
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


def test_a_disk_without_room_is_told_before_anything_is_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: full)
    assert guarded(lambda: require_room(tmp_path / "home") or 0, tmp_path / "home") == 2  # type: ignore[func-returns-value]
    assert f"Cannot work in {tmp_path / 'home'}: its disk has 1 MB left" in caplog.text
    assert not (tmp_path / "home" / ".room").exists()


def of_sqlite(code: int) -> Exception:
    fault = sqlite3.OperationalError("anything")
    fault.sqlite_errorcode = code
    return OperationalError("INSERT", {}, fault)


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (of_sqlite(sqlite3.SQLITE_FULL), "disk is full"),
        (of_sqlite(sqlite3.SQLITE_READONLY), "read-only"),
        (OSError(errno.ENOSPC, "anything", "/somewhere"), "/somewhere: the disk is full"),
        (OSError(errno.EROFS, "anything"), "read-only"),
        (
            PermissionError(errno.EACCES, "denied", "{home}/catalog"),
            "Cannot write {home}/catalog: permission",
        ),
    ],
)
def test_a_disk_that_fails_in_the_middle_of_a_run_is_one_sentence(
    fault: Exception, word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> int:
        try:
            raise fault
        except Exception as cause:
            raise RuntimeError("wrapped by the step that it met") from cause

    if isinstance(fault, OSError) and isinstance(fault.filename, str):
        fault.filename = fault.filename.format(home=tmp_path)
    assert guarded(run, tmp_path) == 2
    (record,) = caplog.records
    assert word.format(home=tmp_path) in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("bug"),
        of_sqlite(sqlite3.SQLITE_ERROR),
        OSError(errno.EIO, "bug"),
        PermissionError(errno.EACCES, "bug", "/of a patient"),
    ],
)
def test_a_fault_of_ours_is_told_by_its_place_and_what_it_said_is_kept_for_the_owner(
    fault: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> int:
        raise fault

    home = Home.open(tmp_path)
    assert guarded(run, tmp_path) == 1
    (record,) = caplog.records
    (kept,) = (home.private / "faults").iterdir()
    assert type(fault).__name__ in record.getMessage() and str(kept) in record.getMessage()
    assert f"{Path(__file__).name}:{run.__code__.co_firstlineno + 1} run" in record.getMessage()
    assert str(fault) not in record.getMessage() and str(fault) in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root to mount a disk")
@pytest.mark.parametrize(
    ("size", "remount", "word"), [("400k", "rw", "free some space"), ("90m", "ro", "read-only")]
)
def test_a_full_or_read_only_disk_is_one_sentence(tmp_path: Path, size: str, remount: str, word: str) -> None:
    some_studies(tmp_path / "studies")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        Home.open(disk / "home", "c")
        subprocess.run(["mount", "-o", f"remount,{remount}", str(disk)], check=True)
        sentence = refused(cohort(tmp_path), disk / "home")
        assert str(disk / "home") in sentence
        assert word in sentence
        if remount == "ro":
            opened = subprocess.run(
                [sys.executable, "-m", "pipelines.ui"],
                cwd=ROOT,
                env={**os.environ, "META_DX_HOME": str(disk / "home")},
                capture_output=True,
                text=True,
                check=False,
            )
            assert opened.returncode == 2, opened.stderr
            assert "read-only" in opened.stderr
            assert "Traceback" not in opened.stderr
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


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


def test_a_check_that_fails_is_one_line_with_its_counts_and_its_fault() -> None:
    failed = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("validated_diagnoses"),
        check_name="study_ingested",
        passed=False,
        metadata={"failed": dg.MetadataValue.int(3), "checked": dg.MetadataValue.int(18)},
        severity=dg.AssetCheckSeverity.WARN,
    )
    assert failed_check_line(failed) == (
        "check study_ingested: warning, 3 of 18 failed: A single row names a study that was never ingested"
    )


def test_a_refused_label_table_is_to_be_mended(tmp_path: Path) -> None:
    some_studies(tmp_path / "studies")
    header = "study_instance_uid,patient_id,accession_number,code,coding_scheme,meaning"
    rows = [f"1.2.{number + 1},P{number},,n/a,99T,Unknown" for number in range(3)]
    (tmp_path / "d.csv").write_text("\n".join([header, *rows]) + "\n")
    done = run(cohort(tmp_path, "d.csv"), tmp_path / "home")
    assert done.returncode == 2, done.stderr
    assert "check code_not_placeholder: blocking, 3 of 3 failed: The code is a placeholder" in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert "code_not_placeholder (3 of 3)" in sentence
    assert "mend the label table and run again" in sentence
    assert "--accept" not in sentence


def test_a_label_table_that_cannot_be_read_is_told_before_any_file_is_taken_in(tmp_path: Path) -> None:
    some_studies(tmp_path / "studies")
    (tmp_path / "d.csv").write_text("study,disease\n1.2.1,D1\n")
    sentence = refused(cohort(tmp_path, "d.csv"), tmp_path / "home")
    assert f"{tmp_path / 'd.csv'} has no column" in sentence
    assert Catalog(Home.open(tmp_path / "home")).batches() == []


def test_a_run_that_is_told_to_stop_says_so_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Dagster turns SIGTERM into an exception of its own, wherever the process is just then."""
    from dagster._core.errors import DagsterExecutionInterruptedError

    def stopped(*_: object, **__: object) -> None:
        raise DagsterExecutionInterruptedError

    some_studies(tmp_path / "studies")
    monkeypatch.setattr(dg.JobDefinition, "execute_in_process", stopped)
    monkeypatch.setattr(
        sys, "argv", ["run", "--cohort", str(cohort(tmp_path)), "--home", str(tmp_path / "home")]
    )
    monkeypatch.setenv("META_DX_COHORT", "")  # main sets both: put them back afterwards
    monkeypatch.setenv("META_DX_HOME", "")
    assert pipelines.run.main() == 130
    assert caplog.messages[-1].startswith("meta_dx: stopped. Nothing is half written")


def test_a_step_that_the_cohort_did_not_ask_for_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    @dg.asset
    def maml_learner() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"trained": "no: cohort.toml does not ask for 'maml'"})

    @dg.asset
    def anp_learner() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"trained": "yes"})

    job = dg.define_asset_job("job", [maml_learner, anp_learner])
    resolved = dg.Definitions([maml_learner, anp_learner], jobs=[job], loggers={"console": step_lines})
    resolved.resolve_job_def("job").execute_in_process(run_config={"loggers": {"console": {}}})
    lines = capsys.readouterr().err.splitlines()
    assert lines[lines.index("  ▸ maml_learner") + 1] == (
        "    not trained: cohort.toml does not ask for 'maml'"
    )
    assert lines[lines.index("  ▸ anp_learner") + 1].startswith("    done in ")
