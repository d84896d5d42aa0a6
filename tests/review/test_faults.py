"""What a page answers when something goes wrong that nobody has foreseen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from meta_dx.review.app import create_app, without_quotes
from meta_dx.review.desk import Desk
from tests.review.conftest import SECRET, Browser


@pytest.fixture
def faulty(
    desk: Desk, browser: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> tuple[Browser, str]:
    """A reader who has opened a case, and the address of it that fails."""

    def fails(study: str) -> None:
        raise RuntimeError(SECRET)

    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    monkeypatch.setattr(desk.images, "manifest", fails)
    return person, f"/cases/{study}/images"


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_an_unforeseen_fault_is_told_with_the_careful_headers_and_without_its_words(
    faulty: tuple[Browser, str], accept: str
) -> None:
    person, address = faulty
    answer = person.get(address, headers={"accept": accept})
    assert answer.status_code == 500
    assert "Something went wrong on the server" in answer.text
    assert SECRET not in answer.text
    other = person.get("/worklist").headers
    careful = ("content-security-policy", "cache-control", "x-content-type-options", "x-frame-options")
    assert {name: answer.headers.get(name) for name in careful} == {name: other[name] for name in careful}


def test_the_log_tells_where_and_the_owner_what_was_said(
    desk: Desk, faulty: tuple[Browser, str], caplog: pytest.LogCaptureFixture
) -> None:
    person, address = faulty
    served = TestClient(without_quotes(create_app(desk, {"testserver"}), desk.home.root))
    served.cookies = person.client.cookies
    assert served.get(address).status_code == 500  # and nothing comes to the server, which would log it
    assert "RuntimeError" in caplog.text
    assert "test_faults.py" in caplog.text
    assert SECRET not in caplog.text
    (kept,) = (desk.home.private / "faults").iterdir()
    assert SECRET in kept.read_text()


def test_another_name_for_the_server_is_refused_with_them_too(browser: Callable[..., Browser]) -> None:
    answer = browser().get("/worklist", headers={"host": "elsewhere.example"})
    assert (answer.status_code, answer.headers.get("cache-control")) == (421, "no-store")
