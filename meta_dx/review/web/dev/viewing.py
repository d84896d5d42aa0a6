"""What the viewer does with drawn pictures whose measures are known (tests/review drives it on real studies)."""

from __future__ import annotations

import re

import server
from session import OTHER, PANE, Session


def moves(s: Session) -> None:
    """Zoom, pan and reset."""
    zoom = s.number("zoom")
    s.press("+")
    assert abs(s.number("zoom") / zoom - 1.2) < 0.03
    s.press("ArrowDown")
    assert abs(s.number("zoom") / zoom - 1.2) < 0.03, "the zoom stays from slice to slice"
    s.press("-")
    assert abs(s.number("zoom") / zoom - 1) < 0.03
    s.drag(0, -100, "right")
    assert abs(s.number("zoom") / zoom - 1) > 0.1
    s.press("r")
    assert abs(s.number("zoom") / zoom - 1) < 0.02
    left = corner(s)
    s.press("p")
    s.drag(60, -20)
    moved = corner(s)
    assert abs(moved[0] - left[0] - 60) < 4 and abs(moved[1] - left[1] + 20) < 4, (left, moved)
    s.press("r", "Shift+ArrowRight")
    assert abs(corner(s)[0] - left[0] - 40) < 4
    s.press("r", "w")
    assert abs(corner(s)[0] - left[0]) < 2
    s.drag(50, 0, "middle")
    assert abs(corner(s)[0] - left[0] - 50) < 4
    s.press("r")


def corner(s: Session) -> tuple[float, float]:
    """Return where the picture's head begins on the canvas: the mean place of what is brighter than black."""
    found = s.page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector + ' canvas.cornerstone-canvas');
            const copy = document.createElement('canvas');
            copy.width = canvas.clientWidth; copy.height = canvas.clientHeight;
            const context = copy.getContext('2d');
            context.drawImage(canvas, 0, 0, copy.width, copy.height);
            const { data, width, height } = context.getImageData(0, 0, copy.width, copy.height);
            let left = width, top = height;
            for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
                if (data[4 * (y * width + x)] > 60) { if (x < left) left = x; if (y < top) top = y; }
            }
            return [left, top];
        }""",
        PANE,
    )
    return found[0], found[1]


def beads(s: Session) -> list[tuple[float, float]]:
    """Return the places of the two beads on the page, from what is drawn with a window that shows nothing else."""
    s.page.get_by_label("Window centre").fill("1900")
    s.page.get_by_label("Window width").fill("20")
    s.page.get_by_label("Window width").press("Enter")
    s.page.wait_for_timeout(200)
    found = s.page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector + ' canvas.cornerstone-canvas');
            const copy = document.createElement('canvas');
            copy.width = canvas.clientWidth; copy.height = canvas.clientHeight;
            const context = copy.getContext('2d');
            context.drawImage(canvas, 0, 0, copy.width, copy.height);
            const { data, width, height } = context.getImageData(0, 0, copy.width, copy.height);
            const sums = [[0, 0, 0], [0, 0, 0]];
            for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
                const v = data[4 * (y * width + x)];
                if (v < 128) continue;
                const side = x < width / 2 ? 0 : 1;
                sums[side][0] += x + 0.5; sums[side][1] += y + 0.5; sums[side][2] += 1;
            }
            const box = canvas.getBoundingClientRect();
            return sums.map(([x, y, n]) => [box.x + x / n, box.y + y / n]);
        }""",
        PANE,
    )
    return [(x, y) for x, y in found]


def lengths(s: Session) -> None:
    """A length between the beads is 100 mm, by mouse and by keyboard; without spacing it is said in pixels."""
    s.press("l")
    (ax, ay), (bx, by) = beads(s)
    s.page.locator(PANE).focus()
    s.press("1")
    s.page.mouse.move(ax, ay)
    s.page.mouse.down()
    for part in range(1, 6):
        s.page.mouse.move(ax + (bx - ax) * part / 5, ay + (by - ay) * part / 5)
    s.page.mouse.up()
    s.page.wait_for_timeout(500)
    text = measured(s)
    assert len(text) == 1 and re.fullmatch(r"[\d.]+ mm", text[0]), text
    assert abs(float(text[0].split()[0]) - 100) < 1.2, text
    s.press("ArrowDown")
    s.page.wait_for_timeout(200)
    assert measured(s) == [], "a length belongs to its slice"
    s.press("ArrowUp")
    s.page.wait_for_timeout(200)
    assert measured(s) == text
    s.press("Delete")
    s.page.wait_for_timeout(200)
    assert measured(s) == []
    s.press("m")
    s.press("Enter", *["Shift+ArrowRight"] * 5, "Enter")
    s.page.wait_for_timeout(300)
    by_key = float(measured(s)[0].split()[0])
    expected = 100 / (s.number("zoom") / 100) * server.phantom.SPACING
    assert abs(by_key - expected) < 0.02 * expected, (by_key, expected)
    s.press("Shift+Delete")
    s.page.wait_for_timeout(200)
    assert measured(s) == []
    s.page.get_by_role("button", name="CR 1 image").click()
    s.ready()
    s.page.locator(PANE).focus()
    s.drag(100, 0)
    s.page.wait_for_timeout(300)
    assert re.fullmatch(r"[\d.]+ px", measured(s)[0]), measured(s)
    s.press("Shift+Delete", "w")
    first_series(s)


