"""What a check is, and what comes out of one: known without importing Great Expectations.

Pipelines need the names of all checks when they are defined, long before any data exists; the import of Great
Expectations takes seconds. So a check is plain data here: the fault that it catches, how grave that is, and
which built-in expectation on which column finds it. :mod:`meta_dx.cohort.validation.runner` turns it into a
run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

Suite = Literal["ingest", "diagnoses", "cohort"]
Severity = Literal["blocking", "warning"]
Unit = Literal["file", "image", "series", "study", "patient", "modality", "row", "disease"]

#: At most this many identifiers are named for one check; the count is always complete.
NAMED_AT_MOST = 20


@dataclass(frozen=True)
class CheckSpec:
    """One check: exactly one fault.

    Parameters
    ----------
    name : str
        Stable snake_case name of the good state (``study_of_one_patient``).
    suite : {"ingest", "diagnoses", "cohort"}
        When it runs: on an ingest batch, on the label table, or on labels and images together.
    fault : str
        One sentence in plain words: the fault that it catches.
    severity : {"blocking", "warning"}
        ``blocking`` where everything after it would be wrong and nobody would see it: patients or labels
        mixed up, or next to nothing left. ``warning`` where the rows are left out, usable, or a person has to
        look.
    unit : str
        What is counted: one row of the table that the expectation runs on.
    expectation : str
        Class in ``great_expectations.expectations``.
    settings : mapping
        Its arguments, among them the column.
    """

    name: str
    suite: Suite
    fault: str
    severity: Severity
    unit: Unit
    expectation: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def column(self) -> str | None:
        """The column that the expectation looks at; ``None`` where it looks at the whole table."""
        return self.settings.get("column")


@dataclass(frozen=True)
class CheckTable:
    """The rows that the checks of one unit run on.

    Parameters
    ----------
    unit : str
        What one row is.
    frame : DataFrame
        One row per unit; has the column ``key``, the column ``batch`` and one column for each check.
    key : str
        Column with the surrogate identifier of a row (a disease code where ``members`` is given).
    members : mapping of str to tuple of (str, str)
        Surrogate UID and batch of what a key stands for, where the key itself is no surrogate UID.
    """

    unit: Unit
    frame: pd.DataFrame
    key: str
    members: Mapping[str, Sequence[tuple[str, str]]] | None = None


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Parameters
    ----------
    name, severity, unit
        From the check.
    passed : bool
        Whether the expectation holds. True also where there was nothing to check; then ``checked`` is 0 and
        ``observed`` says so.
    checked, failed : int
        How many rows had a value to check, and how many of them failed.
    failing : tuple of str
        Surrogate UIDs of what failed, the first :data:`NAMED_AT_MOST`.
    failing_batches : tuple of str
        Batch of each entry of ``failing``; ``""`` where it belongs to none.
    batch : str
        The batch that was checked; ``"all"`` for checks over the whole cohort.
    observed : str
        What was seen, in one sentence.
    """

    name: str
    severity: Severity
    unit: Unit
    passed: bool
    checked: int
    failed: int
    failing: tuple[str, ...]
    failing_batches: tuple[str, ...]
    batch: str
    observed: str


@dataclass(frozen=True)
class ValidationReport:
    """All results of one suite on one batch.

    Parameters
    ----------
    suite : str
        Which suite ran.
    batch : str
        On which batch (``"all"`` for the whole cohort).
    results : tuple of CheckResult
        In the order of the suite's checks, all of them.
    data_docs : Path or None
        Index page of the Data Docs, if they were built.
    """

    suite: Suite
    batch: str
    results: tuple[CheckResult, ...]
    data_docs: Path | None = None

    @property
    def passed_blocking(self) -> bool:
        """Whether no blocking check failed."""
        return all(result.passed for result in self.results if result.severity == "blocking")

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed, blocking ones first."""
        failed = (result for result in self.results if not result.passed)
        return tuple(sorted(failed, key=lambda result: result.severity != "blocking"))

    def __getitem__(self, name: str) -> CheckResult:
        """Return the result of one check by its name."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)


def between(column: str, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """Return the settings of ``ExpectColumnValuesToBeBetween``; ``None`` leaves that side open."""
    bounds = {"min_value": low, "max_value": high}
    return {"column": column, **{name: bound for name, bound in bounds.items() if bound is not None}}
