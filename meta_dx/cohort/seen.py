"""What a home holds already, for one ingest: in a temporary database, so that the number of files does not matter."""

from __future__ import annotations

from typing import Any

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.rows import scratch
from meta_dx.dicom.identity import NamedPatient, Surrogates
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.records.vault import Vault

_COLUMNS = ["instance", "content", "object", "study", "patient", "series"]
_HELD = (
    "SELECT content, object, (SELECT patient FROM studies WHERE name = :study),"
    " (SELECT study FROM series WHERE name = :series)"
    " FROM (SELECT 1) LEFT JOIN instances ON name = :instance"
)


class Seen:
    """Instances of earlier batches and of this one, and what they rule out.

    Parameters
    ----------
    catalog : Catalog
        What earlier batches brought.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._database = scratch()
        for table in (
            "instances (name PRIMARY KEY, content, object)",
            "studies (name PRIMARY KEY, patient, of_this_batch, begun_here)",
            "series (name PRIMARY KEY, study)",
        ):
            self._database.execute(f"CREATE TABLE {table} WITHOUT ROWID")
        for row in catalog.each_instance(_COLUMNS):
            self._add(dict(zip(_COLUMNS, row, strict=True)), of_this_batch=False)

    def add(self, row: dict[str, Any]) -> None:
        """Enter an instance that is held from now on; its study and patient are counted."""
        self._add({name: row[name] for name in _COLUMNS}, of_this_batch=True)

    def count(self, row: dict[str, Any]) -> None:
        """Count study and patient of an instance that was held already among those of this batch."""
        self._database.execute("UPDATE studies SET of_this_batch = TRUE WHERE name = ?", (row["study"],))

    def patient(self, study: str) -> tuple[str | None, bool]:
        """Return the patient of a study that is held, and whether this batch was the first to bring it."""
        query = "SELECT patient, begun_here FROM studies WHERE name = ?"
        patient, begun_here = self._database.execute(query, (study,)).fetchone() or (None, True)
        return patient, bool(begun_here)

    def rename(self, study: str, patient: str) -> None:
        """Give a study's patient another surrogate."""
        self._database.execute("UPDATE studies SET patient = ? WHERE name = ?", (patient, study))

    def forget(self, instance: str) -> None:
        """Forget an instance, which is to be entered once more."""
        self._database.execute("DELETE FROM instances WHERE name = ?", (instance,))

    def counts(self) -> tuple[int, int]:
        """Return the numbers of studies and patients of this batch."""
        query = "SELECT count(*), count(DISTINCT patient) FROM studies WHERE of_this_batch"
        studies, patients = self._database.execute(query).fetchone()
        return studies, patients

    def objection(self, row: dict[str, Any]) -> Refusal | None:
        """Return why an instance cannot be added to those that are held; None where it can."""
        named = {name: row[name] for name in _COLUMNS}
        content, kept, patient, study = self._database.execute(_HELD, named).fetchone()
        if content is not None:
            # Two exports of one instance may differ in what is not kept; what is kept decides.
            same = row["content"] == content or row["object"] == kept
            return Refusal(RejectionCode.DUPLICATE if same else RejectionCode.CONFLICTING_INSTANCE)
        if patient not in (None, row["patient"]):
            return Refusal(RejectionCode.STUDY_OF_TWO_PATIENTS)
        if study not in (None, row["study"]):
            return Refusal(RejectionCode.SERIES_OF_TWO_STUDIES)
        return None

    def _add(self, row: dict[str, Any], of_this_batch: bool) -> None:
        run = self._database.execute
        run("INSERT OR REPLACE INTO instances VALUES (:instance, :content, :object)", row)
        run(
            f"INSERT INTO studies VALUES (:study, :patient, {of_this_batch}, {of_this_batch})"  # noqa: S608
            " ON CONFLICT (name) DO UPDATE SET of_this_batch = excluded.of_this_batch",
            row,
        )
        run("INSERT OR REPLACE INTO series VALUES (:series, :study)", row)


class Taken:
    """Instances that were found in a source, to be counted by study and patient."""

    def __init__(self) -> None:
        self._database = scratch()
        self._database.execute("CREATE TABLE taken (name PRIMARY KEY, study, patient) WITHOUT ROWID")

    def add(self, instance: str) -> None:
        """Enter an instance; one that was found twice counts once."""
        self._database.execute("INSERT OR IGNORE INTO taken (name) VALUES (?)", (instance,))

    def counts(self, catalog: Catalog) -> tuple[int, int]:
        """Return how many studies and patients the instances belong to that the catalog has."""
        update = "UPDATE taken SET study = ?, patient = ? WHERE name = ?"
        self._database.executemany(update, catalog.each_instance(["study", "patient", "instance"]))
        query = "SELECT count(DISTINCT study), count(DISTINCT patient) FROM taken"
        studies, patients = self._database.execute(query).fetchone()
        return studies, patients


def patients_of_studies(catalog: Catalog, vault: Vault) -> dict[str, NamedPatient]:
    """Return the patient of every study that the catalog has."""
    patients = dict(catalog.each_instance(["study", "patient"]))
    numbers, surrogates = vault.originals("patient", patients.values()), Surrogates(vault.key)
    return {
        study: NamedPatient(patient, surrogates.patient(numbers.get(patient, "")))
        for study, patient in patients.items()
    }
