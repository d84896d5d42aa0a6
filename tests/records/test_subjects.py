"""Subjects of OpenID Connect: whose they are, and what becomes of those from before that was kept."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.accounts import Accounts
from meta_dx.records.audit import AuditTrail
from meta_dx.records.cases import Cases
from meta_dx.records.database import MIGRATIONS, VERSION_TABLE, Records
from meta_dx.records.subjects import Subject, bind_subjects, unbound_accounts
from tests.records.conftest import OTHER_DATABASE, _empty

OURS, OTHER = "https://id.hospital.example", "https://id.elsewhere.example"
MOMENT = "2026-11-02T10:00:00.000000+00:00"


def make_older(home: Home) -> str:
    """Make records of revision 0005 with accounts that others refer to; return their address."""
    url = OTHER_DATABASE or f"sqlite:///{home.root / 'records.sqlite'}"
    if OTHER_DATABASE:
        _empty(OTHER_DATABASE)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes |= {"connection": connection, "version_table": VERSION_TABLE}
        command.upgrade(config, "0005")
        add = text(
            "INSERT INTO accounts (id, name, role, password_hash, subject, must_change, enabled, failures, created_at)"
            " VALUES (:id, :name, 'reader', :hash, :subject, false, true, 0, :at)"
        )
        for id_, name, hashed, subject in (
            (1, "anna", None, "u-1"),
            (2, "bert", "x", None),
            (3, "carla", None, "u-3"),
        ):
            connection.execute(
                add, {"id": id_, "name": name, "hash": hashed, "subject": subject, "at": MOMENT}
            )
        case = "'s', 'p', 'b', 'CT', 1, 1, 2, 1, 'open', 1, :at"
        columns = "study, patient, batch, modality, images, series, band, mix, state, decisions, added_at"
        connection.execute(text(f"INSERT INTO cases ({columns}) VALUES ({case})"), {"at": MOMENT})  # noqa: S608
        for statement in (
            "INSERT INTO readings (study, account, stage, started_at) VALUES ('s', 1, 'read', :at)",
            "INSERT INTO sign_ins (token_hash, account, csrf, created_at, seen_at, ends_at)"
            " VALUES ('t', 3, 'c', :at, :at, :at)",
            "INSERT INTO opinions (study, account, kind, version, content, created_at)"
            """ VALUES ('s', 1, 'blind', 1, '{"ranked": [], "confidence": 0, "text": "kept"}', :at)""",
        ):
            connection.execute(text(statement), {"at": MOMENT})
    engine.dispose()
    return url


@pytest.fixture
def older(home: Home) -> Records:
    """Records of revision 0005, opened by this version."""
    return Records.open(home, make_older(home))


@pytest.fixture
def accounts_of(home: Home) -> Callable[[Records], Accounts]:
    return lambda records: Accounts(records, AuditTrail(records, home))


def test_what_refers_to_an_account_outlives_the_migration(older: Records, home: Home) -> None:
    with older.transaction() as session:
        names = session.execute(text("SELECT id, name, issuer, subject FROM accounts ORDER BY id")).all()
        assert names == [(1, "anna", None, "u-1"), (2, "bert", None, None), (3, "carla", None, "u-3")]
        held = "SELECT r.account, s.account, o.account FROM readings r, sign_ins s, opinions o"
        assert session.execute(text(held)).all() == [(1, 3, 1)]
        for table in ("readings", "sign_ins", "opinions"):
            keys = inspect(session.connection()).get_foreign_keys(table)
            assert "accounts" in {key["referred_table"] for key in keys}
    (said,) = Cases(older, AuditTrail(older, home)).opinions("s")
    assert said.account == "anna"
    with pytest.raises(IntegrityError), older.transaction() as session:  # foreign keys hold again
        session.execute(text("DELETE FROM accounts WHERE id = 1"))


@pytest.mark.skipif(OTHER_DATABASE is not None, reason="a file of SQLite is looked into")
@pytest.mark.parametrize(
    "after", ["CREATE TABLE _alembic_tmp_accounts", "DROP TABLE accounts", "RENAME TO accounts"]
)
def test_a_process_that_dies_while_it_remakes_the_accounts_leaves_them_as_they_were(
    home: Home, after: str
) -> None:
    make_older(home)
    script = (
        "import os, signal, sys\n"
        "from sqlalchemy import event\n"
        "from sqlalchemy.engine import Engine\n"
        "from meta_dx.home import Home\n"
        "from meta_dx.records.database import Records\n"
        "@event.listens_for(Engine, 'after_cursor_execute')\n"
        "def die(connection, cursor, statement, *rest):\n"
        "    if sys.argv[2] in ' '.join(statement.replace('\"', '').split()):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Records.open(Home.open(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(home.root), after], check=False)
    assert done.returncode == -signal.SIGKILL
    with sqlite3.connect(home.root / "records.sqlite") as connection:
        assert connection.execute("SELECT name, subject FROM accounts ORDER BY id").fetchall() == [
            ("anna", "u-1"),
            ("bert", None),
            ("carla", "u-3"),
        ]
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == ("0005",)  # noqa: S608
    assert unbound_accounts(Records.open(home)) == ["anna", "carla"]


def test_nobody_gets_in_with_a_subject_whose_issuer_nobody_has_kept(
    older: Records, accounts_of: Callable[[Records], Accounts]
) -> None:
    """The provider may have changed meanwhile, and its u-1 may be somebody else."""
    accounts = accounts_of(older)
    for issuer in (OURS, OTHER):
        with pytest.raises(MetaDxError, match="bind-subjects") as fault:
            accounts.sign_in_as(Subject(issuer, "u-1"))
        assert fault.value.code == "openid_unbound"
        with pytest.raises(MetaDxError, match="bind-subjects"):  # nor gets a second account beside it
            accounts.add("dora", "reader", subject=Subject(issuer, "u-1"))
    assert unbound_accounts(older) == ["anna", "carla"]


def test_who_is_bound_gets_in_from_that_issuer_alone(
    older: Records, home: Home, accounts_of: Callable[[Records], Accounts]
) -> None:
    accounts, trail = accounts_of(older), AuditTrail(older, home)
    assert bind_subjects(trail, OURS, by="root") == (["anna", "carla"], [])
    assert unbound_accounts(older) == []
    assert accounts.sign_in_as(Subject(OURS, "u-1")).account.name == "anna"
    with pytest.raises(MetaDxError, match="nobody has given you an account"):
        accounts.sign_in_as(Subject(OTHER, "u-1"))
    assert bind_subjects(trail, OTHER, by="root") == ([], []), "what is bound stays bound"
    lines = [line for line in trail.lines() if line.action == "bind_subject"]
    assert {(line.account, line.details["account"], line.details["issuer"]) for line in lines} == {
        ("root", "anna", OURS),
        ("root", "carla", OURS),
    }


def test_two_issuers_may_have_the_same_subject_and_mean_two_people(
    records: Records, home: Home, accounts_of: Callable[[Records], Accounts]
) -> None:
    accounts = accounts_of(records)
    accounts.add("anna", "lead", subject=Subject(OURS, "u-1"))
    with pytest.raises(MetaDxError, match="already"):
        accounts.add("anna2", "reader", subject=Subject(OURS, "u-1"))
    accounts.add("bert", "reader", subject=Subject(OTHER, "u-1"))
    for issuer, name in ((OURS, "anna"), (OTHER, "bert")):
        assert accounts.sign_in_as(Subject(issuer, "u-1")).account.name == name


def test_people_who_moved_to_another_issuer_keep_their_accounts_where_nobody_else_has_their_subject(
    records: Records, home: Home, accounts_of: Callable[[Records], Accounts]
) -> None:
    accounts, trail = accounts_of(records), AuditTrail(records, home)
    for name, whom in (
        ("anna", Subject(OTHER, "u-1")),
        ("bert", Subject(OTHER, "u-2")),
        ("new", Subject(OURS, "u-2")),
    ):
        accounts.add(name, "reader", subject=whom)
    assert bind_subjects(trail, OURS, earlier=OTHER, by="root") == (["anna"], ["bert"])
    assert accounts.sign_in_as(Subject(OURS, "u-1")).account.name == "anna"
    assert accounts.sign_in_as(Subject(OURS, "u-2")).account.name == "new"
    assert accounts.sign_in_as(Subject(OTHER, "u-2")).account.name == "bert"


def test_a_subject_without_an_issuer_is_none() -> None:
    with pytest.raises(MetaDxError, match="only with its issuer"):
        Subject("", "u-1")
