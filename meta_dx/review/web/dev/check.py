"""Drives the viewer in a browser by mouse and keyboard and looks at what it does.

    python meta_dx/review/web/dev/check.py [--shots folder] [--renderer cpu|gpu]

Starts the development server itself. Needs playwright and a Chromium (CHROMIUM names it; otherwise /usr/bin/chromium).
"""

from __future__ import annotations

import argparse
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import server
from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
PANE = '[data-pane="pane-0"]'
OTHER = '[data-pane="pane-1"]'


class Session:
    """A page, and what went wrong on it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.quick = True
        page.on("console", lambda m: m.type in ("error", "warning") and self.complain(m.text))
        page.on("pageerror", lambda error: self.complain(str(error)))

    def complain(self, text: str) -> None:
        """Keep a complaint of the browser unless it belongs to a test."""
        if not any(word in text for word in self.expected):
            self.complaints.append(text)

    def open(self, path: str) -> None:
        """Load a page and wait for its first picture."""
        self.page.goto(self.address + path)
        self.ready()

    def ready(self, pane: str = PANE) -> None:
        """Wait until a viewport shows the slice that it was asked for."""
        self.page.wait_for_selector(f'{pane}[data-state="ready"]')
        self.page.wait_for_timeout(60)

    def data(self, name: str, pane: str = PANE) -> str:
        """Return what a viewport says about itself."""
        return self.page.locator(pane).get_attribute(f"data-{name}") or ""

    def number(self, name: str, pane: str = PANE) -> float:
        """Return a figure that a viewport says about itself."""
        return float(self.data(name, pane))

    def wait(self, what: Callable[[], bool], seconds: float = 5) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                raise AssertionError("it did not happen")
            self.page.wait_for_timeout(30)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        self.page.wait_for_timeout(120 if self.quick else 400)

    def drag(
        self, dx: float, dy: float, button: Any = "left", start: tuple[float, float] = (0.5, 0.5)
    ) -> None:
        """Drag over the first viewport, from a share of its size, by CSS pixels."""
        box = self.page.locator(f"{PANE} .pane__image").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] * start[0], box["y"] + box["height"] * start[1]
        self.page.mouse.move(x, y)
        self.page.mouse.down(button=button)
        for part in range(1, 6):
            self.page.mouse.move(x + dx * part / 5, y + dy * part / 5)
        self.page.mouse.up(button=button)
        self.page.wait_for_timeout(450)

    def grey(self, pane: str = PANE) -> float:
        """Return the mean grey of what is drawn."""
        return float(
            self.page.evaluate(
                """(selector) => {
                    const canvas = document.querySelector(selector + ' canvas.cornerstone-canvas');
                    const copy = document.createElement('canvas');
                    copy.width = copy.height = 64;
                    const context = copy.getContext('2d');
                    context.drawImage(canvas, 0, 0, 64, 64);
                    const data = context.getImageData(0, 0, 64, 64).data;
                    let sum = 0;
                    for (let i = 0; i < data.length; i += 4) sum += data[i];
                    return sum / (data.length / 4);
                }""",
                pane,
            )
        )


def slices(s: Session) -> None:
    """Keys, wheel and slider go through the slices."""
    assert s.data("slice") == "13" and s.data("slices") == "28"
    s.press("ArrowDown")
    assert s.data("slice") == "14"
    s.press("ArrowUp", "ArrowUp")
    assert s.data("slice") == "12"
    s.press("End")
    s.wait(lambda: s.data("slice") == "27")
    s.press("ArrowDown")
    assert s.data("slice") == "27"
    s.press("Home")
    s.wait(lambda: s.data("slice") == "0")
    s.press("PageDown")
    s.wait(lambda: s.data("slice") == "10")
    s.page.locator(f"{PANE} .pane__image").hover()
    for _ in range(3):
        s.page.mouse.wheel(0, 100)
    s.wait(lambda: s.data("slice") == "13")
    s.page.mouse.wheel(0, -100)
    s.wait(lambda: s.data("slice") == "12")
    slider = s.page.locator(f"{PANE} .pane__slider")
    box = slider.bounding_box()
    assert box is not None
    s.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 6)
    s.wait(lambda: s.number("slice") > 25)
    assert "slice" in (slider.get_attribute("aria-valuetext") or "")
    first = s.number("slice")
    s.press("ArrowDown")
    s.wait(lambda: s.number("slice") in (first + 1, 27))
    s.press("Home")


def windows(s: Session) -> None:
    """Presets, drags, fields and inversion change the greys."""
    s.press("Home", "PageDown", "r")
    s.ready()
    assert (s.number("center"), s.number("width")) == (40, 80)
    before = s.grey()
    s.press("9")
    assert (s.number("center"), s.number("width")) == (480, 2500)
    assert abs(s.grey() - before) > 3
    s.press("6")
    assert (s.number("center"), s.number("width")) == (-600, 1500)
    s.press("1")
    assert (s.number("center"), s.number("width")) == (40, 80)
    s.drag(90, 0)
    assert 105 < s.number("width") < 111, s.number("width")
    before = s.grey()
    s.drag(0, -120)
    assert s.number("center") < 15
    assert s.grey() > before + 3
    s.page.get_by_label("Window centre").fill("55")
    s.page.get_by_label("Window centre").press("Enter")
    assert s.number("center") == 55
    s.page.get_by_label("Window preset").select_option(label="3 Brain")
    assert (s.number("center"), s.number("width")) == (40, 80)
    s.page.locator(PANE).focus()
    before = s.grey()
    s.press("i")
    assert s.data("invert") == "true" and abs(s.grey() - (255 - before)) < 30
    s.press("ArrowDown")
    assert s.data("invert") == "true" and abs(s.grey() - (255 - before)) < 30
    s.press("i", "r")


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


def cine(s: Session) -> None:
    """Cine runs through the slices and stops."""
    s.press("Home", "]", "]")
    s.press(" ")
    start = s.number("slice")
    s.wait(lambda: s.number("slice") > start + 4)
    s.press(" ")
    s.page.wait_for_timeout(300)
    stood = s.data("slice")
    s.page.wait_for_timeout(500)
    assert s.data("slice") == stood


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


def sheet(s: Session) -> None:
    """The sheet of keys opens and closes; keys typed into a field are no shortcuts."""
    s.press("?")
    assert s.page.locator("dialog.shortcuts[open]").is_visible()
    s.press("Escape")
    assert s.page.locator("dialog.shortcuts").count() == 0
    before = s.data("invert")
    s.page.get_by_label("Remarks").fill("")
    s.page.get_by_label("Remarks").press_sequentially("iiw c 19")
    assert s.data("invert") == before and s.page.locator(".pane").count() == 1


def drafts(s: Session) -> None:
    """What is typed is saved a moment later, with the token; leaving before asks."""
    s.wait(lambda: s.page.locator("form#blind").get_attribute("data-draft") == "saved")
    assert "text=iiw+c+19" in server.State.drafts[-1]
    s.page.get_by_label("Intracerebral haemorrhage first").locator("xpath=..").click()
    s.page.get_by_label("Cavernous malformation first").locator("xpath=..").click()
    s.page.get_by_label("Cavernous malformation second").locator("xpath=..").click()
    s.page.wait_for_timeout(1500)
    chosen = s.page.locator("input[type=radio]:checked")
    assert [one.get_attribute("name") for one in chosen.all()] == ["rank2"], "a disease has one rank"
    s.page.get_by_label("Cavernous malformation second").locator("xpath=..").click()
    s.wait(lambda: s.page.locator("input[type=radio]:checked").count() == 0)  # a second click takes it back
    assert "confidence=&" in server.State.drafts[-1] + "&", "nothing is set beforehand"
    s.page.locator("#sure").focus()
    s.press("ArrowRight")
    assert s.page.locator("[data-confidence] output").inner_text() == "55 %"
    s.wait(lambda: "confidence=55" in server.State.drafts[-1])


def signed_out(s: Session) -> None:
    """Who is signed out is told so."""
    s.expected = ("401",)
    server.State.signed_in = False
    s.page.get_by_label("Remarks").fill("late")
    s.wait(lambda: s.page.locator("dialog[data-session][open]").count() == 1)
    server.State.signed_in = True
    s.page.keyboard.press("Escape")
    s.page.get_by_label("Remarks").fill("again")
    s.wait(lambda: s.page.locator("form#blind").get_attribute("data-draft") == "saved", 9)


def worklist(s: Session) -> None:
    """j and k move, Enter opens, n goes to the next unread case, / to the search; the theme is kept."""
    s.page.on("dialog", lambda dialog: dialog.accept())
    s.page.goto(s.address + "/styleguide.html")
    selected = s.page.locator("tr[aria-selected=true] a")
    assert selected.inner_text() == "7710 3354"
    s.press("j")
    assert selected.inner_text() == "1904 5520"
    s.press("k", "k")
    assert selected.inner_text() == "4821 0937"
    s.press("/")
    s.page.keyboard.type("jk")
    assert s.page.locator("input[type=search]").input_value() == "jk"
    s.page.locator("tr[aria-selected=true]").focus()
    s.press("j", "Enter")
    s.page.wait_for_url("**/case.html?1")
    s.page.go_back()
    s.press("n")
    s.page.wait_for_url("**/case.html")
    s.page.goto(s.address + "/styleguide.html")
    before = s.page.evaluate("getComputedStyle(document.body).backgroundColor")
    s.page.get_by_role("button", name="Theme").click()
    after = s.page.evaluate("getComputedStyle(document.body).backgroundColor")
    s.page.reload()
    assert before != after == s.page.evaluate("getComputedStyle(document.body).backgroundColor")
    s.page.get_by_role("button", name="Theme").click()
    s.page.get_by_role("button", name="Turn off").click()
    assert s.page.locator("dialog#ask[open]").is_visible()
    s.page.get_by_role("button", name="Cancel").click()
    assert not s.page.locator("dialog#ask").is_visible()


def requests(s: Session) -> None:
    """Htmx sends the token, evaluates nothing, and keeps no page in the browser's storage."""
    s.expected = ("evalDisallowedError",)
    s.page.goto(s.address + "/styleguide.html")
    s.page.locator("input[type=search]").fill("head")
    s.wait(lambda: s.page.locator("#echo").inner_text() == "token token-of-the-page")
    assert s.page.evaluate("window.evaluated") is None, "evaluated"
    assert set(s.page.evaluate("Object.keys(localStorage)")) <= {
        "cornerstone3D.renderingCapabilities",
    }
    kept = set(s.page.evaluate("Object.keys(sessionStorage)"))
    assert kept <= {"viewer.renderer", "htmx-current-path-for-history"}, kept


