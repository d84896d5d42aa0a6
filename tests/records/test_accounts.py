"""Accounts of the review pages: who gets in, who does not, and that nothing in the database opens a door."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event, text, update

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records import accounts as accounts_module
from meta_dx.records.accounts import FAILURES, IDLE, LOCKED, RIGHTS, Account, Accounts
from meta_dx.records.audit import AuditTrail
from meta_dx.records.database import Records
from meta_dx.records.schema import AccountRow, SignInRow
from meta_dx.records.subjects import Subject

ISSUER = "https://id.example"
PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture
def accounts(home: Home, records: Records) -> Accounts:
    made = Accounts(records, AuditTrail(records, home))
    made.add("Anna", "reader", password=PASSWORD, by="root", must_change=False)
    return made


def refused(accounts: Accounts, name: str, password: str) -> str:
    with pytest.raises(MetaDxError) as fault:
        accounts.sign_in(name, password)
    return fault.value.code


def earlier(records: Records, column: str, by: timedelta) -> None:
    with records.transaction() as session:
        session.execute(
            update(SignInRow).values({column: (datetime.now(UTC) - by).isoformat(timespec="microseconds")})
        )


def test_the_right_password_opens_a_session_of_that_account(accounts: Accounts) -> None:
    opened = accounts.sign_in("ANNA ", PASSWORD)
    found = accounts.session(opened.token)
    assert found is not None
    assert (found.account.name, found.account.role, found.csrf) == ("anna", "reader", opened.csrf)


@pytest.mark.parametrize(("name", "password"), [("anna", "wrong"), ("nobody", PASSWORD), ("anna", "")])
def test_a_wrong_name_and_a_wrong_password_are_told_in_the_same_words(
    accounts: Accounts, name: str, password: str
) -> None:
    with pytest.raises(MetaDxError, match="The name or the password is wrong") as fault:
        accounts.sign_in(name, password)
    assert fault.value.code == "sign_in_failed"


def test_an_account_is_locked_after_repeated_failures_and_opens_again_later(
    accounts: Accounts, records: Records
) -> None:
    for _ in range(FAILURES):
        assert refused(accounts, "anna", "wrong") == "sign_in_failed"
    assert refused(accounts, "anna", PASSWORD) == "account_locked"
    with records.transaction() as session:
        ago = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(AccountRow).values(locked_until=ago.isoformat(timespec="microseconds")))
    assert accounts.sign_in("anna", PASSWORD).account.name == "anna"
    assert timedelta(minutes=10) <= LOCKED


def test_passwords_that_are_tried_at_once_are_counted_before_they_are_checked(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[str] = []
    check = accounts_module.password_matches
    first = threading.Barrier(FAILURES)

    def matches(hashed: str | None, password: str) -> bool:
        first.wait(timeout=60)  # no check ends before all that are let through have begun
        tested.append(password)
        return check(hashed, password)

    monkeypatch.setattr(accounts_module, "password_matches", matches)
    with ThreadPoolExecutor(4 * FAILURES) as pool:
        found = Counter(pool.map(lambda n: refused(accounts, "anna", f"wrong {n}"), range(4 * FAILURES)))
    assert found == {"sign_in_failed": FAILURES, "account_locked": 3 * FAILURES}
    assert len(tested) == FAILURES


def test_a_name_that_nobody_has_makes_the_same_work_for_the_database(accounts: Accounts) -> None:
    asked: list[str] = []

    def heard(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement.split(maxsplit=1)[0])

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        refused(accounts, "anna", "wrong")
        known, asked[:] = list(asked), []
        refused(accounts, "nobody", "wrong")
    finally:
        event.remove(Engine, "before_cursor_execute", heard)
    assert asked == known
    assert known.count("UPDATE") == 1


def test_failures_are_forgotten_after_a_success(accounts: Accounts) -> None:
    for _ in range(FAILURES - 1):
        refused(accounts, "anna", "wrong")
    accounts.sign_in("anna", PASSWORD)
    assert refused(accounts, "anna", "wrong") == "sign_in_failed"
    accounts.sign_in("anna", PASSWORD)


def test_sessions_end_by_signing_out_by_idling_and_at_their_latest_end(
    accounts: Accounts, records: Records
) -> None:
    for end in ("out", "idle", "latest"):
        token = accounts.sign_in("anna", PASSWORD).token
        assert accounts.session(token) is not None
        if end == "out":
            accounts.sign_out(token)
        elif end == "idle":
            earlier(records, "seen_at", IDLE + timedelta(seconds=1))
        else:
            earlier(records, "ends_at", timedelta(seconds=1))
        assert accounts.session(token) is None


def test_use_keeps_a_session_open(accounts: Accounts, records: Records) -> None:
    token = accounts.sign_in("anna", PASSWORD).token
    earlier(records, "seen_at", IDLE - timedelta(minutes=1))
    assert accounts.session(token) is not None
    with records.reading() as session:
        seen = session.scalar(text("SELECT seen_at FROM sign_ins"))
    assert datetime.now(UTC) - datetime.fromisoformat(str(seen)) < timedelta(minutes=1)


def test_a_closed_account_gets_out_and_not_in_again(accounts: Accounts) -> None:
    accounts.add("root", "administrator", password=PASSWORD)
    token = accounts.sign_in("anna", PASSWORD).token
    accounts.change("anna", enabled=False, by="root")
    assert accounts.session(token) is None
    assert refused(accounts, "anna", PASSWORD) == "sign_in_failed"


def test_where_there_is_no_administrator_other_accounts_can_be_changed(accounts: Accounts) -> None:
    assert not accounts.change("anna", enabled=False, by="command line").enabled


def test_the_last_administrator_stays(accounts: Accounts) -> None:
    accounts.add("root", "administrator", password=PASSWORD)
    for change in ({"enabled": False}, {"role": "reader"}):
        with pytest.raises(MetaDxError) as fault:
            accounts.change("root", by="root", **change)
        assert fault.value.code == "last_administrator"


def test_a_given_password_has_to_be_replaced_before_anything_may_be_done(accounts: Accounts) -> None:
    account, secret = accounts.add("bert", "lead")
    assert account.must_change
    assert not account.may("read")
    accounts.set_password("bert", PASSWORD, by="bert")
    assert refused(accounts, "bert", secret) == "sign_in_failed"
    assert accounts.sign_in("bert", PASSWORD).account.may("lead")


def test_a_password_of_another_ends_all_sessions(accounts: Accounts) -> None:
    token = accounts.sign_in("anna", PASSWORD).token
    accounts.set_password("anna", by="root")
    assert accounts.session(token) is None


def test_neither_passwords_nor_tokens_lie_in_the_database(accounts: Accounts, records: Records) -> None:
    token = accounts.sign_in("anna", PASSWORD).token
    with records.reading() as session:
        tables = ("accounts", "sign_ins", "audit")
        held = [str(row) for name in tables for row in session.execute(text(f"SELECT * FROM {name}"))]  # noqa: S608
    assert held
    assert not any(PASSWORD in row or token in row for row in held)
    assert any("$argon2id$" in row for row in held)


def test_whoever_openid_connect_vouches_for_gets_in_only_with_an_account(accounts: Accounts) -> None:
    accounts.add("carla", "reader", subject=Subject(ISSUER, "42"))
    assert accounts.sign_in_as(Subject(ISSUER, "42")).account.name == "carla"
    assert refused(accounts, "carla", "") == "sign_in_failed"
    with pytest.raises(MetaDxError, match="nobody has given you an account"):
        accounts.sign_in_as(Subject(ISSUER, "43"))


@pytest.mark.parametrize(
    ("name", "role", "password", "code"),
    [
        ("a b", "reader", PASSWORD, "bad_account"),
        ("<script>", "reader", PASSWORD, "bad_account"),
        ("dora", "doctor", PASSWORD, "bad_account"),
        ("dora", "reader", "short", "bad_password"),
        ("anna", "reader", PASSWORD, "account_exists"),
    ],
)
def test_impossible_accounts_are_refused(
    accounts: Accounts, name: str, role: str, password: str, code: str
) -> None:
    with pytest.raises(MetaDxError) as fault:
        accounts.add(name, role, password=password)
    assert fault.value.code == code


def test_every_sign_in_and_change_is_written_down(accounts: Accounts, home: Home, records: Records) -> None:
    refused(accounts, "anna", "wrong")
    accounts.sign_out(accounts.sign_in("anna", PASSWORD).token)
    actions = [line.action for line in AuditTrail(records, home).lines()][::-1]
    assert actions == ["add_account", "sign_in_failed", "sign_in", "sign_out"]


def test_an_administrator_sees_no_case_and_a_reader_manages_nobody() -> None:
    assert not RIGHTS["administrator"] & {"read", "identity", "adjudicate", "teach", "export", "lead"}
    assert not RIGHTS["reader"] & {"accounts", "audit", "lead", "teach", "identity", "adjudicate"}
    assert Account(1, "x", "reader").may("read")
