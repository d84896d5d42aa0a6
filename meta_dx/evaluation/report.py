"""The report for doctors and research leads: one HTML file that needs nothing else and calls nobody.

It holds no picture of a patient and no identifier. The template and its one style sheet lie in
``templates/``.
"""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path
from typing import Any

from meta_dx.evaluation import wording
from meta_dx.evaluation.comparison import Comparison, DiseaseRow
from meta_dx.evaluation.deployment import DeploymentResult
from meta_dx.evaluation.episodic import EpisodicResult
from meta_dx.evaluation.figures import MethodResult
from meta_dx.evaluation.holdout import HoldoutResult
from meta_dx.evaluation.plots import (
    BASELINE,
    SERVED,
    SHORTCUT,
    Bar,
    Panel,
    accuracy_bars,
    reliability_curves,
)
from meta_dx.evaluation.report_input import DataSummary, ReportInput
from meta_dx.evaluation.wording import (
    decimal,
    decimals,
    interval,
    method_name,
    percent,
    points,
    points_interval,
)
from meta_dx.home import write_text

_ROLES = {"common": "Common (training)", "validation": "Validation (choosing)", "rare": "Rare (this test)"}


def write_report(path: Path, report: ReportInput) -> Path:
    """Write the report.

    Parameters
    ----------
    path : Path
        The HTML file; written whole or not at all.
    report : ReportInput
        What it tells; at least one episodic result.

    Returns
    -------
    Path
        The file.
    """
    write_text(path, render(report))
    return path


def headline(report: ReportInput) -> str:
    """Return the sentence at the top of the report."""
    return wording.headline(report.episodic)


