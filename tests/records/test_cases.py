"""Cases of the review pages: the blind opinion comes first, nothing is erased, two readers do not see each other."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records import case_rows
from meta_dx.records.accounts import Account, Accounts
from meta_dx.records.audit import AuditLine, AuditTrail
from meta_dx.records.cases import Cases, NewCase
from meta_dx.records.database import Records
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis, Shown
from meta_dx.records.schema import AuditRow, OpinionRow, ReadingRow
from meta_dx.records.worklist import VIEWS, Worklist

X, Y = Diagnosis("X", "SCT", "disease x"), Diagnosis("Y", "SCT", "disease y")
BLIND = BlindOpinion((X, Y), 70)
SHOWN = Shown(1, "bundle", 3)


def case(number: int, modality: str = "CT", body_part: str = "CHEST") -> NewCase:
    return NewCase(f"2.25.{number}", f"P{number}", "b0001", modality, body_part, "F", 40.0, None, 3, 1)


class Desk:
    """Two readers, an adjudicator and ten cases."""

    def __init__(self, home: Home, records: Records, readers: int) -> None:
        self.records, self.trail = records, AuditTrail(records, home)
        self.cases, self.list = Cases(records, self.trail, readers), Worklist(records)
        accounts = Accounts(records, self.trail)
        made = {
            name: accounts.add(name, role, password="a long password", must_change=False)[0]  # noqa: S106
            for name, role in {
                "anna": "reader",
                "bert": "reader",
                "carl": "adjudicator",
                "lena": "lead",
            }.items()
        }
        self.anna, self.bert, self.carl, self.lena = made.values()
        self.cases.add(case(n) for n in range(10))

    def read(self, who: Account, study: str = "2.25.0") -> None:
        self.cases.open(who, study)
        self.cases.read(who, study, BLIND)

    def decide(self, who: Account, diagnosis: Diagnosis, study: str = "2.25.0") -> int:
        verdict = Decision("accept", diagnosis)
        return self.cases.decide(who, study, verdict, SHOWN)

    def seen(self, who: Account, view: str) -> list[str]:
        page = self.list.page(who, view)  # type: ignore[arg-type]
        return [row.study for row, _ in page.rows]


@pytest.fixture
def desk(home: Home, records: Records) -> Desk:
    return Desk(home, records, 1)


@pytest.fixture
def double(home: Home, records: Records) -> Desk:
    return Desk(home, records, 2)


def code(fault: pytest.ExceptionInfo[MetaDxError]) -> str:
    return fault.value.code


def test_neither_reveal_nor_decision_comes_before_the_blind_opinion(desk: Desk) -> None:
    desk.cases.open(desk.anna, "2.25.0")
    with pytest.raises(MetaDxError) as fault:
        desk.cases.reveal(desk.anna, "2.25.0", SHOWN)
    assert code(fault) == "not_read_yet"
    with pytest.raises(MetaDxError) as fault:
        desk.decide(desk.anna, X)
    assert code(fault) == "not_read_yet"
    assert desk.cases.opinions("2.25.0") == []


def test_a_blind_opinion_cannot_be_given_twice(desk: Desk) -> None:
    desk.read(desk.anna)
    with pytest.raises(MetaDxError) as fault:
        desk.cases.read(desk.anna, "2.25.0", replace(BLIND, confidence=99))
    assert code(fault) == "already_read"
    (said,) = desk.cases.opinions("2.25.0")
    assert (said.content, said.run) == (BLIND, None)


def test_a_changed_decision_is_a_new_version_and_the_old_one_stays(desk: Desk) -> None:
    desk.read(desk.anna)
    assert [desk.decide(desk.anna, X), desk.decide(desk.anna, Y)] == [1, 2]
    said = [(o.kind, o.version, o.content) for o in desk.cases.opinions("2.25.0")]
    assert said == [
        ("blind", 1, BLIND),
        ("decision", 1, Decision("accept", X)),
        ("decision", 2, Decision("accept", Y)),
    ]
    assert desk.cases.opinions("2.25.0")[1].bundle == "bundle"


def test_a_case_wanders_through_the_views_of_its_reader(desk: Desk) -> None:
    assert len(desk.seen(desk.anna, "unread")) == 10
    desk.read(desk.anna)
    assert desk.seen(desk.anna, "mine") == ["2.25.0"]
    assert "2.25.0" not in desk.seen(desk.anna, "unread")
    desk.decide(desk.anna, X)
    assert desk.seen(desk.anna, "done") == ["2.25.0"]
    assert desk.seen(desk.anna, "mine") == []
    assert desk.list.page(desk.anna, "done").counts == {"unread": 9, "mine": 0, "disputed": 0, "done": 1}


def test_a_second_reader_cannot_tell_that_a_first_has_decided(double: Desk) -> None:
    before = [(row.study, reading) for row, reading in double.list.page(double.bert, "unread").rows]
    double.read(double.anna)
    double.decide(double.anna, X)
    page = double.list.page(double.bert, "unread")
    assert [(row.study, reading) for row, reading in page.rows] == before
    assert page.counts == {"unread": 10, "mine": 0, "disputed": 0, "done": 0}


def test_two_readers_who_agree_finish_a_case(double: Desk) -> None:
    for who in (double.anna, double.bert):
        double.read(who)
        double.decide(who, X)
    assert double.cases.get("2.25.0").state == "done"


def test_two_readers_who_differ_make_a_dispute_that_an_adjudicator_settles(double: Desk) -> None:
    for who, diagnosis in ((double.anna, X), (double.bert, Y)):
        double.read(who)
        double.decide(who, diagnosis)
    assert double.cases.get("2.25.0").state == "disputed"
    assert double.seen(double.carl, "disputed") == ["2.25.0"]
    with pytest.raises(MetaDxError) as fault:
        double.cases.adjudicate(double.anna, "2.25.0", Decision("own", X))
    assert code(fault) == "not_allowed"
    with pytest.raises(MetaDxError) as fault:
        double.cases.adjudicate(double.carl, "2.25.0", Decision("own", Y))
    assert code(fault) == "not_opened"
    double.cases.open(double.carl, "2.25.0")
    double.cases.adjudicate(double.carl, "2.25.0", Decision("own", Y))
    assert double.cases.get("2.25.0").state == "done"
    reading = double.cases.reading(double.carl, "2.25.0")
    assert reading is not None
    assert reading.stage == "decided"
    with pytest.raises(MetaDxError) as fault:
        double.decide(double.bert, X)
    assert code(fault) == "already_adjudicated"


def test_an_adjudicator_may_change_what_they_said_and_nothing_is_erased(double: Desk) -> None:
    for who, diagnosis in ((double.anna, X), (double.bert, Y)):
        double.read(who)
        double.decide(who, diagnosis)
    double.cases.open(double.carl, "2.25.0")
    versions = [double.cases.adjudicate(double.carl, "2.25.0", Decision("own", each)) for each in (Y, X)]
    assert versions == [1, 2]
    said = [o.content.outcome for o in double.cases.opinions("2.25.0") if o.kind == "adjudication"]  # type: ignore[union-attr]
    assert said == [Y.code, X.code]
    assert double.cases.decided() == {"2.25.0": X.code}
    assert double.cases.get("2.25.0").state == "done"


def test_a_case_that_is_done_takes_no_first_decision_of_another_reader(desk: Desk) -> None:
    for who in (desk.anna, desk.bert):
        desk.read(who)
    desk.decide(desk.anna, X)
    with pytest.raises(MetaDxError) as fault:
        desk.decide(desk.bert, Y)
    assert code(fault) == "no_longer_open"
    assert desk.cases.get("2.25.0").state == "done"
    desk.decide(desk.anna, Y)
    assert desk.cases.decided() == {"2.25.0": Y.code}, "who has decided may change it"


def test_an_opinion_that_is_changed_or_removed_in_the_database_is_found(desk: Desk) -> None:
    desk.read(desk.anna)
    desk.decide(desk.anna, X)
    trail = desk.trail
    assert trail.verify().whole
    with desk.records.transaction() as session:
        row = session.scalars(select(OpinionRow).where(OpinionRow.kind == "blind")).one()
        row.content = {**row.content, "confidence": row.content["confidence"] + 1}
    (fault,) = trail.verify().faults
    assert "was changed" in fault
    with desk.records.transaction() as session:
        session.execute(delete(OpinionRow).where(OpinionRow.kind == "decision"))
    assert any("is gone" in fault for fault in trail.verify().faults)
    with desk.records.transaction() as session:
        line = session.scalars(select(AuditRow).where(AuditRow.action == "read_blind")).one()
        line.details = {**line.details, "kind": ["blind"], "version": {}}
    assert any("was changed" in fault for fault in trail.verify().faults)


@pytest.mark.parametrize(
    "change",
    [
        {"run": None},
        {"bundle": "another"},
        {"support_version": 9},
        {"created_at": "2020-01-01T00:00:00+00:00"},
        {"version": 2},
    ],
)
def test_lineage_and_time_of_an_opinion_are_sealed_too(desk: Desk, change: dict[str, Any]) -> None:
    desk.read(desk.anna)
    desk.decide(desk.anna, X)
    assert desk.trail.verify().whole
    with desk.records.transaction() as session:
        session.execute(update(OpinionRow).where(OpinionRow.kind == "decision").values(**change))
    assert not desk.trail.verify().whole


def test_an_opinion_that_no_line_tells_of_is_found(desk: Desk) -> None:
    desk.read(desk.anna)
    desk.decide(desk.anna, X)
    with desk.records.transaction() as session:
        row = session.scalars(select(OpinionRow).where(OpinionRow.kind == "decision")).one()
        said = {column.name: getattr(row, column.name) for column in OpinionRow.__table__.columns}
        session.add(OpinionRow(**{**said, "id": None, "version": 2}))
    (fault,) = desk.trail.verify().faults
    assert fault == "No line tells of the decision opinion of anna about case 2.25.0, version 2."


def test_opinions_from_before_they_were_sealed_are_as_many_as_their_lines(desk: Desk) -> None:
    desk.trail.add(AuditLine("anna", "read_blind", "2.25.0"))
    for number in (1, 2):
        with desk.records.transaction() as session:
            case_rows.add(session, desk.anna, "2.25.0", "blind", BLIND, None)
        assert desk.trail.verify().whole == (number == 1)


def test_a_reader_who_changes_their_mind_may_end_a_dispute(double: Desk) -> None:
    for who, diagnosis in ((double.anna, X), (double.bert, Y), (double.bert, X)):
        if double.cases.reading(who, "2.25.0") is None:
            double.read(who)
        double.decide(who, diagnosis)
    assert double.cases.get("2.25.0").state == "done"


def test_two_readers_who_decide_at_once_are_both_kept(double: Desk) -> None:
    for who in (double.anna, double.bert):
        double.read(who)
    threads = [
        threading.Thread(target=double.decide, args=(who, diagnosis))
        for who, diagnosis in ((double.anna, X), (double.bert, Y))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = double.cases.get("2.25.0")
    assert (row.decisions, row.state) == (2, "disputed")


def test_every_reader_has_an_order_of_their_own_that_stays(desk: Desk) -> None:
    first, second = desk.seen(desk.anna, "unread"), desk.seen(desk.bert, "unread")
    assert sorted(first) == sorted(second)
    assert first != second
    assert first == desk.seen(desk.anna, "unread")


def test_the_next_case_is_one_that_others_are_not_reading_just_now(desk: Desk) -> None:
    order = desk.seen(desk.anna, "unread")
    assert desk.list.next(desk.anna, 1) == order[0]
    desk.cases.open(desk.bert, order[0])
    assert desk.list.next(desk.anna, 1) == order[1]
    assert desk.list.next(desk.anna, 2) == order[0], "two are to read it"
    desk.cases.put_first(desk.lena, lambda _: [order[5]])
    assert desk.list.next(desk.anna, 1) == order[5]
    assert desk.seen(desk.anna, "unread") == [order[5], *order[:5], *order[6:]], (
        "the list shows nothing of it"
    )
    for study in order:
        desk.cases.open(desk.bert, study)
    assert desk.list.next(desk.anna, 1) == order[5], "where all are being read, the first"
    with desk.records.transaction() as session:
        session.execute(
            update(ReadingRow)
            .where(ReadingRow.study == order[7])
            .values(started_at="2026-01-01T00:00:00+00:00")
        )
    assert desk.list.next(desk.anna, 1) == order[7], "whoever has gone home holds nobody up"


def test_the_next_case_of_two_readers_is_one_that_not_two_others_have(double: Desk) -> None:
    order = double.seen(double.anna, "unread")
    double.read(double.bert, order[0])
    double.decide(double.bert, X, order[0])
    assert double.list.next(double.anna, 2) == order[0]
    double.cases.open(double.carl, order[0])
    assert double.list.next(double.anna, 2) == order[1]
    for study in order:
        double.cases.open(double.anna, study)
    assert double.list.next(double.anna, 2) is None


def test_urgent_cases_come_first_whatever_the_order(desk: Desk) -> None:
    last = desk.seen(desk.anna, "unread")[-1]
    desk.cases.put_first(desk.lena, lambda _: [last])
    assert desk.seen(desk.anna, "unread")[0] == last
    with pytest.raises(MetaDxError) as fault:
        desk.cases.put_first(desk.anna, lambda waiting: waiting)
    assert code(fault) == "not_allowed"


def test_of_two_who_put_cases_first_in_one_moment_one_is_refused(desk: Desk) -> None:
    refused: list[str] = []
    together = threading.Barrier(2)

    def put(case: int) -> None:
        together.wait()
        try:
            desk.cases.put_first(desk.lena, lambda waiting: [waiting[case]])
        except MetaDxError as fault:
            refused.append(fault.code)

    threads = [threading.Thread(target=put, args=(case,)) for case in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["queue_not_opened"]
    assert [row.band for row in map(desk.cases.get, desk.seen(desk.anna, "unread"))].count(0) == 1


def test_pages_follow_each_other_without_gap_or_repetition(desk: Desk) -> None:
    parts = [desk.list.page(desk.anna, "unread", start=start, most=4) for start in (0, 4, 8)]
    together = [row.study for part in parts for row, _ in part.rows]
    assert together == desk.seen(desk.anna, "unread")
    assert {part.total for part in parts} == {10}


def test_search_and_filters_narrow_a_view_and_leave_the_counts(desk: Desk) -> None:
    desk.cases.add([case(77, "MR", "HEAD"), case(78, "MR", "KNEE")])
    page = desk.list.page(desk.anna, "unread", search="knee mr")
    assert [row.study for row, _ in page.rows] == ["2.25.78"]
    assert (page.total, page.counts["unread"]) == (1, 12)
    assert desk.list.page(desk.anna, "unread", modality="MR").total == 2
    assert desk.list.page(desk.anna, "unread", search="50%").total == 0
    assert desk.list.modalities() == ["CT", "MR"]


def test_a_case_that_is_there_is_not_added_again(desk: Desk) -> None:
    desk.read(desk.anna)
    assert desk.cases.add([case(0), case(11)]) == 1
    assert desk.cases.reading(desk.anna, "2.25.0") is not None


def test_a_draft_lasts_until_the_opinion_is_given(desk: Desk) -> None:
    desk.cases.open(desk.anna, "2.25.0")
    draft = {"for": "blind 1", "text": "perhaps"}
    desk.cases.save_draft(desk.anna, "2.25.0", draft)
    kept = desk.cases.open(desk.anna, "2.25.0")
    assert kept.draft == draft
    desk.cases.read(desk.anna, "2.25.0", BLIND)
    gone = desk.cases.reading(desk.anna, "2.25.0")
    assert gone is not None
    assert gone.draft is None


def test_everything_is_in_the_audit_trail_with_bundle_and_support_version(desk: Desk) -> None:
    desk.read(desk.anna)
    desk.cases.reveal(desk.anna, "2.25.0", SHOWN)
    desk.decide(desk.anna, X)
    lines = desk.trail.lines("2.25.0")[::-1]
    assert [(line.action, line.bundle, line.support_version) for line in lines] == [
        ("view_case", None, None),
        ("read_blind", None, None),
        ("reveal", "bundle", 3),
        ("decide", "bundle", 3),
    ]
    assert desk.trail.verify().whole


@pytest.mark.parametrize(
    "make",
    [
        lambda: Decision("accept"),
        lambda: Decision("cannot_tell", X, "other", "why"),
        lambda: Decision("override", X),
        lambda: Decision("override", X, "other"),
        lambda: Decision("override", X, "nonsense"),
        lambda: Decision("maybe", X),  # type: ignore[arg-type]
        lambda: BlindOpinion((X, X), 50),
        lambda: BlindOpinion((X,), 101),
        lambda: BlindOpinion((X,), 50, "x" * 5000),
        lambda: Diagnosis(" "),
    ],
)
def test_incomplete_opinions_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MetaDxError) as fault:
        make()
    assert code(fault) == "bad_opinion"


def test_views_cover_every_case_once_for_a_reader(double: Desk) -> None:
    double.read(double.anna, "2.25.1")
    double.read(double.anna, "2.25.2")
    double.decide(double.anna, X, "2.25.2")
    studies = [study for view in VIEWS for study in double.seen(double.anna, view)]
    assert sorted(studies) == sorted(f"2.25.{n}" for n in range(10))