def measured(s: Session) -> list[str]:
    """Return the lengths that are written into the first viewport."""
    found = s.page.locator(f"{PANE} svg text tspan").all_text_contents()
    return [text for text in found if text.strip()]


def first_series(s: Session) -> None:
    """Open the CT."""
    s.page.get_by_role("button", name="CT · axial").first.click()
    s.ready()
    s.page.locator(PANE).focus()


def series(s: Session) -> None:
    """Arrows go from series to series; each keeps its slice and window."""
    s.press("Home", "PageDown", "4")
    s.press("ArrowRight")
    s.ready()
    assert s.data("series") == "mr" and s.data("slices") == "12"
    assert s.number("width") < 2, "one bright spot does not decide the window"
    assert 25 < s.grey() < 200
    s.press("ArrowRight")
    s.ready()
    assert s.data("series") == "skin"
    s.page.wait_for_timeout(200)
    red, _, blue = s.page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector + ' canvas.cornerstone-canvas');
            const copy = document.createElement('canvas');
            copy.width = copy.height = 1;
            const context = copy.getContext('2d');
            const [w, h] = [canvas.width, canvas.height];
            context.drawImage(canvas, w * .3, h * .3, w * .05, h * .05, 0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
        PANE,
    )
    assert red > 180 and 120 < blue < 190 and red > blue + 30, (red, blue)
    s.press("ArrowLeft", "ArrowLeft")
    s.ready()
    assert s.data("series") == "ct" and s.data("slice") == "10" and s.number("width") == 215
    s.press("1")


def compare(s: Session) -> None:
    """The earlier study comes beside it, linked by position although the table stood elsewhere."""
    first_series(s)
    s.press("Home", "PageDown")
    s.press("c")
    s.ready(OTHER)
    assert s.data("study", OTHER) == "s1"

    # Middles together: slice i of 28 lies beside the slice of 24 that is i - 2 from below, and its stack is reversed.
    def beside() -> bool:
        return s.number("slice", OTHER) == 23 - (s.number("slice") - 2)

    s.wait(beside)
    s.press("ArrowDown", "ArrowDown", "ArrowDown")
    s.wait(beside)
    s.press("9")
    assert s.number("width", OTHER) == 2500
    s.press("1")
    s.press("k")
    there = s.data("slice", OTHER)
    s.press("ArrowDown", "ArrowDown")
    assert s.data("slice", OTHER) == there, "unlinked"
    s.press("k", "ArrowDown")
    s.wait(lambda: s.number("slice", OTHER) == float(there) - 1)
    s.press("x", "ArrowDown")
    s.wait(lambda: s.number("slice", OTHER) == float(there))


def uncompare(s: Session) -> None:
    """The second viewport closes again; what fits a viewport goes on to fit it, what is magnified stays so."""
    s.page.wait_for_timeout(300)
    narrow = s.number("zoom")
    s.press("c")
    s.page.wait_for_timeout(300)
    wide = s.number("zoom")
    assert wide > 1.2 * narrow, (narrow, wide)
    s.press("+", "s")
    s.page.wait_for_timeout(300)
    assert s.number("zoom") > 1.15 * wide
    s.press("s", "r")
    s.page.wait_for_timeout(300)
    assert abs(s.number("zoom") - wide) < 3
    assert s.page.locator(".pane").count() == 1
    s.press("ArrowUp")
    s.ready()


def failure(s: Session) -> None:
    """A frame that fails says so in its viewport, and a retry mends it."""
    s.expected = ("500",)
    server.State.failing = 100
    s.page.get_by_role("button", name="OT 5 images").click()
    s.ready()
    s.press("Home")
    s.press("ArrowDown", "ArrowDown", "ArrowDown")
    s.wait(lambda: s.data("state") == "error")
    words = s.page.locator(f"{PANE} [role=alert]").inner_text()
    assert "Slice 4" in words and "500" in words, words
    s.press("ArrowUp")
    s.ready()
    s.press("ArrowDown")
    s.page.wait_for_timeout(400)
    assert s.data("state") == "error"
    assert server.State.failing > 90, "a wish that failed is not asked for again and again"
    server.State.failing = 0
    s.page.get_by_role("button", name="Try again").click()
    s.ready()
    assert s.data("slice") == "3"
    first_series(s)


STEPS = (moves, lengths, series, compare, uncompare, failure)
