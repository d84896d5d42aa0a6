"""Everybody can use the pages: no violation of WCAG A or AA that axe finds, and all of it by keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meta_dx.review import app
from meta_dx.review.desk import Desk
from tests.review.chromium import needs_chromium, opening
from tests.review.serving import PASSWORD, served
from tests.review.test_teaching import FakeTeacher

pytestmark = needs_chromium
FOLDER = Path(app.__file__).parent
AXE = FOLDER / "web" / "node_modules" / "axe-core" / "axe.min.js"
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
GONE_AT_ONCE = {"signed_in"}  # sends the browser on before anybody can look at it
Open = Callable[..., Any]


def violations(page: Any) -> list[str]:
    """Return what axe has against a page."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("levels => axe.run(document, {runOnly: {type: 'tag', values: levels}})", LEVELS)
    assert found["passes"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def pages_that_extend_the_layout() -> set[str]:
    found = (FOLDER / "templates").glob("*.html.j2")
    return {path.name.removesuffix(".html.j2") for path in found if '{% extends "layout' in path.read_text()}


def tour(desk: Desk, sign_in: Open, theme: str) -> Any:
    """Go to every page in every state that looks different; yield its template, its state and the page."""
    nobody = sign_in("", theme)
    yield "sign_in", "empty", nobody
    nobody.expected.append("403")
    nobody.fill("[name=name]", "anna")
    nobody.fill("[name=password]", "wrong")
    nobody.click(".login button[type=submit]")
    nobody.wait_for_selector(".notice--danger")
    yield "sign_in", "refused", nobody
    anna, bert, lena = (sign_in(name, theme) for name in ("anna", "bert", "lena"))
    home = anna.url.rsplit("/", 1)[0]
    anna.goto(f"{home}/password")
    yield "password", "own", anna
    anna.goto(f"{home}/worklist")
    yield "worklist", "unread", anna
    anna.goto(f"{home}/worklist?search=nothing+like+it")
    yield "worklist", "empty", anna
    first, second = desk.cases.waiting()[:2]
    anna.goto(f"{home}/cases/{first}")
    anna.wait_for_selector("[data-state=ready]")
    yield "case", "blind", anna
    anna.press("[data-pane=pane-0]", "?")
    anna.wait_for_selector("dialog[open]")
    yield "case", "keys", anna
    anna.keyboard.press("Escape")
    for page, verdict in ((anna, "accept"), (bert, "override")):
        page.goto(f"{home}/cases/{first}")
        page.fill("[name=rank1]", "Disease 0 (D0)")
        page.locator("#confidence").press("ArrowRight")
        page.click("#blind button[type=submit]")
        page.wait_for_selector(".bars")
        page.wait_for_selector("[data-state=ready]")
        if page is anna:
            yield "case", "answered", page
            page.expected.append("400")
            page.click("#decision button[type=submit]")
            page.wait_for_selector(".notice--danger")
            yield "case", "incomplete", page
        page.check(f"[name=verdict][value={verdict}]")
        if verdict == "override":
            page.fill("#decision [name=diagnosis]", "Disease 1 (D1)")
            page.select_option("[name=reason]", "other")
            page.fill("#decision [name=text]", "an old fracture")
        page.click("#decision button[type=submit]")
        page.wait_for_selector(".timeline >> text=decision")
    bert.wait_for_selector("[data-state=ready]")
    yield "case", "decided", bert
    carl = sign_in("carl", theme)
    carl.goto(f"{home}/cases/{first}")
    carl.wait_for_selector("[data-state=ready]")
    yield "case", "adjudication", carl
    carl.check("[name=verdict][value=cannot_tell]")
    carl.select_option("[name=reason]", "image_quality")
    carl.click("#decision button[type=submit]")
    carl.wait_for_selector(".timeline >> text=adjudication")
    carl.goto(f"{home}/teach")
    yield "teach", "list", carl
    carl.check("[name=study]")
    carl.fill("[name=disease]", "Disease 0 (D0)")
    carl.select_option("[name=basis]", "pathology")
    carl.click("[value=preview]")
    carl.wait_for_selector("#preview-title")
    yield "teach", "preview", carl
    lena.goto(f"{home}/cases/{second}")
    lena.wait_for_selector("[data-state=ready]")
    lena.click("text=Show identity")
    lena.wait_for_selector("#identity dd")
    yield "case", "identity", lena
    lena.goto(f"{home}/lead")
    yield "lead", "figures", lena
    lena.goto(f"{home}/audit")
    yield "audit", "whole", lena
    otto = sign_in("otto", theme)
    otto.goto(f"{home}/accounts")
    otto.fill(".panel [name=name] >> visible=true", f"new-{theme}")
    otto.click("main form[action='/accounts'] button[type=submit]")
    otto.wait_for_selector("code")
    yield "accounts", "told", otto
    otto.expected.append("404")
    otto.goto(f"{home}/nowhere")
    yield "fault", "missing", otto


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_on_any_page(make_desk: Callable[..., Desk], theme: str) -> None:
    desk = make_desk(readers=2)
    desk._teacher = FakeTeacher()
    faults: dict[str, list[str]] = {}
    seen = set()
    with served(desk) as address, opening(address) as sign_in:
        for template, state, page in tour(desk, sign_in, theme):
            seen.add(template)
            assert page.locator(f"html[data-theme={theme}]").count() == 1
            if found := violations(page):
                faults[f"{template}, {state}"] = found
    assert faults == {}
    assert seen == pages_that_extend_the_layout() - GONE_AT_ONCE


def test_axe_is_at_work(open_page: Open) -> None:
    page = open_page("")
    page.evaluate("document.querySelector('[name=password]').closest('label').replaceWith('x')")
    page.evaluate("document.querySelector('[name=name]').closest('label').outerHTML = '<input name=name>'")
    assert any("label" in one for one in violations(page))


class Keys:
    """A reader without a mouse."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, selector: str, most: int = 120) -> None:
        """Press Tab until an element has the focus, and see that it shows so."""
        for _ in range(most):
            self.press("Tab")
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                break
        else:
            raise AssertionError(f"Tab never comes to {selector}")
        shown = self.page.evaluate(
            """() => { let e = document.activeElement;
                for (let i = 0; i < 3 && e; i++, e = e.parentElement) for (const part of [null, '::after']) {
                  const s = getComputedStyle(e, part);
                  const outlined = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0;
                  if (outlined || s.boxShadow !== 'none' || part && s.borderTopWidth === '2px') return true;
                } return false; }"""
        )
        assert shown, f"the focus on {selector} is not to be seen"

    def type(self, selector: str, words: str) -> None:
        self.tab_to(selector)
        self.page.keyboard.type(words)


def test_a_reader_needs_no_mouse_from_the_sign_in_to_the_next_case(desk: Desk, open_page: Open) -> None:
    page = open_page("")
    keys = Keys(page)
    for name in ("click", "check", "fill", "select_option", "hover"):  # nothing but keys from here on
        setattr(page, name, None)
    page.wait_for_function("() => document.activeElement.name === 'name'")  # an expression would be evaluated
    page.keyboard.type("anna")
    keys.type("[name=password]", PASSWORD)
    keys.press("Enter")
    page.wait_for_selector("tr.worklist-row[aria-selected]")
    keys.press("j", "j", "Enter")
    page.wait_for_selector("[data-state=ready]")
    study = page.url.rsplit("/", 1)[1]
    viewer = page.locator("[data-pane=pane-0]")
    keys.tab_to("[data-pane=pane-0]")
    keys.press("i", "+", "m", "Enter", "Shift+ArrowRight", "Enter")
    assert viewer.get_attribute("data-invert") == "true"
    page.wait_for_selector("[data-pane=pane-0] svg text")
    keys.press("r")
    keys.type("#blind [name=rank1]", "Disease 1 (D1)")
    keys.tab_to("#confidence")
    keys.press("ArrowRight", "ArrowRight")
    keys.type("#blind [name=text]", "seen without a mouse")
    keys.tab_to("#blind button[type=submit]")
    keys.press("Enter")
    page.wait_for_selector(".bars")
    page.wait_for_selector("[data-state=ready]")
    keys.tab_to("[name=verdict]")
    keys.press("Space", "ArrowDown")
    assert page.locator("[name=verdict]:checked").get_attribute("value") == "override"
    keys.type("#decision [name=diagnosis]", "Disease 1 (D1)")
    keys.tab_to("#decision [name=reason]")
    page.keyboard.type("The model misses")
    keys.tab_to("#decision button[type=submit]")
    keys.press("Enter")
    page.wait_for_selector(".timeline >> text=override")
    said = desk.cases.opinions(study)
    assert [one.kind for one in said] == ["blind", "decision"]
    assert said[0].content.text == "seen without a mouse"
    assert said[1].content.reason == "finding_missed"
    page.wait_for_selector("[data-state=ready]")
    keys.press("n")
    page.wait_for_url(lambda url: study not in url and "/cases/" in url)
    page.wait_for_selector("#blind")
