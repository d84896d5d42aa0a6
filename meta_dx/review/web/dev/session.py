"""A page of the development server in Chromium, and what a test can ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

import server
from playwright.sync_api import Page

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


@contextmanager
def serving() -> Iterator[str]:
    """Run the development server on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), server.Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
