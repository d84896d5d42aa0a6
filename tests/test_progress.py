"""Lines of progress in a log say how far a step is and when it ends."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from meta_dx import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    yield now


def test_the_time_that_is_left_goes_by_the_speed_since_the_first_report(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meta_dx")
    with progress.bar("training") as report:
        clock[0] += 500  # what is prepared before the first step is not the speed of a step
        report(40, 100, "loss 1")  # resumed at 40
        clock[0] += 20
        report(50, 100, "loss 0.5")
        clock[0] += 1
        report(51, 100)  # too soon for another line
        clock[0] += 19
        report(60, 100)
    assert caplog.messages == [
        "training: 40 of 100, loss 1",
        "training: 50 of 100, 100 s left, loss 0.5",
        "training: 60 of 100, 80 s left",
    ]


def test_a_second_count_under_the_same_bar_begins_anew(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meta_dx")
    with progress.bar("training") as report:
        report(10, 100)
        report(90, 100)
        clock[0] += 30
        report(10, 50)
        clock[0] += 30
        report(20, 50)
    assert caplog.messages == ["training: 10 of 50", "training: 20 of 50, 90 s left"]
