"""The cursor of each archive: what has been fetched, so that the next night takes only what is new.

It lies in the identity vault's file, because it holds the UIDs that the archive knows; its tables are of no concern
to a version that does not know them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from meta_dx.home import Home
from meta_dx.records.schema import now
from meta_dx.records.sqlite import database_faults, prepare
from meta_dx.records.vault import Vault

_TABLES = (
    "CREATE TABLE IF NOT EXISTS fetched_studies (address TEXT NOT NULL, study TEXT NOT NULL, mark TEXT NOT NULL,"
    " instances INTEGER NOT NULL, changed_at TEXT NOT NULL, PRIMARY KEY (address, study)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS fetched_instances (server TEXT NOT NULL, study TEXT NOT NULL, instance TEXT NOT NULL,"
    " series TEXT NOT NULL, mark TEXT NOT NULL, state TEXT NOT NULL, at TEXT NOT NULL,"
    " PRIMARY KEY (server, study, instance)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class FetchedInstance:
    """What is known of one instance of an archive.

    Parameters
    ----------
    study, series, instance : str
        UIDs as the archive gave them.
    mark : str
        Hash of what the archive said of it then.
    state : str
        ``landed``; ``wanted`` while it is being fetched; otherwise the code of what went wrong.
    """

    study: str
    series: str
    instance: str
    mark: str
    state: str


@dataclass(frozen=True)
class SettledStudy:
    """A study of which everything is here.

    Parameters
    ----------
    study, mark : str
        The study, and what the archive says of it.
    instances : int
        How many of its instances the filters let through.
    changed : bool
        Whether it brought something new this time.
    """

    study: str
    mark: str
    instances: int
    changed: bool


class FetchLog:
    """The opened cursor of a home; for one thread. Use it in a ``with`` block.

    Parameters
    ----------
    home : Home
        The home.

    Raises
    ------
    MetaDxError
        A storage fault.
    """

    def __init__(self, home: Home) -> None:
        Vault.open(home).close()  # creates the file for its owner only
        path = home.private / "identity.sqlite"
        self._where = f"the identity vault {path}"
        with database_faults(self._where):
            self._connection = sqlite3.connect(path)
            prepare(self._connection)
            for statement in _TABLES:
                self._connection.execute(statement)

    def __enter__(self) -> FetchLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def instances(self, server: str, study: str) -> dict[str, FetchedInstance]:
        """Return what is known of the instances of a study, by instance UID."""
        rows = self._rows(
            "SELECT study, series, instance, mark, state FROM fetched_instances WHERE server = ? AND study = ?",
            (server, study),
        )
        return {row[2]: FetchedInstance(*row) for row in rows}

    def failed(self, server: str) -> list[FetchedInstance]:
        """Return the instances that could not be fetched the last time."""
        rows = self._rows(
            "SELECT study, series, instance, mark, state FROM fetched_instances WHERE server = ?"
            " AND state NOT IN ('landed', 'wanted') ORDER BY study, series, instance",
            (server,),
        )
        return [FetchedInstance(*row) for row in rows]

    def record(self, server: str, instances: Iterable[FetchedInstance]) -> None:
        """Keep what became of these instances, in place of what was known of them."""
        at = now()
        rows = [(server, i.study, i.instance, i.series, i.mark, i.state, at) for i in instances]
        self._write(
            "INSERT OR REPLACE INTO fetched_instances (server, study, instance, series, mark, state, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def disown(self, chosen: Callable[[str], bool], state: str) -> None:
        """Enter landed instances that turned out to be others as failed, and their studies as incomplete."""
        rows = self._rows("SELECT server, study, instance FROM fetched_instances WHERE state = 'landed'", ())
        wrong = [row for row in rows if chosen(row[2])]
        statement = "UPDATE fetched_instances SET state = ? WHERE server = ? AND study = ? AND instance = ?"
        self._write(statement, [(str(state), *row) for row in wrong])
        self._write("DELETE FROM fetched_studies WHERE study = ?", [(row[1],) for row in wrong])

    def settled(self, address: str, study: str, mark: str, recheck_days: int) -> int | None:
        """Tell whether a study needs no look.

        Parameters
        ----------
        address : str
            The address, filters included: another filter lets other series through.
        study, mark : str
            The study, and what the archive says of it now; an empty mark says nothing.
        recheck_days : int
            A study that brought something new within this time is looked into anyway.

        Returns
        -------
        int or None
            How many of its instances are here; None when it must be looked into.
        """
        rows = self._rows(
            "SELECT instances, changed_at FROM fetched_studies WHERE address = ? AND study = ? AND mark = ?",
            (address, study, mark),
        )
        if not rows or not mark:
            return None
        ((instances, changed_at),) = rows
        old = datetime.now(UTC) - datetime.fromisoformat(changed_at) >= timedelta(days=recheck_days)
        return int(instances) if old else None

    def settle(self, address: str, studies: Iterable[SettledStudy]) -> None:
        """Remember of these studies that everything of them is here."""
        at = now()
        self._write(
            "INSERT INTO fetched_studies (address, study, mark, instances, changed_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (address, study) DO UPDATE SET mark = excluded.mark, instances = excluded.instances,"
            " changed_at = CASE WHEN ? THEN excluded.changed_at ELSE changed_at END",
            [(address, one.study, one.mark, one.instances, at, one.changed) for one in studies],
        )

    def unsettle(self, address: str, study: str) -> None:
        """Forget that a study was complete."""
        self._write("DELETE FROM fetched_studies WHERE address = ? AND study = ?", [(address, study)])

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        with database_faults(self._where), closing(self._connection.execute(query, values)) as cursor:
            return cursor.fetchall()

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with database_faults(self._where):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
