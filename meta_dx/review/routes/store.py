"""Storing the report of a case in the archive, on somebody's click."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from meta_dx.records.accounts import SignIn
from meta_dx.review.security import desk_of, from_our_pages, having
from meta_dx.review.storing import store_report

router = APIRouter()


@router.post("/cases/{study}/store", dependencies=[Depends(from_our_pages)])
def store(
    request: Request,
    session: Annotated[SignIn, Depends(having("store"))],
    study: str,
    decision: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Store it, and go back to the case, which says what became of it."""
    store_report(desk_of(request), session.account, study, decision)
    return RedirectResponse(f"/cases/{study}", 303)
