"""What axe does not see: how many keys a way takes, what arrows do, and what a screen reader is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meta_dx.review.desk import Desk
from tests.review.chromium import needs_chromium

pytestmark = needs_chromium
Open = Callable[..., Any]


def open_case(page: Any, study: str) -> None:
    page.goto(f"{page.url.rsplit('/', 1)[0]}/cases/{study}")
    page.wait_for_selector("[data-state=ready]")


def focused(page: Any) -> str:
    """Return the name of the control that has the focus."""
    return str(page.evaluate("document.activeElement.name ?? ''"))


def by_skip_link(page: Any) -> None:
    """Go to the form as from the top of a page that was just loaded."""
    page.evaluate("document.activeElement.blur()")
    for key in ("Tab", "Tab", "Enter", "Tab"):
        page.keyboard.press(key)


def answered(page: Any) -> None:
    page.fill("[name=rank1]", "Disease 0 (D0)")
    page.locator("#confidence").press("ArrowRight")
    page.click("#blind button[type=submit]")
    page.wait_for_selector("#answer-title")
    page.wait_for_selector("[data-state=ready]")


@pytest.mark.parametrize("way", [by_skip_link, lambda page: page.keyboard.press("o")], ids=["link", "key"])
def test_a_few_keys_lead_from_the_top_of_a_case_to_its_form(
    desk: Desk, open_page: Open, way: Callable[[Any], None]
) -> None:
    page = open_page("anna")
    open_case(page, desk.cases.waiting()[0])
    way(page)
    assert focused(page) == "rank1"
    answered(page)
    way(page)
    assert focused(page) == "verdict"
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.focus("[data-pane=pane-0]")
    page.keyboard.press("o")
    chosen = "document.activeElement.checked && document.activeElement.value"
    assert page.evaluate(chosen) == "override"


def test_the_sheet_of_keys_lists_the_way_to_the_form(desk: Desk, open_page: Open) -> None:
    page = open_page("anna")
    open_case(page, desk.cases.waiting()[0])
    page.keyboard.press("?")
    assert "your opinion or decision" in page.inner_text("dialog.shortcuts div:has(> dt kbd:text-is('O'))")


def put_a_mark_on(page: Any, selector: str) -> None:
    """Mark an empty or old live region, to see later that it is the same one."""
    assert page.locator(f"{selector}[role=status]").count() == 1
    page.evaluate("s => document.querySelector(s).dataset.mark = 'same'", selector)


def test_an_identity_comes_into_a_region_that_was_there(desk: Desk, open_page: Open) -> None:
    page = open_page("lena")
    open_case(page, desk.cases.waiting()[0])
    put_a_mark_on(page, "#identity:empty")
    page.click("text=Show identity")
    page.wait_for_selector("#identity[role=status][data-mark=same] dd")


def test_a_search_says_how_many_cases_it_finds(desk: Desk, open_page: Open) -> None:
    page = open_page("anna")
    page.wait_for_selector("tr.worklist-row[aria-selected]")
    put_a_mark_on(page, "#worklist-count")
    assert page.inner_text("#worklist-count").strip() == "4 cases"
    number = page.locator("tr.worklist-row a").first.inner_text()
    for words, told in (
        (number, "1 case that fits the search"),
        ("nothing like it", "No case that fits the search"),
    ):
        page.fill("#search", words)
        page.wait_for_selector(f"#worklist-count[role=status][data-mark=same] >> text={told}")
        assert page.locator("#worklist-count").count() == 1
        assert page.locator("tr.worklist-row").count() == (words == number)
    page.fill("#search", "")
    page.wait_for_selector("#worklist-count[data-mark=same] >> text=4 cases")


def test_a_message_comes_into_a_region_that_was_there(open_page: Open) -> None:
    page = open_page("anna")
    page.wait_for_selector("tr.worklist-row[aria-selected]")
    put_a_mark_on(page, ".toasts:empty")
    page.expected += ["Failed to load resource", "htmx:"]
    page.route("**/worklist?*", lambda route: route.abort())
    page.fill("#search", "x")
    page.wait_for_selector(".toasts[role=status][data-mark=same] >> text=The server cannot be reached.")
    assert page.locator(".toasts").count() == 1
