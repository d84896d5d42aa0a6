"""What the front end does on any page: forms and their drafts, the worklist, themes, requests by htmx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.review.chromium import needs_chromium
from tests.review.frontend.server import TOKEN, FrontEndServer
from tests.review.viewer import Viewer

pytestmark = needs_chromium
Open = Callable[..., Any]


def last_draft(server: FrontEndServer) -> dict[str, list[str]]:
    return parse_qs(server.drafts[-1], keep_blank_values=True) if server.drafts else {}


def saved(page: Any) -> None:
    """Wait until what was typed is kept."""
    page.wait_for_selector("form#blind[data-draft=saved]")


def test_the_sheet_of_keys_opens_and_closes(viewer: Viewer) -> None:
    viewer.press("?")
    viewer.page.wait_for_selector("dialog.shortcuts[open]")
    viewer.press("Escape")
    viewer.page.wait_for_selector("dialog.shortcuts", state="detached")


def stop_the_clock(page: Any) -> None:
    """Let no time pass on a page but what is run: a slow machine must not save in the midst of typing."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def test_keys_that_are_typed_into_a_field_are_no_shortcuts(viewer: Viewer) -> None:
    before = [viewer.data(name) for name in ("invert", "center", "width", "slice", "series")]
    remarks = viewer.page.get_by_label("Remarks")
    remarks.press_sequentially("iw c 19?")
    assert remarks.input_value() == "iw c 19?"
    assert [viewer.data(name) for name in ("invert", "center", "width", "slice", "series")] == before
    assert viewer.page.locator(".pane").count() == 1
    assert viewer.page.locator("dialog[open]").count() == 0


def test_a_draft_is_sent_with_the_token_a_moment_after_the_last_change(
    open_at: Open, server: FrontEndServer
) -> None:
    page = open_at("/case.html")
    stop_the_clock(page)
    page.get_by_label("Remarks").press_sequentially("a shadow")
    assert server.drafts == []
    page.clock.run_for(2000)
    saved(page)
    assert last_draft(server)["text"] == ["a shadow"]
    assert last_draft(server)["confidence"] == [""], "nothing is set beforehand"
    assert len(server.drafts) == 1


def test_leaving_asks_only_while_something_is_not_kept(open_at: Open) -> None:
    page, asked = open_at("/case.html"), []

    def stay(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    stop_the_clock(page)
    page.get_by_label("Remarks").press_sequentially("x")
    page.get_by_role("link", name="Worklist").click()
    assert asked == ["beforeunload"]
    assert page.url.endswith("/case.html")
    page.clock.run_for(2000)
    saved(page)
    page.get_by_role("link", name="Worklist").click()
    page.wait_for_url("**/styleguide.html")
    assert asked == ["beforeunload"]


def test_a_confidence_counts_once_it_is_moved(open_at: Open, server: FrontEndServer) -> None:
    page = open_at("/case.html")
    said = page.locator("[data-confidence] output")
    assert said.inner_text() == "not set"
    page.locator("#sure").press("ArrowRight")
    assert said.inner_text() == "55 %"
    saved(page)
    assert last_draft(server)["confidence"] == ["55"]


def test_who_is_signed_out_is_told_so_and_can_go_on_afterwards(open_at: Open, server: FrontEndServer) -> None:
    page = open_at("/case.html")
    page.expected = ["401"]
    server.signed_in = False
    page.get_by_label("Remarks").fill("late")
    page.wait_for_selector("dialog[data-session][open] >> text=You are signed out")
    assert server.drafts == []
    server.signed_in = True
    page.keyboard.press("Escape")
    page.get_by_label("Remarks").fill("again")
    saved(page)
    assert last_draft(server)["text"] == ["again"]


def test_j_and_k_go_through_the_worklist_unless_they_are_searched_for(open_at: Open) -> None:
    page = open_at("/styleguide.html")
    page.expected = ["evalDisallowedError"]  # of the search, when it comes in time
    chosen = page.locator("tr[aria-selected=true] a")
    seen = [chosen.inner_text()]
    for key in "jkkj":
        page.keyboard.press(key)
        seen.append(chosen.inner_text())
    assert seen == ["7710 3354", "1904 5520", "7710 3354", "4821 0937", "7710 3354"]
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.locator("input[type=search]").input_value() == "jk"
    assert chosen.inner_text() == "7710 3354"


@pytest.mark.parametrize(("key", "leads_to"), [("Enter", "/case.html?1"), ("n", "/case.html")])
def test_enter_opens_the_chosen_case_and_n_the_next_unread_one(
    open_at: Open, server: FrontEndServer, key: str, leads_to: str
) -> None:
    page = open_at("/styleguide.html")
    page.locator("tr[aria-selected=true]").focus()
    page.keyboard.press(key)
    page.wait_for_url(server.address + leads_to)


def test_the_theme_that_was_chosen_is_kept(open_at: Open) -> None:
    page = open_at("/styleguide.html")

    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = background()
    page.get_by_role("button", name="Theme").click()
    light = background()
    page.reload()
    assert background() == light != dark


def test_htmx_sends_the_token_evaluates_nothing_and_keeps_no_page(open_at: Open) -> None:
    page = open_at("/styleguide.html")
    page.expected = ["evalDisallowedError"]
    page.locator("input[type=search]").fill("head")
    page.wait_for_selector(f"#echo >> text=token {TOKEN}")
    page.wait_for_timeout(100)  # for what must not happen afterwards
    assert page.evaluate("window.evaluated") is None
    assert set(page.evaluate("Object.keys(localStorage)")) <= {"cornerstone3D.renderingCapabilities"}
    kept = set(page.evaluate("Object.keys(sessionStorage)"))
    assert kept <= {"viewer.renderer", "htmx-current-path-for-history"}


def test_the_policy_of_the_pages_refuses_a_script_that_stands_in_them(open_at: Open) -> None:
    page = open_at("/styleguide.html")
    page.expected = ["Content Security Policy"]
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.evaluated = true';
            document.head.append(script);
        }"""
    )
    assert page.evaluate("window.evaluated") is None
