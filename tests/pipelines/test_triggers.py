"""The sensor and the schedule see new files, ask for a run once, and the runs they ask for work."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.project import MetaDx
from pipelines.definitions import defs
from pipelines.schedules import nightly
from pipelines.sensors import inbox
from tests.pipelines.conftest import Ran


@pytest.fixture
def copied(ran: Ran, tmp_path: Path) -> Ran:
    """The finished tiny home, to be changed at will; its studies lie in a new place and so are new files."""
    shutil.copytree(ran.home, tmp_path / "home")
    shutil.copytree(ran.folder / "studies", tmp_path / "studies")
    shutil.copy(ran.cohort, tmp_path / "tiny.toml")
    return Ran(tmp_path, "")


def test_new_files_become_a_batch_that_is_taken_in_and_predicted(copied: Ran) -> None:
    meta_dx = MetaDx(cohort=str(copied.cohort), home=str(copied.home))
    (copied.folder / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(copied.folder / "dagster")) as instance:
        context = dg.build_sensor_context(instance=instance, resources={"meta_dx": meta_dx})
        asked = [one for one in inbox(context) if isinstance(one, dg.RunRequest)]
        assert [one.partition_key for one in asked] == ["b0003", "b0004"]
        assert {one.job_name for one in asked} == {"inbox_job"}
        assert set(instance.get_dynamic_partitions("ingest_batch")) == {"b0001", "b0002", "b0003", "b0004"}
        job = dg.Definitions(assets=defs.assets, jobs=defs.jobs, resources={"meta_dx": meta_dx})
        for one in asked:
            done = job.resolve_job_def("inbox_job").execute_in_process(
                instance=instance, partition_key=one.partition_key
            )
            assert done.success
        again = list(inbox(dg.build_sensor_context(instance=instance, resources={"meta_dx": meta_dx})))
        assert len(again) == 1
        assert isinstance(again[0], dg.SkipReason)


def test_the_nightly_schedule_asks_for_everything_for_each_waiting_batch(copied: Ran) -> None:
    meta_dx = MetaDx(cohort=str(copied.cohort), home=str(copied.home))
    (copied.folder / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(copied.folder / "dagster")) as instance:
        context = dg.build_schedule_context(
            instance=instance,
            resources={"meta_dx": meta_dx},
            scheduled_execution_time=datetime(2026, 1, 5, 2, 30, tzinfo=UTC),
        )
        asked = list(nightly(context))
    assert [one.partition_key for one in asked] == ["b0003", "b0004"]
    assert len({one.run_key for one in asked}) == 2
