"""A PostgreSQL server of our own on a free port of loopback, for the time of a test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """Return the folder of ``initdb`` and ``postgres``, the newest version's; None where none is installed."""
    versions = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    found = versions[-1] if versions else shutil.which("postgres")
    return Path(found).parent if found else None


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Yield the URL of an empty database; the server and its files go with the block."""
    here, port = programs(), _free_port()
    if here is None:
        raise FileNotFoundError("PostgreSQL is not installed")
    # The server refuses to run as root, and its user may not enter the folders of the tests.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="meta-dx-postgresql-") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user)
        make = [here / "initdb", "-D", folder / "data", "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, user=user)
        # -F: a server that lives for one test need not survive a power cut.
        serve = [here / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        log = folder / "server.log"
        with log.open("wb") as told:
            server = subprocess.Popen(serve, cwd=folder, stdout=told, stderr=told, user=user)
        try:
            _wait(here / "pg_isready", port, log)
            yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # its way to end without waiting for clients
            server.wait(30)


def _wait(ready: Path, port: int, log: Path) -> None:
    for _ in range(200):
        asked = [ready, "-h", "127.0.0.1", "-p", str(port), "-U", "tester"]
        if subprocess.run(asked, check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
