"""What earlier batches know of the files of a source: what need not be read again, and how it was counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from meta_dx.dicom.parsing import may_be_dicom
from meta_dx.dicom.pool import can_be_opened
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.dicom.sources import INSIDE, FoundFile, is_archive_name, is_container_name, referenced_file
from meta_dx.records.vault import FileRecord, Vault

#: Outcome of a container whose files are counted in its place.
OPENED = "opened"


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
        self._source = source
        self._finished = frozenset(finished)
        self._allow = frozenset(allow)
        self._records = vault.known_files(under=str(source))

    def is_container(self, file: FoundFile) -> bool:
        """Tell whether a file is to be opened for the files in it."""
        if file.container is not None or file.refused is not None:
            return False
        return is_container_name(file.path.name, named=file.path == self._source)

    def is_new(self, file: FoundFile) -> bool:
        """Tell whether a file, or anything in a container, has to be read."""
        record = self._records.get(file.name)
        if record is None or (record.size, record.mtime_ns) != (file.size, file.mtime_ns):
            return True
        if record.batch not in self._finished or record.code in self._allow:
            return True
        if record.code == RejectionCode.UNREADABLE_FILE and can_be_opened(file.path):
            return True  # new permissions leave no trace in size and time
        return record.outcome == OPENED and any(self.is_new(one) for one in self._inside(file))

    def records(self, files: Iterable[FoundFile]) -> Iterator[FileRecord]:
        """Yield how files were counted, the files in containers too; of one that was never read, nothing."""
        for file in files:
            record = self._records.get(file.name)
            if record is None:
                continue
            if record.outcome != OPENED:
                yield record
            if self.is_container(file):
                yield from self.members(file)

    def members(self, container: FoundFile) -> Sequence[FileRecord]:
        """Return what is known of the files in a container."""
        return self._members.get(container.name, ())

    def holds_dicom(self, files: Iterable[FoundFile]) -> bool:
        """Tell whether any file may be DICOM; what has been read before is not opened again."""
        for file in files:
            record = self._records.get(file.name)
            if record is None or (record.size, record.mtime_ns) != (file.size, file.mtime_ns):
                if file.refused is not None or self.is_container(file) or may_be_dicom(file.path):
                    return True
            elif any(one.outcome != "not_dicom" for one in self.records([file])):
                return True
        return False

    @cached_property
    def _members(self) -> dict[str, list[FileRecord]]:
        members: dict[str, list[FileRecord]] = defaultdict(list)
        for name, record in self._records.items():
            place = name.find(INSIDE)
            while place >= 0:
                container = name[:place]
                if container in self._records and is_container_name(container.rpartition("/")[2], named=True):
                    members[container].append(record)
                    break
                place = name.find(INSIDE, place + 1)
        return dict(members)

    def _inside(self, container: FoundFile) -> Iterator[FoundFile]:
        archive = is_archive_name(container.path.name)
        for record in self.members(container):
            inside = record.path[len(container.name) + len(INSIDE) :]
            if archive:
                yield FoundFile(container.path, record.size, container.mtime_ns, None, inside, container.path)
            else:
                yield referenced_file(container, inside)
