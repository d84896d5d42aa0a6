"""Steps of ingestion and validation."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import DiagnosisSummary, all_diagnoses, import_diagnoses, require_table
from meta_dx.cohort.ingest import (
    Batch,
    IngestSummary,
    ingest_batch,
    mended_files,
    plan_batches,
    require_dicom,
)
from meta_dx.dicom.pacs.address import is_address
from meta_dx.dicom.sources import checked_source
from meta_dx.errors import MetaDxError
from meta_dx.home import write_json
from meta_dx.progress import Progress, silent
from meta_dx.records.vault import Vault
from meta_dx.steps import Project
from meta_dx.steps.pacs import clear_source, source_folders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meta_dx.cohort.validation import CheckResult, ValidationReport

log = logging.getLogger("meta_dx")

_ACCEPTED = "accepted.json"
#: What a check counts → the vault's kind of its surrogates.
_KINDS = {
    "file": "file",
    "image": "instance",
    "series": "series",
    "study": "study",
    "patient": "patient",
    "row": "study",  # a line of the diagnosis table is named by its study
}


def pending_batches(project: Project) -> list[Batch]:
    """List the batches to ingest: new or changed files of each source, or an ingest that never finished."""
    folders = list(source_folders(project).values())
    return plan_batches(project.home, folders, project.settings.ingest.allow)


def waiting_batches(project: Project) -> list[str]:
    """List the batches that are not in use yet: those to be ingested, then those not validated, or refused.

    A new batch may mend a refused one, so it comes first.
    """
    ingested = Catalog(project.home).batches()
    new = [batch.id for batch in pending_batches(project)]
    usable = set(usable_batches(project))
    return [*new, *(batch for batch in ingested if batch not in usable)]


def usable_batches(project: Project) -> list[str]:
    """List the batches that training and prediction may use: no blocking check failed, or a person accepted it."""
    from meta_dx.cohort.validation.data_docs import stored_reports

    passed = {
        report.batch
        for report in stored_reports(project.home)
        if report.suite == "ingest" and report.passed_blocking
    }
    allowed = passed | set(accepted_batches(project))
    return [batch for batch in Catalog(project.home).batches() if batch in allowed]


def accepted_batches(project: Project) -> dict[str, str]:
    """Return the batches that a person accepted although a blocking check failed, and why."""
    path = project.home.validation / _ACCEPTED
    return dict(json.loads(path.read_text())) if path.exists() else {}


def accept(project: Project, batch: str, reason: str) -> None:
    """Accept a batch although a blocking check failed.

    Parameters
    ----------
    project : Project
        Cohort and home.
    batch : str
        An ingested batch.
    reason : str
        Why; kept for those who wonder later.

    Raises
    ------
    MetaDxError
        ``unknown_batch``, or ``no_reason``.
    """
    Catalog(project.home).summary(batch)
    if not reason.strip():
        raise MetaDxError(
            "no_reason", f"Batch {batch} failed a blocking check: to accept it, give a --reason."
        )
    write_json(project.home.validation / _ACCEPTED, {**accepted_batches(project), batch: reason.strip()})


def require_blocking(report: ValidationReport) -> None:
    """Raise when a blocking check of a report failed.

    Raises
    ------
    MetaDxError
        ``blocking_check``.
    """
    failed = [result for result in report.failures if result.severity == "blocking"]
    if failed:
        named = "; ".join(f"{one.name} ({one.failed} of {one.checked})" for one in failed)
        raise MetaDxError(
            "blocking_check",
            f"Blocking checks failed on {report.suite} of batch {report.batch}: {named}. Nothing is built on this "
            f"data: see {report.data_docs}, {_way_out(report, failed)}.",
        )


def require_usable(project: Project, refused: Sequence[MetaDxError]) -> None:
    """Go on without the batches that were refused, and say so; a refused batch stops nothing but itself.

    Parameters
    ----------
    project : Project
        Cohort and home.
    refused : sequence of MetaDxError
        What :func:`require_blocking` said of each of them.

    Raises
    ------
    MetaDxError
        The first of them, where no batch is left.
    """
    if refused and not usable_batches(project):
        raise refused[0]
    for fault in refused:
        log.warning("Left out: %s", fault)


def _way_out(report: ValidationReport, failed: list[CheckResult]) -> str:
    if report.suite != "ingest":
        return "mend the label table and run again"
    accept = f"take the batch as it is with 'meta-dx validate --accept {report.batch} --reason WHY'"
    if all(one.unit == "file" for one in failed):
        return f"mend the files where they lie and run again, or {accept}"
    return f"mend the export and take it in with a new --home (images once taken never change), or {accept}"


def with_originals(project: Project, results: Sequence[CheckResult]) -> list[CheckResult]:
    """Return results that name what failed as the hospital does; only for what a command prints.

    Parameters
    ----------
    project : Project
        Cohort and home.
    results : sequence of CheckResult
        They name by surrogate.

    Returns
    -------
    list of CheckResult
        Original UIDs, patient numbers and paths of files; what the vault does not know stays as it is.
    """
    named = []
    with closing(Vault.open(project.home)) as vault:
        for result in results:
            kind = _KINDS.get(result.unit)
            known = {} if kind is None else vault.originals(kind, result.failing)
            named.append(replace(result, failing=tuple(known.get(one, one) for one in result.failing)))
    return named


def require_passed(project: Project, batch: str | None = None) -> None:
    """Raise when a blocking check failed the last time that a batch, or the label table, was checked.

    Raises
    ------
    MetaDxError
        ``blocking_check``.
    """
    from meta_dx.cohort.validation import ALL
    from meta_dx.cohort.validation.data_docs import stored_reports

    wanted = ("diagnoses", ALL) if batch is None else ("ingest", batch)
    for report in stored_reports(project.home):
        if (report.suite, report.batch) == wanted:
            require_blocking(report)


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
            summary = ingest_batch(project.home, planned, progress=progress, options=project.settings.ingest)
            clear_source(project, planned.source)
            return summary
    raise MetaDxError(
        "unknown_batch", f"Batch {batch} was never planned in {project.home.root}: run the ingest again."
    )


def idle_sources(project: Project) -> list[str]:
    """Say what is the matter with each source from which nothing was ever taken in, and nothing can be now."""
    with closing(Vault.open(project.home)) as vault:
        taken = {batch.source for batch in vault.batches()}
    sentences = []
    for source, folder in source_folders(project).items():
        if str(checked_source(folder)) not in taken:
            try:
                _require_files(project, source, folder)
            except MetaDxError as fault:
                sentences.append(str(fault))
    return sentences


def require_batch(project: Project) -> None:
    """Refuse to go on while no batch was taken in and none waits.

    Raises
    ------
    MetaDxError
        ``source_empty``, ``source_without_dicom`` or ``nothing_fetched``, of the first source.
    """
    if not Catalog(project.home).batches() and not pending_batches(project):
        for source, folder in source_folders(project).items():
            _require_files(project, source, folder)


def _require_files(project: Project, source: str, folder: Path) -> None:
    if is_address(source) and not any(folder.iterdir()):
        raise MetaDxError(
            "nothing_fetched",
            f"Nothing has come from {source} yet: 'meta-dx fetch' (for received: 'meta-dx receive') brings it here.",
        )
    require_dicom(project.home, folder)


def require_images(project: Project) -> None:
    """Refuse to go on while the home holds no image.

    Raises
    ------
    MetaDxError
        As :func:`require_batch`; ``nothing_accepted`` when every file was refused.
    """
    require_batch(project)
    catalog = Catalog(project.home)
    if not len(catalog.instances(columns=["instance"])):
        codes = sorted(set(catalog.rejections()["code"]))
        raise MetaDxError(
            "nothing_accepted",
            f"No file under {', '.join(source_folders(project))} could be taken in "
            f"({', '.join(codes)}): export the studies again (docs/rejections.md says what each code means).",
        )


def require_diagnoses_table(project: Project) -> None:
    """Refuse a table of diagnoses that cannot be read, before any file is taken in; none yet is no fault here."""
    if table := project.settings.cohort.diagnoses:
        require_table(table)


def take_in_diagnoses(project: Project) -> DiagnosisSummary:
    """Read the cohort's table of diagnoses into the home, which must hold images already."""
    require_images(project)
    table = project.settings.cohort.diagnoses
    if not table:
        raise MetaDxError(
            "no_diagnoses",
            "[cohort] diagnoses is empty: training needs a table of confirmed diagnoses (docs/ingest.md).",
        )
    return import_diagnoses(project.home, Path(table))


