"""How every SQLite file of a home is opened, and what its faults are called.

Shared by the records (through SQLAlchemy) and the identity vault (plain :mod:`sqlite3`), so that both are
equally safe against a crash, a second writer and a full disk.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from meta_dx.errors import MetaDxError

BUSY_SECONDS = 30.0

_SENTENCES = {
    sqlite3.SQLITE_FULL: ("disk_full", "the disk is full: free some space and run the same command again"),
    sqlite3.SQLITE_IOERR: (
        "disk_fault",
        "the disk refused: check its space, quota and health, then run again",
    ),
    sqlite3.SQLITE_READONLY: ("read_only", "it is read-only: choose a writable folder with --home"),
    sqlite3.SQLITE_CANTOPEN: ("not_writable", "it cannot be opened: choose a folder that you may write to"),
    sqlite3.SQLITE_PERM: ("not_writable", "permission is denied: choose a folder that you may write to"),
    sqlite3.SQLITE_BUSY: (
        "database_busy",
        "another process keeps it locked: wait until it ends, then run again",
    ),
    sqlite3.SQLITE_NOTADB: (
        "database_damaged",
        "it is no SQLite database: put back a back-up or move it away",
    ),
    sqlite3.SQLITE_CORRUPT: ("database_damaged", "it is damaged: put back a back-up (docs/records.md)"),
}


def connect_for_reading(path: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """Open a database that :func:`is_read_only`, and set the connection up.

    To read, SQLite wants a write-ahead log and its index, which it may not make here. Where there is no log,
    nobody writes either, and the file can be read as it is.

    Parameters
    ----------
    path : Path
        The file.
    check_same_thread : bool
        Whether only this thread may use the connection.

    Returns
    -------
    sqlite3.Connection
    """
    log = path.with_name(f"{path.name}-wal")
    quiet = not log.exists() or log.stat().st_size == 0
    address = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if quiet else ''}"
    connection = sqlite3.connect(address, uri=True, check_same_thread=check_same_thread)
    _common(connection)
    return connection


def is_read_only(path: Path) -> bool:
    """Tell whether a database is there, and it or its folder may not be written to."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def prepare(connection: sqlite3.Connection) -> None:
    """Set one new connection up: explicit transactions, WAL, waiting for other writers, foreign keys.

    Python's own transaction handling is switched off, because it begins a transaction only at the first
    change; whoever uses the connection says ``BEGIN`` and ``COMMIT``.

    Parameters
    ----------
    connection : sqlite3.Connection
        A connection on which nothing has run yet.
    """
    _common(connection)
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")  # a commit that was reported survives a power cut


def _common(connection: sqlite3.Connection) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")


def _write_ahead(connection: sqlite3.Connection) -> None:
    # Two processes that open a new file at the same moment collide here, and SQLite does not wait for this
    # one statement whatever the busy timeout says.
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as fault:
            if primary_code(fault) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def primary_code(fault: BaseException | None) -> int | None:
    """Return the primary SQLite result code of an error, or None where it has none."""
    code = getattr(fault, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def storage_error(fault: BaseException | None, where: str) -> MetaDxError | None:
    """Say in one sentence what the machine did to a database.

    Parameters
    ----------
    fault : BaseException or None
        An error of :mod:`sqlite3`.
    where : str
        The file, as the message names it.

    Returns
    -------
    MetaDxError or None
        ``disk_full``, ``disk_fault``, ``read_only``, ``not_writable``, ``database_busy`` or
        ``database_damaged``; None when the error is not the machine's but the library's own.
    """
    known = _SENTENCES.get(primary_code(fault) or -1)
    return None if known is None else MetaDxError(known[0], f"Cannot use {where}: {known[1]}.")


@contextmanager
def database_faults(where: str) -> Iterator[None]:
    """Turn what the machine does to a :mod:`sqlite3` database into a :class:`MetaDxError`."""
    try:
        yield
    except sqlite3.Error as fault:
        error = storage_error(fault, where)
        if error is None:
            raise
        raise error from fault
