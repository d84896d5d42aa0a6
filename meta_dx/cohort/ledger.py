"""The books of one ingest batch: what becomes of each file, and of two that exclude each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.known import OPENED
from meta_dx.cohort.tables import Rows
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.reading import AcceptedInstance
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sandbox import Listing
from meta_dx.dicom.sources import FoundFile, is_archive_name
from meta_dx.records.vault import FileRecord


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

    Attributes
    ----------
    instances, rejections : Rows
        Rows of the two tables.
    files : list of FileRecord
        For the vault: what became of each file.
    identities : dict of str to dict of str to str
        For the vault: kind to surrogate to original.
    """

    def __init__(self, batch: str, surrogates: Surrogates, catalog: Catalog) -> None:
        self._batch = batch
        self._surrogates = surrogates
        columns = ["instance", "content", "object", "study", "patient", "series"]
        earlier = catalog.instances(columns=columns)
        held = zip(earlier["content"], earlier["object"], strict=True)
        self._contents = dict(zip(earlier["instance"], held, strict=True))
        self._patient_of = dict(zip(earlier["study"], earlier["patient"], strict=True))
        self._study_of = dict(zip(earlier["series"], earlier["study"], strict=True))
        self.instances = Rows("instances")
        self.rejections = Rows("rejections")
        self._outcomes: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self.files: list[FileRecord] = []
        self.identities: dict[str, dict[str, str]] = {}
        self._studies: set[str] = set()
        self._patients: set[str] = set()

    def enter(self, file: FoundFile, result: AcceptedInstance | Refusal) -> AcceptedInstance | None:
        """Enter one file; return it when its object is to be stored."""
        if isinstance(result, Refusal):
            self._refuse(file, result)
            return None
        refusal = self._objection(result.row)
        if refusal is None:
            self._accept(file, result)
            return result
        if refusal.code is RejectionCode.DUPLICATE:
            self._count(result.row)
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

    def counts(self) -> dict[str, Any]:
        """Return what the batch's summary says."""
        return {
            "found": len(self.instances) + len(self.rejections),
            "accepted": len(self.instances),
            "duplicates": self._outcomes["duplicate"],
            "not_dicom": self._outcomes["not_dicom"],
            "rejected": dict(sorted(self._codes.items())),
            "studies": len(self._studies),
            "patients": len(self._patients),
        }

    def _objection(self, row: dict[str, Any]) -> Refusal | None:
        held = self._contents.get(row["instance"])
        if held is not None:
            # Two exports of one instance may differ in what is not kept; what is kept decides.
            same = row["content"] == held[0] or row["object"] == held[1]
            return Refusal(RejectionCode.DUPLICATE if same else RejectionCode.CONFLICTING_INSTANCE)
        if self._patient_of.get(row["study"], row["patient"]) != row["patient"]:
            return Refusal(RejectionCode.STUDY_OF_TWO_PATIENTS)
        if self._study_of.get(row["series"], row["study"]) != row["study"]:
            return Refusal(RejectionCode.SERIES_OF_TWO_STUDIES)
        return None

    def _accept(self, file: FoundFile, result: AcceptedInstance) -> None:
        row = {"batch": self._batch, **result.row}
        self.instances.append(row)
        self._contents[row["instance"]] = (row["content"], row["object"])
        self._patient_of[row["study"]] = row["patient"]
        self._study_of[row["series"]] = row["study"]
        self._count(row)
        for kind, pairs in result.identities.items():
            self.identities.setdefault(kind, {}).update(pairs)
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
        self.identities.setdefault("file", {})[name] = file.name
        self._record(file, refusal.outcome, refusal.code.value, instance or name)

    def _count(self, row: dict[str, Any]) -> None:
        self._studies.add(row["study"])
        self._patients.add(row["patient"])

    def _record(self, file: FoundFile, outcome: str, code: str | None, surrogate: str | None) -> None:
        record = FileRecord(file.name, file.size, file.mtime_ns, self._batch, outcome, code, surrogate)
        self.files.append(record)
