"""For leads and administrators: the model's switch, priorities, and the audit trail."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import SignIn
from meta_dx.records.audit import AuditLine
from meta_dx.records.cases import BANDS
from meta_dx.records.switch import MODES
from meta_dx.review.desk import Desk
from meta_dx.review.drift import Drift
from meta_dx.review.rendering import page
from meta_dx.review.reports import decisions_table
from meta_dx.review.security import desk_of, from_our_pages, having
from meta_dx.review.wording import named

LINES = 200  # of the audit trail on a page
router = APIRouter()
log = logging.getLogger("meta_dx")
Lead = Annotated[SignIn, Depends(having("lead"))]


@router.get("/lead")
def lead(request: Request, session: Lead) -> HTMLResponse:
    """Show the model's switch and how far the cases are; that it was seen is written down."""
    desk = desk_of(request)
    desk.trail.add(AuditLine(session.account.name, "view_lead"))
    counts = desk.worklist.page(session.account, "unread", most=1).counts
    shown = desk.dashboard()
    names = named(desk.decided_diseases())
    found, fault = _drift(desk)
    return page(
        request,
        "lead",
        session,
        mode=desk.mode,
        modes=MODES,
        counts=counts,
        bands=BANDS,
        shown=shown,
        drift=found,
        drift_fault=fault,
        names=names,
    )


def _drift(desk: Desk) -> tuple[Drift | None, str]:
    # A broken model must not take its own switch away.
    try:
        return desk.drift(), ""
    except MetaDxError as fault:
        return None, str(fault)
    except Exception:
        log.exception("what has changed could not be told")
        return None, "Something went wrong on the server; its log says what."


@router.post("/lead/model", dependencies=[Depends(from_our_pages)])
def switch(request: Request, session: Lead, mode: Annotated[str, Form()], later: BackgroundTasks) -> Response:
    """Switch the model on, into shadow, or off; cases that have waited for it are answered after that."""
    desk = desk_of(request)
    desk.switch(session.account, mode)
    later.add_task(desk.catch_up)
    return RedirectResponse("/lead", 303)


@router.post("/lead/queue", dependencies=[Depends(from_our_pages)])
def queue(request: Request, session: Lead, count: Annotated[int, Form()]) -> Response:
    """Put uncertain cases first, mixed with random ones."""
    desk_of(request).queue(session.account, count)
    return RedirectResponse("/lead", 303)


@router.get("/lead/decisions.csv")
def decisions(request: Request, session: Lead) -> Response:
    """Hand out every decision about cases that are done, in every version, under surrogates."""
    desk = desk_of(request)
    desk.trail.add(AuditLine(session.account.name, "export_decisions"))
    headers = {"Content-Disposition": 'attachment; filename="decisions.csv"'}
    return Response(decisions_table(desk), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/audit")
def audit(
    request: Request,
    session: Annotated[SignIn, Depends(having("audit"))],
    check: bool = False,
    study: Annotated[str, Query(max_length=64)] = "",
    account: Annotated[str, Query(max_length=64)] = "",
    action: Annotated[str, Query(max_length=64)] = "",
    before: Annotated[int | None, Query(ge=1, le=(1 << 31) - 1)] = None,
) -> HTMLResponse:
    """Show the newest lines of the audit trail, and whether it is whole.

    Particulars tell verdicts and diseases: whoever reads cases, too, sees those of cases that are done.
    """
    desk = desk_of(request)
    verdict, checked_at = desk.verdict(again=check)
    done = desk.cases.done()
    case = study.replace(" ", "")  # as a page groups its digits
    lines = desk.trail.lines(case, LINES + 1, account=account, action=action, before=before)
    older = lines[LINES - 1].seq if len(lines) > LINES else None
    lines, (accounts, actions) = lines[:LINES], desk.trail.said()
    named = {line.study for line in lines if line.study is not None}
    desk.trail.add(AuditLine(session.account.name, "view_audit"))
    return page(
        request,
        "audit",
        session,
        lines=lines,
        withheld=named - done if session.account.may("read") else set(),
        verdict=verdict,
        checked_at=checked_at,
        asked={"study": study, "account": account, "action": action},
        accounts=accounts,
        actions=actions,
        before=before,
        older=older,
    )
