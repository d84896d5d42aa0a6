"""One case: pictures, the blind first read, the reveal, the decision."""

from __future__ import annotations

import hashlib
import io
import math
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Account, SignIn
from meta_dx.records.audit import AuditLine
from meta_dx.records.case_rows import settles
from meta_dx.records.opinions import REASONS, BlindOpinion, Decision, Diagnosis
from meta_dx.records.predictions import ranked
from meta_dx.records.schema import CaseRow, ReadingRow
from meta_dx.review.desk import Answer, Desk
from meta_dx.review.forms import RANKS, blind_of, brought_back, decision_of, label, verdicts
from meta_dx.review.rendering import page
from meta_dx.review.reports import diagnostic_report, report_of, settled_of
from meta_dx.review.security import desk_of, from_our_pages, having
from meta_dx.review.storing import report_state
from meta_dx.review.wording import bars, case_words, doubt, evidence, named

_LARGEST_FIELD, _MOST_FIELDS = 5000, 30
router = APIRouter(form_limits={"max_fields": _MOST_FIELDS})
Reader = Annotated[SignIn, Depends(having("read"))]
_FIELDS = {
    *(f"rank{n}" for n in range(1, RANKS + 1)),
    *("cannot_tell", "confidence", "text"),
    *("for", "answer", "verdict", "diagnosis", "new_scheme", "new_meaning", "reason"),
}
_THUMBNAIL = 160
_ANSWER_CHANGED = MetaDxError(
    "answer_changed",
    "The model's answer has changed since this page was made, and no decision was kept: read what it says now, and "
    "decide again.",
)
_IN_DISPUTE = MetaDxError(
    "in_dispute",
    "The readers differ about this case by now, and nothing was kept: settle it, without the model.",
)


async def typed(request: Request) -> dict[str, str]:
    """Return what a reader typed, refusing what is too long; a form with too many fields does not come so far."""
    form = await request.form()
    fields = {name: value for name, value in form.items() if name in _FIELDS and isinstance(value, str)}
    if any(len(value) > _LARGEST_FIELD for value in fields.values()):
        raise HTTPException(413, "A field is too long.")
    return fields


Typed = Annotated[dict[str, str], Depends(typed)]
_CHANGES = [Depends(from_our_pages)]


@router.get("/cases/{study}")
def case_page(request: Request, session: Reader, study: str, later: BackgroundTasks) -> HTMLResponse:
    """Show a case as far as this reader has come."""
    shown = _show(request, session, study)
    later.add_task(desk_of(request).images.warm, study)
    return shown


@router.get("/cases/{study}/images")
def images(request: Request, session: Reader, study: str) -> JSONResponse:
    """Describe the series for the viewer."""
    desk = desk_of(request)
    _require_opened(desk, session, study)
    return JSONResponse(desk.images.manifest(study))


@router.get("/cases/{study}/frames/{name}/{number}")
def frame(request: Request, session: Reader, study: str, name: str, number: int) -> Response:
    """Answer with one frame at full depth."""
    desk = desk_of(request)
    _require_opened(desk, session, study)
    found = desk.images.frame(study, name, number)
    return Response(found.tobytes(), media_type="application/octet-stream", headers=found.headers)


@router.get("/cases/{study}/evidence/{image}")
def evidence_picture(request: Request, session: Reader, study: str, image: str, frame: int = 0) -> Response:
    """Answer with a small picture of a confirmed case that carried the answer; only after the reveal."""
    desk = desk_of(request)
    answer = in_view(desk, session.account, study)
    told = (answer.answer.evidence if answer else None) or ()
    if (image, frame) not in {(case.image, case.frame) for case in told}:
        raise HTTPException(404, "There is no such picture.")
    return Response(_thumbnail(desk.images.picture(image, frame).pixels), media_type="image/png")


@router.get("/cases/{study}/report.dcm")
def report(request: Request, session: Annotated[SignIn, Depends(having("export"))], study: str) -> Response:
    """Hand out the structured report of a case that is done; that it was taken is written down."""
    desk = desk_of(request)
    _require_own_decision(desk, session.account, study)
    name, content = report_of(desk, study)
    desk.trail.add(_export_line(desk, session.account, study, "sr"))
    headers = {"Content-Disposition": f'attachment; filename="{name}.dcm"'}
    return Response(content, media_type="application/dicom", headers=headers)


@router.get("/cases/{study}/report.json")
def fhir(request: Request, session: Annotated[SignIn, Depends(having("export"))], study: str) -> Response:
    """Hand out the decision as a FHIR DiagnosticReport; that it was taken is written down."""
    desk = desk_of(request)
    _require_own_decision(desk, session.account, study)
    content = diagnostic_report(desk, study)
    desk.trail.add(_export_line(desk, session.account, study, "fhir"))
    name = content["identifier"][0]["value"].removeprefix("urn:oid:")
    # A browser would show it in the place of the case.
    headers = {"Content-Disposition": f'attachment; filename="{name}.json"'}
    return JSONResponse(content, media_type="application/fhir+json", headers=headers)