def validate(project: Project, batch: str) -> ValidationReport:
    """Check one batch with Great Expectations and add it to the Data Docs.

    A refused file that a later batch has taken in does not count against this one any more.
    """
    from meta_dx.cohort.fingerprint import read_fingerprint
    from meta_dx.cohort.validation import validate_batch

    catalog = Catalog(project.home)
    only = [batch]
    rejections = catalog.rejections(only)
    return validate_batch(
        project.home,
        batch,
        instances=catalog.instances(only),
        rejections=rejections[~rejections["file"].isin(mended_files(project.home, batch))],
        studies=catalog.studies(only),
        series=catalog.series(only),
        others=catalog.instances(),
        fingerprint=read_fingerprint(project.home),
    )


def validate_diagnoses(project: Project) -> ValidationReport:
    """Check the diagnosis table against the studies in the home."""
    from meta_dx.cohort.fingerprint import read_fingerprint
    from meta_dx.cohort.validation import validate_diagnoses as check

    catalog = Catalog(project.home)
    return check(
        project.home,
        diagnoses=all_diagnoses(project.home),
        studies=catalog.studies(),
        instances=catalog.instances(),
        fingerprint=read_fingerprint(project.home),
    )


def _summary(catalog: Catalog, batch: str) -> IngestSummary:
    kept = catalog.summary(batch)
    return IngestSummary(**{name: kept[name] for name in IngestSummary.__dataclass_fields__ if name in kept})
