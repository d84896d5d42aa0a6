"""What the viewer makes of drawn pictures whose measures are known; ``test_volumes`` drives it on studies."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.review.chromium import needs_chromium
from tests.review.frontend import phantom
from tests.review.frontend.server import TORN, FrontEndServer
from tests.review.viewer import OTHER, PANE, Viewer

pytestmark = needs_chromium
by_both_renderers = pytest.mark.parametrize("viewer", ["cpu", "gpu"], indirect=True)


def corner(viewer: Viewer) -> np.ndarray:
    """Return how far from the left and from the top of the viewport the head begins, CSS pixels."""
    bright = viewer.picture()[..., 0] > 60
    return np.array([np.flatnonzero(bright.any(axis=axis))[0] for axis in (0, 1)])


def open_series(viewer: Viewer, key: str, words: str) -> None:
    viewer.page.get_by_role("button", name=words).click()
    viewer.wait(lambda: viewer.data("series") == key)
    viewer.ready()
    viewer.focus()


def per_pixel(viewer: Viewer) -> float:
    """Return how many pixels of the picture a pixel of the page is."""
    return 100 / viewer.number("zoom")


def one_length(viewer: Viewer, unit: str) -> float:
    """Wait for the only length; return its figure."""
    viewer.wait(lambda: len(viewer.lengths) == 1)
    figure, said = viewer.lengths[0].split()
    assert said == unit
    return float(figure)


@by_both_renderers
def test_the_zoom_goes_by_a_fifth_and_stays_from_slice_to_slice(viewer: Viewer) -> None:
    zoom, at = viewer.number("zoom"), viewer.number("slice")
    viewer.press("+")
    viewer.wait(lambda: viewer.number("zoom") == pytest.approx(1.2 * zoom, rel=0.02))
    viewer.press("ArrowDown")
    viewer.wait(lambda: viewer.number("slice") == at + 1)
    viewer.ready()
    assert viewer.number("zoom") == pytest.approx(1.2 * zoom, rel=0.02)
    viewer.press("-")
    viewer.wait(lambda: viewer.number("zoom") == pytest.approx(zoom, rel=0.02))


@by_both_renderers
def test_the_right_button_zooms_about_the_place_and_r_takes_it_back(viewer: Viewer) -> None:
    zoom, began = viewer.number("zoom"), corner(viewer)
    viewer.drag(0, -100, "right")
    viewer.wait(lambda: abs(viewer.number("zoom") / zoom - 1) > 0.1)
    viewer.press("r")
    viewer.wait(lambda: viewer.number("zoom") == pytest.approx(zoom, rel=0.02))
    viewer.wait(lambda: np.abs(corner(viewer) - began).max() <= 2)


@by_both_renderers
def test_the_picture_moves_as_far_as_the_mouse_or_the_keys_say(viewer: Viewer) -> None:
    zoom, began = viewer.number("zoom"), corner(viewer)
    moves = [
        (lambda: viewer.press("Shift+ArrowRight", "Shift+ArrowDown"), (40, 40)),
        (lambda: viewer.drag(50, 30, "middle"), (50, 30)),
        (lambda: (viewer.press("p"), viewer.drag(60, -20)), (60, -20)),
    ]
    for move, by in moves:
        move()
        viewer.wait(lambda by=by: np.abs(corner(viewer) - began - by).max() < 4)
        assert viewer.number("zoom") == zoom
        viewer.press("r")
        viewer.wait(lambda: np.abs(corner(viewer) - began).max() <= 2)


def beads(viewer: Viewer) -> list[tuple[float, float]]:
    """Return where the two beads lie on the page, with a window that shows nothing else."""
    viewer.page.get_by_label("Window centre").fill("1900")
    width = viewer.page.get_by_label("Window width")
    width.fill("20")
    width.press("Enter")
    viewer.wait(lambda: 0 < (viewer.picture()[..., 0] > 128).sum() < 500)
    rows, columns = np.nonzero(viewer.picture()[..., 0] > 128)
    left = columns < (columns.min() + columns.max()) / 2
    box = viewer.page.locator(f"{PANE} canvas.cornerstone-canvas").bounding_box()
    return [
        (box["x"] + columns[side].mean() + 0.5, box["y"] + rows[side].mean() + 0.5) for side in (left, ~left)
    ]


@by_both_renderers
def test_a_length_between_two_beads_is_100_mm(viewer: Viewer) -> None:
    viewer.press("l")
    start, end = beads(viewer)
    viewer.drag_between(start, end)
    assert one_length(viewer, "mm") == pytest.approx(100, abs=1.2)


@by_both_renderers
def test_a_length_by_keyboard_is_as_long_as_its_steps(viewer: Viewer) -> None:
    viewer.press("m", "Enter", *["Shift+ArrowRight"] * 5, "Enter")
    expected = 100 * per_pixel(viewer) * phantom.SPACING
    assert one_length(viewer, "mm") == pytest.approx(expected, rel=0.02)


@by_both_renderers
def test_a_length_is_in_pixels_where_the_spacing_is_not_known(viewer: Viewer) -> None:
    open_series(viewer, "film", "CR 1 image")
    viewer.press("l")
    viewer.drag(100, 0)
    assert one_length(viewer, "px") == pytest.approx(100 * per_pixel(viewer), rel=0.02)


def test_delete_removes_the_last_length_and_with_shift_all(viewer: Viewer) -> None:
    viewer.press("l")
    for number, up in enumerate((0, 60, 120), start=1):
        viewer.drag(100 + 20 * number, 0, up=up)
        viewer.wait(lambda number=number: len(viewer.lengths) == number)
    first, second, _ = viewer.lengths
    viewer.press("Delete")
    viewer.wait(lambda: viewer.lengths == [first, second])
    viewer.press("Shift+Delete")
    viewer.wait(lambda: viewer.lengths == [])


def test_each_series_keeps_its_slice_and_window(viewer: Viewer) -> None:
    viewer.press("Home", "PageDown", "4")
    viewer.wait(lambda: viewer.number("slice") == 10)
    window = viewer.number("center"), viewer.number("width")
    for key in ("mr", "skin"):
        viewer.press("ArrowRight")
        viewer.wait(lambda key=key: viewer.data("series") == key)
        viewer.ready()
        assert (viewer.number("center"), viewer.number("width")) != window
    viewer.press("ArrowLeft", "ArrowLeft")
    viewer.wait(lambda: viewer.data("series") == "ct")
    viewer.ready()
    assert viewer.number("slice") == 10
    assert (viewer.number("center"), viewer.number("width")) == window


@by_both_renderers
def test_one_bright_spot_does_not_decide_the_window(viewer: Viewer) -> None:
    open_series(viewer, "mr", "MR 12 images")
    assert phantom.magnetic(5).max() > 30
    assert viewer.number("width") < 2
    viewer.wait(lambda: 25 < viewer.grey().mean() < 200)


@by_both_renderers
def test_colours_are_those_of_the_picture(viewer: Viewer) -> None:
    open_series(viewer, "skin", "XC colour")
    skin = phantom.skin()

    def fault() -> float:
        drawn = viewer.picture()
        inside = drawn.sum(axis=2) > 60
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        drawn = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        expected = Image.fromarray(skin).resize(drawn.shape[1::-1], Image.Resampling.BILINEAR)
        return float(np.abs(drawn - np.asarray(expected, float)).mean())

    viewer.wait(lambda: fault() < 4)


def test_the_earlier_study_is_linked_though_the_table_stood_elsewhere(viewer: Viewer) -> None:
    viewer.press("Home", "c")
    viewer.ready(OTHER)
    assert viewer.data("study", OTHER) == "s1"
    # The middles lie together: slice i of 28 beside slice i - 2 of 24, whose stack runs the other way.
    for slice_ in (10, 11, 12, 22):
        viewer.press("PageDown" if slice_ in (10, 22) else "ArrowDown")
        viewer.wait(
            lambda slice_=slice_: (
                (viewer.number("slice"), viewer.number("slice", OTHER)) == (slice_, 25 - slice_)
            )
        )


def test_what_fits_its_viewport_goes_on_to_fit_and_what_is_magnified_stays_so(viewer: Viewer) -> None:
    wide = viewer.number("zoom")
    viewer.press("c")
    viewer.ready(OTHER)
    viewer.page.wait_for_selector(".viewer__note")  # a line that leaves less room
    viewer.settle()
    viewer.wait(lambda: viewer.number("zoom") < wide / 1.2)
    viewer.press("c")
    viewer.wait(lambda: viewer.page.locator(".pane").count() == 1)
    viewer.settle()
    viewer.wait(lambda: viewer.number("zoom") == pytest.approx(wide, rel=0.01))
    viewer.press("+")
    viewer.wait(lambda: viewer.number("zoom") == pytest.approx(1.2 * wide, rel=0.01))
    width = viewer.picture().shape[1]
    viewer.press("s")  # without the list of series there is more room
    viewer.wait(lambda: viewer.picture().shape[1] > width)
    viewer.settle()
    assert viewer.number("zoom") == pytest.approx(1.2 * wide, rel=0.01)


def test_a_frame_that_fails_says_so_and_is_asked_for_again_only_on_request(
    viewer: Viewer, server: FrontEndServer
) -> None:
    viewer.page.expected = ["500"]
    server.failures = 100
    open_series(viewer, "torn", "OT 5 images")
    viewer.press("Home", *["ArrowDown"] * TORN)
    viewer.wait(lambda: viewer.data("state") == "error")
    words = viewer.page.locator(f"{PANE} [role=alert]").inner_text()
    assert f"Slice {TORN + 1}" in words
    assert "500" in words
    viewer.press("ArrowUp")
    viewer.ready()
    viewer.press("ArrowDown")
    viewer.wait(lambda: viewer.data("state") == "error")
    viewer.page.wait_for_timeout(400)
    assert server.failures > 90, "a wish that failed is not asked for again and again"
    server.failures = 0
    viewer.page.get_by_role("button", name="Try again").click()
    viewer.ready()
    assert viewer.number("slice") == TORN


def test_the_edges_say_which_side_of_the_patient_they_face(viewer: Viewer) -> None:
    edges = viewer.page.locator(f"{PANE} .side")
    viewer.wait(
        lambda: edges.all_text_contents() == ["A", "L", "P", "R"]
    )  # top, right, bottom, left of an axial slice


def test_arrows_choose_among_the_tools_where_the_focus_is_in_them(viewer: Viewer) -> None:
    page, series, at = viewer.page, viewer.data("series"), viewer.data("slice")
    tools = page.get_by_role("radio")

    def chosen() -> list[str]:
        """Which tool is chosen, which has the focus, and which Tab comes to."""
        found = page.evaluate(
            """() => ['[aria-checked=true]', ':focus', '[tabindex="0"]'].map(
                one => [...document.querySelectorAll(`[role=radio]${one}`)].map(e => e.ariaLabel).join())"""
        )
        return list(found)

    page.get_by_role("button", name="List of series").focus()
    viewer.press("Tab")
    assert chosen() == ["Window"] * 3
    for key, name in zip(
        ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowDown", "z"],
        ["Zoom", "Pan", "Zoom", "Window", "Length", "Window", "Zoom"],
        strict=True,
    ):
        viewer.press(key)
        assert chosen() == [name] * 3, key
        assert page.locator(".viewer").get_attribute("data-mode") == name.lower()
    assert (viewer.data("series"), viewer.data("slice")) == (series, at)
    viewer.press("Tab")
    assert chosen() == ["Zoom", "", "Zoom"]
    assert tools.count() == 4
    # By the mouse a tool is taken for the picture: the arrows go on scrolling.
    tools.nth(2).click()
    viewer.press("ArrowDown")
    viewer.wait(lambda: viewer.number("slice") == int(at) + 1)
    assert chosen() == ["Pan", "", "Pan"]
