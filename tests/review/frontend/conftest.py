"""A server with drawn pictures for each test, pages on it, and the viewer of its case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.review.chromium import launched, watched_pages
from tests.review.frontend.server import FrontEndServer, serving
from tests.review.viewer import Viewer

_RENDERER = "sessionStorage.setItem('viewer.renderer', '{}')"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[FrontEndServer]:
    with serving() as running:
        yield running


@pytest.fixture
def open_at(chromium: Any, server: FrontEndServer) -> Iterator[Callable[..., Any]]:
    """A factory of pages of the server, each with cookies and a storage of its own."""
    with watched_pages(chromium, server.address) as make:

        def open_at(path: str, renderer: str = "cpu") -> Any:
            page = make()
            page.add_init_script(_RENDERER.format(renderer))
            page.goto(server.address + path)
            return page

        yield open_at


@pytest.fixture
def viewer(open_at: Callable[..., Any], request: pytest.FixtureRequest) -> Viewer:
    """The viewer on the CT of the case, drawn as the parameter says (WebGL: ``gpu``)."""
    renderer = getattr(request, "param", "cpu")
    made = Viewer(open_at("/case.html", renderer))
    assert made.page.locator(".viewer").get_attribute("data-renderer") == renderer
    made.focus()
    return made
