"""A reader's whole way in a real browser: sign in, worklist, case, blind read, reveal, decision."""

from __future__ import annotations

import re

from meta_dx.review.desk import Desk
from tests.review.chromium import needs_chromium

pytestmark = needs_chromium


def test_a_reader_signs_in_reads_blind_sees_the_answer_and_decides(desk: Desk, open_page) -> None:  # type: ignore[no-untyped-def]
    from playwright.sync_api import expect

    page = open_page("anna")
    assert page.locator("tr.worklist-row").count() == 4
    page.keyboard.press("j")
    page.keyboard.press("n")
    page.wait_for_selector("[data-state=ready]")
    assert "What the model says" not in page.content()
    assert page.locator("#blind").is_visible()
    page.fill("[name=rank1]", "Disease 1 (D1)")
    page.fill("[name=text]", "a shadow")
    page.locator("#confidence").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("[data-autosave-state][data-state=saved]")
    page.reload()
    assert page.input_value("[name=text]") == "a shadow"
    page.wait_for_selector("[data-state=ready]")
    page.click("#blind button[type=submit]")
    page.wait_for_selector(".bars")
    assert "80 %" in page.inner_text(".bars")
    # However long the panel is, the page itself does not scroll away from the pictures.
    wide = page.viewport_size
    page.set_viewport_size({"width": 1280, "height": 400})
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    page.set_viewport_size(wide)
    picture = page.locator(".evidence img").first
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("naturalWidth", 24)
    assert page.locator("#decision input:checked").count() == 0
    page.check("[name=verdict][value=override]")
    page.fill("#decision [name=diagnosis]", "Disease 1 (D1)")
    page.select_option("[name=reason]", "finding_missed")
    page.click("#decision button[type=submit]")
    page.wait_for_selector(".timeline >> text=override")
    study = page.url.rsplit("/", 1)[1]
    assert [said.kind for said in desk.cases.opinions(study)] == ["blind", "decision"]
    with page.expect_download() as download:
        page.click("text=Structured report")
    assert download.value.suggested_filename.endswith(".dcm")


def test_a_case_is_scrolled_windowed_and_measured(desk: Desk, open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("anna")
    page.click("tr.worklist-row a")
    pane = page.wait_for_selector("[data-state=ready]")
    before = (pane.get_attribute("data-center"), pane.get_attribute("data-width"))
    box = pane.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 80, box["y"] + box["height"] / 2 + 40, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "before => { const p = document.querySelector('[data-state=ready]');"
        " return p && (p.dataset.center !== before[0] || p.dataset.width !== before[1]); }",
        arg=list(before),
    )


def test_the_lead_switches_the_model_off_and_finds_it_in_the_audit_trail(desk: Desk, open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page("lena")
    page.click("text=Lead")
    page.check("[name=mode][value=off]")
    page.click("text=Switch")
    page.wait_for_selector("[name=mode][value=off]:checked")
    assert desk.mode == "off"
    page.click("nav >> text=Audit")
    assert "Whole" in page.inner_text("main")
    assert re.search(r"switch model\s+.*mode off", page.inner_text("main"))
