"""What earlier batches know of the files of a source: what need not be read again, and how it was counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from meta_dx.dicom.parsing import may_be_dicom
from meta_dx.dicom.pool import can_be_opened
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.dicom.sources import INSIDE, FoundFile, is_archive_name, is_container_name, referenced_file
from meta_dx.records.vault import FileRecord, Vault

#: Outcome of a container whose files are counted in its place.
OPENED = "opened"

_MANY = 500  # files whose records are read at once


class KnownFiles:
    """What became of the files of one source.

    Parameters
    ----------
    vault : Vault
        Knows all files.
    source : Path
        The source, as :func:`meta_dx.dicom.sources.checked_source` returns it.
    finished : collection of str
        Batches that are in the catalog; what others found counts as never read.
    allow : collection of str
        Codes that hold no longer: files that were refused for them count as new.
    """

    def __init__(
        self, vault: Vault, source: Path, finished: Collection[str], allow: Collection[str] = ()
    ) -> None:
        self._source = str(source)
        self._finished = frozenset(finished)
        self._allow = frozenset(allow)
        self._vault = vault

    def is_container(self, file: FoundFile) -> bool:
        """Tell whether a file is to be opened for the files in it."""
        if file.container is not None or file.refused is not None:
            return False
        return is_container_name(file.place.rpartition("/")[2], named=file.place == self._source)

    def is_new(self, file: FoundFile) -> bool:
        """Tell whether a file, or anything in a container, has to be read."""
        return any(True for _ in self.new([file]))

    def new(self, files: Iterable[FoundFile]) -> Iterator[FoundFile]:
        """Yield the files that are new."""
        return (file for file, record in self._pairs(files) if self._is_new(file, record))

    def records(self, files: Iterable[FoundFile]) -> Iterator[FileRecord]:
        """Yield how files were counted, the files in containers too; of one that was never read, nothing."""
        for file, record in self._pairs(files):
            if record is not None:
                yield from self._counted(file, record)

    def accepted_as(self, files: Iterable[FoundFile], instances: Collection[str]) -> Iterator[FoundFile]:
        """Yield the files that were accepted as some instances."""
        for file, record in self._pairs(files):
            if record is not None and record.outcome == "accepted" and record.surrogate in instances:
                yield file

    def members(self, container: FoundFile) -> Sequence[FileRecord]:
        """Return what is known of the files in a container."""
        if not self._vault.files([container.name]):
            return ()
        return list(self._vault.files_within(container.name + INSIDE).values())

    def holds_dicom(self, files: Iterable[FoundFile]) -> bool:
        """Tell whether any file may be DICOM; what has been read before is not opened again."""
        for file, record in self._pairs(files):
            if record is None or (record.size, record.mtime_ns) != (file.size, file.mtime_ns):
                if file.refused is not None or self.is_container(file) or may_be_dicom(file.path):
                    return True
            elif any(one.outcome != "not_dicom" for one in self._counted(file, record)):
                return True
        return False

    def _pairs(self, files: Iterable[FoundFile]) -> Iterator[tuple[FoundFile, FileRecord | None]]:
        """Yield each file with what is known of it."""
        rest = iter(files)
        while some := list(islice(rest, _MANY)):
            known = self._vault.files(file.name for file in some)
            for file in some:
                yield file, known.get(file.name)

    def _is_new(self, file: FoundFile, record: FileRecord | None) -> bool:
        if record is None or (record.size, record.mtime_ns) != (file.size, file.mtime_ns):
            return True
        if record.batch not in self._finished or record.code in self._allow:
            return True
        if record.code == RejectionCode.UNREADABLE_FILE and can_be_opened(file.path):
            return True  # new permissions leave no trace in size and time
        # Of an archive that is at fault itself, the files before the fault have been read, too.
        return self.is_container(file) and any(True for _ in self.new(self._inside(file)))

    def _counted(self, file: FoundFile, record: FileRecord) -> Iterator[FileRecord]:
        if record.outcome != OPENED:
            yield record
        if self.is_container(file):
            yield from self.members(file)

    def _inside(self, container: FoundFile) -> Iterator[FoundFile]:
        archive = is_archive_name(container.path.name)
        for record in self.members(container):
            inside = record.path[len(container.name) + len(INSIDE) :]
            if archive:
                yield FoundFile(
                    container.place, record.size, container.mtime_ns, None, inside, container.place
                )
            else:
                yield referenced_file(container, inside)
