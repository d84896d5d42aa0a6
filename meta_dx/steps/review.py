"""Steps of the review: which studies are to be read."""

from __future__ import annotations

import threading
from typing import Any

import pandas as pd

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import active_diagnoses
from meta_dx.cohort.splits import current_split
from meta_dx.faults import quietly
from meta_dx.inference.saliency import require_captum
from meta_dx.records.cases import NewCase
from meta_dx.review.desk import Desk
from meta_dx.review.report_archive import ReportArchive, archive_address
from meta_dx.steps import Project
from meta_dx.steps.cohort import assemble, usable_catalog
from meta_dx.steps.embedded import KeptCohort
from meta_dx.steps.insight import ProjectInsight
from meta_dx.steps.pacs import require_one_login
from meta_dx.steps.teaching import ProjectTeacher

_SECONDS = 30.0


def open_desk(project: Project) -> Desk:
    """Open the review of a project, with every study that is to be read among its cases.

    Raises
    ------
    MetaDxError
        ``bad_credentials`` where the environment's one login would go to several servers, ``no_captum``.
    """
    kept, options = KeptCohort(project), project.settings.review
    if options.saliency:
        require_captum()
    desk = Desk(
        project.home,
        options,
        ProjectTeacher(project, kept),
        report_archive(project),
        ProjectInsight(project, kept),
    )
    add_cases(project, desk)
    return desk


def report_archive(project: Project) -> ReportArchive | None:
    """Return the archive that reports are stored in; None without one.

    Raises
    ------
    MetaDxError
        ``bad_credentials`` where the environment's one login would go to several servers.
    """
    settings = project.settings
    if not settings.review.archive:
        return None
    require_one_login([*settings.addresses, settings.review.archive], settings.pacs)
    return ReportArchive(archive_address(settings.review.archive, settings.pacs), settings.pacs)


def add_cases(project: Project, desk: Desk) -> int:
    """Add the studies that have no diagnosis, or one that is withheld, to the cases; return how many were new.

    Which they are does not depend on any prediction.
    """
    if current_split(project.home) is None:
        studies = usable_catalog(project).studies()
        wanted = set(studies["study"]) - set(active_diagnoses(project.home)["study"])
    else:
        data = assemble(project)
        studies, wanted = data.studies, set(data.to_predict().study.tolist())
    rows = studies[studies["study"].isin(wanted)]
    return desk.cases.add(case_of(row) for row in rows.to_dict("records"))


def keep_current(project: Project, desk: Desk, stop: threading.Event) -> None:
    """Add new studies to the cases as they come in, until told to stop; what fails is tried again."""
    seen: str | None = None  # what came in since the desk was opened has not been looked at

    def look() -> None:
        nonlocal seen
        version = Catalog(project.home).version
        if version != seen:
            add_cases(project, desk)
            seen = version

    while not stop.wait(_SECONDS):
        quietly(look, project.home.root)


def case_of(row: dict[Any, Any]) -> NewCase:
    """Return a row of the studies table as a case."""
    known = {
        name: None if pd.isna(row[name]) else row[name]
        for name in ("body_part", "sex", "age_years", "study_date")
    }
    return NewCase(
        study=row["study"],
        patient=row["patient"],
        batch=row["batch"],
        modality=row["modality"],
        images=int(row["instances"]),
        series=int(row["series"]),
        **known,
    )
