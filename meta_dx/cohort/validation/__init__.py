"""Validation: the cohort's tables against the ways in which exports and label tables go wrong.

Three suites, listed with their faults in ``docs/validation.md``: ``ingest`` on the catalog of one batch,
``diagnoses`` on the label table against the studies, ``cohort`` on labels and images together. The lists of
checks are plain data; Great Expectations is only imported when something is validated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pandas as pd

from meta_dx.cohort.validation import diagnoses as _diagnoses
from meta_dx.cohort.validation import ingest as _ingest
from meta_dx.cohort.validation import shortcuts as _shortcuts
from meta_dx.cohort.validation.checks import CheckResult, CheckSpec, ValidationReport
from meta_dx.home import Home

__all__ = [
    "CheckResult",
    "CheckSpec",
    "ValidationReport",
    "diagnosis_checks",
    "ingest_checks",
    "validate_batch",
    "validate_diagnoses",
]

#: Stands for a batch where a check is about the whole cohort.
ALL = "all"


def ingest_checks() -> tuple[CheckSpec, ...]:
    """List what :func:`validate_batch` checks."""
    return _ingest.CHECKS


def diagnosis_checks() -> tuple[CheckSpec, ...]:
    """List what :func:`validate_diagnoses` checks: the suites ``diagnoses`` and ``cohort``."""
    return _diagnoses.CHECKS + _shortcuts.CHECKS


def validate_batch(
    home: Home,
    batch: str,
    instances: pd.DataFrame,
    rejections: pd.DataFrame,
    studies: pd.DataFrame,
    series: pd.DataFrame,
    *,
    others: pd.DataFrame | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    today: date | None = None,
    docs: bool = True,
) -> ValidationReport:
    """Check the catalog tables of one ingest batch.

    Parameters
    ----------
    home : Home
        Where results and Data Docs go.
    batch : str
        The batch.
    instances, rejections, studies, series : DataFrame
        Its catalog tables.
    others : DataFrame, optional
        Instances of other batches (the whole catalog will do), so that what contradicts an earlier batch is
        found.
    fingerprint : mapping, optional
        Of the cohort (:func:`~meta_dx.cohort.fingerprint.read_fingerprint`), so that drift is found.
    today : date, optional
        Study dates after it lie in the future; default is the day of the run.
    docs : bool
        Write results and Data Docs.

    Returns
    -------
    ValidationReport
        Results of all :func:`ingest_checks`. On tables without rows every check but ``batch_has_images``
        passes with ``checked`` 0 and says that there was nothing to check.

    Raises
    ------
    MetaDxError
        A storage fault.
    """
    from meta_dx.cohort.validation.ingest_tables import ingest_tables
    from meta_dx.cohort.validation.runner import run_checks

    tables = ingest_tables(
        batch, instances, rejections, studies, series, others=others, fingerprint=fingerprint, today=today
    )
    run = run_checks(tables, _ingest.CHECKS, suite="ingest", batch=batch)
    report = ValidationReport("ingest", batch, run.results)
    return _published(home, report, _ingest.CHECKS, run.raw) if docs else report


def validate_diagnoses(
    home: Home,
    diagnoses: pd.DataFrame,
    studies: pd.DataFrame,
    instances: pd.DataFrame,
    *,
    fingerprint: Mapping[str, Any] | None = None,
    today: date | None = None,
    docs: bool = True,
) -> ValidationReport:
    """Check the label table: in itself, against the studies, and together with the images.

    Parameters
    ----------
    home : Home
        Where results and Data Docs go.
    diagnoses : DataFrame
        The label table with surrogate identities; optional columns may be missing.
    studies, instances : DataFrame
        The catalog of all batches.
    fingerprint : mapping, optional
        Of the cohort, so that drift is found.
    today : date, optional
        Dates after it lie in the future; default is the day of the run.
    docs : bool
        Write results and Data Docs.

    Returns
    -------
    ValidationReport
        Results of all :func:`diagnosis_checks`; ``failing`` are studies, with their batches.

    Raises
    ------
    MetaDxError
        A storage fault.
    """
    from meta_dx.cohort.validation.runner import run_checks

    tables = {
        **_diagnoses.diagnosis_tables(diagnoses, studies, today=today),
        **_shortcuts.cohort_tables(diagnoses, instances, fingerprint),
    }
    run = run_checks(tables, diagnosis_checks(), suite="diagnoses", batch=ALL)
    report = ValidationReport("diagnoses", ALL, run.results)
    return _published(home, report, diagnosis_checks(), run.raw) if docs else report


def _published(
    home: Home, report: ValidationReport, checks: tuple[CheckSpec, ...], raw: object
) -> ValidationReport:
    from meta_dx.cohort.validation.data_docs import publish

    return replace(report, data_docs=publish(home, report, checks, raw))  # type: ignore[arg-type]
