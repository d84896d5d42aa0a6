"""What a home holds already, for one ingest: in a temporary database, so that the number of files does not matter."""

from __future__ import annotations

from typing import Any

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.rows import scratch
from meta_dx.dicom.rejections import Refusal, RejectionCode

_COLUMNS = ["instance", "content", "object", "study", "patient", "series"]


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
            "studies (name PRIMARY KEY, patient)",
            "series (name PRIMARY KEY, study)",
            "counted (study PRIMARY KEY, patient)",
        ):
            self._database.execute(f"CREATE TABLE {table} WITHOUT ROWID")
        for batch in catalog.batches():
            frame = catalog.instances([batch], columns=_COLUMNS)
            for row in frame.itertuples(index=False, name=None):
                self.add(dict(zip(_COLUMNS, row, strict=True)))

    def add(self, row: dict[str, Any]) -> None:
        """Enter an instance that is held from now on."""
        run = self._database.execute
        run("INSERT OR REPLACE INTO instances VALUES (:instance, :content, :object)", row)
        run("INSERT OR REPLACE INTO studies VALUES (:study, :patient)", row)
        run("INSERT OR REPLACE INTO series VALUES (:series, :study)", row)

    def count(self, row: dict[str, Any]) -> None:
        """Count study and patient of an instance among those of this batch."""
        self._database.execute("INSERT OR IGNORE INTO counted VALUES (:study, :patient)", row)

    def counts(self) -> tuple[int, int]:
        """Return the numbers of studies and patients of this batch."""
        query = "SELECT count(study), count(DISTINCT patient) FROM counted"
        studies, patients = self._database.execute(query).fetchone()
        return studies, patients

    def objection(self, row: dict[str, Any]) -> Refusal | None:
        """Return why an instance cannot be added to those that are held; None where it can."""
        held = self._one("SELECT content, object FROM instances WHERE name = ?", row["instance"])
        if held is not None:
            # Two exports of one instance may differ in what is not kept; what is kept decides.
            same = row["content"] == held[0] or row["object"] == held[1]
            return Refusal(RejectionCode.DUPLICATE if same else RejectionCode.CONFLICTING_INSTANCE)
        if self._one("SELECT patient FROM studies WHERE name = ?", row["study"]) not in (
            None,
            (row["patient"],),
        ):
            return Refusal(RejectionCode.STUDY_OF_TWO_PATIENTS)
        if self._one("SELECT study FROM series WHERE name = ?", row["series"]) not in (None, (row["study"],)):
            return Refusal(RejectionCode.SERIES_OF_TWO_STUDIES)
        return None

    def _one(self, query: str, name: str) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._database.execute(query, (name,)).fetchone()
        return found


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
        for batch in catalog.batches():
            frame = catalog.instances([batch], columns=["study", "patient", "instance"])
            self._database.executemany(update, frame.itertuples(index=False, name=None))
        query = "SELECT count(DISTINCT study), count(DISTINCT patient) FROM taken"
        studies, patients = self._database.execute(query).fetchone()
        return studies, patients
