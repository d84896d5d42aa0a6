"""The files of one source: listed, compared with what is known of them, and given out to be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meta_dx.cohort.known import KnownFiles
from meta_dx.cohort.ledger import Ledger
from meta_dx.dicom.pool import Pool, contents_of
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.sources import FoundFile, found_files
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import FileRecord, Vault


@dataclass(frozen=True)
class Scan:
    """The files of a source, and what is known of them."""

    source: Path
    files: list[FoundFile]
    known: KnownFiles


def scanned(
    home: Home, vault: Vault, source: Path, finished: Collection[str], allow: Collection[str]
) -> Scan:
    """List a source, and look up what is known of its files."""
    files = found_files(source, without=home.root)
    return Scan(source, files, KnownFiles(vault, source, finished, allow))


def require_dicom_in(scan: Scan) -> None:
    """Raise ``source_empty`` or ``source_without_dicom`` where there is nothing to take in."""
    if not scan.files:
        raise MetaDxError(
            "source_empty", f"The folder {scan.source} holds no file: name the folder with DICOM files."
        )
    if not scan.known.holds_dicom(scan.files):
        raise without_dicom(scan.source, len(scan.files))


def without_dicom(folder: Path, files: int) -> MetaDxError:
    """Return what is said of a source in which no file is DICOM."""
    return MetaDxError(
        "source_without_dicom",
        f"The {'archive' if folder.is_file() else 'folder'} {folder} holds no DICOM file "
        f"({files} {'file' if files == 1 else 'files'} of other kinds): name the one with DICOM files.",
    )


class NewFiles:
    """The new files of a source, those in containers in the place of the container.

    Attributes
    ----------
    total : int
        How many there are, as far as is known.
    gone : list of str
        Names of files that were in a container and no longer are.
    """

    def __init__(self, scan: Scan, ledger: Ledger, key: bytes, limits: ReadLimits, pool: Pool) -> None:
        self._known, self._ledger = scan.known, ledger
        self._reading = (key, limits, pool)
        self._new = list(scan.known.new(scan.files))
        self.total = len(self._new)
        self.gone: list[str] = []

    def __iter__(self) -> Iterator[FoundFile]:
        for file in self._new:
            if self._known.is_container(file):
                yield from self._contents(file)
            else:
                yield file

    def _contents(self, container: FoundFile) -> Iterator[FoundFile]:
        listing = contents_of(container, *self._reading)
        names = {file.name for file in listing.files}
        self.gone += [old.path for old in self._known.members(container) if old.path not in names]
        if listing.plain:
            yield container
            return
        self._ledger.open(container, listing)
        new = list(self._known.new(listing.files))
        self.total += len(new) - 1
        yield from new

    def taken_as(self, instances: Collection[str]) -> Iterator[FoundFile]:
        """Yield the files of this batch that were accepted as some instances, once the vault knows of them."""
        for file in self._new:
            files = [file]
            if any(one.surrogate in instances for one in self._inside(file)):
                files = contents_of(file, *self._reading).files
            yield from self._known.accepted_as(files, instances)

    def _inside(self, file: FoundFile) -> Sequence[FileRecord]:
        return self._known.members(file) if self._known.is_container(file) else ()
