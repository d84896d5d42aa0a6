"""Lengths that a reader draws come back with the case, in a real browser; nobody else sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meta_dx.review.desk import Desk
from tests.review.chromium import needs_chromium, opening
from tests.review.serving import served
from tests.review.two_studies import EARLIER, THICK, desk_of_two_studies, write_two_studies
from tests.review.viewer import PANE, Viewer

pytestmark = needs_chromium
Visit = Callable[..., "Ruled"]
SAVED = "[data-lengths-state=saved]"
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 80))))"


class Ruled(Viewer):
    """A viewer whose lengths have been put back."""

    def __init__(self, page: Any) -> None:
        super().__init__(page)
        self.page.wait_for_selector(SAVED)

    def show(self, slices: int, number: int) -> None:
        """Open the series with so many slices, and go to one of them."""
        self.page.locator(".serieslist__entry", has_text=f"{slices} images").click()
        self.wait(lambda: self.number("slices") == slices)
        self.go(number)

    def go(self, number: int) -> None:
        self.ready()
        self.page.locator(f"{PANE} .pane__slider").fill(str(number))
        self.wait(lambda: self.number("slice") == number)
        self.focus()
        self.page.evaluate(FRAMES)  # lengths are drawn after the slice

    def draw(self, dx: float, dy: float = 0, up: float = 0) -> str:
        """Draw a length from the middle of the viewport, or so far above it; return what is written beside it."""
        before = self.lengths
        self.press("l")
        self.drag(dx, dy, up=up)
        self.press("w")
        self.wait(lambda: any(text not in before for text in self.lengths))
        return next(text for text in self.lengths if text not in before)

    def saved(self) -> None:
        self.page.wait_for_timeout(400)
        self.page.wait_for_selector(SAVED)

    @property
    def ends(self) -> list[float]:
        """Where the only length of the first viewport begins and ends, CSS pixels."""
        (line,) = self.page.locator(f"{PANE} svg line[data-id$='-line']").all()
        return [float(line.get_attribute(name)) for name in ("x1", "y1", "x2", "y2")]


@pytest.fixture
def case(tmp_path: Path) -> Desk:
    write_two_studies(tmp_path / "files")
    return desk_of_two_studies(tmp_path / "home", tmp_path / "files")


@pytest.fixture
def visit(case: Desk) -> Iterator[Visit]:
    """Open the case as somebody, in a browser window of their own, or again in one that is given."""
    (study,) = case.cases.waiting()
    with served(case) as address, opening(address) as sign_in:

        def open_case(name: str = "anna", page: Any = None, renderer: str = "cpu") -> Ruled:
            if page is None:
                page = sign_in(name)
                page.evaluate(f"sessionStorage.setItem('viewer.renderer', '{renderer}')")
            page.goto(f"{address}/cases/{study}")
            return Ruled(page)

        yield open_case


def leave(viewer: Ruled) -> None:
    viewer.page.get_by_role("link", name="Worklist").click()
    viewer.page.wait_for_selector(".page-worklist")


@pytest.mark.parametrize("renderer", ["cpu", "gpu"])
def test_lengths_come_back_on_their_slices_with_the_same_text_and_for_nobody_else(
    visit: Visit, renderer: str
) -> None:
    v = visit(renderer=renderer)
    assert v.page.locator(".viewer").get_attribute("data-renderer") == renderer
    v.show(THICK, 3)
    first = v.draw(120, 35)
    assert first.endswith(" mm")
    place = v.ends
    v.go(8)
    second = v.draw(-77, 51)
    v.show(EARLIER, 2)
    v.press("m", "Enter", *["Shift+ArrowRight"] * 3, "Enter")
    v.wait(lambda: len(v.lengths) == 1)
    (third,) = v.lengths
    leave(v)  # at once: what is not sent yet goes out now

    v = visit(page=v.page)
    v.show(THICK, 3)
    v.wait(lambda: v.lengths == [first])
    assert v.ends == pytest.approx(place, abs=0.01)
    v.go(4)
    v.wait(lambda: v.lengths == [])
    v.go(8)
    v.wait(lambda: v.lengths == [second])
    v.show(EARLIER, 2)
    v.wait(lambda: v.lengths == [third])

    other = visit("bert", renderer=renderer)
    for slices, number in ((THICK, 3), (THICK, 8), (EARLIER, 2)):
        other.show(slices, number)
        other.wait(lambda: other.lengths == [])


def test_a_length_that_was_moved_comes_back_as_it_is_then_and_a_removed_one_does_not(visit: Visit) -> None:
    v = visit()
    v.show(THICK, 3)
    first = v.draw(120)
    x1, _, x2, y2 = v.ends
    leave(v)
    v = visit(page=v.page)
    v.show(THICK, 3)
    box = v.page.locator(f"{PANE} svg").bounding_box()
    v.page.mouse.move(box["x"] + x2 - 3, box["y"] + y2)
    v.press("l")
    v.drag_between((box["x"] + x2, box["y"] + y2), (box["x"] + x2 + 40, box["y"] + y2))
    v.wait(lambda: v.lengths != [first])
    (moved,) = v.lengths
    assert float(moved.split()[0]) == pytest.approx(
        float(first.split()[0]) * (x2 + 40 - x1) / (x2 - x1), rel=0.03
    )
    leave(v)
    v = visit(page=v.page)
    v.show(THICK, 3)
    v.wait(lambda: v.lengths == [moved])
    v.press("Delete")
    v.wait(lambda: v.lengths == [])
    leave(v)
    v = visit(page=v.page)
    v.show(THICK, 3)
    v.wait(lambda: v.lengths == [])


def test_the_keys_remove_only_what_lies_on_this_slice_or_series(visit: Visit) -> None:
    v = visit()
    v.show(EARLIER, 2)
    other = v.draw(60)
    v.show(THICK, 3)
    first = v.draw(120)
    v.go(4)
    v.press("Delete")
    v.draw(50, 20)
    v.draw(90, -30, up=100)
    v.press("Delete")
    v.wait(lambda: len(v.lengths) == 1)
    v.go(3)
    v.wait(lambda: v.lengths == [first])
    v.press("Shift+Delete")
    v.wait(lambda: v.lengths == [])
    v.saved()
    v = visit(page=v.page)
    v.show(THICK, 4)
    v.wait(lambda: v.lengths == [])
    v.show(EARLIER, 2)
    v.wait(lambda: v.lengths == [other])


def test_a_server_that_does_not_answer_is_said_and_the_length_is_kept_once_it_does(visit: Visit) -> None:
    v = visit()
    v.page.expected = ["500", "Failed to load resource"]
    v.page.route("**/lengths", lambda route: route.fulfill(status=500))
    v.show(THICK, 3)
    said = v.draw(120)
    toast = v.page.locator(".toast[data-key=lengths]")
    toast.filter(has_text="Your lengths are not saved. Trying again.").wait_for()
    v.page.unroute("**/lengths")
    toast.filter(has_text="Your lengths are saved.").wait_for()
    v = visit(page=v.page)
    v.show(THICK, 3)
    v.wait(lambda: v.lengths == [said])


def test_what_the_server_refuses_is_said_with_its_reason(visit: Visit) -> None:
    v = visit()
    v.page.expected = ["400"]
    refusal = {"status": 400, "body": "A case holds 200 lengths: remove some."}
    v.page.route("**/lengths", lambda route: route.fulfill(**refusal))
    v.show(THICK, 3)
    v.draw(120)
    words = "Your lengths are not saved. A case holds 200 lengths: remove some."
    v.page.locator(".toast").filter(has_text=words).wait_for()
    asked: list[str] = []
    v.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    v.page.goto("about:blank")
    assert asked == ["beforeunload"]


def test_lengths_that_could_not_be_loaded_are_not_lost_to_a_new_one(visit: Visit) -> None:
    v = visit()
    v.show(THICK, 3)
    first = v.draw(120)
    v.saved()
    page = v.page
    page.expected = ["503", "Failed to load resource"]
    page.route("**/lengths", lambda route: route.fulfill(status=503))
    page.reload()
    page.locator(".toast").filter(has_text="Your lengths cannot be loaded").wait_for()
    again = Viewer(page)
    again.page.locator(".serieslist__entry", has_text=f"{THICK} images").click()
    again.wait(lambda: again.number("slices") == THICK)
    again.ready()
    again.focus()
    again.press("l")
    again.drag(50, 20)
    again.wait(lambda: len(again.lengths) == 1)
    (second,) = again.lengths
    page.unroute("**/lengths")
    page.wait_for_selector(SAVED)
    v = visit(page=page)
    v.show(THICK, 3)
    v.wait(lambda: v.lengths == [first])
    v.go((THICK - 1) // 2)  # where the series opened
    v.wait(lambda: v.lengths == [second])


def test_two_windows_of_one_reader_do_not_undo_each_other(visit: Visit) -> None:
    one = visit()
    second_page = one.page.context.new_page()
    second_page.set_default_timeout(15_000)
    two = visit(page=second_page)
    one.show(THICK, 3)
    said_by_one = one.draw(120)
    one.saved()
    two.show(THICK, 6)
    said_by_two = two.draw(70)
    two.saved()
    again = visit(page=one.page)
    again.show(THICK, 3)
    again.wait(lambda: again.lengths == [said_by_one])
    again.go(6)
    again.wait(lambda: again.lengths == [said_by_two])


def test_a_length_in_pixels_comes_back_on_its_picture_also_after_the_answer(desk: Desk) -> None:
    with served(desk) as address, opening(address) as sign_in:
        page = sign_in("anna")
        page.click(".worklist-row >> nth=0")
        v = Ruled(page)
        v.go(1)
        said = v.draw(120, 40)
        assert said.endswith(" px")
        page.fill("[name=rank1]", "Disease 0 (D0)")
        page.locator("[data-confidence] input[type=range]").fill("70")
        page.get_by_role("button", name="Keep it").click()
        page.get_by_text("What the model says").first.wait_for()
        v = Ruled(page)
        assert (v.number("slice"), v.lengths) == (0, [])
        v.go(1)
        v.wait(lambda: v.lengths == [said])
