"""Rows of a table while they are collected: on the disk, so that their number does not matter, sorted at the end."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from meta_dx.cohort.tables import SCHEMAS, frame_of
from meta_dx.records.sqlite import storage_error

#: Rows of a row group: a few megabytes while they are written.
GROUP = 2048
_BLOCK = 256  # rows that become columns together
_CACHE_KIB = 2048


def scratch() -> sqlite3.Connection:
    """Open a temporary database that has no name and that nobody finds after this process.

    Where the temporary folder is full or forbidden, whatever is done with it raises a :class:`MetaDxError` such as
    ``disk_full``.
    """
    connection = sqlite3.connect("", isolation_level=None, factory=_Scratch)
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("BEGIN")  # never committed: a transaction for each row would be slow
    return connection


class _Scratch(sqlite3.Connection):
    """A temporary database that says in one sentence what the machine does to it."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        with _temporary_faults():
            return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        with _temporary_faults():
            return super().executemany(*arguments)


@contextmanager
def _temporary_faults() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as fault:
        error = storage_error(fault, f"the temporary folder {_temporary_folder()} (TMPDIR can name another)")
        if error is None:
            raise
        raise error from fault


def _temporary_folder() -> str:
    """Return the folder that SQLite takes: the first that may be written to."""
    named = [os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR")]
    folders = [folder for folder in (*named, "/var/tmp", "/usr/tmp", "/tmp") if folder]  # noqa: S108 - its own list
    return next((one for one in folders if os.path.isdir(one) and os.access(one, os.W_OK | os.X_OK)), ".")


class Rows:
    """Rows of a table, in any number.

    Parameters
    ----------
    name : str
        The table, one of :data:`~meta_dx.cohort.tables.SCHEMAS`.
    order : sequence of str
        Columns by which they are sorted, text or whole numbers.
    rows : iterable of mappings
        Rows to begin with.
    """

    def __init__(self, name: str, order: Sequence[str], rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._name = name
        self._order = tuple(order)
        self._columns: list[str] = SCHEMAS[name].names
        self._known = frozenset(self._columns)
        self._database = scratch()
        keys = [f"k{number}" for number in range(len(self._order))]
        self._database.execute(f"CREATE TABLE rows ({', '.join(keys)}, row TEXT)")
        marks = ", ".join("?" * len(keys))
        self._insert = f"INSERT INTO rows VALUES ({marks}, ?)"  # noqa: S608 - question marks only
        self._select = f"SELECT row FROM rows ORDER BY {', '.join(keys)}, rowid"  # noqa: S608 - k0, k1 …
        self._count = 0
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return self._count

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row.

        Raises
        ------
        ValueError
            It lacks a column or has one too many.
        """
        if row.keys() != self._known:
            frame_of(self._name, [row])  # says what is wrong
        values = json.dumps([row[column] for column in self._columns], default=_plain)
        self._database.execute(self._insert, (*(row[column] for column in self._order), values))
        self._count += 1

    def take(self, value: str) -> list[dict[str, Any]]:
        """Remove the rows with a value in the first column by which they are sorted, and return them."""
        self._database.execute("CREATE INDEX IF NOT EXISTS first ON rows (k0)")
        found = self._database.execute(
            "SELECT row FROM rows WHERE k0 = ? ORDER BY rowid", (value,)
        ).fetchall()
        self._database.execute("DELETE FROM rows WHERE k0 = ?", (value,))
        self._count -= len(found)
        return [dict(zip(self._columns, json.loads(row), strict=True)) for (row,) in found]

    def groups(self) -> Iterator[pa.Table]:
        """Yield all rows in order, at most :data:`GROUP` at once; one empty table when there are none."""
        blocks: list[pa.Table] = []
        cursor = self._database.execute(self._select)
        while packed := self._fetched(cursor):
            blocks.append(self._table([json.loads(row) for (row,) in packed]))
            if len(blocks) * _BLOCK == GROUP:
                yield pa.concat_tables(blocks).combine_chunks()
                blocks = []
        if blocks or not self._count:
            yield pa.concat_tables(blocks or [self._table([])]).combine_chunks()

    @staticmethod
    def _fetched(cursor: sqlite3.Cursor) -> list[Any]:
        with _temporary_faults():
            return cursor.fetchmany(_BLOCK)

    def _table(self, rows: list[list[Any]]) -> pa.Table:
        frame = frame_of(self._name, [dict(zip(self._columns, row, strict=True)) for row in rows])
        return pa.Table.from_pandas(frame, SCHEMAS[self._name], preserve_index=False)


class TableWriter:
    """Writes the Parquet file of a table, group after group; its bytes depend on the rows alone.

    Parameters
    ----------
    path : Path
        The file; not to be seen by anybody before it is finished.
    name : str
        The table.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._writer = pq.ParquetWriter(path, SCHEMAS[name], compression="zstd", store_schema=False)

    def write(self, group: pa.Table) -> None:
        """Add a group of rows."""
        self._writer.write_table(group.replace_schema_metadata(None), row_group_size=GROUP)

    def finish(self) -> str:
        """Close the file, see it onto the disk, and return its SHA-256."""
        self._writer.close()
        with self._path.open("rb") as stream:
            os.fsync(stream.fileno())
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """Return a scalar of numpy as a number."""
    return value.item()
