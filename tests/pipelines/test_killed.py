"""A run that is killed at any moment is ended by the same command, and nothing is there twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines.conftest import ROOT, Ran


@pytest.mark.system
@pytest.mark.timeout(1500)
def test_a_killed_run_is_ended_by_the_same_command(ran: Ran, tmp_path: Path) -> None:
    shutil.copytree(ran.folder / "studies", tmp_path / "studies")
    shutil.copy(ran.cohort, tmp_path / "tiny.toml")
    again = Ran(tmp_path, "")
    environment = {**os.environ, "META_DX_HOME": str(again.home), "META_DX_COHORT": str(again.cohort)}
    command = [sys.executable, "-m", "pipelines.run"]
    # Killed while files are read, between batches, in training, while the bundle is exported.
    for seconds in (7, 11, 22, 30):
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        running.send_signal(signal.SIGKILL)
        running.wait()
    done = again.again()
    assert done.returncode == 0, done.stderr[-3000:]
    assert counted(again) == counted(ran)
    litter = [path for path in again.home.rglob("*.tmp") if "dagster" not in path.parts]
    assert litter == []


def counted(run: Ran) -> dict[str, object]:
    from meta_dx.cohort.catalog import Catalog
    from meta_dx.home import Home

    catalog = Catalog(Home.open(run.home))
    summaries = [catalog.summary(batch) for batch in catalog.batches()]
    names = ("found", "accepted", "duplicates", "not_dicom", "rejected", "studies", "patients")
    instances = catalog.instances()
    assert not instances["instance"].duplicated().any()
    return {
        "batches": [{name: summary[name] for name in names} for summary in summaries],
        "objects": sum(path.is_file() for path in (run.home / "objects").rglob("*.dcm")),
        "bundles": sum(path.is_dir() and len(path.name) == 16 for path in (run.home / "bundles").iterdir()),
    }
