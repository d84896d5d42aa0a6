"""The books of one ingest batch: what becomes of each file, and of two that exclude each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from meta_dx.cohort.catalog import Catalog, instance_rows, rejection_rows
from meta_dx.cohort.known import OPENED
from meta_dx.cohort.seen import Seen
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.reading import AcceptedInstance
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sandbox import Listing
from meta_dx.dicom.sources import FoundFile, is_archive_name
from meta_dx.records.vault import FileRecord, Vault

_MANY = 2000  # files after which the vault is told


class Ledger:
    """Decides what becomes of each file, in the order of paths, and keeps the books of one batch.

    Parameters
    ----------
    batch : str
        Identifier of the batch.
    surrogates : Surrogates
        The identities of the home.
    catalog : Catalog
        What earlier batches brought.
    vault : Vault
        Learns the identities, and what became of each file.

    Attributes
    ----------
    instances, rejections : Rows
        Rows of the two tables.
    """

    def __init__(self, batch: str, surrogates: Surrogates, catalog: Catalog, vault: Vault) -> None:
        self._batch = batch
        self._surrogates = surrogates
        self._vault = vault
        self._seen = Seen(catalog)
        self.instances = instance_rows()
        self.rejections = rejection_rows()
        self._outcomes: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._files: list[FileRecord] = []
        self._identities: dict[str, dict[str, str]] = {}

    def enter(self, file: FoundFile, result: AcceptedInstance | Refusal) -> AcceptedInstance | None:
        """Enter one file; return it when its object is to be stored."""
        if isinstance(result, Refusal):
            self._refuse(file, result)
            return None
        refusal = self._seen.objection(result.row)
        if refusal is None:
            self._accept(file, result)
            return result
        if refusal.code is RejectionCode.DUPLICATE:
            self._seen.count(result.row)
            self._refuse(file, refusal, instance=result.row["instance"])
        else:
            self._refuse(file, refusal)
        return None

    def open(self, container: FoundFile, listing: Listing) -> None:
        """Enter an archive or table of contents: what is in it is counted, and itself where it is at fault."""
        refusal = listing.refusal
        if refusal is None and not listing.files:
            archive = is_archive_name(container.path.name)
            refusal = Refusal(RejectionCode.ARCHIVE_EMPTY if archive else RejectionCode.MEDIA_DIRECTORY)
        if refusal is None:
            self._record(container, OPENED, None, None)
        else:
            self._refuse(container, refusal)

    def keep(self) -> None:
        """Tell the vault what it does not know yet.

        It may learn of files before the batch exists: what a batch found that is not in the catalog counts as never
        read, and an original is the same whoever finds it.
        """
        with self._vault.transaction():
            for kind, pairs in self._identities.items():
                self._vault.remember(kind, pairs)
            self._vault.record_files(self._files)
        self._files, self._identities = [], {}

    def counts(self) -> dict[str, Any]:
        """Return what the batch's summary says."""
        studies, patients = self._seen.counts()
        return {
            "found": len(self.instances) + len(self.rejections),
            "accepted": len(self.instances),
            "duplicates": self._outcomes["duplicate"],
            "not_dicom": self._outcomes["not_dicom"],
            "rejected": dict(sorted(self._codes.items())),
            "studies": studies,
            "patients": patients,
        }

    def _accept(self, file: FoundFile, result: AcceptedInstance) -> None:
        row = {"batch": self._batch, **result.row}
        self.instances.append(row)
        self._seen.add(row)
        for kind, pairs in result.identities.items():
            self._identities.setdefault(kind, {}).update(pairs)
        self._record(file, "accepted", None, row["instance"])

    def _refuse(self, file: FoundFile, refusal: Refusal, instance: str | None = None) -> None:
        name = self._surrogates.file(file.name)
        self._outcomes[refusal.outcome] += 1
        if refusal.outcome == "rejected":
            self._codes[refusal.code.value] += 1
        self.rejections.append(
            {
                "batch": self._batch,
                "file": name,
                "outcome": refusal.outcome,
                "code": refusal.code.value,
                "reason": refusal.reason,
            }
        )
        self._identities.setdefault("file", {})[name] = file.name
        self._record(file, refusal.outcome, refusal.code.value, instance or name)

    def _record(self, file: FoundFile, outcome: str, code: str | None, surrogate: str | None) -> None:
        record = FileRecord(file.name, file.size, file.mtime_ns, self._batch, outcome, code, surrogate)
        self._files.append(record)
        if len(self._files) == _MANY:
            self.keep()
