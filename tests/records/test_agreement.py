"""When two decisions are one, which version they make, and what is awaited of a reader."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.case_times import spans
from meta_dx.records.cases import Cases
from meta_dx.records.database import Records
from meta_dx.records.opinions import Decision, Diagnosis, Shown
from meta_dx.records.schema import ReadingRow
from tests.records.test_cases import BLIND, SHOWN, Desk, X, Y, code

CASE = "2.25.0"


@pytest.fixture
def desk(home: Home, records: Records) -> Desk:
    return Desk(home, records, 1)


@pytest.fixture
def double(home: Home, records: Records) -> Desk:
    return Desk(home, records, 2)


@pytest.mark.parametrize(
    ("other", "state"),
    [
        (replace(X, scheme="RADLEX", meaning="Benign cyst"), "disputed"),
        (replace(X, code="x", meaning="spelt otherwise"), "done"),
        (replace(X, scheme=""), "done"),
        (replace(X, scheme="sct"), "done"),
        (replace(X, scheme="SNOMED CT"), "done"),
        (Y, "disputed"),
    ],
)
def test_two_readers_agree_where_code_and_scheme_are_the_same(
    double: Desk, other: Diagnosis, state: str
) -> None:
    for who, diagnosis in ((double.anna, X), (double.bert, other)):
        double.read(who)
        double.decide(who, diagnosis)
    assert double.cases.get(CASE).state == state


def test_saying_the_same_again_is_no_new_version(double: Desk) -> None:
    double.read(double.anna)
    assert [double.decide(double.anna, X) for _ in range(3)] == [1, 1, 1]
    other = Shown(SHOWN.run, SHOWN.bundle, SHOWN.support_version)
    assert double.cases.decide(double.anna, CASE, Decision("accept", X), other) == 1
    assert double.cases.decide(double.anna, CASE, Decision("accept", X), None) == 2, "beside no answer"
    assert double.decide(double.anna, Y) == 3
    assert double.decide(double.anna, X) == 4, "the last one counts"
    double.read(double.bert)
    double.decide(double.bert, Y)
    double.cases.open(double.carl, CASE)
    settled = [double.cases.adjudicate(double.carl, CASE, Decision("own", each)) for each in (X, X, Y)]
    assert settled == [1, 1, 2]
    lines = [line.action for line in double.trail.lines(CASE)]
    assert (lines.count("decide"), lines.count("adjudicate")) == (5, 2)


def test_saying_the_same_again_settles_a_case_of_which_fewer_have_to_decide_by_now(double: Desk) -> None:
    double.read(double.anna)
    double.decide(double.anna, X)
    assert double.cases.get(CASE).state == "open"
    one = Cases(double.records, double.trail, readers=1)
    assert one.decide(double.anna, CASE, Decision("accept", X), SHOWN) == 1
    assert double.cases.get(CASE).state == "done"
    assert double.trail.lines(CASE)[0].action == "settle"
    assert double.trail.verify().whole


def test_the_time_of_a_reading_ends_with_the_first_decision(desk: Desk) -> None:
    desk.read(desk.anna)
    desk.decide(desk.anna, X)
    with desk.records.transaction() as session:
        session.execute(update(ReadingRow).values(decided_at="2026-01-01T00:00:00+00:00"))
    desk.decide(desk.anna, Y)
    assert [end for _, _, end in spans(desk.records)] == ["2026-01-01T00:00:00+00:00"]


def test_a_draft_is_kept_for_what_is_awaited_only(double: Desk) -> None:
    def keeps(who: object, what: str) -> bool:
        try:
            double.cases.save_draft(who, CASE, {"for": what, "text": "a shadow"})  # type: ignore[arg-type]
        except MetaDxError as fault:
            assert fault.code == "draft_outdated"
            return False
        return True

    anna, carl = double.anna, double.carl
    double.cases.open(anna, CASE)
    double.cases.open(carl, CASE)
    assert keeps(anna, "blind 1")
    assert keeps(carl, "blind 1")
    double.cases.read(anna, CASE, BLIND)
    assert not keeps(anna, "blind 1"), "from another tab, or late"
    assert keeps(anna, "decision 1")
    double.decide(anna, X)
    assert not keeps(anna, "decision 1")
    assert keeps(anna, "decision 2")
    double.read(double.bert)
    double.decide(double.bert, Y)
    assert double.cases.awaited(carl, CASE) == "adjudication 1"
    assert not keeps(carl, "blind 1"), "what was typed for a blind read comes up in no adjudication"
    double.cases.adjudicate(carl, CASE, Decision("own", X))
    assert double.cases.awaited(carl, CASE) == "adjudication 2"
    with pytest.raises(MetaDxError) as fault:
        double.cases.save_draft(double.lena, CASE, {"for": "blind 1"})
    assert code(fault) == "not_opened"
