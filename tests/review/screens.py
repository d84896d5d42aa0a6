"""What a person does on each screen of the review pages, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from meta_dx.review.wording import short

_READY = "[data-pane=pane-0][data-state=ready]"


def open_case(page: Any, study: str) -> None:
    """Go to the worklist and down to a case, by keyboard."""
    page.click("nav >> text=Worklist")
    page.wait_for_selector("tr.worklist-row[aria-selected]")
    rows = page.locator("tr.worklist-row").evaluate_all("rows => rows.map(row => row.dataset.href)")
    steps = rows.index(f"/cases/{study}") + 1
    for key in ["j"] * steps + ["j", "k"] * (steps < len(rows)):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/cases/{study}")
    page.wait_for_selector(_READY)


def scroll(page: Any) -> None:
    """Look at the next image, by the wheel, and back by the keyboard."""
    page.hover("[data-pane=pane-0] .pane__image")
    pane = page.locator("[data-pane=pane-0]")
    before = int(pane.get_attribute("data-slice"))
    step = -1 if before + 1 == int(pane.get_attribute("data-slices")) else 1
    page.mouse.wheel(0, 100 * step)
    page.wait_for_selector(f"{_READY}[data-slice='{before + step}']")
    pane.focus()
    page.keyboard.press("ArrowUp" if step > 0 else "ArrowDown")
    page.wait_for_selector(f"{_READY}[data-slice='{before}']")


def read_blind(page: Any, disease: str, **new: str) -> None:
    """Give an opinion before anything is seen of the model; a disease that no list offers has a scheme and a name."""
    assert "What the model says" not in page.content()
    page.fill("#blind [name=rank1]", disease)
    if new:
        page.click("#blind summary")
        page.fill("#blind [name=new_scheme]", new["scheme"])
        page.fill("#blind [name=new_meaning]", new["name"])
    page.locator("#confidence").press("ArrowRight")
    page.click("#blind button[type=submit]")
    page.wait_for_selector("#answer-title")


def look_at_answer(page: Any) -> list[str]:
    """See probabilities with intervals, and pictures of the confirmed cases; return the diseases."""
    values = page.locator(".bar__value").all_inner_texts()
    assert all(
        re.fullmatch(r"[<>]?\s?\d+ %\s+\((under 0\.1|[\d.]+ to [\d.]+)\)", value) for value in values
    ), values
    pictures = page.locator(".evidence img")
    assert pictures.count() >= 2
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.evidence img')].every(one => one.naturalWidth > 0)"
    )
    return list(page.locator(".bar__name").all_inner_texts())


def decide(page: Any, verdict: str, disease: str = "", reason: str = "") -> None:
    """Decide beside the answer."""
    page.check(f"[name=verdict][value={verdict}]")
    if disease:
        page.fill("#decision [name=diagnosis]", disease)
        page.select_option("#decision [name=reason]", reason)
    page.click("#decision button[type=submit]")
    page.wait_for_selector(f".timeline >> text={verdict}")
    assert page.inner_text(".case__head .chip") == "decided"


def next_case(page: Any) -> None:
    """Go on to the next unread case, by keyboard."""
    before = page.url
    page.keyboard.press("n")
    page.wait_for_url(lambda url: url != before and "/cases/" in url)
    page.wait_for_selector(_READY)


def preview(page: Any, studies: list[str], disease: str, basis: str) -> str:
    """Choose cases that are done and see what they would change; return what the page says."""
    page.click("nav >> text=Teach")
    for study in studies:
        page.get_by_label(f"Case {short(study)}").check()
    assert page.locator(f"#diseases option[value^='{disease}']").count() == 1
    page.fill("[name=disease]", disease)
    page.select_option("[name=basis]", basis)
    page.click("[value=preview]")
    return str(page.locator("[aria-labelledby=preview-title]").inner_text())


def make_live(page: Any) -> int:
    """Teach what the page shows; return the version of the support set that is live."""
    page.click("[value=teach]")
    told = page.locator(".notice--ok").inner_text()
    found = re.match(r"Support set (\d+) is live: open cases are answered with it", told)
    assert found, told
    return int(found[1])


def saved(page: Any, link: str, folder: Path) -> Path:
    """Click on a link and keep the file that it gives."""
    with page.expect_download() as download:
        page.click(f"text={link}")
    path = folder / str(download.value.suggested_filename)
    download.value.save_as(path)
    return path


def open_done(page: Any, study: str) -> None:
    """Come back to a case that is done."""
    page.click("nav >> text=Worklist")
    page.click("text=Done")
    page.click(f"a[href='/cases/{study}']")
    page.wait_for_selector(_READY)


def look_at_trail(page: Any, study: str) -> set[str]:
    """See that the trail is whole; return what it says was done with a case."""
    page.click("nav >> text=Audit")
    page.wait_for_selector(".notice--ok >> text=Whole")
    page.fill("[name=study]", short(study))
    page.click("text=Show")
    page.wait_for_url("**study=**")
    return set(page.locator("tbody td:nth-child(4)").all_inner_texts())
