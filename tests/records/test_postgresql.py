"""The records on a real PostgreSQL: every test of this folder again, on a server started for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.records.postgresql_server import postgresql_server, programs

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)"),
]


def test_everything_that_holds_on_sqlite_holds_on_postgresql() -> None:
    with postgresql_server() as url:
        environment = {**os.environ, "META_DX_TEST_DATABASE_URL": url}
        environment.pop("CI", None)  # what only SQLite does is skipped, and that is right here
        command = [
            sys.executable,
            "-m",
            "pytest",
            Path(__file__).parent,
            "-m",
            "not system",
            "-p",
            "no:cacheprovider",
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50
