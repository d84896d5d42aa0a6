"""Ingest on a real Dask cluster of two workers on the loopback, one of which is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import IngestOptions, ingest_folder
from meta_dx.dicom import child
from meta_dx.dicom.pool import DASK_SCHEDULER
from tests.cohort.test_ingest import tree, twin
from tests.dicom.archive_builders import write_archive
from tests.dicom.builders import write_instance

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


class Cluster:
    """A scheduler and two workers, each a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen] = []
        scheduler = folder / "scheduler.json"
        self._start(
            "dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            scheduler,
        )
        until = time.monotonic() + 120
        while not scheduler.exists() and time.monotonic() < until:
            time.sleep(0.1)
        self.address = json.loads(scheduler.read_text())["address"]
        self.workers = [self.add_worker() for _ in range(2)]

    def add_worker(self) -> subprocess.Popen:
        number = len(self._processes)
        options = [
            "--host",
            "127.0.0.1",
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--name",
            f"w{number}",
        ]
        place = ["--local-directory", self._folder / f"worker{number}"]
        return self._start("dask_worker", self.address, *options, *place)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, module: str, *arguments) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / f"{module}-{len(self._processes)}.log").open("w"),
        )
        self._processes.append(process)
        return process


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    yield cluster
    cluster.close()


def test_a_cluster_gives_the_same_bytes_though_a_worker_is_killed(home, source, cluster, monkeypatch):
    for number in range(400):
        write_instance(source, name=f"{number:04d}", patient=f"P{number}")
    (source / "0100").write_text("no DICOM")
    write_archive(source / "a.zip", {"x": (source / "0001").read_bytes(), "y": b"text"})
    other = twin(home, "other")
    ingest_folder(home, source, options=IngestOptions(workers=1))
    monkeypatch.setenv(DASK_SCHEDULER, cluster.address)
    monkeypatch.setattr(child, "COMMAND", ("false",))  # nothing is read by this process
    killed = threading.Event()

    def progress(done: int, total: int) -> None:
        if done >= 100 and not killed.is_set():
            cluster.workers[0].send_signal(signal.SIGKILL)
            killed.set()

    ingest_folder(other, source, options=IngestOptions(workers=1), progress=progress)
    assert killed.is_set() and cluster.workers[0].wait(10) == -signal.SIGKILL
    assert cluster.workers[1].poll() is None
    assert tree(home.catalog) == tree(other.catalog) and tree(home.objects) == tree(other.objects)
    assert len(Catalog(other).instances()) == 399