@router.post("/cases/{study}/draft", dependencies=_CHANGES)
def draft(request: Request, session: Reader, study: str, form: Typed) -> Response:
    """Keep what was typed so far."""
    desk_of(request).cases.save_draft(session.account, study, form)
    return Response(status_code=204)


@router.post("/cases/{study}/read", dependencies=_CHANGES)
def read(request: Request, session: Reader, study: str, form: Typed) -> Response:
    """Keep the blind opinion and show what the model says."""
    desk = desk_of(request)
    reading = desk.cases.reading(session.account, study)
    if (
        reading is not None and reading.stage != "started"
    ):  # before anything that was typed comes up in a decision
        raise MetaDxError("already_read", "Your blind opinion of this case stands already.")
    try:
        desk.cases.read(session.account, study, blind_of(form, desk.diseases()))
    except MetaDxError as fault:
        if fault.code in ("bad_opinion", "unknown_disease", "opinion_missing"):
            return _refused(request, session, study, form, str(fault), 400)
        raise
    answer = desk.answer(study)
    desk.cases.reveal(session.account, study, answer.shown if answer else None)
    return RedirectResponse(f"/cases/{study}", 303)


@router.post("/cases/{study}/decide", dependencies=_CHANGES)
def decide(request: Request, session: Reader, study: str, form: Typed) -> Response:
    """Keep a decision, or a new version of it."""
    return _decide(request, session, study, form, adjudicating=False)


@router.post("/cases/{study}/adjudicate", dependencies=_CHANGES)
def adjudicate(
    request: Request, session: Annotated[SignIn, Depends(having("adjudicate"))], study: str, form: Typed
) -> Response:
    """Settle a dispute."""
    return _decide(request, session, study, form, adjudicating=True)


@router.post("/cases/{study}/identity", dependencies=_CHANGES)
def identity(
    request: Request, session: Annotated[SignIn, Depends(having("identity"))], study: str
) -> HTMLResponse:
    """Show who the case belongs to; that is written down."""
    found = desk_of(request).identity(session.account, study)
    return page(request, "identity", session, found=found)


def _decide(
    request: Request, session: SignIn, study: str, form: dict[str, str], *, adjudicating: bool
) -> Response:
    desk = desk_of(request)
    # Whoever spells a new disease out again may be mending how it was spelt before.
    spelt_out = form.get("new_meaning", "").strip()
    known = desk.diseases([] if spelt_out else own_diseases(desk, session.account, study))
    case, reading = desk.cases.get(study), desk.cases.reading(session.account, study)
    answer = revealed(desk, session.account, case, reading)
    if reading is not None and reading.stage != "started" and form.get("answer", "") != _mark(answer):
        if not settles(session.account, case, reading):
            return _refused(request, session, study, form, str(_ANSWER_CHANGED), 409)
        # What was typed for the decision may be what they say in settling the dispute.
        carried = {**form, "for": desk.cases.awaited(session.account, study)}
        return _refused(request, session, study, carried, str(_IN_DISPUTE), 409)
    try:
        decision = decision_of(form, known, _top(answer, known))
    except MetaDxError as fault:
        return _refused(request, session, study, form, str(fault), 400)
    if adjudicating:
        desk.cases.adjudicate(session.account, study, decision)
    else:
        desk.cases.decide(session.account, study, decision, answer.shown if answer else None)
    return RedirectResponse(f"/cases/{study}", 303)


def _refused(
    request: Request, session: SignIn, study: str, form: dict[str, str], message: str, status: int
) -> HTMLResponse:
    """Show a case again, with what was typed and why it was not kept."""
    with suppress(MetaDxError):  # what something else is asked for by now is on this page only
        desk_of(request).cases.save_draft(session.account, study, form)
    return _show(request, session, study, message=message, status=status, form=form)


def revealed(desk: Desk, account: Account, case: CaseRow, reading: ReadingRow | None) -> Answer | None:
    """Return the model's answer for a reader whose own opinion stands, else None.

    Whoever settles a dispute does so without it, also after a blind read: what they say is what the model is measured
    against.
    """
    if reading is None or reading.stage == "started" or settles(account, case, reading):
        return None
    return desk.answer(case.study)


def in_view(desk: Desk, account: Account, study: str) -> Answer | None:
    """Return the answer that a page has shown to a reader, for what belongs to it; None where it is another by now."""
    reading = desk.cases.reading(account, study)
    answer = None if reading is None else revealed(desk, account, desk.cases.get(study), reading)
    return answer if answer and reading and reading.run == answer.shown.run else None


def _require_opened(desk: Desk, session: SignIn, study: str) -> None:
    # Only the page of a case writes down that somebody sees it.
    if desk.cases.reading(session.account, study) is None:
        desk.cases.get(study)
        raise MetaDxError("not_opened", "Open the case first.")


