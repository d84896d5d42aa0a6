"""The search for secrets in everything that others may read: packed, encoded, in tables and in what they deleted."""

from __future__ import annotations

import base64
import gzip
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from io import BytesIO
from pathlib import Path

import pandas as pd

from tests.dicom.planted import DATE, TIME, TOKEN, UID

SECRETS = tuple(text.encode() for text in (TOKEN, DATE, "1937-05-13", TIME, UID))


def leaks(home: Path, without: str = "private") -> dict[str, list[bytes]]:
    """Return the files under a folder that hold a secret, in their names or bytes; the vault's folder is left out."""
    found = {}
    for path in sorted(home.rglob("*")):
        where = path.relative_to(home)
        if where.parts[0] == without:
            continue
        names = said(str(where).encode())
        if path.is_file():
            names += [secret for part in contents(path) for secret in said(part)]
        if names:
            found[str(where)] = sorted(set(names))
    return found


def said(content: bytes) -> list[bytes]:
    """Return the secrets that some bytes hold, in whatever encoding."""
    folded = content.lower()
    return [secret for secret in SECRETS if any(one in content or one in folded for one in forms(secret))]


@cache
def forms(secret: bytes) -> tuple[bytes, ...]:
    """Return how a secret may be written."""
    text = secret.decode()
    wide = [text.encode("utf-16-le"), text.encode("utf-16-be")[1:]]
    packed = []
    for before in range(3):  # what base64 makes of the middle depends on where it begins
        code = base64.b64encode(b"\0" * before + secret).rstrip(b"=")
        packed.append(code[(0, 2, 3)[before] : len(code) - (2 if (before + len(secret)) % 3 else 0)])
    urls = ["".join(f"%{byte:02x}" for byte in secret), secret.lower().decode()]
    escaped = "".join(f"\\u{byte:04x}" for byte in secret)
    return (secret, *wide, *packed, *(one.encode() for one in (*urls, secret.hex(), escaped)))


def contents(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, and what is packed in it."""
    data = path.read_bytes()
    yield from unpacked(data)
    if data.startswith(b"SQLite format 3"):
        yield from rows(path)
    elif data.startswith(b"PAR1"):
        yield pd.read_parquet(path).to_csv().encode()


def rows(path: Path) -> Iterator[bytes]:
    """Yield the tables of a database, and what is packed in a cell."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        yield "\n".join(database.iterdump()).encode()
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            for row in database.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - it is the database's own name
                for cell in row:
                    if isinstance(cell, bytes):
                        yield from unpacked(cell)


def unpacked(data: bytes) -> Iterator[bytes]:
    """Yield bytes, and what they are when they are unpacked."""
    yield data
    if data.startswith(b"PK\3\4"):
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from unpacked(archive.read(name))
    elif data.startswith(b"\x1f\x8b"):
        yield from unpacked(gzip.decompress(data))
    elif data[:1] == b"\x78":  # Dagster packs its snapshots
        try:
            yield from unpacked(zlib.decompress(data))
        except zlib.error:
            return
