"""The catalog: what a home holds, as Parquet tables, one immutable folder for each ingest batch.

``catalog/<batch>/{instances,rejections,studies,series}.parquet`` and ``summary.json``. A batch exists when
its folder does; nothing in it ever changes. Tables over several batches are put together when they are read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from meta_dx.cohort.diagnoses import active_diagnoses
from meta_dx.cohort.rows import Rows, TableWriter
from meta_dx.cohort.tables import SCHEMAS, read_tables
from meta_dx.cohort.volumes import volumes_table
from meta_dx.errors import MetaDxError
from meta_dx.home import Home, fingerprint_of, new_folder, write_json

_BLOCK = 4096  # rows that are read at once
_ORDER = ["study", "series", "instance_number", "instance"]
_DERIVED_FROM = [
    "batch",
    *_ORDER,
    "patient",
    "accession",
    "sex",
    "age_years",
    "study_date",
    "modality",
    "body_part",
]


class Catalog:
    """Reads the tables of a home.

    Parameters
    ----------
    home : Home
        The home.
    only : collection of str, optional
        A view of these batches, as if there were no others.
    """

    def __init__(self, home: Home, only: Collection[str] | None = None) -> None:
        self._root = home.catalog
        self._home = home
        self._only = None if only is None else frozenset(only)

    def batches(self) -> list[str]:
        """Return the identifiers of all finished batches, in order."""
        names = (folder.name for folder in self._root.iterdir() if (folder / "summary.json").is_file())
        seen = (name for name in names if self._only is None or name in self._only)
        return sorted(name for name in seen if not name.startswith("."))

    def summary(self, batch: str) -> dict[str, Any]:
        """Return the summary of one batch: its counts, and the SHA-256 of each table."""
        content: dict[str, Any] = json.loads((self._folder(batch) / "summary.json").read_text())
        return content

    @property
    def version(self) -> str:
        """A name for the content of all batches; it changes when, and only when, a batch is added."""
        return fingerprint_of({batch: self.summary(batch)["tables"] for batch in self.batches()})

    def instances(
        self, batches: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Return the accepted instances.

        Parameters
        ----------
        batches : sequence of str, optional
            Only these batches; default all.
        columns : sequence of str, optional
            Only these columns; default all of :data:`meta_dx.cohort.tables.INSTANCES`.

        Returns
        -------
        DataFrame
            One row for each instance, batch after batch, in each sorted by study, series and number.
        """
        return read_tables("instances", self._files("instances", batches), columns)

    def each_instance(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield some required columns of every instance, in no more memory than a few of them need."""
        for file in self._files("instances", None):
            for block in pq.ParquetFile(file).iter_batches(_BLOCK, columns=list(columns)):
                yield from zip(*(block.column(name).to_pylist() for name in columns), strict=True)

    def rejections(self, batches: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the files that were not taken, with code and reason."""
        return read_tables("rejections", self._files("rejections", batches))

    def studies(self, batches: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row for each study; one that came in several batches is one row."""
        return studies_of(self.instances(batches))

    def series(self, batches: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row for each series; one that came in several batches is one row."""
        return series_of(self.instances(batches))

    def volumes(self, batches: Sequence[str] | None = None, *, allow_tilt: bool = False) -> pd.DataFrame:
        """Return the volumes of every series, and the reasons why the other frames are in none.

        See :func:`meta_dx.cohort.volumes.volumes_table`; a series that came in several batches is one series.
        """
        return volumes_table(self.instances(batches), allow_tilt=allow_tilt)

    def diagnoses(self) -> pd.DataFrame:
        """Return the diagnoses that hold (see :func:`meta_dx.cohort.diagnoses.active_diagnoses`)."""
        return active_diagnoses(self._home)

    def _files(self, table: str, batches: Sequence[str] | None) -> list[Path]:
        wanted = self.batches() if batches is None else list(batches)
        return [self._folder(batch) / f"{table}.parquet" for batch in wanted]

    def _folder(self, batch: str) -> Path:
        folder = self._root / batch
        if not batch.isalnum() or not (folder / "summary.json").is_file():
            known = ", ".join(self.batches()) or "none"
            raise MetaDxError(
                "unknown_batch", f"There is no batch '{batch}' in {self._root}; there are: {known}."
            )
        return folder


def write_batch(
    home: Home,
    batch: str,
    instances: Rows | Iterable[Mapping[str, Any]],
    rejections: Rows | Iterable[Mapping[str, Any]],
    counts: Mapping[str, Any],
) -> None:
    """Write the tables of one batch and make them visible with one rename, the commit point of an ingest.

    Parameters
    ----------
    home : Home
        The home.
    batch : str
        Its identifier. When it exists already, nothing is changed.
    instances, rejections : Rows or iterable of mappings
        Rows of the two tables, in any order.
    counts : mapping
        What the summary says beside the hashes of the tables.

    Raises
    ------
    MetaDxError
        A storage fault; the catalog is as it was.
    """
    taken = instances if isinstance(instances, Rows) else instance_rows(instances)
    refused = rejections if isinstance(rejections, Rows) else rejection_rows(rejections)
    studies, series = Rows("studies", ["study"]), Rows("series", ["series"])
    with new_folder(home.catalog / batch) as folder:
        hashes = {
            "instances": _written(folder, "instances", _observed(taken.groups(), studies, series)),
            "rejections": _written(folder, "rejections", refused.groups()),
            "studies": _written(folder, "studies", studies.groups()),
            "series": _written(folder, "series", series.groups()),
        }
        write_json(folder / "summary.json", {"batch": batch, **counts, "tables": hashes})
    _sync_folder(home.catalog)


def instance_rows(rows: Iterable[Mapping[str, Any]] = ()) -> Rows:
    """Collect rows of the instances table, in the order in which a batch has them."""
    return Rows("instances", _ORDER, rows)


def rejection_rows(rows: Iterable[Mapping[str, Any]] = ()) -> Rows:
    """Collect rows of the rejections table, in the order in which a batch has them."""
    return Rows("rejections", ["outcome", "code", "file"], rows)


def _written(folder: Path, name: str, groups: Iterable[pa.Table]) -> str:
    writer = TableWriter(folder / f"{name}.parquet", name)
    for group in groups:
        writer.write(group)
    return writer.finish()


def _observed(groups: Iterable[pa.Table], studies: Rows, series: Rows) -> Iterator[pa.Table]:
    """Pass sorted instances on, and derive the rows of every study, and of its series, when it is complete."""
    waiting: list[pd.DataFrame] = []  # the rows so far of the study that may go on in the next group
    for group in groups:
        yield group
        if not len(group):
            continue
        frame: pd.DataFrame = group.select(_DERIVED_FROM).to_pandas()
        last = frame["study"] == frame["study"].iloc[-1]
        if not last.all() or (waiting and waiting[0]["study"].iloc[0] != frame["study"].iloc[-1]):
            _derive([*waiting, frame[~last]], studies, series)
            waiting = []
        waiting.append(frame[last])
    if waiting:
        _derive(waiting, studies, series)


def _derive(frames: Sequence[pd.DataFrame], studies: Rows, series: Rows) -> None:
    complete = pd.concat(frames, ignore_index=True)
    for rows, table in ((studies, studies_of(complete)), (series, series_of(complete))):
        for row in table.to_dict("records"):
            rows.append({str(column): value for column, value in row.items()})


def clear_unfinished(home: Home) -> None:
    """Remove the folders of batches that a process that died left half-written."""
    for folder in home.catalog.glob(".*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def studies_of(instances: pd.DataFrame) -> pd.DataFrame:
    """Derive one row for each study from its instances.

    Parameters
    ----------
    instances : DataFrame
        Rows of the instances table.

    Returns
    -------
    DataFrame
        Sorted by study. Modality and body part are the most frequent ones (the first in the alphabet among
        equals); accession, sex, age and date are the first that are known.
    """
    ordered = _ordered(instances)
    groups = ordered.groupby("study", sort=True)
    known = groups[["batch", "patient", "accession", "sex", "age_years", "study_date"]].first()
    known["modality"] = _most_frequent(ordered, "study", "modality").reindex(known.index)
    known["body_part"] = _most_frequent(ordered, "study", "body_part").reindex(known.index)
    known["instances"] = groups.size()
    known["series"] = groups["series"].nunique()
    table: pd.DataFrame = known.reset_index()[SCHEMAS["studies"].names]
    return table


def series_of(instances: pd.DataFrame) -> pd.DataFrame:
    """Derive one row for each series from its instances, sorted by series."""
    ordered = _ordered(instances)
    groups = ordered.groupby("series", sort=True)
    known = groups[["batch", "study", "patient"]].first()
    known["modality"] = _most_frequent(ordered, "series", "modality").reindex(known.index)
    known["instances"] = groups.size()
    table: pd.DataFrame = known.reset_index()[SCHEMAS["series"].names]
    return table


def _ordered(instances: pd.DataFrame) -> pd.DataFrame:
    """Return what studies and series are derived from, in its order; a copy of all columns would be large."""
    return instances[[*_DERIVED_FROM]].sort_values(["batch", *_ORDER], kind="stable")


def _most_frequent(instances: pd.DataFrame, key: str, column: str) -> pd.Series[Any]:
    counts = instances.dropna(subset=[column]).groupby([key, column]).size().reset_index(name="n")
    best = counts.sort_values([key, "n", column], ascending=[True, False, True]).drop_duplicates(key)
    return best.set_index(key)[column]


def _sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
