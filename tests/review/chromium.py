"""Review pages that are served for the time of a test, and a real browser on them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from meta_dx.review.desk import Desk

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PEOPLE = {"anna": "reader", "bert": "reader", "carl": "adjudicator", "lena": "lead", "otto": "administrator"}
needs_chromium = [
    pytest.mark.system,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)"),
]


@contextmanager
def served(desk: Desk) -> Iterator[str]:
    """Serve a desk on a free port of loopback, with an account for everybody in :data:`PEOPLE`."""
    import uvicorn

    from meta_dx.review.app import create_app
    from tests.review.conftest import PASSWORD

    for name, role in PEOPLE.items():
        desk.accounts.add(name, role, password=PASSWORD, must_change=False)
    server = uvicorn.Server(uvicorn.Config(create_app(desk), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def opening(address: str) -> Iterator[Callable[..., Any]]:
    """Give a factory of pages on which somebody (or, for ``""``, nobody) is signed in.

    No page may complain on its console, unless the words are among ``page.expected``.
    """
    from playwright.sync_api import sync_playwright

    from tests.review.conftest import PASSWORD

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def sign_in(name: str = "", theme: str = "dark", **more: Any) -> Any:
            context = browser.new_context(viewport={"width": 1280, "height": 800}, **more)
            context.add_cookies([{"name": "theme", "value": theme, "url": address}])
            page = context.new_page()
            page.expected = []
            page.set_default_timeout(15_000)

            def complain(words: str) -> None:
                if not any(word in words for word in page.expected):
                    complaints.append(words)

            page.on("pageerror", lambda error: complain(str(error)))
            page.on("console", lambda said: complain(said.text) if said.type == "error" else None)
            page.goto(f"{address}/sign-in")
            if name:
                page.fill("[name=name]", name)
                page.fill("[name=password]", PASSWORD)
                page.click(".login button[type=submit]")
            return page

        try:
            yield sign_in
        finally:
            browser.close()
    assert complaints == []


@pytest.fixture
def address(desk: Desk) -> Iterator[str]:
    with served(desk) as where:
        yield where


@pytest.fixture
def open_page(address: str) -> Iterator[Callable[..., Any]]:
    with opening(address) as sign_in:
        yield sign_in
