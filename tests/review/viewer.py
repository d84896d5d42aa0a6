"""The viewer of a case as a reader has it: by mouse and keyboard, and what is drawn."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

PANE, OTHER = "[data-pane=pane-0]", "[data-pane=pane-1]"
_PICTURE = """selector => {
    const canvas = document.querySelector(selector + ' canvas.cornerstone-canvas');
    const copy = document.createElement('canvas');
    [copy.width, copy.height] = [canvas.clientWidth, canvas.clientHeight];
    copy.getContext('2d').drawImage(canvas, 0, 0, copy.width, copy.height);
    return copy.toDataURL('image/png').split(',')[1];
}"""


class Viewer:
    """The viewer on a page; ready once the first viewport shows its slice."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.ready()

    def ready(self, pane: str = PANE) -> None:
        """Wait until a viewport shows the slice that it was asked for."""
        self.page.wait_for_selector(f"{pane}[data-state=ready]")

    def focus(self) -> None:
        self.page.locator(PANE).focus()

    def data(self, name: str, pane: str = PANE) -> str:
        return str(self.page.locator(pane).get_attribute(f"data-{name}"))

    def number(self, name: str, pane: str = PANE) -> float:
        return float(self.data(name, pane))

    def wait(self, what: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + 15
        while not what():
            assert time.monotonic() < end, "it did not happen"
            self.page.wait_for_timeout(30)

    def settle(self) -> None:
        """Let the browser draw twice: then it has told the viewer of a new size, and drawn what was asked for."""
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.page.wait_for_timeout(80)

    def drag(
        self, dx: float, dy: float, button: Literal["left", "middle", "right"] = "left", up: float = 0
    ) -> None:
        """Drag from the middle of the first viewport (or so far above it), CSS pixels."""
        box = self.page.locator(f"{PANE} .pane__image").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - up
        self.drag_between((x, y), (x + dx, y + dy), button)

    def drag_between(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        button: Literal["left", "middle", "right"] = "left",
    ) -> None:
        """Drag from one place of the page to another, CSS pixels."""
        self.page.mouse.move(*start)
        self.page.mouse.down(button=button)
        self.page.mouse.move(*end, steps=5)
        self.page.mouse.up(button=button)
        self.page.wait_for_timeout(300)

    def picture(self, pane: str = PANE) -> npt.NDArray[np.float64]:
        """Return what is drawn, rows × columns × (red, green, blue), a value a CSS pixel."""
        self.settle()  # the attributes tell of a slice before the next frame of the browser draws it
        data = base64.b64decode(self.page.evaluate(_PICTURE, pane))
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)

    def grey(self, pane: str = PANE) -> npt.NDArray[np.float64]:
        """Return what is drawn, in 64 × 64 cells."""
        red = Image.fromarray(self.picture(pane)[..., 0].astype(np.uint8))
        return np.asarray(red.resize((64, 64), Image.Resampling.BOX), float)

    @property
    def lengths(self) -> list[str]:
        """What is written beside the lengths of the first viewport."""
        found = self.page.locator(f"{PANE} svg text tspan").all_text_contents()
        return [text for text in found if text.strip()]
