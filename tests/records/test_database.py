from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records import database, sqlite
from meta_dx.records.database import HEAD, MIGRATIONS, VERSION_TABLE, Records
from meta_dx.records.openings import count_openings, record_opening
from meta_dx.records.predictions import (
    NearestCase,
    PredictedStudy,
    PredictionRun,
    latest_predictions,
    save_prediction_run,
)
from meta_dx.records.schema import Base, OpeningRow
from meta_dx.records.support import SupportCase, SupportSets
from tests.records.conftest import OTHER_DATABASE

OPENING = {"bundle": "b", "split_version": "v0001", "protocol": "5w1s", "by": "test"}


def file_of(home: Home) -> Path:
    return home.root / "records.sqlite"


def raw(home: Home) -> sqlite3.Connection:
    return sqlite3.connect(file_of(home))


def python(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True)


# Schema and migrations


def test_the_migrations_make_exactly_the_tables_of_the_code(records: Records) -> None:
    options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
    with records.reading() as session:
        context = MigrationContext.configure(session.connection(), opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_the_revision_named_in_the_code_is_the_only_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.parametrize("table", Base.metadata.sorted_tables, ids=lambda table: table.name)
def test_every_table_and_name_is_valid_in_postgresql(table) -> None:
    statement = str(CreateTable(table).compile(dialect=postgresql.dialect()))
    assert f"CREATE TABLE {table.name}" in statement
    # PostgreSQL cuts longer names, and then a migration no longer finds them.
    named = [*table.constraints, *table.indexes]
    assert all(len(str(item.name)) <= 63 for item in named if item.name)


def test_a_new_home_gets_its_records_in_write_ahead_mode_with_foreign_keys(home: Home) -> None:
    records = Records.open(home)
    assert file_of(home).exists()
    with records.reading() as session:
        pragma = {name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys")}
        assert pragma == {"journal_mode": "wal", "foreign_keys": 1}
        assert session.scalar(text("PRAGMA busy_timeout")) >= 10_000


def test_opening_again_keeps_what_was_written(home: Home) -> None:
    record_opening(Records.open(home), **OPENING)
    assert count_openings(Records.open(home)) == 1


def test_a_home_whose_name_has_odd_characters_opens(tmp_path: Path) -> None:
    assert count_openings(Records.open(Home.open(tmp_path / "50% ? #1 ü"))) == 0


def test_records_of_a_newer_version_are_refused_untouched(home: Home) -> None:
    Records.open(home)
    with raw(home) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
    before = file_of(home).read_bytes()
    with pytest.raises(MetaDxError, match="newer version of meta-dx") as fault:
        Records.open(home)
    assert fault.value.code == "records_newer"
    assert file_of(home).read_bytes() == before


def test_records_of_the_first_version_are_brought_up_to_date_and_their_predictions_stay(home: Home) -> None:
    old = Records.open(home)
    SupportSets(old).add([SupportCase("X", "SCT", "x", "a", "P")], "Dr A", "test")
    run = PredictionRun("bundle", 1, "v0001", "data", "b0001", "2026-11-23T10:00:00.000000+00:00")
    row = PredictedStudy("s", {"X": 0.25, "Y": 0.75}, 0.5, (NearestCase("a", "X", 0.9),), True)
    save_prediction_run(old, run, [row])
    with raw(home) as connection:  # as the first version left them
        for name in ("epistemic", "aleatoric", "interval", "evidence", "remoteness"):
            connection.execute(f"ALTER TABLE predictions DROP COLUMN {name}")
        for name in (
            "stored_reports",
            "sign_ins",
            "readings",
            "opinions",
            "audit",
            "review_state",
            "cases",
            "accounts",
        ):
            connection.execute(f"DROP TABLE {name}")
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")  # noqa: S608
    (saved,) = latest_predictions(Records.open(home))
    assert (saved.run, saved.studies) == (run, (row,))
    assert saved.studies[0].epistemic is saved.studies[0].interval is saved.studies[0].evidence is None
    later = replace(row, epistemic=0.1, aleatoric=0.4, interval={"X": (0.2, 0.3), "Y": (0.7, 0.8)})
    save_prediction_run(Records.open(home), run, [later])
    assert latest_predictions(Records.open(home))[0].studies == (later,)


def test_processes_that_open_a_new_home_at_once_all_succeed(home: Home) -> None:
    script = (
        "import sys\n"
        "from meta_dx.home import Home\n"
        "from meta_dx.records.database import Records\n"
        "from meta_dx.records.openings import record_opening\n"
        "records = Records.open(Home.open(sys.argv[1], 'trial'))\n"
        "record_opening(records, bundle=sys.argv[2], split_version='v', protocol='p', by='x')\n"
    )
    running = [python(script, str(home.root), str(number)) for number in range(3)]
    assert [process.wait(60) for process in running] == [0] * 3
    assert count_openings(Records.open(home)) == 3


@pytest.mark.system
def test_a_migration_killed_half_way_leaves_nothing_and_the_next_open_finishes(home: Home) -> None:
    script = (
        "import os, signal, sys\n"
        "from sqlalchemy import event\n"
        "from sqlalchemy.engine import Engine\n"
        "from meta_dx.home import Home\n"
        "from meta_dx.records.database import Records\n"
        "@event.listens_for(Engine, 'after_cursor_execute')\n"
        "def die(connection, cursor, statement, *rest):\n"
        "    if 'CREATE TABLE predictions' in statement:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Records.open(Home.open(sys.argv[1]))\n"
    )
    assert python(script, str(home.root)).wait(60) == -signal.SIGKILL
    with raw(home) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert count_openings(Records.open(home)) == 0


# Where


def test_a_url_moves_the_records_out_of_the_home(home: Home, tmp_path: Path, monkeypatch) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite"
    record_opening(Records.open(home, f"sqlite:///{elsewhere}"), **OPENING)
    assert elsewhere.exists()
    assert not file_of(home).exists()
    monkeypatch.setenv("META_DX_DATABASE_URL", f"sqlite:///{elsewhere}")
    assert count_openings(Records.open(home)) == 1


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("no url with hush in it", "records_url"),
        ("sqlite://", "records_url"),
        ("sqlite:///:memory:", "records_url"),
        ("postgresql+nosuchdriver://me:hush@host/name", "records_driver"),
        ("nosuchdatabase://me:hush@host/name?password=hush", "records_driver"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_showing_its_password(
    home: Home, url: str, code: str
) -> None:
    with pytest.raises(MetaDxError) as fault:
        Records.open(home, url)
    assert fault.value.code == code
    assert "hush" not in str(fault.value)


def test_records_serve_one_cohort(home: Home, tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path}/shared.sqlite"
    Records.open(Home.open(tmp_path / "nameless"), shared)
    Records.open(home, shared)
    Records.open(home, shared)
    with pytest.raises(MetaDxError, match="belong to cohort 'trial', not 'other'") as fault:
        Records.open(Home.open(tmp_path / "other", "other"), shared)
    assert fault.value.code == "records_of_another_cohort"


def test_a_file_that_is_no_database_is_named_and_kept(home: Home) -> None:
    file_of(home).write_bytes(b"something else\n" * 1000)
    with pytest.raises(MetaDxError, match=r"records\.sqlite") as fault:
        Records.open(home)
    assert fault.value.code == "database_damaged"
    assert file_of(home).read_bytes() == b"something else\n" * 1000


# Transactions


def test_a_transaction_that_raises_leaves_nothing(records: Records) -> None:
    with pytest.raises(KeyError), records.transaction() as session:
        session.add(OpeningRow(**_opening_row()))
        session.flush()
        raise KeyError
    assert count_openings(records) == 0


@pytest.mark.skipif(OTHER_DATABASE is not None, reason="SQLite only")
def test_a_reader_is_not_held_up_by_a_writer_and_sees_only_what_is_committed(records: Records) -> None:
    with records.transaction() as session:
        session.add(OpeningRow(**_opening_row()))
        session.flush()
        assert count_openings(records) == 0
    assert count_openings(records) == 1


def test_a_writer_begins_when_the_one_before_it_has_ended_and_sees_what_that_one_wrote(
    records: Records,
) -> None:
    began, seen = threading.Event(), []

    def look(session: Session) -> None:
        began.set()
        seen.append(session.scalar(select(func.count()).select_from(OpeningRow)))

    second = threading.Thread(target=records.write, args=(look,))
    with records.transaction() as session:
        session.add(OpeningRow(**_opening_row()))
        second.start()
        assert not began.wait(0.5)
    second.join()
    assert seen == [1]


def test_a_transaction_that_is_never_ended_is_one_clear_sentence(records: Records, monkeypatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    address = make_url(records._reader.url)
    another = Records(database._engine(address), "there", database._writing_engine(address))
    for writer in (records, another) if OTHER_DATABASE is None else (another,):
        with (
            records.transaction(),
            pytest.raises(MetaDxError, match="another process keeps it locked") as fault,
        ):
            record_opening(writer, **OPENING)
        assert fault.value.code == "database_busy"
    with another.transaction(), pytest.raises(MetaDxError, match="another process keeps it locked") as fault:
        record_opening(another, **OPENING)
    assert fault.value.code == "database_busy"
    assert record_opening(records, **OPENING) == 1


def test_readers_go_on_while_many_wait_to_write(records: Records) -> None:
    writers = [threading.Thread(target=record_opening, args=(records,), kwargs=OPENING) for _ in range(20)]
    with records.transaction() as session:
        session.add(OpeningRow(**_opening_row()))
        session.flush()
        for writer in writers:
            writer.start()
        time.sleep(0.3)
        began = time.monotonic()
        assert count_openings(records) == 0
        assert time.monotonic() - began < 5
    for writer in writers:
        writer.join(60)
    assert count_openings(records) == 2


def test_what_does_not_fit_is_an_error_and_leaves_nothing(records: Records) -> None:
    with pytest.raises(IntegrityError):
        records.write(lambda session: session.add_all([OpeningRow(**_opening_row()) for _ in range(2)]))
    assert count_openings(records) == 0


def test_a_lock_that_is_never_released_is_one_clear_sentence(home: Home, monkeypatch) -> None:
    records = Records.open(home)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    blocker = raw(home)
    blocker.isolation_level = None
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(MetaDxError, match="another process keeps it locked") as fault:
        record_opening(records, **OPENING)
    assert fault.value.code == "database_busy"
    blocker.execute("ROLLBACK")
    assert record_opening(records, **OPENING) == 1


def test_a_new_file_that_another_process_is_just_setting_up_is_waited_for(tmp_path: Path) -> None:
    # SQLite answers "locked" at once here, whatever the busy timeout.
    first = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, first.execute, ["COMMIT"])
    release.start()
    second = sqlite3.connect(tmp_path / "new.sqlite")
    sqlite.prepare(second)
    release.join()
    assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_disk_is_one_clear_sentence_and_loses_nothing(home: Home, monkeypatch) -> None:
    records = Records.open(home)
    record_opening(records, **OPENING)

    def prepare_small(connection: sqlite3.Connection) -> None:
        sqlite.prepare(connection)
        connection.execute("PRAGMA max_page_count = 1")  # never below what the file already has

    monkeypatch.setattr(database, "prepare", prepare_small)
    with pytest.raises(MetaDxError, match="the disk is full") as fault:
        record_opening(Records.open(home), **{**OPENING, "bundle": "x" * 100_000})
    assert fault.value.code == "disk_full"
    monkeypatch.undo()
    assert count_openings(records) == 1


@pytest.mark.system
def test_a_process_killed_in_a_transaction_leaves_what_was_before(home: Home) -> None:
    records = Records.open(home)
    record_opening(records, **OPENING)
    script = (
        "import sys, time\n"
        "from meta_dx.home import Home\n"
        "from meta_dx.records.database import Records\n"
        "from meta_dx.records.schema import OpeningRow\n"
        "names = 'bundle split_version protocol first_at first_by last_at last_by'.split()\n"
        "with Records.open(Home.open(sys.argv[1])).transaction() as session:\n"
        "    for number in range(5000):\n"
        "        session.add(OpeningRow(times=1, **{name: f'{name}{number}' * 20 for name in names}))\n"
        "    session.flush()\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = python(script, str(home.root))
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert count_openings(records) == 1
    assert record_opening(records, **{**OPENING, "bundle": "after"}) == 2


def test_a_back_up_made_while_open_is_complete(home: Home, tmp_path: Path) -> None:
    record_opening(Records.open(home), **OPENING)
    copy = tmp_path / "copy.sqlite"
    with raw(home) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    engine = create_engine(f"sqlite:///{copy}")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT times FROM openings")) == 1


def _opening_row() -> dict[str, object]:
    names = ("bundle", "split_version", "protocol", "first_at", "first_by", "last_at", "last_by")
    return {**dict.fromkeys(names, "x"), "times": 1}


def test_every_table_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    assert [name for name in Base.metadata.tables if f"`{name}`" not in page] == []
