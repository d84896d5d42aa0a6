"""What all asset files share: who answers for them, and how metadata is written."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

DATA_TEAM = ["team:data-engineering"]
MODEL_TEAM = ["team:machine-learning"]
CLINICAL_TEAM = ["team:clinical"]

_LARGEST_PICTURE = 100_000  # bytes; larger pictures make the event log slow


def table(rows: list[Mapping[str, Any]]) -> dg.TableMetadataValue | dg.TextMetadataValue:
    """Show rows as a table in the UI; ``None`` becomes an empty cell."""
    if not rows:
        return dg.MetadataValue.text("none")
    plain = [{key: "" if value is None else _plain(value) for key, value in row.items()} for row in rows]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in plain])


def picture(path: Path, caption: str) -> dg.MarkdownMetadataValue | dg.PathMetadataValue:
    """Show a plot (never a patient's picture) with one sentence that says what a bad one looks like."""
    data = path.read_bytes()
    if len(data) > _LARGEST_PICTURE:
        return dg.MetadataValue.path(str(path))
    encoded = base64.b64encode(data).decode()
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return dg.MetadataValue.md(f"![{caption}](data:image/{kind};base64,{encoded})\n\n{caption}")


def check_results(report: Any) -> list[dg.AssetCheckResult]:
    """Turn a validation report of the library into Dagster's check results."""
    severities = {"blocking": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}
    return [
        dg.AssetCheckResult(
            check_name=result.name,
            passed=result.passed,
            severity=severities[result.severity],
            metadata={
                "batch": result.batch,
                "checked": result.checked,
                "failed": result.failed,
                "observed": result.observed or "",
                "failing": dg.MetadataValue.json(list(result.failing)),
            },
        )
        for result in report.results
    ]


def check_specs(asset: str, checks: Any) -> list[dg.AssetCheckSpec]:
    """Declare the library's checks on an asset; blocking ones stop what lies downstream."""
    return [
        dg.AssetCheckSpec(
            name=check.name, asset=asset, description=check.fault, blocking=check.severity == "blocking"
        )
        for check in checks
    ]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else ""  # the UI cannot show NaN
    return value
