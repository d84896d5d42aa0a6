"""One line a step on the console, instead of Dagster's event stream."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import dagster as dg

from meta_dx.cohort.validation import diagnosis_checks, ingest_checks


class _StepLines(logging.Handler):
    """Print when a step starts and how long it took; the full event stream stays in the instance's log."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, float] = {}
        self._idle: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", None) or {}
        event = getattr(record, "dagster_event", None) or meta.get("dagster_event")
        if event is None:
            if record.levelno >= logging.INFO:
                self._write(f"      {meta.get('orig_message', record.getMessage())!s}")
            return
        step = event.step_key
        if event.event_type_value == "STEP_START":
            self._started[step] = time.monotonic()
            self._write(f"  ▸ {step.replace('__', '/')}")
        elif event.event_type_value == "ASSET_MATERIALIZATION":
            trained = event.materialization.metadata.get("trained")
            if trained is not None and str(trained.value).startswith("no: "):
                self._idle[step] = f"not trained: {str(trained.value)[4:]}"
        elif event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE"):
            seconds = time.monotonic() - self._started.pop(step, time.monotonic())
            word = "done" if event.event_type_value == "STEP_SUCCESS" else "FAILED"
            self._write(f"    {self._idle.pop(step, f'{word} in {seconds:.1f} s')}")
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.event_specific_data
            if not check.passed:
                self._write(f"      {failed_check_line(check)}")

    def _write(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def failed_check_line(check: dg.AssetCheckEvaluation) -> str:
    """Say in one line which check failed, how badly, on how many of how many, and what that means."""
    failed, checked = (check.metadata[name].value for name in ("failed", "checked"))
    fault = next(
        spec.fault for spec in (*ingest_checks(), *diagnosis_checks()) if spec.name == check.check_name
    )
    word = "blocking" if check.severity is dg.AssetCheckSeverity.ERROR else "warning"
    # A table that is empty has no rows to count.
    how_many = f"{failed} of {checked} failed" if checked else "failed"
    return f"check {check.check_name}: {word}, {how_many}: {fault.split(':')[0].rstrip('.')}"


@dg.logger(description="One line a step on the console.")
def step_lines(_context: dg.InitLoggerContext) -> logging.Logger:
    """Return the console logger of every run of this code location."""
    logger = logging.Logger("meta_dx.steps", logging.DEBUG)
    logger.addHandler(_StepLines())
    return logger