def render(report: ReportInput) -> str:
    """Return the report as HTML; the same input gives the same text."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files("meta_dx.evaluation") / "templates"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    shown = dict(_context(report))
    for name in ("bars", "reliability"):
        # Drawn by plots.py, which escapes the texts in them.
        shown[name] = Markup(shown[name])  # noqa: S704
    css = Markup((folder / "report.css").read_text(encoding="utf-8"))  # noqa: S704
    return template.render(css=css, **shown)


def _context(report: ReportInput) -> dict[str, Any]:
    last = report.episodic[-1]
    return {
        "cohort": report.cohort,
        "created": report.created,
        "names": report.names,
        "headline": headline(report),
        "asides": _asides(report),
        "cards": _cards(report),
        "opened": _opened(report.openings),
        "shortcut_name": method_name("shortcut"),
        "bars": accuracy_bars(_panels(report)),
        "comparisons": _comparisons(report),
        "deployment": _deployment(report.deployment) if report.deployment else None,
        "holdout": _holdout(report.holdout) if report.holdout else None,
        "reliability": reliability_curves(_served(report)),
        "calibration_text": "; ".join(
            f"{title}: calibration error {percent(found.ece)} % ({interval(found.ece_ci95)})"
            for title, found in _served(report)
        )
        + ".",
        "doubt": _doubt(report),
        "doubt_text": wording.doubt_sentence(last),
        "disease_head": _title(last).lower(),
        "disease_columns": _disease_columns(report),
        "diseases": _disease_rows(report),
        "left_out": _left_out(last, report),
        "confused": [
            {
                "one": pair.one,
                "other": pair.other,
                "there": percent(pair.one_as_other, 0),
                "back": percent(pair.other_as_one, 0),
                "episodes": pair.episodes,
            }
            for pair in last.comparison.confused
        ],
        "data": _data(report.data),
        "training": report.training,
        "curves": _picture(report.training.curves),
        "limits": [*report.limits, *wording.LIMITS],
        "meaning": wording.MEANING,
        "versions": report.versions,
    }


def _title(result: EpisodicResult) -> str:
    return f"{wording.in_words(result.ways).capitalize()} diseases, {wording.shots(result.shots)} each"


def _deployed_title(result: DeploymentResult) -> str:
    return f"All {len(result.offered)} offered diseases at once"


def _served(report: ReportInput) -> list[tuple[str, MethodResult]]:
    found = [(_title(result), result.comparison.served) for result in report.episodic]
    if report.deployment:
        found.append((_deployed_title(report.deployment), report.deployment.comparison.served))
    return found


def _protocols(report: ReportInput) -> list[tuple[str, Comparison, float]]:
    found = [(_title(result), result.comparison, result.chance) for result in report.episodic]
    if report.deployment:
        deployed = report.deployment
        found.append((_deployed_title(deployed), deployed.comparison, deployed.chance))
    return found


def _cards(report: ReportInput) -> list[dict[str, Any]]:
    cards = []
    for title, comparison, chance in _protocols(report):
        served, gap = comparison.served, comparison.against_best
        best = comparison.methods[comparison.best_baseline]
        cards.append(
            {
                "what": title,
                "value": percent(served.accuracy),
                "range": interval(served.ci95),
                "more": [
                    f"guessing {percent(chance, 0)} %",
                    f"{method_name(gap.against)} {percent(best.accuracy)} %",
                    f"difference {points(gap.estimate)} ({points_interval(gap.ci95)})",
                ],
            }
        )
    hidden = report.holdout
    if hidden and hidden.studies:
        cards.append(
            {
                "what": f"{hidden.studies} hidden cases, true disease named first",
                "value": percent(hidden.top1),
                "range": interval(hidden.top1_ci95),
                "more": [
                    f"guessing {percent(hidden.chance, 0)} %",
                    f"among the first three {percent(hidden.top3)} %",
                ],
            }
        )
    return cards


def _asides(report: ReportInput) -> list[str]:
    """Return the verdicts of the other protocols, and what the shortcut baseline says."""
    main = len(report.episodic) - 1
    protocols = _protocols(report)
    lines = [
        f"{title}: {wording.verdict(comparison.against_best).removeprefix('it is ')}."
        for at, (title, comparison, _) in enumerate(protocols)
        if at != main
    ]
    shortcut = wording.shortcut_sentence(protocols[main][1], protocols[main][2])
    said = [*wording.learner_sentences(protocols[main][1]), *lines, shortcut]
    return [line for line in said if line]


def _opened(openings: int) -> str:
    if openings == 1:
        return "The rare diseases were opened once, for this report."
    return (
        f"The rare diseases have been looked at {openings} times under this split: every look after the "
        "first makes the figures a little more hopeful than they should be."
    )


def _panels(report: ReportInput) -> list[Panel]:
    panels = []
    for title, comparison, chance in _protocols(report):
        bars = tuple(
            Bar(
                method_name(name),
                found.accuracy,
                found.ci95,
                SERVED if name == comparison.serving else SHORTCUT if name == "shortcut" else BASELINE,
            )
            for name, found in comparison.methods.items()
        )
        panels.append(Panel(title, bars, chance))
    return panels


def _comparisons(report: ReportInput) -> list[dict[str, Any]]:
    groups = []
    for title, comparison, _ in _protocols(report):
        gaps = {gap.method: gap for gap in comparison.differences}
        rows = []
        for name, found in comparison.methods.items():
            gap = gaps.get(name)
            rows.append(
                {
                    "name": method_name(name),
                    "served": name == comparison.serving,
                    "accuracy": percent(found.accuracy),
                    "range": interval(found.ci95),
                    "mc": percent(found.mc95),
                    "gap": points(gap.estimate) if gap else "best baseline",
                    "gap_range": points_interval(gap.ci95) if gap else "",
                    "auroc": decimal(found.auroc),
                    "ece": percent(found.ece),
                    "log_loss": decimal(found.log_loss, 2),
                }
            )
        groups.append({"title": title, "rows": rows})
    return groups


def _doubt(report: ReportInput) -> list[dict[str, Any]]:
    """Return one group of rows a protocol: does each method doubt its errors, and diseases it cannot name."""
    return [
        {
            "title": f"{_title(result)}; {result.outside:,} questions about diseases that were not offered",
            "rows": [
                {
                    "name": method_name(name),
                    "served": name == result.comparison.serving,
                    "cells": [(decimal(value, 2), decimals(ends, 2)) for value, ends in found.figures],
                }
                for name, found in result.doubt.items()
            ],
        }
        for result in report.episodic
    ]


def _deployment(result: DeploymentResult) -> dict[str, Any]:
    ways = len(result.offered)
    depths = [(1, "accuracy", "ci95"), (3, "top3", "top3_ci95"), (5, "top5", "top5_ci95")]
    depths = [depth for depth in depths if ways > depth[0]]
    rows = []
    for name, found in result.comparison.methods.items():
        cells = [
            (percent(getattr(found, value)), interval(getattr(found, ends))) for _, value, ends in depths
        ]
        cells += [
            (decimal(found.auroc), decimals(found.auroc_ci95)),
            (percent(found.ece), interval(found.ece_ci95)),
        ]
        rows.append({"name": method_name(name), "served": name == result.comparison.serving, "cells": cells})
    shots = result.shots
    amount = str(shots.max) if shots.min == shots.max else f"{shots.min} to {shots.max}"
    weighed = "alike" if result.prior == "uniform" else "by the number of their confirmed cases"
    notes = []
    if result.one_short:
        notes.append(
            f"{wording.diseases(len(result.one_short))} no more patients than the cap of {result.cap}: in use "
            "the model rests on all of them; here on one fewer, so that one is left to ask about."
        )
    if result.only_offered:
        notes.append(
            f"{len(result.only_offered)} offered diseases were seen in training or choosing: they are possible "
            "answers, and nobody with them is asked about."
        )
    if result.untested:
        notes.append(
            f"{wording.diseases(len(result.untested))} a single patient: offered as answers, never asked about."
        )
    if result.absent:
        notes.append(
            f"{len(result.absent)} offered diseases have no labelled study here and were not offered."
        )
    return {
        "text": f"Patients are asked about with all {ways} offered diseases as possible answers, which "
        f"rest on {amount} confirmed cases each (at most {result.cap}). Which patients are confirmed "
        f"cases is drawn {result.repeats} times; everybody else is asked about. Diseases are weighed "
        f"{weighed} beforehand.",
        "columns": [
            *("named first, %" if k == 1 else f"among the first {k}, %" for k, _, _ in depths),
            "AUROC",
            "Calibration error, %",
        ],
        "rows": rows,
        "guessing": [*(percent(k / ways) for k, _, _ in depths), "0.500", ""],
        "notes": notes,
    }


def _holdout(result: HoldoutResult) -> dict[str, Any]:
    text = (
        f"{result.studies} studies of {result.patients} patients with {result.diseases} known diseases "
        "went through the whole pipeline as if their diagnosis were unknown; here the predictions meet "
        "the truth. Every disease weighs the same."
    )
    if not result.studies:
        return {"text": "No hidden case could be scored.", "facts": []}
    facts = [
        ("True disease first", f"{percent(result.top1)} % ({interval(result.top1_ci95)})"),
        ("Among the first three", f"{percent(result.top3)} % ({interval(result.top3_ci95)})"),
        ("Probability of the truth", f"{percent(result.truth)} % on average ({interval(result.truth_ci95)})"),
        ("Guessing", f"{percent(result.chance)} %"),
        (
            "Not scored",
            f"{result.not_offered} of a disease not offered, {result.not_predicted} without a prediction",
        ),
    ]
    return {"text": text, "facts": facts}


def _disease_columns(report: ReportInput) -> list[str]:
    return [f"{wording.shots(result.shots)}, %" for result in report.episodic]


def _disease_rows(report: ReportInput) -> list[dict[str, Any]]:
    tables = [{row.code: row for row in comparison.per_disease} for _, comparison, _ in _protocols(report)]
    main = tables[len(report.episodic) - 1]
    codes = sorted(set().union(*tables), key=lambda code: (main[code].recall if code in main else 2.0, code))
    chance = report.episodic[-1].chance
    return [_disease_row(code, tables, main.get(code), len(report.episodic), chance) for code in codes]


def _disease_row(
    code: str, tables: list[dict[str, DiseaseRow]], main: DiseaseRow | None, episodic: int, chance: float
) -> dict[str, Any]:
    patients = max(table[code].patients for table in tables if code in table)
    return {
        "code": code,
        "patients": patients,
        "recalls": [percent(table[code].recall, 0) if code in table else "–" for table in tables[:episodic]],
        "deployed": [percent(table[code].recall, 0) if code in table else "–" for table in tables[episodic:]],
        "recall": main.recall if main else 0.0,
        "ends": main.ci95 if main else None,
        "range": interval(main.ci95, 0) if main else "–",
        "auroc": decimal(main.auroc) if main else "–",
        "chance": chance,
    }


def _left_out(result: EpisodicResult, report: ReportInput) -> str:
    listed = [f"{report.names.get(code, code)} ({count})" for code, count in sorted(result.left_out.items())]
    return ", ".join(listed[:30]) + (f" and {len(listed) - 30} more" if len(listed) > 30 else "")


def _data(data: DataSummary) -> dict[str, Any]:
    numbers = {name: f"{getattr(data, name):,}" for name in ("found", "accepted", "duplicates", "not_dicom")}
    tables = []
    if data.rejected:
        tables.append(("Files rejected, and why", data.rejected))
    if data.left_out:
        tables.append(("Studies that take no part, and why", data.left_out))
    return {
        **numbers,
        "rejected_total": f"{sum(row.count for row in data.rejected):,}",
        "studies": f"{data.studies:,}",
        "patients": f"{data.patients:,}",
        "without": f"{data.without_diagnosis:,}",
        "groups": f"{data.near_duplicate_groups:,}",
        "group_text": f"{data.near_duplicate_patients:,} patients share near-identical pictures with "
        "another; each group counts as one patient."
        if data.near_duplicate_groups
        else "No two patients share near-identical pictures.",
        "roles": [
            {
                "name": _ROLES.get(role.role, role.role),
                "diseases": f"{role.diseases:,}",
                "patients": f"{role.patients:,}",
                "studies": f"{role.studies:,}",
            }
            for role in data.roles
        ],
        "tables": tables,
    }


def _picture(png: bytes | None) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else ""
