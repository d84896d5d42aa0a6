"""A reader's lengths over the wire: theirs alone, checked, bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from meta_dx.records.lengths import MOST_LENGTHS
from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


def frames(person: Browser, study: str) -> list[str]:
    """Open a case and return the addresses of its pictures."""
    person.get(f"/cases/{study}")
    series = person.get(f"/cases/{study}/images").json()["studies"][0]["series"]
    return [frame["url"] for one in series for frame in one["frames"]]


def line(picture: str, **more: Any) -> dict[str, Any]:
    return {"picture": picture, "from": [1.25, 2], "to": [1 / 3, 20.5], **more}


def send(person: Browser, study: str, changes: Any) -> Any:
    text = changes if isinstance(changes, str) else json.dumps(changes)
    return person.post(f"/cases/{study}/lengths", changes=text)


def held(person: Browser, study: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = person.get(f"/cases/{study}/lengths").json()["lengths"]
    return found


def test_lengths_are_told_as_they_were_kept_until_they_are_removed(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    first, second = frames(person, study)
    assert held(person, study) == []
    assert send(person, study, {"one": line(first), "two": line(second)}).status_code == 204
    assert held(person, study) == [{"id": "one", **line(first)}, {"id": "two", **line(second)}]
    send(person, study, {"one": None})
    assert held(person, study) == [{"id": "two", **line(second)}]


@pytest.mark.parametrize("role", ["reader", "adjudicator", "lead"])
def test_nobody_sees_the_lengths_of_another_neither_before_nor_after_the_decision(
    browser: Browsers, role: str
) -> None:
    anna, other = browser("reader", "anna"), browser(role, "other")
    study = anna.cases()[0]
    picture = frames(anna, study)[0]
    anna.read(study)
    send(anna, study, {"mine": line(picture)})
    other.read(study)
    anna.post(f"/cases/{study}/decide", verdict="accept")
    other.post(f"/cases/{study}/decide", verdict="accept")
    assert held(other, study) == []
    send(other, study, {"mine": None})
    assert len(held(anna, study)) == 1
    assert "mine" not in other.get(f"/cases/{study}").text + other.get(f"/cases/{study}/report.json").text


def test_the_worklist_shows_no_draft_for_a_length(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    send(person, study, {"one": line(frames(person, study)[0])})
    assert ">draft<" not in person.get("/worklist?view=unread").text


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "null",
        "[" * 50_000,
        '{"one": 5}',
        '{"one": {}}',
        '{"one": {"picture": 7, "from": [0, 0], "to": [1, 1]}}',
        '{"../one": null}',
        '{"": null}',
        json.dumps({"x" * 65: None}),
        *(
            '{"one": {"picture": PICTURE, "from": [0, 0], "to": ' + point + "}}"
            for point in (
                "[1]",
                "[1, 2, 3]",
                "[1, null]",
                '[1, "2"]',
                "[1, true]",
                "[NaN, 1]",
                "[1, Infinity]",
                "[1, 1e999]",
                f"[1, {HUGE}]",
                "[1, 1e9]",
                "7",
                '{"0": 1, "1": 2}',
            )
        ),
    ],
)
def test_what_is_no_length_is_refused_and_nothing_changes(browser: Browsers, text: str) -> None:
    person = browser()
    study = person.cases()[0]
    picture = frames(person, study)[0]
    before = {"one": line(picture)}
    send(person, study, before)
    answer = send(person, study, text.replace("PICTURE", json.dumps(picture)))
    assert answer.status_code == 400, answer.text
    assert held(person, study) == [{"id": "one", **line(picture)}]


def test_a_length_lies_on_a_picture_of_its_case(browser: Browsers) -> None:
    person = browser()
    study, other = person.cases()[:2]
    picture = frames(person, study)[0]
    elsewhere = frames(person, other)[0]
    name = picture.split("/")[-2]
    wrong = [
        elsewhere,
        elsewhere.replace(other, study),
        picture.replace(study, other),
        f"/cases/{study}/frames/{name}/1",
        f"/cases/{study}/frames/{name}/-1",
        f"/cases/{study}/frames/{name}/0x0",
        f"/cases/{study}/frames/{name}/²",
        f"/cases/{study}/frames/{name}/{'9' * 5000}",
        f"https://elsewhere.example{picture}",
        name,
        "",
    ]
    for address in wrong:
        assert send(person, study, {"one": line(address)}).status_code == 404, address
    assert held(person, study) == []


def test_lengths_are_bounded_in_number_and_size(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    picture = frames(person, study)[0]
    whole = line(picture, to=[-12345.678901234567, 12345.678901234567])
    full = {f"{number:036}": whole for number in range(MOST_LENGTHS)}
    assert send(person, study, full).status_code == 204, "as many as may be kept can be sent at once"
    answer = send(person, study, {"one-more": whole})
    assert (answer.status_code, "remove some" in answer.text) == (400, True)
    assert send(person, study, {"one": "x" * 200_000}).status_code == 413
    assert len(held(person, study)) == MOST_LENGTHS


def test_a_case_that_was_not_opened_or_is_not_there_holds_none(desk: Desk, browser: Browsers) -> None:
    opener, person = browser("reader", "opener"), browser()
    study = person.cases()[0]
    picture = frames(opener, study)[0]
    assert held(person, study) == []
    assert send(person, study, {"one": line(picture)}).status_code == 409
    assert person.get("/cases/2.25.1/lengths").status_code == 404
    assert send(person, "2.25.1", {"one": None}).status_code == 404
