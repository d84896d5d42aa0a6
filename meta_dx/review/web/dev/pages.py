"""What forms, drafts, the worklist and htmx do."""

from __future__ import annotations

import server
from session import Session


def sheet(s: Session) -> None:
    """The sheet of keys opens and closes; keys typed into a field are no shortcuts."""
    s.press("?")
    assert s.page.locator("dialog.shortcuts[open]").is_visible()
    s.press("Escape")
    assert s.page.locator("dialog.shortcuts").count() == 0
    before = s.data("invert")
    s.page.get_by_label("Remarks").fill("")
    s.page.get_by_label("Remarks").press_sequentially("iiw c 19")
    assert s.data("invert") == before and s.page.locator(".pane").count() == 1


def drafts(s: Session) -> None:
    """What is typed is saved a moment later, with the token; leaving before asks."""
    s.wait(lambda: s.page.locator("form#blind").get_attribute("data-draft") == "saved")
    assert "text=iiw+c+19" in server.State.drafts[-1]
    s.page.get_by_label("Intracerebral haemorrhage first").locator("xpath=..").click()
    s.page.get_by_label("Cavernous malformation first").locator("xpath=..").click()
    s.page.get_by_label("Cavernous malformation second").locator("xpath=..").click()
    s.page.wait_for_timeout(1500)
    chosen = s.page.locator("input[type=radio]:checked")
    assert [one.get_attribute("name") for one in chosen.all()] == ["rank2"], "a disease has one rank"
    s.page.get_by_label("Cavernous malformation second").locator("xpath=..").click()
    s.wait(lambda: s.page.locator("input[type=radio]:checked").count() == 0)  # a second click takes it back
    assert "confidence=&" in server.State.drafts[-1] + "&", "nothing is set beforehand"
    s.page.locator("#sure").focus()
    s.press("ArrowRight")
    assert s.page.locator("[data-confidence] output").inner_text() == "55 %"
    s.wait(lambda: "confidence=55" in server.State.drafts[-1])


def signed_out(s: Session) -> None:
    """Who is signed out is told so."""
    s.expected = ("401",)
    server.State.signed_in = False
    s.page.get_by_label("Remarks").fill("late")
    s.wait(lambda: s.page.locator("dialog[data-session][open]").count() == 1)
    server.State.signed_in = True
    s.page.keyboard.press("Escape")
    s.page.get_by_label("Remarks").fill("again")
    s.wait(lambda: s.page.locator("form#blind").get_attribute("data-draft") == "saved", 9)


def worklist(s: Session) -> None:
    """j and k move, Enter opens, n goes to the next unread case, / to the search; the theme is kept."""
    s.page.on("dialog", lambda dialog: dialog.accept())
    s.page.goto(s.address + "/styleguide.html")
    selected = s.page.locator("tr[aria-selected=true] a")
    assert selected.inner_text() == "7710 3354"
    s.press("j")
    assert selected.inner_text() == "1904 5520"
    s.press("k", "k")
    assert selected.inner_text() == "4821 0937"
    s.press("/")
    s.page.keyboard.type("jk")
    assert s.page.locator("input[type=search]").input_value() == "jk"
    s.page.locator("tr[aria-selected=true]").focus()
    s.press("j", "Enter")
    s.page.wait_for_url("**/case.html?1")
    s.page.go_back()
    s.press("n")
    s.page.wait_for_url("**/case.html")
    s.page.goto(s.address + "/styleguide.html")
    before = s.page.evaluate("getComputedStyle(document.body).backgroundColor")
    s.page.get_by_role("button", name="Theme").click()
    after = s.page.evaluate("getComputedStyle(document.body).backgroundColor")
    s.page.reload()
    assert before != after == s.page.evaluate("getComputedStyle(document.body).backgroundColor")
    s.page.get_by_role("button", name="Theme").click()
    s.page.get_by_role("button", name="Turn off").click()
    assert s.page.locator("dialog#ask[open]").is_visible()
    s.page.get_by_role("button", name="Cancel").click()
    assert not s.page.locator("dialog#ask").is_visible()


def requests(s: Session) -> None:
    """Htmx sends the token, evaluates nothing, and keeps no page in the browser's storage."""
    s.expected = ("evalDisallowedError",)
    s.page.goto(s.address + "/styleguide.html")
    s.page.locator("input[type=search]").fill("head")
    s.wait(lambda: s.page.locator("#echo").inner_text() == "token token-of-the-page")
    assert s.page.evaluate("window.evaluated") is None, "evaluated"
    assert set(s.page.evaluate("Object.keys(localStorage)")) <= {
        "cornerstone3D.renderingCapabilities",
    }
    kept = set(s.page.evaluate("Object.keys(sessionStorage)"))
    assert kept <= {"viewer.renderer", "htmx-current-path-for-history"}, kept


def policy(s: Session) -> None:
    """Evaluation is refused by the policy under which all of this runs."""
    s.expected = ("Content Security Policy", "violates")
    refused = s.page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.inline = true';
            document.head.append(script);
            return window.inline === undefined;
        }"""
    )
    assert refused


STEPS = (sheet, drafts, signed_out, worklist, requests, policy)
