"""What exists: one file per asset group. Each asset reads its options, calls the library and returns metadata."""

from __future__ import annotations

from typing import Any


def all_assets() -> list[Any]:
    """Return every asset of the code location, in the order of the flow."""
    from assets import cohort, evaluation, ingestion, models, predictions, training, validation

    groups = (ingestion, validation, cohort, training, models, predictions, evaluation)
    return [asset for group in groups for asset in group.ASSETS]
