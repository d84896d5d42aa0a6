"""Teaching: reviewed cases become confirmed ones, after a look at what that would change."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import SignIn
from meta_dx.records.audit import AuditLine, Write
from meta_dx.records.support import SupportSets
from meta_dx.review.desk import Desk
from meta_dx.review.forms import diagnosis_of, label
from meta_dx.review.rendering import page
from meta_dx.review.security import desk_of, from_our_pages, having
from meta_dx.review.teaching import BASES, Lesson, Preview
from meta_dx.review.wording import named, short

router = APIRouter()
Teaching = Annotated[SignIn, Depends(having("teach"))]
_MOST = 200


@router.get("/teach")
def teach_page(request: Request, session: Teaching) -> HTMLResponse:
    """List the cases that are done, to choose from; that they were seen is written down."""
    desk_of(request).trail.add(AuditLine(session.account.name, "view_teach"))
    return _show(request, session)


@router.post("/teach", dependencies=[Depends(from_our_pages)])
def teach(
    request: Request,
    session: Teaching,
    disease: Annotated[str, Form(max_length=300)] = "",
    new_scheme: Annotated[str, Form(max_length=16)] = "",
    new_meaning: Annotated[str, Form(max_length=200)] = "",
    basis: Annotated[str, Form(max_length=40)] = "",
    study: Annotated[list[str] | None, Form()] = None,
    search: Annotated[str, Form(max_length=100)] = "",
    searched: Annotated[str, Form(max_length=100)] = "",
    previewed: Annotated[str, Form(max_length=64)] = "",
    action: Annotated[str, Form()] = "preview",
) -> Response:
    """Look for cases, show what a lesson would change, or teach it; nothing is taught that was not shown before."""
    desk, chosen = desk_of(request), (study or [])[:_MOST]
    typed = {"disease": disease, "new_scheme": new_scheme, "new_meaning": new_meaning, "basis": basis}
    if action == "search" or (action == "enter" and search != searched):
        return _show(request, session, chosen, typed, search)
    message = ""
    try:
        # Whoever spells a disease out may be mending how a reader has spelt it.
        known = desk.diseases() if new_meaning.strip() else desk.decided_diseases()
        found = diagnosis_of(disease, known, new_scheme, new_meaning)
        if found is None:
            raise MetaDxError("unknown_disease", "Say which disease the cases show.")
        lesson = desk.lesson(found, chosen, basis)
        live = _live(desk)  # before the preview is made: meanwhile others may teach
        if action == "teach" and previewed == _mark(live, lesson):
            try:
                return _show(request, session, told=_taught(desk, desk.teach(session.account, lesson, live)))
            except MetaDxError as fault:
                if fault.code != "support_changed":
                    raise
                live = _live(desk)
        if action == "teach":
            message = "This is not what was shown: here is what it would change now."
        # Which answers would change tells what they are: not where they may not be shown.
        reviewed = sorted(desk.cases.decided()) if desk.mode == "on" else []
        desk.trail.write(lambda _, write: _view(write, session.account.name, lesson))
        preview = desk.teacher.preview(lesson, reviewed)
    except MetaDxError as fault:
        return _show(request, session, chosen, typed, search, message=str(fault), status=400)
    status = 409 if message else 200
    shown = (lesson, preview, _mark(live, lesson))
    return _show(request, session, chosen, typed, search, preview=shown, message=message, status=status)


def _view(write: Write, name: str, lesson: Lesson) -> None:
    for case in lesson.cases:
        write(AuditLine(name, "preview_lesson", case.study, details={"code": lesson.disease.code}))


def _live(desk: Desk) -> int:
    current = SupportSets(desk.records).current()
    return current.version if current else 0


def _taught(desk: Desk, version: int) -> str:
    off = desk.mode == "off"
    told = "the model is off, and open cases wait" if off else "open cases are answered with it"
    return f"Support set {version} is live: {told}."


def _mark(live: int, lesson: Lesson) -> str:
    """Return what tells a lesson, and the support set that it comes to, from every other."""
    told = (live, lesson.disease, sorted((case.study, case.basis) for case in lesson.cases))
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _show(
    request: Request,
    session: SignIn,
    chosen: list[str] | None = None,
    typed: dict[str, str] | None = None,
    search: str = "",
    *,
    preview: tuple[Lesson, Preview, str] | None = None,
    message: str = "",
    told: str = "",
    status: int = 200,
) -> HTMLResponse:
    desk = desk_of(request)
    diseases = desk.decided_diseases()
    names = named(diseases)
    live = SupportSets(desk.records).current()
    taught = {case.study: case.code for case in live.cases} if live else {}
    rows = [
        {
            "study": study,
            "number": short(study),
            "outcome": names.get(outcome, outcome.replace("_", " ")),
            "confirmed": names.get(taught.get(study, ""), taught.get(study, "")),
            "other": study in taught and taught[study] != outcome,
        }
        for study, outcome in desk.cases.decided().items()
    ]
    picked, part = set(chosen or ()), search.strip().lower()
    rows = [row for row in rows if row["study"] in picked or _holds(row, part)]
    # What is chosen stays in view; then comes what is left to teach: of many, the list shows a part.
    rows.sort(
        key=lambda row: (
            row["study"] not in picked,
            bool(row["confirmed"]) and not row["other"],
            row["outcome"],
            row["study"],
        )
    )
    return page(
        request,
        "teach",
        session,
        status,
        rows=rows[:_MOST],
        total=len(rows),
        chosen=picked,
        search=search,
        typed=typed or {"disease": "", "new_scheme": "", "new_meaning": "", "basis": ""},
        bases=BASES,
        diseases=[label(disease) for disease in diseases],
        preview=None if preview is None else _told(*preview[:2], names, desk.cases.decided()),
        mark="" if preview is None else preview[2],
        message=message,
        told=told,
    )


def _holds(row: dict[str, Any], part: str) -> bool:
    return any(part in str(row[name]).lower() for name in ("number", "study", "outcome", "confirmed"))


def _told(lesson: Lesson, preview: Preview, names: dict[str, str], decided: dict[str, str]) -> dict[str, Any]:
    known = {**names, lesson.disease.code: lesson.disease.meaning or lesson.disease.code}

    def name(code: str) -> str:
        return known.get(code, code)

    return {
        "disease": label(lesson.disease),
        "cases": [
            (
                short(case.study),
                case.basis,
                name(said).replace("_", " ") if said != lesson.disease.code else "",
            )
            for case in lesson.cases
            for said in [decided[case.study]]
        ],
        "before": preview.cases_before,
        "after": preview.cases_after,
        "used": preview.used,
        "accuracy_before": preview.accuracy_before,
        "accuracy_after": preview.accuracy_after,
        "suspects": [(short(s.study), name(s.called), s.probability) for s in preview.suspects],
        "near_duplicates": [(short(one), short(other)) for one, other in preview.near_duplicates],
        "changes": [(short(c.study), name(c.before), name(c.after)) for c in preview.changes],
    }