def _export_line(desk: Desk, account: Account, study: str, kind: str) -> AuditLine:
    last = settled_of(desk, study)[-1]  # a report is made of the decision that stands
    return AuditLine(account.name, "export_report", study, last.bundle, last.support_version, {"kind": kind})


def _require_own_decision(desk: Desk, account: Account, study: str) -> None:
    """Refuse a report, which tells what the model and others said, to whoever may still have to say something."""
    desk.cases.get(study)
    reading = desk.cases.reading(account, study)
    stage = reading.stage if reading else "started"
    if stage != "decided" and not account.may("adjudicate"):
        raise MetaDxError(
            "decide_first",
            "The report of a case is for those who have decided about it, and for adjudicators and leads.",
        )


def _mark(answer: Answer | None) -> str:
    """Return what tells the answer that a page shows from any other; the same run can be made again."""
    if answer is None:
        return ""
    told = [*vars(answer.shown).items(), *sorted(answer.answer.probabilities.items())]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def own_diseases(desk: Desk, account: Account, study: str) -> list[Diagnosis]:
    """Return the diseases that somebody has named in a case, the newest first; none need be spelt out twice."""
    said = [one.content for one in desk.cases.opinions(study) if one.account == account.name]
    named_in = [one.ranked if isinstance(one, BlindOpinion) else (one.diagnosis,) for one in reversed(said)]
    return [disease for some in named_in for disease in some if disease is not None]


def _top(answer: Answer | None, known: list[Diagnosis]) -> Diagnosis | None:
    if answer is None:
        return None
    code, _ = ranked(answer.answer.probabilities)[0]
    return next((disease for disease in known if disease.code == code), Diagnosis(code))


def _show(
    request: Request,
    session: SignIn,
    study: str,
    *,
    message: str = "",
    status: int = 200,
    form: dict[str, str] | None = None,
) -> HTMLResponse:
    desk = desk_of(request)
    case, reading = desk.cases.get(study), desk.cases.reading(session.account, study)
    own = own_diseases(desk, session.account, study)
    known = desk.diseases(own)
    names = named(known)
    answer = revealed(desk, session.account, case, reading)
    # Before the page is made: no answer is in view that the trail does not name.
    reading = desk.cases.open(session.account, study, answer.shown if answer else None)
    stage = reading.stage
    top = _top(answer, known)
    offered = verdicts(label(top) if top else "")
    awaited = desk.cases.awaited(session.account, study)
    before = form or reading.draft or {}  # a draft of a version before this says not what it is for
    before = before if before.get("for", awaited) == awaited else {}
    draft, notice = brought_back(before, _mark(answer), offered)
    disputed, name = settles(session.account, case, reading), session.account.name
    everybody = case.state == "done" and stage == "decided"
    opinions = desk.cases.opinions(study)
    # Decisions were made beside the model's answer: whoever settles a dispute sees what was said before it.
    blind = [one for one in opinions if disputed and one.kind == "blind"]
    said = [one for one in opinions if everybody or one.account == name or one in blind]
    final = any(one.kind == "adjudication" for one in opinions)
    decisions = [one for one in said if isinstance(one.content, Decision) and not final]
    adjudicated = any(one.kind == "adjudication" and one.account == name for one in opinions)
    shown: dict[str, Any] = {}
    if answer is not None:
        told = bars(answer, names, {disease.code for disease in own})
        shown = {
            "bars": told,
            "others": len(answer.answer.probabilities) - len(told),
            "others_together": max(0.0, 1 - sum(bar.probability for bar in told)),
            "doubt": doubt(answer, names),
            "evidence": evidence(answer, names),
            "epistemic": answer.answer.epistemic,
            "aleatoric": answer.answer.aleatoric,
            "entropy": answer.answer.entropy,
            "most": max(math.log(len(answer.answer.probabilities)), 1e-9),
            "support_patient": answer.answer.support_patient,
            "bundle": answer.shown.bundle[:12],
            "support_version": answer.shown.support_version,
            "saliency": desk.options.saliency and desk.insight is not None,
        }
    return page(
        request,
        "case",
        session,
        status,
        case=case_words(case, reading),
        stage=stage,
        state=case.state,
        disputed=disputed,
        adjudicated=adjudicated,
        known=disputed and desk.cases.known_answer(session.account, study) is not None,
        draft=draft,
        awaited=awaited,
        verdicts=offered,
        notice="" if disputed else notice,
        diseases=[label(disease) for disease in known],
        names=names,
        answer_mark=_mark(answer),
        ranks=range(1, RANKS + 1),
        reasons=REASONS,
        shown=shown,
        mode=desk.mode,
        said=said,
        decisions=decisions,
        archived=report_state(desk, study) if everybody or session.account.may("store") else None,
        message=message,
    )


def _thumbnail(pixels: Any) -> bytes:
    from PIL import Image

    values = np.asarray(pixels, np.float32)
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = ((values - low) * (255 / max(float(high - low), 1e-6))).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels if values.ndim == 3 else scaled)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    held = io.BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()
