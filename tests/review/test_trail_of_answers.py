"""The audit trail names who has seen a case, and the answer that stood on a page, however it came there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from meta_dx.records.opinions import BlindOpinion, Diagnosis
from meta_dx.records.predictions import latest_predictions, save_prediction_run
from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]
FIRST, LATER = ("b" * 64, 1), ("c" * 64, 1)


def seen(desk: Desk, study: str) -> list[tuple[str, str | None, int | None]]:
    """Return what the reader has seen of a case, oldest first."""
    lines = [line for line in desk.trail.lines(study)[::-1] if line.action in ("view_case", "reveal")]
    return [(line.action, line.bundle, line.support_version) for line in lines]


def run_of(desk: Desk, person: Browser, study: str) -> int | None:
    account = next(one for one in desk.accounts.all() if one.name == person.name)
    reading = desk.cases.reading(account, study)
    assert reading is not None
    return reading.run


def answer_anew(desk: Desk) -> None:
    (saved,) = latest_predictions(desk.records)
    save_prediction_run(desk.records, replace(saved.run, bundle="c" * 64), list(saved.studies))


def test_every_page_names_its_answer_and_another_answer_is_another_reveal(
    desk: Desk, browser: Browsers
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    person.get(f"/cases/{study}")
    answer_anew(desk)
    for _ in range(2):
        assert "c" * 12 in person.get(f"/cases/{study}").text
    assert seen(desk, study) == [
        ("view_case", None, None),
        ("reveal", *FIRST),
        ("view_case", *FIRST),
        ("view_case", *LATER),
        ("reveal", *LATER),
        ("view_case", *LATER),
    ]
    assert run_of(desk, person, study) == 2
    assert desk.trail.verify().whole


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_an_answer_that_a_switch_brings_onto_the_page_is_a_reveal(
    desk: Desk, browser: Browsers, mode: str
) -> None:
    lead, person = browser("lead"), browser()
    study = person.cases()[0]
    lead.post("/lead/model", mode=mode)
    person.read(study)
    person.get(f"/cases/{study}")
    lead.post("/lead/model", mode="on")
    person.get(f"/cases/{study}")
    assert seen(desk, study)[1:] == [
        ("reveal", None, None),
        ("view_case", None, None),
        ("view_case", *FIRST),
        ("reveal", *FIRST),
    ]
    lead.post("/lead/model", mode=mode)
    person.get(f"/cases/{study}")
    assert run_of(desk, person, study) == 1  # seen is seen


def test_a_server_that_dies_between_opinion_and_reveal_leaves_no_page_without_its_line(
    desk: Desk, browser: Browsers
) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    account = next(one for one in desk.accounts.all() if one.name == person.name)
    desk.cases.read(account, study, BlindOpinion((Diagnosis("D0"),), 70))  # and the server dies
    person.get(f"/cases/{study}")
    assert seen(desk, study) == [("view_case", None, None), ("view_case", *FIRST), ("reveal", *FIRST)]


def test_a_refused_decision_that_comes_back_beside_another_answer_is_a_line_too(
    desk: Desk, browser: Browsers
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    form = {"csrf": person.csrf, "answer": person.shown(study), "verdict": "accept"}
    answer_anew(desk)
    address = f"/cases/{study}/evidence/{desk.answer(study).answer.evidence[0].image}"
    assert person.get(address).status_code == 404  # it belongs to an answer that was on no page yet
    refused = person.client.post(f"/cases/{study}/decide", data=form)
    assert (refused.status_code, "c" * 12 in refused.text) == (409, True)
    assert seen(desk, study)[-2:] == [("view_case", *LATER), ("reveal", *LATER)]
    assert person.get(address).status_code == 200


def test_pictures_are_served_only_once_the_page_has_written_its_line(desk: Desk, browser: Browsers) -> None:
    person, other = browser("reader", "person"), browser("reader", "other")
    study = person.cases()[0]
    other.get(f"/cases/{study}")
    url = other.get(f"/cases/{study}/images").json()["studies"][0]["series"][0]["frames"][0]["url"]
    for path in (f"/cases/{study}/images", url):
        refused = person.get(path)
        assert (refused.status_code, "Open the case first" in refused.text) == (409, True)
    assert {line.account for line in desk.trail.lines(study)} == {"other"}
    person.get(f"/cases/{study}")
    assert desk.trail.lines(study)[0].account == "person"
    assert [person.get(path).status_code for path in (f"/cases/{study}/images", url)] == [200, 200]
    assert person.get("/cases/2.25.1/images").status_code == 404
