"""What a fault of ours has said is kept for the home's owner, whatever it said and however often."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import pytest

from meta_dx.faults import quietly, told
from meta_dx.home import Home

LOST = "there was no home that could keep what it said"


def fault(words: str) -> Exception:
    try:
        raise ValueError(words)
    except ValueError as raised:
        return raised


def kept(home: Home) -> list[Path]:
    return sorted((home.private / "faults").iterdir())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def test_only_the_owner_may_read_it(home: Home) -> None:
    told(fault("Doe^John"), home.root)
    (path,) = kept(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(home.private.stat().st_mode) == 0o700


def test_a_name_of_a_file_that_is_no_text_is_kept(home: Home) -> None:
    said = told(fault(os.fsdecode(b"M\xfcller.dcm in Z\xc3\xbcrich")), home.root)
    (path,) = kept(home)
    assert str(path) in said
    assert "M\\udcfcller.dcm in Zürich" in path.read_text("utf-8")


def test_what_was_raised_from_none_is_kept_like_its_place_is_told(home: Home) -> None:
    def inner() -> NoReturn:
        raise KeyError("Doe^John")

    try:
        try:
            inner()
        except KeyError:
            raise RuntimeError("cannot be read") from None
    except RuntimeError as raised:
        said = told(raised, home.root)
    assert "inner" in said
    assert "Doe^John" in kept(home)[0].read_text()


def test_one_that_comes_back_pushes_out_no_other(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    told(fault("another"), home.root)

    def look() -> NoReturn:
        raise OSError("the same each time")

    for _ in range(30):
        quietly(look, home.root)
    another, same = kept(home)
    assert "another" in another.read_text()
    assert caplog.text.count(str(same)) == 30


def test_of_many_the_newest_twenty_stay(home: Home) -> None:
    for number in range(25):
        told(fault(f"fault <{number}>"), home.root)
    assert [f"<{number}>" in path.read_text() for number, path in enumerate(kept(home), start=5)] == [
        True
    ] * 20


def test_a_full_disk_hides_no_fault_and_leaves_no_empty_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.fdopen

    class Full:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()

        def write(self, _: bytes) -> NoReturn:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda *given: Full(opened(*given)))
    said = told(fault("Doe^John"), home.root)
    assert LOST in said
    assert "ValueError" in said
    assert kept(home) == []


def test_a_home_that_cannot_even_be_looked_at_hides_no_fault(tmp_path: Path) -> None:
    said = told(fault("Doe^John"), tmp_path / ("x" * 300))
    assert LOST in said
    assert "ValueError" in said
    assert "Doe" not in said
