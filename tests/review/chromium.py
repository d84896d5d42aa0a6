"""A real browser on the review pages, or on any server of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from meta_dx.review.desk import Desk
from tests.review.serving import PASSWORD, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WITH_WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
needs_chromium = [
    pytest.mark.system,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)"),
]


@contextmanager
def launched(*, webgl: bool = True) -> Iterator[Browser]:
    """Run a Chromium without a window, in which pages have WebGL in software; without it all is drawn quicker."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", *(WITH_WEBGL if webgl else ["--disable-gpu"])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


def new_page(
    browser: Browser, address: str, theme: str = "dark", size: tuple[int, int] = (1280, 800), **more: Any
) -> Page:
    """Make an empty page with cookies of its own, for the server at an address; size in CSS pixels."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **more)
    context.add_cookies([{"name": "theme", "value": theme, "url": address}])
    page = context.new_page()
    page.set_default_timeout(15_000)
    return page


def sign_in(page: Page, address: str, name: str) -> None:
    """Go to the sign-in page, and fill the form in unless the name is empty."""
    page.goto(f"{address}/sign-in")
    if name:
        page.fill("[name=name]", name)
        page.fill("[name=password]", PASSWORD)
        page.click(".login button[type=submit]")


@contextmanager
def watched_pages(browser: Browser, address: str) -> Iterator[Callable[..., Any]]:
    """Give a factory of pages as of :func:`new_page`.

    None of them may complain on its console, unless the words are among ``page.expected``.
    """
    complaints: list[str] = []
    pages: list[Page] = []

    def make(**more: Any) -> Any:
        page: Any = new_page(browser, address, **more)
        pages.append(page)
        page.expected = []

        def complain(words: str) -> None:
            if not any(word in words for word in page.expected):
                complaints.append(words)

        page.on("pageerror", lambda error: complain(str(error)))
        page.on("console", lambda said: complain(said.text) if said.type in ("error", "warning") else None)
        return page

    try:
        yield make
    finally:
        for page in pages:
            page.context.close()
    assert not complaints, complaints


@contextmanager
def opening(address: str) -> Iterator[Callable[..., Any]]:
    """Give a factory of watched pages of the review pages on which somebody (or, for ``""``, nobody) is signed in."""
    with launched() as browser, watched_pages(browser, address) as make:

        def open_page(name: str = "", theme: str = "dark", **more: Any) -> Any:
            page = make(theme=theme, **more)
            sign_in(page, address, name)
            return page

        yield open_page


@pytest.fixture
def address(desk: Desk) -> Iterator[str]:
    with served(desk) as where:
        yield where


@pytest.fixture
def open_page(address: str) -> Iterator[Callable[..., Any]]:
    with opening(address) as made:
        yield made
