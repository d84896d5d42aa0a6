"""``meta-dx support``: which confirmed cases predictions rest on; every change is one new version, without training."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meta_dx.cli.common import HomeOption, JsonOption, existing_home
from meta_dx.cli.output import emit_json, say, table
from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    from meta_dx.records.support import SupportSetVersion
    from meta_dx.steps.support_sets import SupportDesk

app = typer.Typer(
    help="Confirmed cases that predictions rest on: versioned, no training needed.", no_args_is_help=True
)

Study = Annotated[list[str], typer.Option("--study", help="StudyInstanceUID; repeat for several.")]
Author = Annotated[str | None, typer.Option(help="Who answers for the change; the login name if absent.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the version.")]


@app.command("list")
def versions(home: HomeOption = None, json: JsonOption = False) -> None:
    """List all versions of the support set."""
    found = _desk(home).sets.versions()
    if json:
        emit_json([vars(version) for version in found])
        return
    rows = [[v.version, v.created_at[:19], v.author, v.disease_count, v.case_count, v.reason] for v in found]
    table(["version", "created", "by", "diseases", "cases", "reason"], rows)


@app.command()
def show(
    version: Annotated[int | None, typer.Argument(help="Version; the current one if absent.")] = None,
    code: Annotated[str | None, typer.Option(help="Only this disease.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the cases of one version."""
    desk = _desk(home)
    shown = desk.version(version)
    cases = [case for case in shown.cases if code in (None, case.code)]
    if code is not None and not cases:
        raise MetaDxError(
            "unknown_disease", f"Version {shown.version} of the support set holds no disease '{code}'."
        )
    originals = desk.original_studies([case.study for case in cases])
    if json:
        emit_json(_as_json(desk, shown, cases, originals))
        return
    say(f"support set version {shown.version}, {shown.created_at[:19]}, by {shown.author}: {shown.reason}")
    rows = [[c.code, c.meaning, originals[c.study], c.confirmed_by, desk.true_day(c), c.basis] for c in cases]
    table(["code", "meaning", "study", "confirmed by", "on", "basis"], rows)


@app.command()
def add(
    code: Annotated[str, typer.Option(help="Disease code.")],
    study: Study,
    scheme: Annotated[str, typer.Option(help="Coding scheme of the code.")] = "",
    meaning: Annotated[str, typer.Option(help="Name of the disease; needed once for a new one.")] = "",
    confirmed_by: Annotated[str | None, typer.Option(help="Who confirmed it.")] = None,
    confirmed_on: Annotated[str | None, typer.Option(help="When, as YYYY-MM-DD.")] = None,
    basis: Annotated[str | None, typer.Option(help="histology, follow-up, report or reader.")] = None,
    author: Author = None,
    reason: Reason = "confirmed cases added",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Add confirmed cases to a disease, or a new disease: one transaction, no training, no export."""
    made = _desk(home).add(
        study,
        code=code,
        scheme=scheme,
        meaning=meaning,
        confirmed_by=confirmed_by,
        confirmed_on=confirmed_on,
        basis=basis,
        author=author or getpass.getuser(),
        reason=reason,
    )
    _done(made, json)


@app.command()
def remove(
    code: Annotated[str | None, typer.Option(help="Remove this disease with all its cases.")] = None,
    study: Annotated[str | None, typer.Option(help="Remove this one study (StudyInstanceUID).")] = None,
    author: Author = None,
    reason: Reason = "removed",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Remove a disease or one study; older versions keep it."""
    if code is None and study is None:
        raise MetaDxError(
            "nothing_named", "Nothing to remove: name a disease with --code or a study with --study."
        )
    _done(_desk(home).remove(code=code, study=study, author=author or getpass.getuser(), reason=reason), json)


@app.command()
def correct(
    study: Study,
    code: Annotated[str, typer.Option(help="The right disease code.")],
    scheme: Annotated[str | None, typer.Option(help="Its coding scheme.")] = None,
    meaning: Annotated[str | None, typer.Option(help="Its name; needed when the disease is new.")] = None,
    author: Author = None,
    reason: Reason = "diagnosis corrected",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Give studies another disease."""
    particulars = {"code": code, "scheme": scheme, "meaning": meaning}
    _done(_desk(home).correct(study, author=author or getpass.getuser(), reason=reason, **particulars), json)


def _desk(home: Path | None) -> SupportDesk:
    from meta_dx.home import Home
    from meta_dx.steps.support_sets import SupportDesk

    return SupportDesk.open(Home.open(existing_home(home)))


def _done(made: SupportSetVersion, json: bool) -> None:
    if json:
        emit_json({"version": made.version, "diseases": len(made.diseases), "cases": len(made.cases)})
    else:
        say(f"support set version {made.version}: {len(made.diseases)} diseases, {len(made.cases)} cases")


def _as_json(
    desk: SupportDesk, version: SupportSetVersion, cases: Sequence[Any], originals: dict[str, str]
) -> dict[str, Any]:
    fields = ("code", "scheme", "meaning", "confirmed_by", "basis", "origin")
    return {
        "version": version.version,
        "created_at": version.created_at,
        "author": version.author,
        "reason": version.reason,
        "cases": [
            {
                "study_instance_uid": originals[case.study],
                "confirmed_on": desk.true_day(case),
                **{name: getattr(case, name) for name in fields},
            }
            for case in cases
        ],
    }
