"""Where instances come from: for now a folder, listed so that every file in it can be accounted for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meta_dx.dicom.rejections import RejectionCode
from meta_dx.errors import MetaDxError


@dataclass(frozen=True)
class FoundFile:
    """One regular file of a source.

    Parameters
    ----------
    path : Path
        Where it lies.
    size : int
        Bytes.
    mtime_ns : int
        Time of its last change, nanoseconds.
    refused : RejectionCode, optional
        Why it must not even be opened.
    """

    path: Path
    size: int
    mtime_ns: int
    refused: RejectionCode | None = None


def checked_folder(source: Path | str) -> Path:
    """Return the real path of a source folder.

    Parameters
    ----------
    source : Path or str
        As the user named it.

    Returns
    -------
    Path
        Absolute, symbolic links resolved: one folder has one name.

    Raises
    ------
    MetaDxError
        ``source_missing`` or ``source_not_folder``.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        raise MetaDxError(
            "source_missing",
            f"The folder {folder} does not exist: name the folder that holds the DICOM files.",
        )
    if not folder.is_dir():
        raise MetaDxError(
            "source_not_folder", f"{folder} is not a folder: name the folder that holds the DICOM files."
        )
    return folder.resolve()


def found_files(source: Path, *, without: Path | None = None) -> list[FoundFile]:
    """List every regular file under a folder.

    Parameters
    ----------
    source : Path
        The folder, as :func:`checked_folder` returns it.
    without : Path, optional
        A folder to leave out: the home, when it lies inside the source.

    Returns
    -------
    list of FoundFile
        Sorted by path, whatever order the disk has them in. Hidden files count. Linked folders are not
        entered; a linked file counts, but one that leads out of the source is refused unopened. Pipes,
        sockets and devices are no files.

    Raises
    ------
    MetaDxError
        ``source_unreadable`` when a folder cannot be listed: what is in it could not be accounted for.
    """
    left_out = None if without is None else str(without.resolve())
    found = list(_walk(str(source), str(source), left_out))
    return sorted(found, key=lambda file: os.fsencode(file.path))


def _walk(folder: str, source: str, left_out: str | None) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as entries:
            here = list(entries)
    except OSError as fault:
        raise MetaDxError(
            "source_unreadable",
            f"A folder in {source} cannot be listed ({type(fault).__name__}): "
            "make all of its folders readable, or name a source without it.",
        ) from fault
    for entry in here:
        if entry.is_symlink():
            yield from _linked(entry, source)
        elif entry.is_dir(follow_symlinks=False):
            if entry.path != left_out:
                yield from _walk(entry.path, source, left_out)
        elif entry.is_file(follow_symlinks=False):
            about = entry.stat(follow_symlinks=False)
            yield FoundFile(Path(entry.path), about.st_size, about.st_mtime_ns)


def _linked(entry: os.DirEntry[str], source: str) -> Iterator[FoundFile]:
    link = entry.stat(follow_symlinks=False)
    target = os.path.realpath(entry.path)
    try:
        about = os.stat(target)
    except OSError:
        yield FoundFile(Path(entry.path), link.st_size, link.st_mtime_ns, RejectionCode.UNREADABLE_FILE)
        return
    if not stat.S_ISREG(about.st_mode):
        return
    if os.path.commonpath([target, source]) != source:
        yield FoundFile(Path(entry.path), link.st_size, link.st_mtime_ns, RejectionCode.LINK_OUTSIDE)
    else:
        yield FoundFile(Path(entry.path), about.st_size, about.st_mtime_ns)
