"""Several people, or one impatient one, at the same case in the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable

from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


def at_once(*works: Callable[[], int]) -> list[int]:
    """Run all of them in the same moment; return what they answered."""
    start = threading.Barrier(len(works))
    answers: list[int] = [0] * len(works)

    def run(place: int, work: Callable[[], int]) -> None:
        start.wait()
        answers[place] = work()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def deciding(person: Browser, study: str, **fields: str) -> Callable[[], int]:
    data = {"csrf": person.csrf, "answer": person.shown(study), **fields}
    return lambda: person.client.post(f"/cases/{study}/decide", data=data).status_code


def test_two_readers_who_decide_at_once_are_both_heard(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    desk = make_desk(readers=2, name="double")
    anna, bert = (browser("reader", name, at=desk) for name in ("anna", "bert"))
    for number, study in enumerate(anna.cases()):
        for person in (anna, bert):
            person.read(study)
        other = {"verdict": "override", "diagnosis": "D1", "reason": "finding_missed"}
        second = other if number % 2 else {"verdict": "accept"}
        works = deciding(anna, study, verdict="accept"), deciding(bert, study, **second)
        assert at_once(*works) == [303, 303]
        said = [one for one in desk.cases.opinions(study) if one.kind == "decision"]
        assert {(one.account, one.version) for one in said} == {("anna", 1), ("bert", 1)}
        assert desk.cases.get(study).state == ("disputed" if number % 2 else "done")
        assert desk.cases.get(study).decisions == 2
    assert desk.trail.verify().whole


def test_a_double_click_makes_one_version_and_what_differs_is_all_kept(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    assert at_once(*[deciding(person, study, verdict="accept")] * 4) == [303] * 4
    assert [one.version for one in desk.cases.opinions(study) if one.kind == "decision"] == [1]
    others = [deciding(person, study, verdict="accept", text=f"remark {n}") for n in range(3)]
    assert at_once(*others) == [303] * 3
    versions = [one.version for one in desk.cases.opinions(study) if one.kind == "decision"]
    assert sorted(versions) == [1, 2, 3, 4]
    lines = [line for line in desk.trail.lines(study) if line.action == "decide"]
    assert sorted(line.details["version"] for line in lines) == [1, 2, 3, 4]
    assert desk.trail.verify().whole


def test_a_blind_opinion_that_is_sent_twice_is_kept_once(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    data = {"csrf": person.csrf, "rank1": "D0", "confidence": "5"}
    answers = at_once(*[lambda: person.client.post(f"/cases/{study}/read", data=data).status_code] * 4)
    assert sorted(answers) == [303, 409, 409, 409]
    assert [one.kind for one in desk.cases.opinions(study)] == ["blind"]
    assert desk.trail.verify().whole


def test_two_adjudicators_at_once_settle_a_dispute_once(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    desk = make_desk(readers=2, name="double")
    anna, bert = (browser("reader", name, at=desk) for name in ("anna", "bert"))
    carl, dora = (browser("adjudicator", name, at=desk) for name in ("carl", "dora"))
    study = anna.cases()[0]
    for person, disease in ((anna, "D0"), (bert, "D1")):
        person.read(study)
        person.post(f"/cases/{study}/decide", verdict="override", diagnosis=disease, reason="not_offered")

    def settling(person: Browser, disease: str) -> Callable[[], int]:
        person.get(f"/cases/{study}")
        data = {"csrf": person.csrf, "verdict": "own", "diagnosis": disease}
        return lambda: person.client.post(f"/cases/{study}/adjudicate", data=data).status_code

    assert sorted(at_once(settling(carl, "D0"), settling(dora, "D1"))) == [303, 409]
    assert [one.kind for one in desk.cases.opinions(study)].count("adjudication") == 1
    assert desk.cases.get(study).state == "done"
    assert desk.trail.verify().whole
