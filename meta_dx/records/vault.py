"""The identity vault: the one place that knows which surrogate stands for which original identity.

A separate, owner-only SQLite file, so that every other store can be copied or shown without it. It also holds
the key that surrogates are made with, the ingest batches, and what became of every file that was found,
because a file's path may carry a patient's name. Written by ingest.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_dx.errors import MetaDxError
from meta_dx.home import Home, storage_faults
from meta_dx.records.schema import now
from meta_dx.records.sqlite import connect_for_reading, database_faults, is_read_only, prepare

KINDS = ("patient", "study", "series", "instance", "accession", "file")

_LAYOUT = 1
_KEY_BYTES = 32
_MANY = 500  # SQLite before 3.32 takes at most 999 values in one statement
_FILES = "SELECT path, size, mtime_ns, batch, outcome, code, surrogate FROM files"
_TABLES = (
    "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE identities (kind TEXT NOT NULL, surrogate TEXT NOT NULL, original NOT NULL,"
    " PRIMARY KEY (kind, surrogate)) WITHOUT ROWID",
    "CREATE TABLE batches (id TEXT PRIMARY KEY, source NOT NULL, planned_at TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE files (path PRIMARY KEY NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
    " batch TEXT NOT NULL, outcome TEXT NOT NULL, code TEXT, surrogate TEXT) WITHOUT ROWID",
    "CREATE INDEX files_batch ON files (batch)",
)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What became of one file that was found in a source.

    Parameters
    ----------
    path : str
        Where it was found.
    size : int
        Bytes.
    mtime_ns : int
        Time of its last change, nanoseconds.
    batch : str
        Ingest batch that read it.
    outcome : str
        ``accepted``, ``duplicate``, ``not_dicom`` or ``rejected``; ``opened`` for an archive or table of
        contents, whose files are counted in its place.
    code : str, optional
        Why it was not taken.
    surrogate : str, optional
        Surrogate of the path (rejections) or of the instance.
    """

    path: str
    size: int
    mtime_ns: int
    batch: str
    outcome: str
    code: str | None = None
    surrogate: str | None = None


@dataclass(frozen=True)
class BatchRecord:
    """One ingest batch.

    Parameters
    ----------
    id : str
        ``"b0001"`` and so on.
    source : str
        Where its files come from.
    planned_at : str
        ISO 8601, UTC.
    """

    id: str
    source: str
    planned_at: str


