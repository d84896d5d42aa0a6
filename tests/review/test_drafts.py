"""What was typed for one thing never comes up in another: blind read, decision, its change, adjudication."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meta_dx.review.desk import Desk
from tests.review.conftest import Browser
from tests.review.test_reports import disputed

Browsers = Callable[..., Browser]
TYPED = {"text": "a shadow that nobody else saw", "new_meaning": "half a name"}


def test_what_was_typed_blind_does_not_come_up_in_the_adjudication(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    two = make_desk(readers=2, name="two")
    anna, bert = (browser(name=name, at=two) for name in ("anna", "bert"))
    carl = browser("adjudicator", "carl", at=two)
    study = anna.cases()[0]
    carl.get(f"/cases/{study}")
    assert carl.post(f"/cases/{study}/draft", **TYPED).status_code == 204
    assert TYPED["text"] in carl.get(f"/cases/{study}").text
    assert disputed(two, anna, bert) == study
    page = carl.get(f"/cases/{study}").text
    assert 'id="decision"' in page
    assert not [words for words in TYPED.values() if words in page]


@pytest.mark.parametrize("late", ["blind 1", "decision 1", ""])
def test_a_draft_that_comes_late_is_refused_and_chooses_nothing(browser: Browsers, late: str) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    person.post(f"/cases/{study}/decide", verdict="accept")
    fields = {"for": late, "verdict": "override", "answer": person.shown(study), **TYPED}
    assert person.post(f"/cases/{study}/draft", **fields).status_code == 409
    page = person.get(f"/cases/{study}").text
    assert TYPED["text"] not in page
    assert " checked>" not in page


def test_a_blind_form_of_another_tab_comes_up_in_no_decision(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    late = {"for": "blind 1", "rank1": "D0", "confidence": "", **TYPED}
    answer = person.post(f"/cases/{study}/read", **late)
    assert answer.status_code == 409
    assert "stands already" in answer.text
    assert TYPED["text"] not in person.get(f"/cases/{study}").text


def test_a_decision_that_a_dispute_has_overtaken_stays_in_the_form_that_settles_it(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    two = make_desk(readers=2, name="two")
    anna, bert = (browser(name=name, at=two) for name in ("anna", "bert"))
    carl = browser("adjudicator", "carl", at=two)
    study = anna.cases()[0]
    carl.read(study)
    form = {"for": "decision 1", "answer": carl.shown(study), "verdict": "override", **TYPED}
    assert disputed(two, anna, bert) == study
    answer = carl.post(f"/cases/{study}/decide", **form)
    assert answer.status_code == 409
    assert TYPED["text"] in answer.text
    assert TYPED["text"] in carl.get(f"/cases/{study}").text, "kept as a draft, too"


def test_a_draft_of_a_change_comes_back(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    person.post(f"/cases/{study}/decide", verdict="accept")
    assert person.post(f"/cases/{study}/draft", answer=person.shown(study), **TYPED).status_code == 204
    assert TYPED["text"] in person.get(f"/cases/{study}").text
