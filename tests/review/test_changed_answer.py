"""The model's answer changes under an open page: nothing is decided, and what was typed comes back to be checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from meta_dx.records.predictions import latest_predictions, save_prediction_run
from meta_dx.review.desk import Desk
from meta_dx.review.forms import brought_back, verdicts
from tests.review.chromium import needs_chromium
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]
TYPED = {"diagnosis": "Disease 1 (D1)", "reason": "finding_missed", "text": "a shadow"}


def change_answers(desk: Desk, *, same_run: bool = True) -> None:
    """Let the model say Disease 1 of every case, not Disease 0."""
    (saved,) = latest_predictions(desk.records)
    rows = [replace(one, probabilities={"D0": 0.1, "D1": 0.9}, interval=None) for one in saved.studies]
    run = saved.run if same_run else replace(saved.run, data_version="later")
    save_prediction_run(desk.records, run, rows)


def chosen(page: str) -> list[str]:
    return re.findall(r'name="verdict" value="(\w+)" checked', page)


@pytest.mark.parametrize("same_run", [True, False])
@pytest.mark.parametrize("verdict", ["accept", "override", "supplemented", "cannot_tell", "bad_image"])
def test_a_decision_about_an_earlier_answer_is_refused_and_comes_back_marked(
    desk: Desk, browser: Browsers, verdict: str, same_run: bool
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    seen = person.shown(study)
    change_answers(desk, same_run=same_run)
    refused = person.post(f"/cases/{study}/decide", answer=seen, verdict=verdict, **TYPED)
    assert refused.status_code == 409
    assert "no decision was kept" in refused.text
    assert [one.kind for one in desk.cases.opinions(study)] == ["blind"]
    again = person.get(f"/cases/{study}")  # what was typed outlives the page
    for page in (refused.text, again.text):
        assert "It is Disease 1" in page
        assert "answer has changed since you chose and typed this" in page
        assert 'name="diagnosis" list="diseases" autocomplete="off" value="Disease 1 (D1)"' in page
        assert '<option value="finding_missed" selected>' in page
        assert "a shadow</textarea>" in page
        # These would call a diagnosis true that the reader has never seen.
        lost = {"accept": "Accept", "supplemented": "Supplement"}.get(verdict)
        assert chosen(page) == ([] if lost else [verdict])
        said = re.findall(r"'(\w+)' is not chosen any more", page.replace("&#39;", "'"))
        assert said == ([lost] if lost else [])
    sent_again = person.post(f"/cases/{study}/decide", answer=seen, verdict=verdict, **TYPED)
    assert sent_again.status_code == 409
    unread = {"verdict": verdict, **TYPED}
    assert person.post(f"/cases/{study}/decide", **unread).status_code == 303
    assert "answer has changed" not in person.get(f"/cases/{study}").text


def test_a_draft_that_was_kept_beside_an_earlier_answer_says_so(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    seen = person.shown(study)
    for verdict in ("accept", "override"):
        person.post(f"/cases/{study}/draft", answer=seen, verdict=verdict, **TYPED)
        page = person.get(f"/cases/{study}").text
        assert chosen(page) == [verdict]
        assert "answer has changed" not in page
    change_answers(desk)
    page = person.get(f"/cases/{study}").text
    assert chosen(page) == ["override"]
    assert "answer has changed since you chose and typed this" in page


def test_a_verdict_that_is_not_offered_without_an_answer_is_told_and_not_replaced(
    desk: Desk, browser: Browsers
) -> None:
    lead, person = browser("lead"), browser()
    study = person.cases()[0]
    person.read(study)
    seen = person.shown(study)
    lead.post("/lead/model", mode="shadow")
    refused = person.post(f"/cases/{study}/decide", answer=seen, verdict="override", **TYPED)
    assert refused.status_code == 409
    assert chosen(refused.text) == []
    assert "&#39;Override&#39; is not chosen any more" in refused.text
    assert "a shadow</textarea>" in refused.text
    assert [one.kind for one in desk.cases.opinions(study)] == ["blind"]


def test_a_decision_from_a_page_without_an_answer_is_not_linked_to_one(desk: Desk, browser: Browsers) -> None:
    lead, person = browser("lead"), browser()
    study = person.cases()[0]
    lead.post("/lead/model", mode="shadow")
    person.read(study)
    seen = person.shown(study)
    lead.post("/lead/model", mode="on")
    refused = person.post(f"/cases/{study}/decide", answer=seen, verdict="own", **TYPED)
    assert refused.status_code == 409
    assert chosen(refused.text) == []
    assert [one.kind for one in desk.cases.opinions(study)] == ["blind"]


def test_a_draft_from_before_any_answer_brings_no_verdict_and_no_notice() -> None:
    draft = {"rank1": "D0", "text": "a shadow", "verdict": "accept"}
    assert brought_back(draft, "mark", verdicts("Disease 0")) == ({"rank1": "D0", "text": "a shadow"}, "")


class TestInTheBrowser:
    pytestmark = needs_chromium

    def test_the_form_comes_back_filled_with_a_notice_in_sight(
        self, desk: Desk, open_page: Callable[..., Any]
    ) -> None:
        page = open_page("anna")
        page.expected.append("409")
        page.click("tr.worklist-row a")
        page.fill("[name=rank1]", "Disease 1 (D1)")
        page.locator("#confidence").focus()
        page.keyboard.press("ArrowRight")
        page.click("#blind button[type=submit]")
        page.wait_for_selector(".bars")
        page.check("[name=verdict][value=override]")
        page.fill("#decision [name=diagnosis]", TYPED["diagnosis"])
        page.select_option("[name=reason]", TYPED["reason"])
        page.fill("#decision [name=text]", TYPED["text"])
        change_answers(desk)
        page.click("#decision button[type=submit]")
        notice = page.wait_for_selector("#decision .notice--warn")
        notice.scroll_into_view_if_needed()
        assert "read what stands above now" in notice.inner_text()
        assert "no decision was kept" in page.inner_text(".notice--danger")
        assert page.locator("[name=verdict]:checked").get_attribute("value") == "override"
        assert page.input_value("#decision [name=diagnosis]") == TYPED["diagnosis"]
        assert page.input_value("[name=reason]") == TYPED["reason"]
        assert page.input_value("#decision [name=text]") == TYPED["text"]
        page.click("#decision button[type=submit]")
        page.wait_for_selector(".timeline >> text=override")