class Vault:
    """The opened identity vault of a home; threads may share it, each process opens its own.

    Use :meth:`open`. Every method is one transaction of its own, or part of the :meth:`transaction` around
    it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._where = f"the identity vault {path}"
        self._lock = threading.RLock()
        self._depth = 0
        self._process = os.getpid()
        with database_faults(self._where):
            self._connection = _connection(path)

    @classmethod
    def open(cls, home: Home) -> Vault:
        """Open the vault of a home, created with its key on first use; in a read-only home it can be read.

        Parameters
        ----------
        home : Home
            The home; the vault is ``private/identity.sqlite`` in it.

        Returns
        -------
        Vault

        Raises
        ------
        MetaDxError
            ``vault_newer`` or a storage fault.
        """
        path = home.private / "identity.sqlite"
        with storage_faults(path):
            if not is_read_only(path):
                _only_owner(path.parent, 0o700)
                # Created by us, not by SQLite, so that it is never readable by others, not even for a moment.
                # SQLite gives its journal files the mode of the database.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                _only_owner(path, 0o600)
        vault = cls(path)
        vault._create()
        return vault

    @property
    def key(self) -> bytes:
        """The secret that surrogates are made with: 32 random bytes, made once for a home, never changed."""
        ((value,),) = self._rows("SELECT value FROM secrets WHERE name = 'key'")
        return bytes(value)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything in the block or, when it raises or the process dies, nothing.

        Blocks may be nested: an inner one that raises undoes itself, the outermost one commits. Other threads
        and processes that want to write wait.
        """
        self._same_process()
        with self._lock, database_faults(self._where):
            name = f"level_{self._depth}"
            self._connection.execute(f"SAVEPOINT {name}" if self._depth else "BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                self._connection.execute(f"RELEASE {name}" if self._depth > 1 else "COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute(f"ROLLBACK TO {name}" if self._depth > 1 else "ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def remember(self, kind: str, pairs: Mapping[str, str]) -> None:
        """Keep which original each surrogate stands for; what is known already stays.

        Parameters
        ----------
        kind : str
            One of ``patient``, ``study``, ``series``, ``instance``, ``accession``, ``file``.
        pairs : mapping of str to str
            Surrogate to original.
        """
        self._write_many(
            "INSERT INTO identities (kind, surrogate, original) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, surrogate) DO UPDATE SET original = excluded.original"
            " WHERE original IS NOT excluded.original",
            ((_known(kind), surrogate, _bytes_if_odd(original)) for surrogate, original in pairs.items()),
        )

    def originals(self, kind: str, surrogates: Iterable[str]) -> dict[str, str]:
        """Return the originals of these surrogates; unknown ones are absent."""
        wanted = list(dict.fromkeys(surrogates))
        found: dict[str, str] = {}
        for start in range(0, len(wanted), _MANY):
            part = wanted[start : start + _MANY]
            marks = ",".join("?" * len(part))
            query = "SELECT surrogate, original FROM identities WHERE kind = ? AND surrogate IN"
            query += f" ({marks})"  # question marks only
            found.update((name, _text(value)) for name, value in self._rows(query, (_known(kind), *part)))
        return found

    def all(self, kind: str) -> dict[str, str]:
        """Return every known surrogate of a kind with its original."""
        query = "SELECT surrogate, original FROM identities WHERE kind = ?"
        return {name: _text(value) for name, value in self._rows(query, (_known(kind),))}

    def record_files(self, files: Iterable[FileRecord]) -> None:
        """Keep what became of these files, in place of what was known about the same paths."""
        self._write_many(
            "INSERT OR REPLACE INTO files (path, size, mtime_ns, batch, outcome, code, surrogate)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    _bytes_if_odd(file.path),
                    file.size,
                    file.mtime_ns,
                    file.batch,
                    file.outcome,
                    file.code,
                    file.surrogate,
                )
                for file in files
            ),
        )

    def known_files(self, batch: str | None = None) -> dict[str, FileRecord]:
        """Return what became of every file, by path.

        Parameters
        ----------
        batch : str, optional
            Only of this batch.
        """
        query, values = _FILES, []
        if batch is not None:
            query, values = query + " WHERE batch = ?", [batch]
        return _records(self._rows(query, values))

    def files(self, paths: Iterable[str]) -> dict[str, FileRecord]:
        """Return what became of the files of these paths; unknown ones are absent."""
        found: dict[str, FileRecord] = {}
        wanted = [_bytes_if_odd(path) for path in paths]
        for start in range(0, len(wanted), _MANY):
            part = wanted[start : start + _MANY]
            query = f"{_FILES} WHERE path IN ({','.join('?' * len(part))})"  # question marks only
            found |= _records(self._rows(query, part))
        return found

    def files_within(self, folder: str) -> dict[str, FileRecord]:
        """Return what became of the files whose paths begin with a text that ends in ``/``, by path in order."""
        found: dict[str, FileRecord] = {}
        query = f"{_FILES} WHERE path >= ? AND path < ? ORDER BY path"
        after = folder.removesuffix("/") + "0"  # the character that follows the slash
        # A path is kept as text, or as bytes where it is no valid UTF-8; all bytes come after all text.
        for form in dict.fromkeys((_bytes_if_odd, os.fsencode)):
            found |= _records(self._rows(query, (form(folder), form(after))))
        return found

    def forget_files(self, paths: Iterable[str]) -> None:
        """Forget files that are no longer where they were."""
        self._write_many("DELETE FROM files WHERE path = ?", ((_bytes_if_odd(path),) for path in paths))

    def add_batch(self, id: str, source: str) -> None:
        """Plan an ingest batch; planning the same one again changes nothing.

        To choose the next free id without a race, call this and :meth:`batches` inside one
        :meth:`transaction`.

        Raises
        ------
        MetaDxError
            ``batch_of_another_source`` when the id is taken.
        """
        with self.transaction():
            taken = [batch.source for batch in self.batches() if batch.id == id]
            if taken and taken != [source]:
                raise MetaDxError(
                    "batch_of_another_source",
                    f"The ingest batch {id} was planned for another source: plan the batches again.",
                )
            if not taken:
                row = (id, _bytes_if_odd(source), now())
                self._write_many("INSERT INTO batches (id, source, planned_at) VALUES (?, ?, ?)", [row])

    def batches(self) -> list[BatchRecord]:
        """Return every planned batch, sorted by id."""
        rows = self._rows("SELECT id, source, planned_at FROM batches ORDER BY id")
        return [BatchRecord(id, _text(source), planned_at) for id, source, planned_at in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _create(self) -> None:
        if self._layout() == _LAYOUT:
            return
        with self.transaction():
            if self._layout() > _LAYOUT:
                raise MetaDxError(
                    "vault_newer",
                    f"A newer version of meta-dx wrote {self._where}: update meta-dx, or use another --home.",
                )
            if self._layout() == 0:
                for statement in _TABLES:
                    self._connection.execute(statement)
                key = secrets.token_bytes(_KEY_BYTES)
                self._connection.execute("INSERT INTO secrets (name, value) VALUES ('key', ?)", (key,))
                self._connection.execute(f"PRAGMA user_version = {_LAYOUT}")

    def _layout(self) -> int:
        ((layout,),) = self._rows("PRAGMA user_version")
        return int(layout)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        self._same_process()
        with self._lock, database_faults(self._where):
            with closing(self._connection.execute(query, values)) as cursor:
                return cursor.fetchall()

    def _write_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self.transaction():
            self._connection.executemany(statement, rows)

    def _same_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("a vault was carried into another process, which can damage it: open it there")


def _connection(path: Path) -> sqlite3.Connection:
    if is_read_only(path):
        return connect_for_reading(path, check_same_thread=False)
    connection = sqlite3.connect(path, check_same_thread=False)
    prepare(connection)
    return connection


def _only_owner(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def _records(rows: Iterable[Sequence[Any]]) -> dict[str, FileRecord]:
    files = (FileRecord(_text(path), *rest) for path, *rest in rows)
    return {file.path: file for file in files}


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"the vault has no kind '{kind}', only {', '.join(KINDS)}")
    return kind


def _bytes_if_odd(text: str) -> str | bytes:
    """Keep a path whose bytes are no valid UTF-8 as those bytes; SQLite takes no such text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _text(value: str | bytes) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else value
