"""Commands that only read work in a home that may only be read, and those that write say so."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.splits import Split, SplitOptions
from meta_dx.home import Home, write_json
from meta_dx.records.database import Records
from meta_dx.records.predictions import NearestCase, PredictedStudy, PredictionRun, save_prediction_run
from meta_dx.records.support import SupportCase, SupportSets
from meta_dx.records.vault import Vault

READING = (
    ["predictions"],
    ["support", "list"],
    ["support", "show"],
    ["support", "show", "1"],
    ["split", "show"],
)
ROOT = Path(__file__).parents[2]

#: Leaves a write-ahead log behind, as a process that was killed does.
KILLED_WRITER = """\
import os, sys
from meta_dx.home import Home
from meta_dx.records.database import Records
from meta_dx.records.support import SupportCase, SupportSets
records = Records.open(Home.open(sys.argv[1]))
with records.reading() as open_until_the_end:
    open_until_the_end.connection()
    SupportSets(records).add([SupportCase("D2", "99T", "Two", "S2", "P2")], author="a", reason="later")
    os._exit(9)
"""


def filled_home(folder: Path) -> Home:
    home = Home.open(folder, "c")
    vault, records = Vault.open(home), Records.open(home)
    vault.remember("study", {"S1": "1.2.3", "S3": "1.2.4"})
    vault.close()
    SupportSets(records).add([SupportCase("D1", "99T", "One", "S1", "P1")], author="a", reason="first")
    answer = PredictedStudy("S3", {"D1": 0.75, "D2": 0.25}, 0.56, (NearestCase("S1", "D1", 0.9),), False)
    save_prediction_run(records, PredictionRun("bundle", 1, "v0001", "data", "b0001"), [answer])
    split = Split("v0001", None, "v0001", {"D1": "common"}, {}, {}, SplitOptions(), {})
    write_json(home.splits / "v0001.json", split.to_json())
    return home


def answers(home: Home, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    found = []
    for command in READING:
        assert meta_dx([*command, "--home", str(home.root), "--json"]) == 0, command
        found.append(capsys.readouterr().out)
    return found


def state(folder: Path) -> dict[Path, tuple[int, bytes | None]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def test_what_may_not_be_written_to_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = filled_home(tmp_path / "home")
    expected = answers(home, capsys)
    assert "1.2.4" in expected[0]
    gc.collect()  # a vault that is still open has its log beside it
    before = state(home.root)
    really = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and really(path, mode))
    assert answers(home, capsys) == expected
    assert state(home.root) == before


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder for a home, and a way to forbid writing to it: ``lock`` in it."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() == 0:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("a file system cannot be mounted here")
    yield folder
    if os.geteuid() == 0:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        allow(folder, writing=True)


def allow(folder: Path, *, writing: bool) -> None:
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", f"remount,{'rw' if writing else 'ro'}", str(folder)], check=True)
    else:
        subprocess.run(["chmod", "-R", "u+w" if writing else "a-w", str(folder)], check=True)


@pytest.mark.system
@pytest.mark.parametrize("killed", [False, True])
def test_a_read_only_home_can_be_read(
    locked: Path, killed: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    home = filled_home(locked / "home")
    if killed:
        writer = [sys.executable, "-c", KILLED_WRITER, str(home.root)]
        assert subprocess.run(writer, cwd=ROOT, check=False).returncode == 9
        assert (home.root / "records.sqlite-wal").stat().st_size > 0
    allow(locked, writing=False)
    versions = json.loads(answers(home, capsys)[1])
    assert [version["reason"] for version in versions] == ["first", "later"][: 1 + killed]
    assert meta_dx(["support", "remove", "--code", "D1", "--home", str(home.root)]) == 2
    assert "read-only" in caplog.text
