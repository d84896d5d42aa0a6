"""The last lines of ``make run``: what came in, what came out, and what to type next."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from meta_dx.evaluation.figures import MethodResult
from meta_dx.inference.bundle import latest_bundle
from meta_dx.records.database import Records
from meta_dx.records.predictions import latest_predictions
from meta_dx.records.switch import model_mode
from meta_dx.steps import Project, cohort_file_of
from meta_dx.steps.cohort import assemble
from meta_dx.steps.evaluation import evaluate_rare
from meta_dx.steps.predictions import OFF
from meta_dx.steps.reporting import data_summary, score_hidden


def summary_lines(project: Project, seconds: float) -> list[str]:
    """Return the summary of a finished run.

    Parameters
    ----------
    project : Project
        Cohort and home.
    seconds : float
        How long the run took.

    Returns
    -------
    list of str
    """
    data = assemble(project)
    counted = data_summary(project, data)
    evaluated = evaluate_rare(project)
    bundle = latest_bundle(project.home)
    roles = {role.role: role.diseases for role in counted.roles}
    rejected = ", ".join(f"{one.name} {one.count}" for one in counted.rejected) or "none"
    lines = [
        "",
        f"Done in {seconds:.0f} s. Research use only.",
        "",
        f"Files      {counted.found} found = {counted.accepted} accepted + {counted.duplicates} duplicates"
        f" + {counted.not_dicom} not DICOM + {sum(one.count for one in counted.rejected)} rejected ({rejected})",
        f"Studies    {counted.studies} of {counted.patients} patients, {counted.without_diagnosis} without a diagnosis",
        f"Diseases   {roles['common']} common (training), {roles['validation']} validation (choosing),"
        f" {roles['rare']} rare (unseen)",
        "",
        "Accuracy on the unseen rare diseases (95 % interval over diseases and patients)",
    ]
    for view in evaluated.episodic:
        lines.append(f"  {view.ways}-way {view.shots}-shot, chance {view.chance:.0%}")
        lines += [
            _method(name, found, view.comparison.serving) for name, found in view.comparison.methods.items()
        ]
    shown = evaluated.deployment
    lines.append(f"  all {len(shown.offered)} at once, as served, chance {shown.chance:.0%}")
    lines += [
        _method(name, found, shown.comparison.serving) for name, found in shown.comparison.methods.items()
    ]
    records = Records.open(project.home)
    runs = latest_predictions(records)
    predicted = sum(len(saved.studies) for saved in runs)
    if model_mode(records) == "off":
        lines += ["", OFF]
    lines += ["", f"Predictions  {predicted} studies, in {project.home.root / 'records.sqlite'}"]
    hidden = score_hidden(project, data)
    if hidden is not None and hidden.studies:
        lines.append(
            f"             of {hidden.studies} with a hidden diagnosis {hidden.top1:.0%} right first"
            f" ({hidden.top1_ci95[0]:.0%} – {hidden.top1_ci95[1]:.0%}), {hidden.top3:.0%} among the first three"
        )
    lines += [
        f"Bundle       {bundle.path}",
        f"Report       {evaluated.folder / 'report.html'}",
        "",
        *_next(project, bundle.path),
    ]
    return lines


def _method(name: str, found: MethodResult, serving: str) -> str:
    low, high = found.ci95
    mark = "  ← served" if name == serving else "  border and header only" if name == "shortcut" else ""
    return f"    {name:<14}{found.accuracy:6.1%}  ({low:.1%} – {high:.1%}){mark}"


def make_line(home: Path) -> str:
    """Return the line that makes a target for this home, with ``{}`` for the target.

    Parameters
    ----------
    home : Path
        Root of the home.
    """
    cohort = cohort_file_of(home)
    demo = cohort is None or cohort.resolve() == Path("examples/demo.toml").resolve()
    # As in the Makefile: the home bears the name of the cohort file unless META_DX_HOME says otherwise.
    usual = Path(".meta_dx") / ("demo" if demo or cohort is None else cohort.stem)
    named = "" if home.resolve() == usual.resolve() else f"META_DX_HOME={shlex.quote(os.path.relpath(home))} "
    file = "" if demo or cohort is None else f" COHORT={shlex.quote(os.path.relpath(cohort))}"
    return f"{named}make {{}}{file}"


def _next(project: Project, bundle: Path) -> list[str]:
    home = os.path.relpath(project.home.root)
    here = f".venv/bin/meta-dx {{}} --home {home}"
    make = make_line(project.home.root)
    commands = [
        (make.format("review"), "the clinician's pages: read cases blind, see the answers, decide, teach"),
        (make.format("dagster"), "lineage, runs and checks in the browser"),
        (here.format("predictions"), "who was predicted what, and on which cases it rests"),
        (here.format("support list"), "the confirmed cases; add a disease without training"),
    ]
    width = max(len(command) for command, _ in commands)
    return [
        "Next",
        *(f"  {command.ljust(width)}  {what}" for command, what in commands),
        f"  .venv/bin/meta-dx predict --bundle {os.path.relpath(bundle)} --support cases.csv --studies FOLDER",
        "  .venv/bin/meta-dx init my-cohort.toml; make run COHORT=my-cohort.toml",
    ]
