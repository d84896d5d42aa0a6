"""What a page says of its session in a real browser, whose clock runs ahead of the server's: nothing that is not so."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from meta_dx.records.schema import SignInRow
from meta_dx.review.desk import Desk
from tests.review.chromium import needs_chromium

pytestmark = needs_chromium
DIALOG = "dialog[data-session][open]"
Open = Callable[..., Any]


def minutes(number: float) -> int:
    """Return as many milliseconds."""
    return int(number * 60_000)


def unused_for(desk: Desk, number: float) -> None:
    """Let nobody have asked for anything for so many minutes."""
    seen = datetime.now(UTC) - timedelta(minutes=number)
    with desk.records.transaction() as session:
        session.execute(update(SignInRow).values(seen_at=seen.isoformat(timespec="microseconds")))


@pytest.fixture
def anna(open_page: Open, desk: Desk) -> Any:
    """A reader on the page of a case; ``page.asked`` counts the questions how long the session stays open."""
    page = open_page("anna")
    page.asked = []
    page.on("request", lambda one: page.asked.append(one.method) if one.url.endswith("/session") else None)
    page.clock.install()
    page.goto(f"{page.url.rsplit('/', 1)[0]}/cases/{desk.cases.waiting()[0]}")
    page.wait_for_selector("[data-state=ready]")
    return page


def asks_after(page: Any, number: float) -> None:
    """Let minutes pass until the page asks, and hear what it is told."""
    with page.expect_response("**/session"):
        page.clock.run_for(minutes(number))
    page.wait_for_timeout(100)


def without_its_time(page: Any, path: str) -> None:
    """Load a page that does not say itself how long the session lasts: only what it fetches does."""

    def strip(route: Any) -> None:
        answer = route.fetch()
        body, found = re.subn(r'<meta name="session-expires-in"[^>]*>', "", answer.text())
        assert found == 1
        headers = {k: v for k, v in answer.headers.items() if k != "content-length"}
        route.fulfill(response=answer, body=body, headers=headers)

    page.route(path, strip, times=1)
    page.goto(path)


def test_a_draft_that_was_kept_puts_the_end_off(anna: Any) -> None:
    anna.clock.run_for(minutes(26))
    anna.get_by_label("Remarks").fill("still here")
    anna.clock.run_for(1000)
    anna.wait_for_selector("form#blind[data-draft=saved]")
    anna.clock.run_for(minutes(26))
    assert anna.asked == []
    assert anna.locator(DIALOG).count() == 0
    asks_after(anna, 2)
    assert set(anna.asked) == {"GET"}


def test_pictures_that_were_fetched_put_the_end_off(anna: Any) -> None:
    without_its_time(anna, anna.url)
    anna.wait_for_selector("[data-state=ready]")
    anna.clock.run_for(minutes(26))
    assert anna.asked == []
    asks_after(anna, 2)


def test_a_search_puts_the_end_off(anna: Any) -> None:
    without_its_time(anna, anna.url.split("/cases")[0] + "/worklist")
    anna.wait_for_selector("tr.worklist-row[aria-selected]")
    with anna.expect_response("**/worklist?*"):
        anna.fill("#search", "nothing like it")
        anna.clock.run_for(1000)
    anna.wait_for_selector(".empty-state")
    anna.clock.run_for(minutes(26))
    assert anna.asked == []
    asks_after(anna, 2)


def test_a_session_that_another_window_keeps_open_is_not_called_ended(anna: Any, desk: Desk) -> None:
    for _ in range(3):
        asks_after(anna, 31)
        assert anna.locator(DIALOG).count() == 0
    anna.expected.append("401")
    unused_for(desk, 31)
    asks_after(anna, 31)
    anna.wait_for_selector(f"{DIALOG} >> text=You are signed out")


def test_the_warning_tells_how_long_the_server_waits_and_goes_when_it_waits_longer(
    anna: Any, desk: Desk
) -> None:
    unused_for(desk, 28.2)
    asks_after(anna, 27.2)
    anna.wait_for_selector(f"{DIALOG} >> text=in about 2 min")
    unused_for(desk, 0)  # as if another window had asked for something
    asks_after(anna, 0.6)
    anna.wait_for_selector(DIALOG, state="detached")
    unused_for(desk, 28.2)
    asks_after(anna, 27.2)
    anna.click(f"{DIALOG} >> text=Stay signed in")
    anna.wait_for_selector(DIALOG, state="detached")
    assert anna.asked[-1] == "POST"
    anna.clock.run_for(minutes(26))
    assert anna.asked[-1] == "POST"
    assert anna.locator(DIALOG).count() == 0


def test_whom_nobody_warned_any_more_is_told_of_the_end(anna: Any, desk: Desk) -> None:
    unused_for(desk, 29)
    asks_after(anna, 27.2)
    anna.wait_for_selector(f"{DIALOG} >> text=Your session ends soon")
    anna.keyboard.press("Escape")
    unused_for(desk, 29.6)
    asks_after(anna, 0.6)
    assert anna.locator(DIALOG).count() == 0  # nobody is told twice
    unused_for(desk, 31)
    anna.expected.append("401")
    asks_after(anna, 1.1)
    anna.wait_for_selector(f"{DIALOG} >> text=You are signed out")


def test_without_the_server_nobody_is_called_signed_out(anna: Any, desk: Desk) -> None:
    anna.expected.append("Failed to load resource")
    anna.route("**/session", lambda route: route.abort())
    anna.clock.run_for(minutes(31))
    anna.wait_for_timeout(100)
    assert anna.asked[:2] == ["GET", "GET"]
    assert anna.locator(DIALOG).count() == 0
    anna.unroute("**/session")
    unused_for(desk, 31)
    asks_after(anna, 0.2)
    anna.wait_for_selector(f"{DIALOG} >> text=You are signed out")