def policy(s: Session) -> None:
    """Evaluation is refused by the policy under which all of this runs."""
    s.expected = ("Content Security Policy", "violates")
    refused = s.page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.inline = true';
            document.head.append(script);
            return window.inline === undefined;
        }"""
    )
    assert refused


STEPS = (
    slices,
    windows,
    moves,
    lengths,
    series,
    cine,
    compare,
    uncompare,
    failure,
    sheet,
    drafts,
    signed_out,
    worklist,
    requests,
    policy,
)


def where(fault: BaseException) -> int:
    """Return the line of this file that failed."""
    frames = traceback.extract_tb(fault.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == __file__), 0)


@contextmanager
def serving() -> Iterator[str]:
    """Run the development server on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), server.Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def main() -> int:
    """Run every step; return how many failed."""
    options = argparse.ArgumentParser()
    options.add_argument("--renderer", choices=["cpu", "gpu"])
    options.add_argument("--only")
    chosen = options.parse_args()
    failed = 0
    with serving() as address, sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(15_000)
        if chosen.renderer:
            page.add_init_script(
                f"document.addEventListener('DOMContentLoaded', () => {{ document.querySelector('[data-viewer]')"
                f"?.setAttribute('data-rendering', '{chosen.renderer}'); }}, true);"
            )
        s = Session(page, address)
        s.open("/case.html")
        renderer = page.locator(".viewer").get_attribute("data-renderer")
        # WebGL in software takes its time to draw.
        s.quick = renderer == "cpu"
        print("renderer:", renderer)
        for step in STEPS:
            if chosen.only and step.__name__ not in chosen.only.split(","):
                continue
            s.complaints.clear()
            begun = time.monotonic()
            try:
                step(s)
                assert not s.complaints, s.complaints
                print(f"  ok      {step.__name__:12} {time.monotonic() - begun:5.1f} s  {step.__doc__}")
            except Exception as fault:
                failed += 1
                page.screenshot(path=str(Path(__file__).parent / "shots" / f"failed-{step.__name__}.png"))
                print(f"  FAILED  {step.__name__:12} line {where(fault)}: {type(fault).__name__}: {fault}")
                s.open("/case.html")
            s.expected = ()
        browser.close()
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
