"""Run an ingest in child processes that die at a chosen moment; started by ``test_ingest_system.py``.

Arguments: fresh home, source, control home, number of deaths. Each child counts what it does to files, and when it
starts readers, through an audit hook and kills itself with SIGKILL at its n-th act. Prints one line a death and ends
with status 1 when any home that was killed and run again differs from the control, or a reader outlives its ingest.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.dicom import child as reader
from meta_dx.home import Home
from tests.processes import runs

ACTS = {
    "open",
    "subprocess.Popen",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "sqlite3.connect",
    "os.scandir",
}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def child(home: Path, source: Path, last: int, report: int) -> None:
    acts = 0
    active = True
    reader.COMMAND = (*reader.COMMAND, str(home))  # so that its readers can be told from others

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal acts
        if not active or event not in ACTS:
            return
        acts += 1
        if acts == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    ingest_folder(Home.open(home), source)
    active = False
    os.write(report, str(acts).encode())
    os._exit(0)


def run(home: Path, source: Path, last: int) -> int | None:
    """Return the number of acts, or None where the child was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(home, source, last, writing)
    os.close(writing)
    with os.fdopen(reading) as stream:
        acts = stream.read()
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else int(acts)


def readers(home: Path) -> list[int]:
    """Return the readers of this home that run half a minute after everything else has ended, or at once none."""
    until = time.monotonic() + 30
    while True:
        tag = f"\0{home}\0".encode()
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        left = [pid for pid in pids if runs(pid) and tag in _arguments(pid)]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)


def _arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def main() -> int:
    fresh, source, control, deaths = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    total = run(control, source, -1)
    if total is None:
        return 1
    expected = {store: tree(control / store) for store in ("catalog", "objects")}
    moments = sorted({1 + (total - 1) * n // (deaths - 1) for n in range(deaths)})
    for moment in moments:
        home = fresh.with_name(f"killed-{moment}")
        shutil.copytree(fresh, home)
        killed = run(home, source, moment) is None
        left = Catalog(Home(home)).batches() if (home / "catalog").exists() else []
        orphans = readers(home)
        run(home, source, -1)
        same = all(tree(home / store) == content for store, content in expected.items())
        sys.stdout.write(f"{moment}/{total} killed={killed} left={left} same={same} orphans={orphans}\n")
        if not (killed and same) or orphans or readers(home):
            return 1
        shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
