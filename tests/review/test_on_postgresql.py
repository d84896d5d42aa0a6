"""The review pages on a real PostgreSQL: the tests of these files again, on a server started for them."""

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


#: The main path, the leak test, who sees whom, and several people at once.
WANTED = (
    "at_once or whole_way or differ_only or blind_to_each_other or not_at_all or draft or accepting or queued "
    "or makes_no_reference"
)


def test_the_pages_behave_on_postgresql_as_on_sqlite() -> None:
    here = Path(__file__).parent
    with postgresql_server() as url:
        environment = {**os.environ, "META_DX_TEST_DATABASE_URL": url}
        names = ("app", "at_once", "blindness", "deciding", "reading_first", "settling")
        files = [here / f"test_{name}.py" for name in names]
        options = ["-m", "not system", "-k", WANTED, "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *files, *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15
    assert "skipped" not in done.stdout
