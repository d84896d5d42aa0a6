"""A process that is killed cannot say that its run has ended; the next one that looks says it in its place."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import dagster as dg
import numpy as np
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from assets.project import MetaDx
from pipelines import ui
from pipelines.instance import open_instance
from pipelines.resources import WorkingMetaDx
from pipelines.sensors import inbox
from pipelines.working import end_dead_runs, is_dead, working_on
from tests.dicom.builders import write_instance
from tests.pipelines.conftest import ROOT

STARTED, FAILED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE
WORKER = """\
import sys
from pipelines.instance import open_instance
from pipelines.working import take_up
with open_instance() as instance:
    take_up(instance, sys.argv[1])
    print("works", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("META_DX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("META_DX_COHORT", str(tmp_path / "c.toml"))
    monkeypatch.setenv("DAGSTER_HOME", "")  # opening sets it; the test must not leave it behind
    with open_instance() as opened:
        yield opened


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


@contextmanager
def worker(run: dg.DagsterRun) -> Iterator[subprocess.Popen[str]]:
    """Another process that works on a run until it is killed."""
    command = [sys.executable, "-c", WORKER, run.run_id]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ}, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "works\n"
            yield process
        finally:
            process.kill()


@pytest.mark.system
def test_only_the_runs_of_dead_processes_are_ended(instance: dg.DagsterInstance) -> None:
    killed, living, finished, foreign, mine = (
        create_run_for_test(instance, status=status)
        for status in (STARTED, STARTED, dg.DagsterRunStatus.SUCCESS, STARTED, STARTED)
    )
    watched = instance.run_launcher
    with worker(living), working_on(instance, mine.run_id):
        for run in (killed, finished):
            with worker(run):
                assert watched.check_run_worker_health(run).status is WorkerStatus.RUNNING
        assert watched.check_run_worker_health(killed).status is WorkerStatus.FAILED
        assert watched.check_run_worker_health(foreign).status is WorkerStatus.RUNNING, "it cannot be told"
        assert end_dead_runs(instance) == [killed.run_id]
        assert status(instance, killed) is FAILED
        assert status(instance, finished) is dg.DagsterRunStatus.SUCCESS
        assert {status(instance, run) for run in (living, foreign, mine)} == {STARTED}
        assert not is_dead(instance, mine.run_id), "to look must not free the lock of the looker"
    assert end_dead_runs(instance) == [living.run_id]


@pytest.mark.system
def test_the_ui_ends_dead_runs_before_it_opens(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_for_test(instance, status=STARTED)
    with worker(run):
        pass
    opened: list[str] = []
    monkeypatch.setattr(os, "execv", lambda _path, command: opened.extend(command))
    monkeypatch.setattr(sys, "argv", ["ui"])
    ui.main()
    assert "dev" in opened
    assert status(instance, run) is FAILED


@pytest.mark.parametrize("before", [True, False], ids=["before the lock", "after the lock"])
def test_a_run_that_is_just_being_taken_up_is_not_ended(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    run, lock, ended = create_run_for_test(instance, status=STARTED), fcntl.lockf, []

    def look(stream: IO[str], how: int) -> None:
        monkeypatch.setattr(fcntl, "lockf", lock)
        if not before:
            lock(stream, how)
        ended.extend(end_dead_runs(instance))
        lock(stream, how)

    monkeypatch.setattr(fcntl, "lockf", look)
    with working_on(instance, run.run_id):
        assert ended == []
        assert end_dead_runs(instance) == []
        (left,) = (Path(instance.root_directory) / "working").iterdir()
        assert left.name == f"{run.run_id}.lock"
    assert status(instance, run) is STARTED


def test_a_run_that_is_launched_is_taken_up_by_its_process(instance: dg.DagsterInstance) -> None:
    seen: list[Path] = []

    @dg.asset
    def looks(context: dg.AssetExecutionContext, meta_dx: MetaDx) -> None:
        seen.append(Path(context.instance.root_directory) / "working" / f"{context.run.run_id}.lock")
        assert seen[0].exists()

    resource = WorkingMetaDx(cohort="c.toml", home="home")
    assert dg.materialize([looks], instance=instance, resources={"meta_dx": resource}).success
    assert len(seen) == 1


@pytest.mark.system
def test_after_a_kill_the_next_run_ends_the_dead_one_and_the_inbox_asks_for_its_batch_again(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
        write_instance(tmp_path / "studies", patient=f"P{number}", study=f"1.2.{number + 1}", pixels=pixels)
    (tmp_path / "c.toml").write_text('[cohort]\nname = "c"\nsources = ["studies"]\n')
    kill_in_the_first_step(tmp_path)
    (dead,) = instance.get_runs(filters=dg.RunsFilter(statuses=[STARTED]))
    assert dead.tags["dagster/partition"] == "b0001"
    kill_in_the_first_step(tmp_path)
    assert status(instance, dead) is FAILED
    assert len(instance.get_runs(filters=dg.RunsFilter(statuses=[STARTED]))) == 1, "the one killed just now"
    meta_dx = MetaDx(cohort=str(tmp_path / "c.toml"), home=str(tmp_path / "home"))
    asked = list(inbox(dg.build_sensor_context(instance=instance, resources={"meta_dx": meta_dx})))
    assert [one.partition_key for one in asked if isinstance(one, dg.RunRequest)] == ["b0001"]
    assert instance.get_runs(filters=dg.RunsFilter(statuses=[STARTED])) == []


def kill_in_the_first_step(folder: Path) -> None:
    """Run the pipeline and kill it (signal 9) when its first step has begun."""
    command = [sys.executable, "-m", "pipelines.run"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        lines = []
        for line in run.stderr:
            lines.append(line)
            if "▸" in line:
                break
        run.kill()
    assert "▸" in lines[-1], "".join(lines)
