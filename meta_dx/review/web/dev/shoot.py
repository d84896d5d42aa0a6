"""Takes pictures of the pages of the development server, dark and light, at 1280 × 800 and 3840 × 2160.

python meta_dx/review/web/dev/shoot.py folder
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from session import FLAGS, OTHER, Session, serving

SIZES = {"1280": (1280, 800), "4k": (3840, 2160)}


def main(folder: Path) -> None:
    """Take all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with serving() as address, sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        )
        for size, (width, height) in SIZES.items():
            for theme in ("dark", "light"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                page.context.add_cookies([{"name": "theme", "value": theme, "url": address}])
                for name in ("styleguide", "login"):
                    page.goto(f"{address}/{name}.html")
                    page.wait_for_timeout(400)
                    whole = name == "styleguide" and size == "1280"
                    page.screenshot(path=folder / f"{name}-{size}-{theme}.png", full_page=whole)
                s = Session(page, address)
                s.open("/case.html")
                page.screenshot(path=folder / f"case-{size}-{theme}.png")
                s.press("c")
                s.ready(OTHER)
                page.wait_for_timeout(500)
                page.screenshot(path=folder / f"compare-{size}-{theme}.png")
                s.press("?")
                page.screenshot(path=folder / f"keys-{size}-{theme}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
