"""New studies become cases while the pages are served."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meta_dx.home import Home
from meta_dx.steps import review


def test_a_look_that_fails_is_told_without_its_words_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, versions, looked = threading.Event(), iter(["1", "2", "2", "2"]), []

    def add(project: Any, desk: Any) -> None:
        looked.append(desk)
        if len(looked) == 1:
            raise OSError("Doe^John cannot be read")
        stop.set()

    monkeypatch.setattr(review, "Catalog", lambda _: SimpleNamespace(version=next(versions)))
    monkeypatch.setattr(review, "add_cases", add)
    monkeypatch.setattr(review, "_SECONDS", 0.001)
    review.keep_current(cast(Any, SimpleNamespace(home=Home.open(tmp_path))), cast(Any, "desk"), stop)
    assert looked == ["desk", "desk"]
    assert "OSError" in caplog.text
    assert "Doe" not in caplog.text


def test_a_home_that_cannot_be_read_at_first_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, looked = threading.Event(), []

    def catalog(_: Any) -> Any:
        looked.append("version")
        if len(looked) == 1:
            raise OSError("stale file handle")
        return SimpleNamespace(version="1")

    monkeypatch.setattr(review, "Catalog", catalog)
    monkeypatch.setattr(review, "add_cases", lambda *_: stop.set())
    monkeypatch.setattr(review, "_SECONDS", 0.001)
    review.keep_current(cast(Any, SimpleNamespace(home=Home.open(tmp_path))), cast(Any, "desk"), stop)
    assert looked == ["version", "version"]
