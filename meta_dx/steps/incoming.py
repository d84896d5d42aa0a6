"""Steps of ingestion and validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import DiagnosisSummary, all_diagnoses, import_diagnoses
from meta_dx.cohort.ingest import Batch, IngestSummary, ingest_batch, plan_batches
from meta_dx.errors import MetaDxError
from meta_dx.progress import Progress, silent
from meta_dx.steps import Project

if TYPE_CHECKING:
    from meta_dx.cohort.validation import ValidationReport


def pending_batches(project: Project) -> list[Batch]:
    """List the batches that wait to be taken in: new or changed files of each source, or an unfinished ingest."""
    return plan_batches(project.home, project.settings.sources)


def finished_batches(project: Project) -> list[str]:
    """List the batches in the catalog, oldest first."""
    return list(Catalog(project.home).batches())


def take_in(project: Project, batch: str, progress: Progress = silent) -> IngestSummary:
    """Ingest one batch; a batch that is already in the catalog returns its summary.

    Parameters
    ----------
    project : Project
        Cohort and home.
    batch : str
        Batch id, from :func:`pending_batches`.
    progress : Progress
        Called after every chunk of files.

    Returns
    -------
    IngestSummary

    Raises
    ------
    MetaDxError
        ``unknown_batch`` when no such batch was planned.
    """
    catalog = Catalog(project.home)
    if batch in catalog.batches():
        return _summary(catalog, batch)
    for planned in pending_batches(project):
        if planned.id == batch:
            return ingest_batch(project.home, planned, progress=progress)
    raise MetaDxError(
        "unknown_batch", f"Batch {batch} was never planned in {project.home.root}: run the ingest again."
    )


def take_in_diagnoses(project: Project) -> DiagnosisSummary:
    """Read the cohort's table of diagnoses into the home."""
    table = project.settings.cohort.diagnoses
    if not table:
        raise MetaDxError(
            "no_diagnoses",
            "[cohort] diagnoses is empty: training needs a table of confirmed diagnoses (docs/ingest.md).",
        )
    return import_diagnoses(project.home, Path(table))


def validate(project: Project, batch: str) -> ValidationReport:
    """Check one batch with Great Expectations and add it to the Data Docs."""
    from meta_dx.cohort.validation import validate_batch

    catalog = Catalog(project.home)
    only = [batch]
    return validate_batch(
        project.home,
        batch,
        instances=catalog.instances(only),
        rejections=catalog.rejections(only),
        studies=catalog.studies(only),
        series=catalog.series(only),
        others=catalog.instances(),
    )


def validate_diagnoses(project: Project) -> ValidationReport:
    """Check the diagnosis table against the studies in the home."""
    from meta_dx.cohort.validation import validate_diagnoses as check

    catalog = Catalog(project.home)
    return check(
        project.home,
        diagnoses=all_diagnoses(project.home),
        studies=catalog.studies(),
        instances=catalog.instances(),
    )


def _summary(catalog: Catalog, batch: str) -> IngestSummary:
    kept = catalog.summary(batch)
    return IngestSummary(**{name: kept[name] for name in IngestSummary.__dataclass_fields__ if name in kept})
