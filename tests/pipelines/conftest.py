"""One small cohort, run once through the whole pipeline for all end-to-end tests, with every socket watched."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]

COHORT = """\
[cohort]
name = "tiny"
sources = ["studies/first", "studies/second"]
diagnoses = "studies/diagnoses.csv"
device = "cpu"

[images]
size = 32

[split]
common_min = 20
validation_min = 10
rare_min = 5

[training]
pretrain_epochs = 2
episodes = 6
validation_episodes = 20

[evaluation]
shots = [1, 3]
episodes = 40
repeats = 3

[serve]
max_shots = 3

[inbox]
holdout = 4
"""

# Runs a module as __main__ and ends the process at the first connection that leaves the machine.
WATCHED = """\
import os, runpy, sys

def watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if host not in ("localhost", "::1", "") and not host.startswith("127."):
        sys.stderr.write(f"LEFT THE MACHINE: {event} {host}\\n")
        sys.stderr.flush()
        os._exit(99)

sys.addaudithook(watch)
module, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Ran:
    """The tiny cohort after one complete run."""

    folder: Path
    output: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cohort(self) -> Path:
        return self.folder / "tiny.toml"

    def again(self, module: str = "pipelines.run", *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a module on this home in a process whose sockets are watched."""
        environment = {
            **os.environ,
            "META_DX_HOME": str(self.home),
            "META_DX_COHORT": str(self.cohort),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-c", WATCHED, module, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    # Workers of pytest-xdist share one run: the first makes it, the others wait for it.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "end-to-end"
    with FileLock(str(shared / "end-to-end.lock")):
        output = folder / "output.txt"
        if not output.exists():
            from meta_dx.dicom.phantom import write_phantom

            folder.mkdir(exist_ok=True)
            write_phantom(folder / "studies", seed=3, diseases=24)
            (folder / "tiny.toml").write_text(COHORT)
            done = Ran(folder, "").again()
            assert done.returncode == 0, done.stderr[-4000:]
            output.write_text(done.stdout)
    return Ran(folder, output.read_text())
