"""The worklist: unread, mine, disputed, done."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from meta_dx.records.accounts import SignIn
from meta_dx.records.worklist import VIEWS, View
from meta_dx.review.rendering import page
from meta_dx.review.security import desk_of, having, signed_in
from meta_dx.review.wording import case_words

PAGE = 50
router = APIRouter()
Reader = Annotated[SignIn, Depends(having("read"))]


@router.get("/")
def start(session: Annotated[SignIn, Depends(signed_in)]) -> Response:
    """Go to where the account's work is."""
    return RedirectResponse("/worklist" if session.account.may("read") else "/accounts", 303)


@router.get("/worklist")
def worklist(
    request: Request,
    session: Reader,
    view: View = "unread",
    search: Annotated[str, Query(max_length=100)] = "",
    modality: Annotated[str, Query(max_length=16)] = "",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> HTMLResponse:
    """Show one page of the list; only its table when HTMX asks."""
    desk = desk_of(request)
    start = (number - 1) * PAGE
    found = desk.worklist.page(
        session.account, view, search=search, modality=modality, start=start, most=PAGE
    )
    name = "worklist_table" if request.headers.get("hx-request") else "worklist"
    return page(
        request,
        name,
        session,
        rows=[case_words(case, reading) for case, reading in found.rows],
        total=found.total,
        counts=found.counts,
        views=VIEWS,
        view=view,
        search=search,
        modality=modality,
        modalities=desk.worklist.modalities(),
        number=number,
        pages=max(1, -(-found.total // PAGE)),
    )


@router.get("/next")
def next_case(request: Request, session: Reader) -> Response:
    """Open the next unread case, sooner one that nobody else is reading just now."""
    desk = desk_of(request)
    found = desk.worklist.next(session.account, desk.options.readers)
    return RedirectResponse(f"/cases/{found}" if found else "/worklist", 303)
