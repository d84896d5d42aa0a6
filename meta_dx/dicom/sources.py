"""Where instances come from: a folder, an archive or a DICOMDIR, listed so that every file is accounted for."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meta_dx.dicom.rejections import RejectionCode
from meta_dx.errors import MetaDxError

#: Stands between the path of an archive and a name in it.
INSIDE = "!/"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_DIRECTORY = "DICOMDIR"
_VANISHED = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One regular file of a source, or one file in an archive.

    Parameters
    ----------
    place : str
        Where it lies on the disk.
    size : int
        Bytes.
    mtime_ns : int
        Time of its last change, nanoseconds; of an archive's, for what is in it.
    refused : RejectionCode, optional
        Why it must not even be opened.
    inside : str
        Under which name an archive holds it, or a table of contents names it.
    container : str, optional
        Where that archive or table of contents lies.
    member : int, optional
        Its place in the archive.

    Notes
    -----
    Text in the place of :class:`~pathlib.Path`: an ingest holds all files of its source at once, and a path takes three
    times the memory.
    """

    place: str
    size: int
    mtime_ns: int
    refused: RejectionCode | None = None
    inside: str = ""
    container: str | None = None
    member: int | None = None

    @property
    def path(self) -> Path:
        """The place, as a path."""
        return Path(self.place)

    @property
    def name(self) -> str:
        """What it is called in the books: its path, or ``a.zip!/inner/x.dcm``."""
        return self.place if self.container is None else f"{self.container}{INSIDE}{self.inside}"


def checked_source(source: Path | str) -> Path:
    """Return the real path of a source.

    Parameters
    ----------
    source : Path or str
        A folder, an archive or a DICOMDIR, as the user named it.

    Returns
    -------
    Path
        Absolute, symbolic links resolved: one source has one name.

    Raises
    ------
    MetaDxError
        ``source_missing`` or ``source_not_folder``.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise _missing(path)
    path = path.resolve()
    if not path.is_dir() and not (path.is_file() and is_container_name(path.name, named=True)):
        raise MetaDxError(
            "source_not_folder",
            f"{path} is not a folder: name the folder that holds the DICOM files, a DICOMDIR, "
            f"or an archive ({', '.join(_ARCHIVES)}).",
        )
    return path


def is_archive_name(name: str) -> bool:
    """Tell whether a file is named like an archive that is opened."""
    return name.lower().endswith(_ARCHIVES)


def is_container_name(name: str, *, named: bool = False) -> bool:
    """Tell whether a file lists others: an archive, or a DICOMDIR where that is ``named`` as the source."""
    return is_archive_name(name) or (named and name.upper() == _DIRECTORY)


def member_of(
    archive: FoundFile, number: int, inside: str, size: int, refused: RejectionCode | None
) -> FoundFile:
    """Return a file in an archive."""
    return FoundFile(archive.place, size, archive.mtime_ns, refused, inside, archive.place, number)


def referenced_file(directory: FoundFile, inside: str) -> FoundFile:
    """Return a file that a DICOMDIR names, refused where it lies outside of the medium or nowhere.

    Parameters
    ----------
    directory : FoundFile
        The DICOMDIR.
    inside : str
        ReferencedFileID, its parts joined by ``/``. On a medium its letters are capitals; many a computer
        shows them small.
    """
    folder, parts, listing = directory.path.parent, inside.split("/"), directory.place
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        return FoundFile(listing, 0, 0, RejectionCode.REFERENCE_OUTSIDE, inside, listing)
    for spelled in (parts, [part.lower() for part in parts]):
        path = folder.joinpath(*spelled)
        try:
            about, real = path.stat(), os.path.realpath(path)
        except (OSError, ValueError):
            continue
        if os.path.commonpath([real, folder]) != str(folder):
            return FoundFile(str(path), 0, 0, RejectionCode.REFERENCE_OUTSIDE, inside, listing)
        if stat.S_ISREG(about.st_mode):
            return FoundFile(str(path), about.st_size, about.st_mtime_ns, None, inside, listing)
    return FoundFile(str(folder.joinpath(*parts)), 0, 0, RejectionCode.REFERENCE_MISSING, inside, listing)


def found_files(source: Path, *, without: Path | None = None) -> list[FoundFile]:
    """List every regular file under a folder; of an archive or a DICOMDIR that is the source, itself.

    Parameters
    ----------
    source : Path
        The source, as :func:`checked_source` returns it.
    without : Path, optional
        A folder to leave out: the home, when it lies inside the source.

    Returns
    -------
    list of FoundFile
        Sorted by path, whatever order the disk has them in. Hidden files count. Linked folders are not
        entered; a linked file counts, but one that leads out of the source is refused unopened. Pipes,
        sockets and devices are no files, and neither is what vanishes while it is listed: who sends into the
        folder renames a file when it is complete.

    Raises
    ------
    MetaDxError
        ``source_unreadable`` when a folder cannot be listed: what is in it could not be accounted for.
        ``source_missing`` when the source itself has vanished.
    """
    if not source.is_dir():
        try:
            about = source.stat()
        except FileNotFoundError:
            raise _missing(source) from None
        return [FoundFile(str(source), about.st_size, about.st_mtime_ns)]
    left_out = None if without is None else str(without.resolve())
    found = list(_walk(str(source), left_out))
    found.sort(key=lambda file: os.fsencode(file.place))
    return found


def _missing(path: Path) -> MetaDxError:
    return MetaDxError(
        "source_missing",
        f"The folder {path} does not exist: name the folder that holds the DICOM files.",
    )


def _walk(source: str, left_out: str | None) -> Iterator[FoundFile]:
    folders = [source]  # a stack of our own: folders may be nested deeper than calls
    while folders:
        for entry in _entries(folders.pop(), source):
            try:
                about = entry.stat(follow_symlinks=False)
            except _VANISHED:
                continue
            except OSError as fault:
                raise _unreadable(source, fault) from None
            if stat.S_ISLNK(about.st_mode):
                yield from _linked(entry, about, source)
            elif stat.S_ISDIR(about.st_mode):
                if entry.path != left_out:
                    folders.append(entry.path)
            elif stat.S_ISREG(about.st_mode):
                yield FoundFile(entry.path, about.st_size, about.st_mtime_ns)


def _entries(folder: str, source: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as fault:
        if isinstance(fault, _VANISHED) and folder != source:
            return []
        raise _unreadable(source, fault) from None


def _unreadable(source: str, fault: OSError) -> MetaDxError:
    return MetaDxError(
        "source_unreadable",
        f"A folder in {source} cannot be listed ({type(fault).__name__}): make all of its folders readable "
        f"('find {shlex.quote(source)} -type d ! -readable' names them), nest none so deeply that its path exceeds "
        f"what the system allows (4096 bytes on Linux), or name a source without it.",
    )


def _linked(entry: os.DirEntry[str], link: os.stat_result, source: str) -> Iterator[FoundFile]:
    target = os.path.realpath(entry.path)
    try:
        about = os.stat(target)
    except OSError:
        yield FoundFile(entry.path, link.st_size, link.st_mtime_ns, RejectionCode.UNREADABLE_FILE)
        return
    if not stat.S_ISREG(about.st_mode):
        return
    if os.path.commonpath([target, source]) != source:
        yield FoundFile(entry.path, link.st_size, link.st_mtime_ns, RejectionCode.LINK_OUTSIDE)
    else:
        yield FoundFile(entry.path, about.st_size, about.st_mtime_ns)
