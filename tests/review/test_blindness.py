"""Who can learn what the model has said about a case, or what others have, before their own opinion stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from meta_dx.records.predictions import latest_predictions, save_prediction_run
from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


def page_of(person: Browser, path: str) -> tuple[int, str]:
    """Return an answer without what differs by chance."""
    answer = person.get(path)
    text = re.sub(r'(csrf[^>]*?(?:content|value)=")[^"]+', r"\1", answer.text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+\+00:00)?)?", "<when>", text)
    return answer.status_code, text


@pytest.fixture
def twins(
    make_desk: Callable[..., Desk], copy_of: Callable[[Desk, str], Desk]
) -> Iterator[Callable[..., tuple[Desk, Desk]]]:
    """A factory of two homes that differ only in what the model says: Disease 0, or Disease 1."""

    def make(readers: int) -> tuple[Desk, Desk]:
        one = make_desk(0.9, readers=readers, name="one")
        two = copy_of(one, "two")
        (saved,) = latest_predictions(two.records)
        other = {
            "probabilities": {"D0": 0.1, "D1": 0.9},
            "interval": None,
            "epistemic": None,
            "evidence": None,
        }
        save_prediction_run(two.records, saved.run, [replace(study, **other) for study in saved.studies])
        return one, two

    yield make


def test_a_case_that_others_have_decided_takes_no_blind_read(desk: Desk, browser: Browsers) -> None:
    anna, bert = browser("reader", "anna"), browser("reader", "bert")
    study = anna.cases()[0]
    bert.get(f"/cases/{study}")
    anna.read(study)
    assert 'id="blind"' in bert.get(f"/cases/{study}").text
    anna.post(f"/cases/{study}/decide", verdict="accept")
    page = bert.get(f"/cases/{study}")
    assert (page.status_code, 'id="blind"' in page.text) == (200, False)
    assert "Others have decided this case" in page.text
    refused = bert.post(f"/cases/{study}/read", rank1="D0", confidence="70")
    assert (refused.status_code, "needs no other blind read" in refused.text) == (409, True)
    assert [one.account for one in desk.cases.opinions(study)] == ["anna", "anna"]


@pytest.mark.parametrize("file", ["report.dcm", "report.json"])
def test_a_report_is_for_those_who_have_decided_and_for_adjudicators(
    desk: Desk, browser: Browsers, file: str
) -> None:
    anna, bert, carl, dora = (
        browser("reader", "anna"),
        browser("reader", "bert"),
        browser("adjudicator", "carl"),
        browser("adjudicator", "dora"),
    )
    study = anna.cases()[0]
    for person in (anna, dora):
        person.read(study)
    bert.get(f"/cases/{study}")
    open_page = dora.shown(study)
    anna.post(f"/cases/{study}/decide", verdict="accept")
    asked = {
        person.name: person.get(f"/cases/{study}/{file}").status_code for person in (anna, bert, carl, dora)
    }
    # One who has read it too has nothing left to say: the case is decided.
    assert asked == {"anna": 200, "bert": 409, "carl": 200, "dora": 200}
    exports = [line for line in desk.trail.lines(study) if line.action == "export_report"]
    assert sorted(line.account for line in exports) == ["anna", "carl", "dora"]
    answer = desk.answer(study)
    assert answer is not None
    assert {line.bundle for line in exports} == {answer.shown.bundle}
    assert dora.post(f"/cases/{study}/decide", answer=open_page, verdict="accept").status_code == 409
    assert "needs no decision of yours" in dora.get(f"/cases/{study}").text
    assert desk.cases.get(study).state == "done"


def test_two_homes_that_differ_only_in_predictions_tell_others_nothing_of_a_case_that_is_not_done(
    twins: Callable[..., tuple[Desk, Desk]], browser: Browsers
) -> None:
    told = []
    for desk in twins(readers=2):
        anna, bert = (browser("reader", name, at=desk) for name in ("anna", "bert"))
        lena = browser("lead", "lena", at=desk)
        study = sorted(anna.cases())[0]
        anna.read(study)
        anna.post(f"/cases/{study}/decide", verdict="accept")
        before = desk.trail.lines(study)[0].details
        assert (before["verdict"], before["state"]) == ("accept", "open")
        paths = ("", "/report.dcm", "/report.json")
        reader = [page_of(bert, f"/cases/{study}{path}") for path in paths]
        lead = [page_of(lena, f"/cases/{study}{path}") for path in paths]
        lead += [
            page_of(lena, path)
            for path in ("/lead/decisions.csv", f"/audit?study={study}", "/audit", "/teach")
        ]
        told.append((reader, lead))
        assert anna.name not in lead[3][1]
        assert "verdict" not in lead[4][1]
        assert "verdict accept" in browser("administrator", at=desk).get(f"/audit?study={study}").text
        bert.read(study)
        bert.post(
            f"/cases/{study}/decide",
            verdict="override",
            diagnosis="Q9",
            new_scheme="99T",
            new_meaning="new",
            reason="other",
            text="?",
        )
    assert told[0] == told[1]


def test_two_homes_that_differ_only_in_predictions_show_an_adjudicator_the_same_until_the_dispute_is_settled(
    twins: Callable[..., tuple[Desk, Desk]], browser: Browsers
) -> None:
    told, after = [], []
    for desk in twins(readers=2):
        anna, bert, carl, dora = (
            browser(role, name, at=desk)
            for role, name in zip(
                ["reader"] * 2 + ["adjudicator"] * 2, ("anna", "bert", "carl", "dora"), strict=True
            )
        )
        lena = browser("lead", "lena", at=desk)
        study = sorted(anna.cases())[0]
        for person in (anna, bert, dora):  # one adjudicator has read the case, and seen the answer
            person.read(study, "D1")
        answer = desk.answer(study)
        assert answer is not None
        anna.post(f"/cases/{study}/decide", verdict="accept", text="as it says")
        new = {"diagnosis": "Q9", "new_scheme": "99T", "new_meaning": "new", "reason": "wrong_evidence"}
        bert.post(f"/cases/{study}/decide", verdict="override", text="no", **new)
        paths = [f"/cases/{study}{part}" for part in ("", "/report.dcm", "/report.json", "/evidence/2.25.1")]
        paths += ["/worklist", "/worklist?view=disputed", "/teach"]
        seen = [page_of(person, path) for person in (carl, dora) for path in paths]
        seen += [
            page_of(lena, path)
            for path in (f"/cases/{study}", "/lead/decisions.csv", f"/audit?study={study}")
        ]
        for person in (carl, dora):
            page = person.get(f"/cases/{study}").text
            assert page.count("own opinion:") == 3
            assert "as it says" not in page
            assert ("You have seen the model's answer" in page) is (person is dora)
            refused = person.post(f"/cases/{study}/adjudicate", verdict="accept")
            assert (refused.status_code, "No answer of the model was shown" in refused.text) == (400, True)
        told.append(seen)
        assert carl.post(f"/cases/{study}/adjudicate", verdict="own", diagnosis="D1").status_code == 303
        after.append(page_of(carl, f"/cases/{study}")[1])
    assert told[0] == told[1]
    assert after[0] != after[1]
    for page in after:
        assert "What the model says" in page
        assert "accept, Disease" in page
        assert "Your adjudication (a change is a new version)" in page


def test_what_was_hidden_is_told_once_the_case_is_done(desk: Desk, browser: Browsers) -> None:
    anna, lena = browser("reader", "anna"), browser("lead", "lena")
    study = anna.cases()[0]
    anna.read(study)
    assert "anna" not in lena.get("/lead/decisions.csv").text
    anna.post(f"/cases/{study}/decide", verdict="accept")
    assert "anna,decision,1" in lena.get("/lead/decisions.csv").text
    assert "verdict accept" in lena.get(f"/audit?study={study}").text
