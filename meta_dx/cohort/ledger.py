"""The books of one ingest batch: what becomes of each file, and of two that exclude each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from meta_dx.cohort.catalog import Catalog, instance_rows, rejection_rows
from meta_dx.cohort.known import OPENED
from meta_dx.cohort.seen import Seen
from meta_dx.dicom.identity import NamedPatient, Surrogates
from meta_dx.dicom.mixed_studies import MixedStudies
from meta_dx.dicom.reading import AcceptedInstance
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sandbox import Listing
from meta_dx.dicom.sources import FoundFile, is_archive_name
from meta_dx.records.vault import FileRecord, Vault

_MANY = 2000  # files after which the vault is told
_OF_ANOTHER_NAME = (RejectionCode.CONFLICTING_INSTANCE, RejectionCode.STUDY_OF_TWO_PATIENTS)


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
    batch : str
        Identifier of the batch.
    instances, rejections : Rows
        Rows of the two tables.
    mixed : MixedStudies
        The studies in which some files name the issuer of the patient's number and others do not.
    waiting : list of FoundFile
        Files of such studies that were read as another patient: they are not entered, but have to be read again.
    """

    def __init__(self, batch: str, surrogates: Surrogates, catalog: Catalog, vault: Vault) -> None:
        self.batch = batch
        self._surrogates = surrogates
        self._vault = vault
        self._seen = Seen(catalog)
        self.instances = instance_rows()
        self.rejections = rejection_rows()
        self.mixed = MixedStudies()
        self.waiting: list[FoundFile] = []
        self._renamed: set[str] = set()
        self._last_reading = False
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
        if refusal is not None and refusal.code in _OF_ANOTHER_NAME and self._is_named_otherwise(result):
            if self._needs_another_reading(result):
                self.waiting.append(file)
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

    def take_back(self) -> dict[str, str]:
        """Take back what was entered before its study was renamed; from then on every file is entered as it was read.

        Returns
        -------
        dict of str to str
            Instances with their objects: no row names these any more.
        """
        self._last_reading = True
        taken: dict[str, str] = {}
        for study in sorted(self._renamed):
            for row in self.instances.take(study):
                if row["patient"] == self.mixed.patients[study].surrogate:
                    self.instances.append(row)
                else:
                    self._seen.forget(row["instance"])
                    taken[row["instance"]] = row["object"]
        return taken

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

    def _is_named_otherwise(self, result: AcceptedInstance) -> bool:
        """Tell whether a file means the patient of its study, and one of the two names no issuer."""
        study, patient = result.row["study"], result.row["patient"]
        held, _ = self._seen.patient(study)
        if self._last_reading or held is None:
            return False
        number = result.identities.get("patient", {}).get(patient, "")
        return self.mixed.joins(study, self._named(held, self._number_of(held)), self._named(patient, number))

    def _needs_another_reading(self, result: AcceptedInstance) -> bool:
        """Tell whether a file has to be read as the patient of its study; not where the study takes over its issuer."""
        row, patient = result.row, self.mixed.patients[result.row["study"]]
        _, begun_here = self._seen.patient(row["study"])
        refusal = self._seen.objection({**row, "patient": patient.surrogate})
        belongs = refusal is None or refusal.code is not RejectionCode.SERIES_OF_TWO_STUDIES
        if not (patient.without_issuer and begun_here and belongs):
            return True
        self.mixed.patients[row["study"]] = NamedPatient(row["patient"], patient.of_number)
        self._seen.rename(row["study"], row["patient"])
        self._renamed.add(row["study"])
        return refusal is not None

    def _named(self, patient: str, number: str) -> NamedPatient:
        return NamedPatient(patient, self._surrogates.patient(number))

    def _number_of(self, patient: str) -> str:
        known = self._identities.get("patient", {})
        return known.get(patient) or self._vault.originals("patient", [patient]).get(patient, "")

    def _accept(self, file: FoundFile, result: AcceptedInstance) -> None:
        row = {"batch": self.batch, **result.row}
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
                "batch": self.batch,
                "file": name,
                "outcome": refusal.outcome,
                "code": refusal.code.value,
                "reason": refusal.reason,
            }
        )
        self._identities.setdefault("file", {})[name] = file.name
        self._record(file, refusal.outcome, refusal.code.value, instance or name)

    def _record(self, file: FoundFile, outcome: str, code: str | None, surrogate: str | None) -> None:
        record = FileRecord(file.name, file.size, file.mtime_ns, self.batch, outcome, code, surrogate)
        self._files.append(record)
        if len(self._files) == _MANY:
            self.keep()
