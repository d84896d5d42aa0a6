"""What lies in an archive (zip, tar, tar.gz, tar.bz2, tar.xz) or in a table of contents (DICOMDIR).

Only :mod:`meta_dx.dicom.reader_process` runs this, inside its limits: nothing here is ever written to the disk,
and a name of a member is never used as a path.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import IO, Any

from pydicom import dcmread
from pydicom.multival import MultiValue

from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import RefusedError, RejectionCode
from meta_dx.dicom.sources import is_archive_name

_FREE = 64 << 20  # bytes below which no ratio is held against an archive
_HEAD = 512
_USTAR = 257  # where a tar says what it is
_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\0")
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@dataclass(frozen=True)
class Member:
    """One file in an archive, or one that a table of contents names.

    Parameters
    ----------
    number : int
        Its place among all entries.
    name : str
        As the archive names it.
    size : int
        Bytes, unpacked; 0 where only the disk knows.
    refused : RejectionCode, optional
        Why it must not be read.
    """

    number: int
    name: str
    size: int
    refused: RejectionCode | None = None


class Archive:
    """An archive that is read from front to back; going back opens it anew.

    Parameters
    ----------
    path : Path
        The archive.

    Raises
    ------
    RefusedError
        ``archive_damaged``, when its beginning cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        self._tar: tarfile.TarFile | None = None
        self._stream: _Counted | None = None
        self._at = 0
        with _coded():
            if _head(path).startswith(b"PK"):
                self._zip = zipfile.ZipFile(path)
                self._infos = self._zip.infolist()
            else:
                self._open_tar()

    def members(self, limits: ReadLimits) -> Iterator[Member]:
        """List the files in it; folders are no files.

        Raises
        ------
        RefusedError
            ``archive_damaged`` or ``archive_limit``, after the members up to there.
        """
        packed, total, count = self._path.stat().st_size, 0, 0
        largest = min(limits.archive_bytes, max(_FREE, int(limits.archive_ratio * packed)))
        if self._stream is not None:
            self._stream.most = largest + _FREE  # blocks and names are no content
        with _coded():
            for member in self._zip_members(limits) if self._zip else self._tar_members(limits):
                count, total = count + 1, total + member.size
                if count > limits.archive_members or total > largest:
                    raise RefusedError(RejectionCode.ARCHIVE_LIMIT)
                yield member

    def read(self, number: int, size: int) -> bytes:
        """Return the content of a member.

        Raises
        ------
        RefusedError
            ``archive_damaged``, or ``archive_nested`` when it is an archive by name and by content.
        """
        with _coded():
            name, stream = self._open_zipped(number) if self._zip else self._open_tarred(number)
            with stream:
                content = stream.read(size + 1)
            if len(content) != size:
                raise RefusedError(RejectionCode.ARCHIVE_DAMAGED, "another size than the archive says")
        if is_archive_name(name) and is_archive(content[:_HEAD]):
            raise RefusedError(RejectionCode.ARCHIVE_NESTED)
        return content

    def _zip_members(self, limits: ReadLimits) -> Iterator[Member]:
        for number, info in enumerate(self._infos):
            kind, named_as_folder = stat.S_IFMT(info.external_attr >> 16), info.filename.endswith("/")
            if named_as_folder and not info.file_size:
                continue
            # Only its name and mode make a folder of an entry: one that has content is a file that would be lost.
            linked = kind not in (0, stat.S_IFREG) and not (named_as_folder and kind == stat.S_IFDIR)
            refused = None
            if _OUTSIDE.search(info.orig_filename):
                refused = RejectionCode.ARCHIVE_PATH
            elif linked:
                refused = RejectionCode.ARCHIVE_LINK
            elif info.flag_bits & 1:
                refused = RejectionCode.ARCHIVE_ENCRYPTED
            elif info.file_size > limits.file_bytes:
                refused = RejectionCode.FILE_TOO_LARGE
            elif info.file_size > max(_FREE, limits.archive_ratio * info.compress_size):
                refused = RejectionCode.ARCHIVE_LIMIT
            # What is refused is never unpacked, so it does not count against the whole.
            yield Member(number, info.filename, 0 if refused else info.file_size, refused)

    def _tar_members(self, limits: ReadLimits) -> Iterator[Member]:
        while (entry := self._next()) is not None:
            if entry.isdir():
                continue
            refused = None
            if _OUTSIDE.search(entry.name):
                refused = RejectionCode.ARCHIVE_PATH
            elif not entry.isreg():
                refused = RejectionCode.ARCHIVE_LINK
            elif entry.size > limits.file_bytes:
                refused = RejectionCode.FILE_TOO_LARGE
            yield Member(self._at - 1, entry.name, 0 if refused else entry.size, refused)

    def _open_zipped(self, number: int) -> tuple[str, IO[bytes]]:
        if self._zip is None:
            raise RefusedError(RejectionCode.ARCHIVE_DAMAGED)
        info = self._infos[number]
        return info.filename, self._zip.open(info)

    def _open_tarred(self, number: int) -> tuple[str, IO[bytes]]:
        if number < self._at:
            self._open_tar()
        entry = None
        while self._at <= number:
            entry = self._next()
            if entry is None:
                break
        stream = self._tar.extractfile(entry) if self._tar and entry else None
        if entry is None or stream is None:
            raise RefusedError(RejectionCode.ARCHIVE_DAMAGED)
        return entry.name, stream

    def _open_tar(self) -> None:
        opener = next((o for magic, o in _OPENERS.items() if _head(self._path).startswith(magic)), None)
        self._at = 0
        if opener is None:
            self._tar = tarfile.open(self._path, "r:")
        else:
            self._stream = _Counted(opener(self._path))
            self._tar = tarfile.open(fileobj=self._stream, mode="r|", bufsize=1 << 16)
        self._first = self._tar.next()

    def _next(self) -> tarfile.TarInfo | None:
        """Return the next header, also of folders and links; None at the end."""
        if self._tar is None or self._tar.fileobj is None:
            return None
        self._at += 1
        entry, self._first = self._first, None
        if entry is not None or self._at == 1:
            return entry
        # TarFile.next() takes a damaged header for the end, and keeps every header it has seen.
        if self._tar.offset != self._tar.fileobj.tell():
            self._tar.fileobj.seek(self._tar.offset - 1)
            if not self._tar.fileobj.read(1):
                raise EOFError
        try:
            return tarfile.TarInfo.fromtarfile(self._tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None


class _Counted(RawIOBase):
    """A stream that refuses to go on after so many bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._inner = stream
        self._seen = 0
        self.most = 1 << 62

    def read(self, size: int = -1) -> bytes:
        piece = self._inner.read(size)
        self._seen += len(piece)
        if self._seen > self.most:
            raise RefusedError(RejectionCode.ARCHIVE_LIMIT)
        return piece


def is_archive(head: bytes) -> bool:
    """Tell by its first 512 bytes whether a file is an archive of a kind that is opened."""
    packed = head.startswith((b"PK\x03\x04", b"PK\x05\x06", *_OPENERS))
    return packed or head[_USTAR : _USTAR + 5] == b"ustar" or _is_old_tar(head)


def is_archive_file(path: Path) -> bool:
    """Tell whether a file that is named like an archive is one."""
    return is_archive(_head(path))


def references(path: Path, limits: ReadLimits) -> Iterator[Member]:
    """List the files that a table of contents (DICOMDIR) names, each once.

    Raises
    ------
    RefusedError
        ``file_too_large``, or ``damaged_header``.
    """
    if path.stat().st_size > limits.file_bytes:
        raise RefusedError(RejectionCode.FILE_TOO_LARGE)
    try:
        records = dcmread(BytesIO(path.read_bytes()), force=True).get("DirectoryRecordSequence") or []
        named = [record.get("ReferencedFileID") for record in records]
    except MemoryError:
        raise
    except Exception as fault:
        raise RefusedError(RejectionCode.DAMAGED_HEADER, f"parser raised {type(fault).__name__}") from fault
    parts = [list(name) if isinstance(name, MultiValue) else [name] for name in named if name]
    names = dict.fromkeys("/".join(str(part) for part in one) for one in parts)
    for number, name in enumerate(names):
        if number >= limits.archive_members:
            raise RefusedError(RejectionCode.ARCHIVE_LIMIT)
        yield Member(number, name, 0)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def _is_old_tar(head: bytes) -> bool:
    if len(head) < _HEAD:
        return False
    with suppress(tarfile.HeaderError):
        return bool(tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").name)
    return False


@contextmanager
def _coded() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RefusedError):
        raise
    except Exception as fault:  # damaged archives raise anything
        raise RefusedError(RejectionCode.ARCHIVE_DAMAGED, f"raised {type(fault).__name__}") from fault
