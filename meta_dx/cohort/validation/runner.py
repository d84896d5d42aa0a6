"""One Great Expectations run per table: checks in, results out.

Great Expectations itself writes nothing: its context lives in memory, without analytics and progress bars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import pandas as pd

from meta_dx.cohort.validation.checks import NAMED_AT_MOST, CheckResult, CheckSpec, CheckTable, Unit

_PLURAL = {"series": "series", "study": "studies", "modality": "modalities"}

#: All batches of a process have one name, under which Great Expectations finds the rows again.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class SuiteRun:
    """What one suite gave on one batch.

    Parameters
    ----------
    results : tuple of CheckResult
        In the order of the checks.
    raw : mapping of unit to ExpectationSuiteValidationResult
        What Great Expectations returned for each table, for its Data Docs.
    """

    results: tuple[CheckResult, ...]
    raw: Mapping[Unit, Any]


def run_checks(
    tables: Mapping[Unit, CheckTable], checks: Sequence[CheckSpec], *, suite: str, batch: str
) -> SuiteRun:
    """Run all checks of a suite, one Great Expectations run per table.

    Parameters
    ----------
    tables : mapping of unit to CheckTable
        The rows to check.
    checks : sequence of CheckSpec
        Each names the unit whose table it runs on.
    suite, batch : str
        Names for the results.

    Returns
    -------
    SuiteRun

    Raises
    ------
    RuntimeError
        An expectation could not be evaluated. That is a fault of the library (a missing column), never a
        failed or passed check.
    """
    outcomes: dict[str, CheckResult] = {}
    raw: dict[Unit, Any] = {}
    for unit, table in tables.items():
        mine = [check for check in checks if check.unit == unit]
        if not mine:
            continue
        raw[unit] = _validate(table, mine, f"{suite} {unit}")
        for outcome in raw[unit].results:
            check = next(c for c in mine if c.name == outcome.expectation_config.meta["check"])
            outcomes[check.name] = _result(check, table, outcome, batch)
    return SuiteRun(tuple(outcomes[check.name] for check in checks), raw)


@cache
def _frames() -> Any:
    """Return the definition that turns a data frame into a batch of Great Expectations.

    One for the process: making a data source serialises its configuration several times over, which takes
    longer than most runs.
    """
    import logging

    import great_expectations as gx

    # It announces a folder that it never fills, through a logger that it sets to INFO itself.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("catalog").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("rows")


@cache
def _suite(name: str, checks: tuple[CheckSpec, ...]) -> Any:
    import great_expectations as gx

    return gx.ExpectationSuite(name, expectations=[_expectation(check) for check in checks])


def _validate(table: CheckTable, checks: Sequence[CheckSpec], name: str) -> Any:
    # Asked for the rows as well, Great Expectations takes a minute over a hundred thousand failing ones.
    form = {"result_format": "BASIC", "partial_unexpected_count": NAMED_AT_MOST}
    with _ONE_AT_A_TIME:
        rows = _frames().get_batch(batch_parameters={"dataframe": table.frame})
        return rows.validate(_suite(name, tuple(checks)), result_format=form)


def _expectation(check: CheckSpec) -> Any:
    import great_expectations.expectations as gxe

    return getattr(gxe, check.expectation)(
        **check.settings,
        description=f"{check.name} catches this fault: {check.fault}",
        severity="critical" if check.severity == "blocking" else "warning",
        meta={"check": check.name},
    )


def _result(check: CheckSpec, table: CheckTable, outcome: Any, batch: str) -> CheckResult:
    if not outcome.result:
        faults = {str(info.get("exception_message")) for info in outcome.exception_info.values()}
        raise RuntimeError(f"The check {check.name} could not be evaluated: {'; '.join(sorted(faults))}")
    if check.column is None:
        return _table_result(check, table, outcome, batch)
    rows, failed = int(outcome.result["element_count"]), int(outcome.result["unexpected_count"])
    checked = rows - int(outcome.result.get("missing_count") or 0)
    failing = _failing_rows(check.column, table, outcome)
    named = _named(table, failing)
    return CheckResult(
        name=check.name,
        severity=check.severity,
        unit=check.unit,
        passed=bool(outcome.success),
        checked=checked,
        failed=failed,
        failing=tuple(uid for uid, _ in named),
        failing_batches=tuple(where for _, where in named),
        batch=batch,
        observed=_observed(check, table, failing, checked, failed),
    )


def _table_result(check: CheckSpec, table: CheckTable, outcome: Any, batch: str) -> CheckResult:
    rows = int(outcome.result["observed_value"])
    passed = bool(outcome.success)
    return CheckResult(
        name=check.name,
        severity=check.severity,
        unit=check.unit,
        passed=passed,
        checked=rows,
        failed=0 if passed else 1,
        failing=(),
        failing_batches=(),
        batch=batch,
        observed=f"the table has {_count(rows, table.unit)}",
    )


def _failing_rows(column: str, table: CheckTable, outcome: Any) -> pd.DataFrame:
    """Return the first rows that fail.

    Every expectation in use judges a value by itself, so the rows that fail are those with a failing value.
    """
    if outcome.success:
        return table.frame[:0]
    values = outcome.result["partial_unexpected_list"]
    return table.frame[table.frame[column].isin(values)].head(NAMED_AT_MOST)


def _named(table: CheckTable, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Surrogate UID and batch of rows, each pair once, in their order."""
    named: dict[tuple[str, str], None] = {}
    for key, batch in zip(rows[table.key].astype(str), rows["batch"].fillna("").astype(str), strict=True):
        named.update(dict.fromkeys([(key, batch)] if table.members is None else table.members[key]))
    return list(named)[:NAMED_AT_MOST]


def _observed(check: CheckSpec, table: CheckTable, rows: pd.DataFrame, checked: int, failed: int) -> str:
    if table.frame.empty:
        return "nothing to check: the table has no rows"
    if not checked:
        return (
            f"nothing to check: none of {_count(len(table.frame), check.unit)} has a value for {check.column}"
        )
    if not failed:
        return f"all of {_count(checked, check.unit)} pass"
    mostly = float(check.settings.get("mostly", 1.0))
    allowed = f" (at most {1 - mostly:.0%} may)" if mostly < 1 else ""
    seen = f": {_seen(check, table, rows)}" if len(rows) else ""
    return f"{failed} of {_count(checked, check.unit)} fail{allowed}{seen}"


def _seen(check: CheckSpec, table: CheckTable, rows: pd.DataFrame) -> str:
    """Name what the failing rows have in the column, or the diseases that fail."""
    shown = [_shown(value) for value in rows[check.column]]
    if check.expectation == "ExpectColumnValuesToBeNull":
        return "; ".join(shown)
    if table.members is not None:
        return ", ".join(f"{key} ({value})" for key, value in zip(rows[table.key], shown, strict=True))
    different = sorted(set(shown))
    return f"{check.column} is {', '.join(different[:5])}{', …' if len(different) > 5 else ''}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit if number == 1 else _PLURAL.get(unit, unit + 's')}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):g}"
