"""How fast the viewer shows slices that it holds, in a browser without a graphics card.

    python benchmarks/viewer_speed.py

Drawn frames of 512 × 512 from the server of the tests of the front end; headless Chromium that draws in software. Per
size of the window: from the key to the first moment after the frame that shows the slice was handed to the screen, one
slice at a time; and the time from slice to slice when one follows the other as fast as frames come.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.review.chromium import launched, new_page  # noqa: E402 # after the path
from tests.review.frontend.server import serving  # noqa: E402
from tests.review.viewer import PANE, Viewer  # noqa: E402

SIZES = ((1280, 800), (1920, 1080), (3840, 2160))
_ONE = """async ([selector, slices, resting]) => {
  const pane = document.querySelector(selector), found = [];
  const frame = () => new Promise(requestAnimationFrame);
  const task = () => new Promise(done => {
    const c = new MessageChannel(); c.port1.onmessage = done; c.port2.postMessage(0); });
  let last = performance.now();
  for (let i = 0; i < slices; i++) {
    if (resting) { await new Promise(done => setTimeout(done, 60)); await frame(); last = performance.now(); }
    const key = i % 50 < 25 ? 'ArrowDown' : 'ArrowUp';
    pane.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    do await task(); while (pane.dataset.state !== 'ready');
    await frame();
    if (resting) await task();
    found.push(performance.now() - last);
    last = performance.now();
  }
  return found.slice(5);
}"""


def measured(browser: Browser, address: str, size: tuple[int, int]) -> None:
    """Print what one size of the window takes."""
    page = new_page(browser, address, size=size)
    page.goto(f"{address}/case.html")
    viewer = Viewer(page)
    viewer.focus()
    viewer.press("Home")
    page.wait_for_timeout(2500)  # until all slices are held
    for words, resting in (
        ("key to screen, one at a time", True),
        ("slice to slice, without a pause", False),
    ):
        times = page.evaluate(_ONE, [PANE, 75, resting])
        middle, most = np.percentile(times, [50, 95])
        sys.stdout.write(f"{size[0]} × {size[1]}  {words:34} {middle:5.0f} ms median {most:5.0f} ms p95\n")
    page.context.close()


def main() -> None:
    """Measure."""
    with serving() as server, launched(webgl=False) as browser:
        for size in SIZES:
            measured(browser, server.address, size)


if __name__ == "__main__":
    main()
