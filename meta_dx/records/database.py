"""The SQL records of a home: opening, bringing to the current schema, and transactions.

Everything that several processes write and people must be able to read for years goes through here. It lies
in ``<home>/records.sqlite``, or in the database that a URL names.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.schema import OwnerRow
from meta_dx.records.sqlite import BUSY_SECONDS, connect_for_reading, is_read_only, prepare, storage_error

URL_VARIABLE = "META_DX_DATABASE_URL"
HEAD = "0008"
"""The revision this version writes; kept here so that opening a current database need not load Alembic."""
VERSION_TABLE = "meta_dx_revision"  # not Alembic's default name, which Dagster uses in its own database
MIGRATIONS = Path(__file__).with_name("migrations")

_ADVISORY_LOCK = 7_303_014_116  # any number that no other program locks; a database has locks of its own
_POSTGRESQL_FAULTS = {
    "55P03": ("database_busy", "another process keeps it locked: wait until it ends, then run again"),
    "53100": ("disk_full", "its disk is full: free some space there and run the same command again"),
    "25006": ("read_only", "it is read-only: name a database that may be written to"),
}
_MIGRATING = threading.Lock()  # Alembic keeps its context in globals

T = TypeVar("T")


class Records:
    """The opened SQL records; safe to share between threads, and after a fork.

    Use :meth:`open`. A process that dies in the middle of a transaction leaves what was there before it.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Where the tables lie.
    where : str
        How messages name the database (never with a password).
    writer : sqlalchemy.Engine, optional
        Connects those that write, so that they wait for each other without the connections of those that read.
    """

    def __init__(self, engine: Engine, where: str, writer: Engine | None = None) -> None:
        self._sqlite = engine.dialect.name == "sqlite"
        # SQLite reads one consistent state anyway; PostgreSQL has to be asked for it.
        self._reader = engine if self._sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._writer = (writer or engine).execution_options(begin="BEGIN IMMEDIATE")
        self.where = where

    @classmethod
    def open(cls, home: Home, url: str | None = None) -> Records:
        """Open the records of a home, creating them or bringing them to the current schema first.

        Parameters
        ----------
        home : Home
            The home; its ``records.sqlite`` is used when there is no URL.
        url : str, optional
            SQLAlchemy URL of another database; the variable ``META_DX_DATABASE_URL`` if not given.

        Returns
        -------
        Records

        Raises
        ------
        MetaDxError
            ``records_url``, ``records_driver``, ``records_unreachable``, ``records_newer``,
            ``records_of_another_cohort``, or a storage fault.
        """
        address = _address(home, url or os.environ.get(URL_VARIABLE) or None)
        records = cls(_engine(address), _shown(address), _writing_engine(address))
        records._bring_to_head()
        records._claim(home.cohort)
        return records

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Read one consistent state; nothing is written, and writers are not held up."""
        with self._faults(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Write: all of the block, or nothing when it raises or the process dies.

        One block writes at a time, in SQLite as in PostgreSQL, and every other one waits for it: what the block reads
        cannot change under it, so it may look before it writes. Readers do not wait.

        Raises
        ------
        MetaDxError
            ``database_busy`` when another one writes for longer than ``BUSY_SECONDS``, or another storage fault.
        """
        with self._faults(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            connection = session.connection()  # SQLite locks here
            if not self._sqlite:
                _lock(connection)
            yield session

    def write(self, work: Callable[[Session], T]) -> T:
        """Run ``work``, which takes the session, in one :meth:`transaction`, and return what it returns."""
        with self.transaction() as session:
            return work(session)

    def close(self) -> None:
        """Give pooled connections back."""
        self._reader.dispose()
        self._writer.dispose()

    def _bring_to_head(self) -> None:
        with self._faults():
            with self._reader.connect() as connection:
                if _revision(connection) == HEAD:
                    return
            with _MIGRATING, self._writer.connect() as connection:
                if self._sqlite:  # it remakes a table by dropping it, and what refers to it has to stay
                    connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
                with connection.begin():
                    if not self._sqlite:
                        _lock(connection)
                    _migrate(connection, self.where)

    def _claim(self, cohort: str | None) -> None:
        if cohort is None:
            return
        with self.reading() as session:
            owner = session.get(OwnerRow, 1)
        owner = owner or self.write(lambda session: _owner(session, cohort))
        if owner.cohort != cohort:
            raise MetaDxError(
                "records_of_another_cohort",
                f"The records in {self.where} belong to cohort '{owner.cohort}', not '{cohort}': "
                f"give each cohort its own database with {URL_VARIABLE}, or its own --home.",
            )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as fault:
            raise _postgresql_fault("55P03", self.where) from fault
        except DBAPIError as fault:
            error = storage_error(fault.orig, self.where) or _postgresql_error(fault.orig, self.where)
            if error is None and isinstance(fault, OperationalError) and not self._sqlite:
                error = MetaDxError(
                    "records_unreachable",
                    f"The database {self.where} does not answer: "
                    f"check that it runs and that {URL_VARIABLE} is right.",
                )
            if error is None:
                raise
            raise error from fault


def _owner(session: Session, cohort: str) -> OwnerRow:
    owner = session.get(OwnerRow, 1)
    if owner is None:
        owner = OwnerRow(id=1, cohort=cohort)
        session.add(owner)
        session.flush()
    return owner


def _address(home: Home, url: str | None) -> URL:
    if url is None:
        return URL.create("sqlite", database=str(home.root / "records.sqlite"))
    try:
        address = make_url(url)
    except ArgumentError as fault:
        # The URL itself may hold a password, so the message does not repeat it.
        raise MetaDxError(
            "records_url",
            f"{URL_VARIABLE} is not a database URL: write it like postgresql+psycopg://user:password@host/name.",
        ) from fault
    if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
        raise MetaDxError(
            "records_url",
            f"{URL_VARIABLE} names an SQLite database in memory, which keeps nothing: "
            "write it like sqlite:////folder/records.sqlite.",
        )
    return address


def _writing_engine(address: URL) -> Engine | None:
    """Return an engine with one connection, for a database in which one writes at a time; None for SQLite."""
    if address.get_backend_name() == "sqlite":
        return None
    return _engine(address, pool_size=1, max_overflow=0, pool_timeout=BUSY_SECONDS)


def _engine(address: URL, **more: Any) -> Engine:
    sqlite = address.get_backend_name() == "sqlite"
    file = Path(str(address.database))
    # SQLite opens in a millisecond: no pool, so no connection is ever carried through a fork.
    options: dict[str, Any] = {"poolclass": NullPool} if sqlite else {"pool_pre_ping": True, **more}
    if sqlite and is_read_only(file):
        options["creator"] = lambda: connect_for_reading(file)
    try:
        engine = create_engine(address, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as fault:
        raise MetaDxError(
            "records_driver",
            f"There is no driver for {_shown(address)}: install it, for PostgreSQL with "
            "pip install 'psycopg[binary]' and a URL that begins with postgresql+psycopg://.",
        ) from fault
    if sqlite:
        if "creator" not in options:
            event.listen(engine, "connect", lambda connection, _: prepare(connection))
        event.listen(engine, "begin", _begin)
    return engine


def _lock(connection: Connection) -> None:
    # Statements of their own, so that the next one sees all that was committed while this one waited.
    wait = f"{round(BUSY_SECONDS * 1000)}ms"
    connection.execute(select(func.set_config("lock_timeout", wait, True)))
    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _postgresql_error(fault: BaseException | None, where: str) -> MetaDxError | None:
    state = getattr(fault, "sqlstate", None)
    return _postgresql_fault(state, where) if state in _POSTGRESQL_FAULTS else None


def _postgresql_fault(state: str, where: str) -> MetaDxError:
    code, words = _POSTGRESQL_FAULTS[state]
    return MetaDxError(code, f"Cannot use {where}: {words}.")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _shown(address: URL) -> str:
    if address.get_backend_name() == "sqlite":
        return str(address.database)
    bare = URL.create(address.drivername, host=address.host, port=address.port, database=address.database)
    return bare.render_as_string()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - our own constant
    revision = connection.scalar(query)
    return None if revision is None else str(revision)


def _migrate(connection: Connection, where: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    attributes: dict[str, Any] = config.attributes
    attributes["connection"] = connection
    attributes["version_table"] = VERSION_TABLE
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise MetaDxError(
            "records_newer",
            f"The records in {where} were written by a newer version of meta-dx (revision {found}, "
            f"this one knows {HEAD}): update meta-dx, or use another --home.",
        )
    command.upgrade(config, "head")
    if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise MetaDxError(
            "database_damaged",
            f"The records in {where} hold rows that refer to nothing: put back a back-up (docs/records.md).",
        )
