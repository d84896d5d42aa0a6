"""The audit trail: whoever has the database but not the key cannot change it unnoticed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.audit import AuditLine, AuditTrail
from meta_dx.records.database import Records
from meta_dx.records.schema import AuditRow


@pytest.fixture
def trail(home: Home, records: Records) -> AuditTrail:
    made = AuditTrail(records, home)
    for number in range(5):
        made.add(AuditLine("reader", "view_case", f"study{number}", "bundle", 3, {"n": number, "x": 0.1}))
    return made


def change(records: Records, statement: str) -> None:
    with records.transaction() as session:
        session.execute(text(statement))


def test_an_untouched_trail_is_whole(trail: AuditTrail) -> None:
    verdict = trail.verify()
    assert (verdict.whole, verdict.lines, verdict.anchors) == (True, 5, 5)
    assert verdict.head == trail.lines()[0].mac


def test_a_trail_without_lines_is_whole(home: Home, records: Records) -> None:
    assert AuditTrail(records, home).verify().whole


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET account = 'another' WHERE seq = 2",
        "UPDATE audit SET study = NULL WHERE seq = 3",
        "UPDATE audit SET at = '2020-01-01' WHERE seq = 5",
        "UPDATE audit SET support_version = 4 WHERE seq = 1",
        "UPDATE audit SET details = '{\"n\": 9}' WHERE seq = 4",
        "UPDATE audit SET bundle = 'other' WHERE seq = 1",
        "UPDATE audit SET action = 'sign_in' WHERE seq = 1",
    ],
)
def test_a_changed_line_is_found(trail: AuditTrail, records: Records, statement: str) -> None:
    change(records, statement)
    faults = trail.verify().faults
    assert faults
    assert "was changed" in faults[0]


@pytest.mark.parametrize("gone", ["seq = 1", "seq = 3", "seq IN (2, 3)"])
def test_a_removed_line_is_found(trail: AuditTrail, records: Records, gone: str) -> None:
    change(records, f"DELETE FROM audit WHERE {gone}")  # noqa: S608
    assert not trail.verify().whole


@pytest.mark.parametrize("last", [5, 4, 1])
def test_lines_cut_off_the_end_are_found_by_their_anchors(
    trail: AuditTrail, records: Records, last: int
) -> None:
    change(records, f"DELETE FROM audit WHERE seq >= {last}")  # noqa: S608
    assert any("anchored and is gone" in fault for fault in trail.verify().faults)


def test_lines_that_changed_places_are_found(trail: AuditTrail, records: Records) -> None:
    change(records, "UPDATE audit SET seq = 99 WHERE seq = 2")
    change(records, "UPDATE audit SET seq = 2 WHERE seq = 3")
    change(records, "UPDATE audit SET seq = 3 WHERE seq = 99")
    assert not trail.verify().whole


def test_a_trail_rewritten_without_the_key_is_found(trail: AuditTrail, home: Home, records: Records) -> None:
    key = home.private / "audit.key"
    right = key.read_text()
    change(records, "DELETE FROM audit")
    key.write_text("00" * 32)
    forged = AuditTrail(records, home)
    for _ in range(5):
        forged.add(AuditLine("reader", "view_case"))
    key.write_text(right)
    assert any("was changed" in fault for fault in AuditTrail(records, home).verify().faults)


def test_a_lost_anchor_file_is_told(trail: AuditTrail, home: Home) -> None:
    (home.private / "audit.anchors").unlink()
    assert any("no anchor" in fault for fault in trail.verify().faults)


def test_a_damaged_anchor_is_told(trail: AuditTrail, home: Home) -> None:
    path = home.private / "audit.anchors"
    path.write_text(path.read_text().replace("3 ", "x "))
    assert any("Anchor 3 is damaged" in fault for fault in trail.verify().faults)


def test_a_lost_key_is_not_replaced_by_a_new_one(trail: AuditTrail, home: Home, records: Records) -> None:
    (home.private / "audit.key").unlink()
    with pytest.raises(MetaDxError) as fault:
        AuditTrail(records, home)
    assert fault.value.code == "audit_key_missing"


def test_what_fails_leaves_no_line(trail: AuditTrail) -> None:
    def work(session: object, add: Callable[[AuditLine], None]) -> None:
        add(AuditLine("reader", "decide"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        trail.write(work)
    assert (trail.verify().lines, trail.verify().whole) == (5, True)


def test_a_process_that_dies_before_it_anchors_leaves_a_trail_that_is_whole(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditTrail, "_anchor", lambda *_: None)
    trail.add(AuditLine("reader", "sign_out"))
    assert (trail.verify().whole, trail.verify().lines, trail.verify().anchors) == (True, 6, 5)


def test_many_writers_at_once_make_one_chain(home: Home, records: Records) -> None:
    trail = AuditTrail(records, home)

    def write() -> None:
        for _ in range(5):
            trail.add(AuditLine("reader", "view_case"))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = trail.verify()
    assert (verdict.lines, verdict.faults) == (20, ())


def test_the_key_lies_outside_the_database_and_belongs_to_its_owner(trail: AuditTrail, home: Home) -> None:
    key = home.private / "audit.key"
    assert key.stat().st_mode & 0o077 == 0
    database = home.root / "records.sqlite"
    if database.exists():
        assert key.read_text().encode() not in Path(database).read_bytes()
        assert sqlite3.connect(database)


def test_lines_that_are_written_while_the_trail_is_verified_are_no_fault(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = trail._read_anchors

    def late(faults: list[str]) -> list[tuple[int, str]]:
        trail.add(AuditLine("reader", "view_case", "before the anchors are read"))
        found = read(faults)
        trail.add(AuditLine("reader", "view_case", "after"))
        return found

    monkeypatch.setattr(trail, "_read_anchors", late)
    reading = trail._records.reading

    @contextmanager
    def overtaken() -> Iterator[Session]:
        with reading() as session:
            session.scalar(select(func.count()).select_from(AuditRow))  # one state is read from here on
            trail.add(AuditLine("reader", "view_case", "while the lines are read"))
            yield session

    monkeypatch.setattr(trail._records, "reading", overtaken)
    verdict = trail.verify()
    assert (verdict.faults, verdict.lines) == ((), 7)


def test_lines_are_found_by_case_account_and_action_and_older_ones_by_the_last_one_seen(
    trail: AuditTrail,
) -> None:
    trail.add(AuditLine("lena", "switch_model", details={"mode": "off"}))
    trail.add(AuditLine("lena", "view_case", "study3"))

    def found(study: str = "", most: int = 10, **asked: Any) -> list[int]:
        return [line.seq for line in trail.lines(study, most, **asked)]

    assert found(most=3) == [7, 6, 5]
    assert found(most=3, before=5) == [4, 3, 2]
    assert found(account="lena") == [7, 6]
    assert found(action="view_case") == [7, 5, 4, 3, 2, 1]
    assert found("study3", account="reader") == [4]
    assert found(account="nobody") == []
    assert trail.said() == (["lena", "reader"], ["switch_model", "view_case"])
