"""By what two viewports are linked, in a real browser: positions count only within one frame of reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.review.chromium import needs_chromium, opening
from tests.review.serving import served
from tests.review.two_studies import (
    EARLIER,
    SAGITTAL,
    THICK,
    THIN,
    desk_of_two_studies,
    write_two_studies,
)
from tests.review.viewer import OTHER, PANE, Viewer

pytestmark = needs_chromium


class Pair(Viewer):
    """A viewer with the thick slices of today, and the earlier study beside them."""

    def __init__(self, page: Any) -> None:
        super().__init__(page)
        self.open(THICK)
        self.press("c")
        self.ready(OTHER)
        assert self.number("slices", OTHER) == EARLIER

    def open(self, slices: int) -> None:
        """Open the series with so many slices in the first viewport."""
        self.page.locator(".serieslist__entry", has_text=f"{slices} images").click()
        self.wait(lambda: self.number("slices") == slices)
        self.ready()
        self.page.locator(PANE).focus()

    @property
    def note(self) -> str:
        return str(self.page.locator(".viewer__note").inner_text())

    def at(self, *slices: int) -> bool:
        """Tell whether the viewports show these slices."""
        return (self.number("slice"), self.number("slice", OTHER)) == slices

    def body(self, pane: str = PANE) -> float:
        """Return the grey in the middle of a viewport: which part of the body it shows."""
        return float(np.median(self.grey(pane)[28:36, 28:36]))


@contextmanager
def pair(tmp_path: Path, frame: str | None) -> Iterator[Pair]:
    write_two_studies(tmp_path / "files", frame)
    desk = desk_of_two_studies(tmp_path / "home", tmp_path / "files")
    with served(desk) as address, opening(address) as sign_in:
        page = sign_in("anna")
        page.goto(f"{address}/cases/{desk.cases.waiting()[0]}")
        yield Pair(page)


@pytest.mark.parametrize("frame", ["earlier", None])
def test_in_two_frames_of_reference_the_middles_lie_together_and_the_viewer_says_so(
    tmp_path: Path, frame: str | None
) -> None:
    with pair(tmp_path, frame) as v:
        assert v.note.startswith("Linked by the middles of the stacks"), v.note
        assert "To correct" in v.note
        v.press("Home")
        for number in range(THICK):
            v.wait(lambda number=number: v.at(number, number + 1))
            assert abs(v.body() - v.body(OTHER)) <= 2, "the same place of the body"
            v.press("ArrowDown")


def test_in_one_frame_of_reference_positions_count(tmp_path: Path) -> None:
    with pair(tmp_path, "today") as v:
        assert v.note.startswith("Linked by position"), v.note
        v.press("Home")
        for number in range(THICK):
            v.wait(lambda number=number: v.at(number, max(0, number - 2)))
            v.press("ArrowDown")


def test_the_reader_corrects_a_link_and_the_other_series_of_the_frames_keep_it(tmp_path: Path) -> None:
    with pair(tmp_path, "earlier") as v:
        v.press("Home", "k")
        v.wait(lambda: v.at(0, 1))
        assert v.note.startswith("Not linked. K links"), v.note
        v.press("x", "ArrowDown", "ArrowDown")
        v.wait(lambda: v.at(0, 3))
        v.press("k")
        assert v.note == "Linked as you laid the slices beside each other."
        v.press("ArrowDown")
        v.wait(lambda: v.at(1, 4))
        v.press("x", "ArrowDown")
        v.wait(lambda: v.at(2, 5))
        v.open(THIN)
        assert v.note == "Linked as you laid the slices beside each other."
        v.press("Home", "PageDown")
        v.wait(lambda: v.at(10, 8))
        v.press("c")
        v.wait(lambda: v.page.locator(OTHER).count() == 0)
        assert not v.page.locator(".viewer__note").is_visible()
        v.press("c")
        v.ready(OTHER)
        v.wait(lambda: v.at(10, 8))


def test_slices_that_run_in_another_direction_are_not_linked(tmp_path: Path) -> None:
    with pair(tmp_path, "today") as v:
        v.press("Home")
        v.wait(lambda: v.at(0, 0))
        v.open(SAGITTAL)
        assert v.note == "Not linked: the slices of the two series run in different directions."
        link = v.page.get_by_role("button", name="Link scrolling as the slices lie now")
        assert link.is_disabled()
        v.press("Home", "k")
        v.press(*["ArrowDown"] * 8)
        v.wait(lambda: v.at(8, 0))
        v.open(THICK)
        assert v.note.startswith("Linked by position")
        v.press("End")
        v.wait(lambda: v.at(THICK - 1, THICK - 3))
