"""Data Docs: what was checked and what came out, as pages that anybody can open.

Great Expectations renders the results; the frame around them is ours, because its own pages load scripts,
fonts and pictures from seven servers, and this site must work, and stay silent, in a hospital without
internet.

A suite has one page and one file of results per batch; validating the batch again replaces both. Pages are
kept for the newest :data:`PAGES_KEPT` results, the results themselves for good (about 10 kB each).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from meta_dx.cohort.validation.checks import CheckResult, CheckSpec, Unit, ValidationReport
from meta_dx.home import Home, write_json, write_text

PAGES_KEPT = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: Templates of Great Expectations that ours replace.
_OURS = {"page.j2": "page.html.j2", "collapse.j2": "collapse.html.j2"}


def publish(
    home: Home, report: ValidationReport, checks: Sequence[CheckSpec], raw: Mapping[Unit, Any]
) -> Path:
    """Write the results of a report and its page, and bring the index up to date.

    Parameters
    ----------
    home : Home
        Everything goes under its ``validation`` store: ``results/<suite>/<batch>.json`` and ``data_docs/``.
    report : ValidationReport
        The results.
    checks : sequence of CheckSpec
        The checks that ran.
    raw : mapping of unit to ExpectationSuiteValidationResult
        What Great Expectations returned.

    Returns
    -------
    Path
        The index page.

    Raises
    ------
    MetaDxError
        A storage fault: the disk is full, or the home cannot be written.
    """
    if not _NAME.fullmatch(report.batch):
        raise ValueError("a batch id names a file: letters, digits, '_', '-' and '.' only")
    validated_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = _render_page(report, checks, raw, validated_at)
    write_text(_site(home) / report.suite / f"{report.batch}.html", page)
    write_json(
        home.validation / "results" / report.suite / f"{report.batch}.json",
        {
            "suite": report.suite,
            "batch": report.batch,
            "validated_at": validated_at,
            "results": [asdict(result) for result in report.results],
        },
    )
    return _write_index(home)


def _site(home: Home) -> Path:
    return home.validation / "data_docs"


def _write_index(home: Home) -> Path:
    """List the newest results and take away the pages of older ones."""
    stored = sorted(
        (home.validation / "results").glob("*/*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True
    )
    rows = [_index_row(json.loads(path.read_text())) for path in stored[:PAGES_KEPT]]
    for path in stored[PAGES_KEPT:]:
        (_site(home) / path.parent.name / f"{path.stem}.html").unlink(missing_ok=True)
    # Results over the whole cohort first, then the newest batch.
    rows.sort(key=lambda row: row["batch"], reverse=True)
    rows.sort(key=lambda row: row["suite"] == "ingest")
    index = _site(home) / "index.html"
    write_text(index, _render_index(rows, older=max(0, len(stored) - PAGES_KEPT)))
    return index


def _index_row(stored: Mapping[str, Any]) -> dict[str, Any]:
    failures = [result for result in stored["results"] if not result["passed"]]
    failures.sort(key=lambda result: result["severity"] != "blocking")
    worst = failures[0]["severity"] if failures else "passed"
    return {
        **{name: stored[name] for name in ("suite", "batch", "validated_at")},
        "href": f"{stored['suite']}/{stored['batch']}.html",
        "failures": failures,
        "status": {"blocking": "✗ blocked", "warning": "! warnings", "passed": "✓ passed"}[worst],
        "css": worst,
    }


def _render_index(rows: Sequence[Mapping[str, Any]], older: int) -> str:
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_template("index.html.j2"))
    return template.render(rows=rows, older=older, css=_template("data_docs.css"))


def _render_page(
    report: ValidationReport, checks: Sequence[CheckSpec], raw: Mapping[Unit, Any], validated_at: str
) -> str:
    faults = {check.name: check.fault for check in checks}
    total, failed = len(report.results), len(report.failures)
    where = "the whole cohort" if report.batch == "all" else f"batch {report.batch}"
    return str(
        _view().render(
            _document(raw),
            title=f"{report.suite}: {where}",
            summary=f"{total - failed} of {total} checks passed, {failed} failed.",
            validated_at=validated_at,
            rows=[
                _page_row(result, faults[result.name])
                # What failed comes first, the rest in the order of the suite.
                for result in (*report.failures, *(r for r in report.results if r.passed))
            ],
            css=_template("data_docs.css"),
        )
    )


def _page_row(result: CheckResult, fault: str) -> dict[str, Any]:
    nothing = result.passed and result.observed.startswith("nothing to check")
    passed = "– nothing to check" if nothing else "✓ passed"
    return {
        "name": result.name,
        "fault": fault,
        "observed": result.observed,
        "failed": result.failed,
        "failing": list(zip(result.failing, result.failing_batches, strict=True)),
        "status": passed if result.passed else f"✗ {result.severity}",
        "css": ("quiet" if nothing else "passed") if result.passed else result.severity,
    }


def _document(raw: Mapping[Unit, Any]) -> Any:
    """Render the results of all tables with Great Expectations and join them into one document."""
    from great_expectations.render import RenderedDocumentContent
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    renderer = ValidationResultsPageRenderer(run_info_at_end=True)
    # The first section is an overview (ours is above it), the last describes the run.
    sections = [part for result in raw.values() for part in renderer.render(_escaped(result)).sections[1:-1]]
    return RenderedDocumentContent(
        sections=sections, renderer_type="ValidationResultsPageRenderer", page_title=None, utm_medium=None
    )


def _escaped(result: Any) -> Any:
    """Copy a result with its values escaped: Great Expectations writes them into the page as they are.

    The description of an expectation, which is the fault that it catches, stands in our table already;
    without it Great Expectations writes the rule that it applied.
    """
    copy = deepcopy(result)
    for outcome in copy.results:
        outcome.expectation_config.description = None
        outcome.result = _escape(outcome.result)
    return copy


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {name: _escape(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(item) for item in value]
    return value


def _view() -> Any:
    """Great Expectations' page view with our templates in front of its own."""
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, DictLoader

    view = DefaultJinjaPageView()
    ours = DictLoader({theirs: _template(name) for theirs, name in _OURS.items()})
    view.env.loader = ChoiceLoader([ours, view.env.loader])
    return view


def _template(name: str) -> str:
    return (resources.files("meta_dx.cohort.validation") / "templates" / name).read_text(encoding="utf-8")


def stored_reports(home: Home) -> Iterator[ValidationReport]:
    """Read back the reports of a home, by suite and batch."""
    for path in sorted((home.validation / "results").glob("*/*.json")):
        stored = json.loads(path.read_text())
        results = [
            CheckResult(
                **{**row, "failing": tuple(row["failing"]), "failing_batches": tuple(row["failing_batches"])}
            )
            for row in stored["results"]
        ]
        yield ValidationReport(stored["suite"], stored["batch"], tuple(results), _site(home) / "index.html")
