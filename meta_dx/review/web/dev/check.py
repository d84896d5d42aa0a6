"""Drives the viewer in a browser by mouse and keyboard and looks at what it does.

    python meta_dx/review/web/dev/check.py [--only step,step] [--renderer cpu|gpu]

Starts the development server itself. Needs playwright and a Chromium (CHROMIUM names it; otherwise /usr/bin/chromium).
"""

from __future__ import annotations

import argparse
import os
import time
import traceback
from pathlib import Path

import pages
import viewing
from playwright.sync_api import sync_playwright
from session import FLAGS, Session, serving


def where(fault: BaseException) -> str:
    """Return the file and line of a step that failed."""
    frames = traceback.extract_tb(fault.__traceback__)
    files = (pages.__file__, viewing.__file__)
    found = next((frame for frame in reversed(frames) if frame.filename in files), frames[-1])
    return f"{Path(found.filename).name}:{found.lineno}"


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
        for step in (*viewing.STEPS, *pages.STEPS):
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
                print(f"  FAILED  {step.__name__:12} {where(fault)}: {type(fault).__name__}: {fault}")
                s.open("/case.html")
            s.expected = ()
        browser.close()
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
