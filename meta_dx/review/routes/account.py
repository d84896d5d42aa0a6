"""Signing in and out, passwords, and the administrator's list of accounts."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import RIGHTS, SignIn
from meta_dx.records.subjects import Subject
from meta_dx.review.rendering import page
from meta_dx.review.security import (
    COOKIE,
    LEFT,
    desk_of,
    drop_session,
    fresh_form,
    from_our_pages,
    having,
    keep_session,
    refuse_other_origins,
    same_form,
    seconds_left,
    signed_in,
)

router = APIRouter()
#: Nothing that a browser could take for another site.
_OWN_PAGE = re.compile(r"/(?:worklist|cases/[\d.]+|lead|audit|accounts)(?:\?[\w=&.%+-]*)?")
Administrator = Annotated[SignIn, Depends(having("accounts"))]
Session = Annotated[SignIn, Depends(signed_in)]


@router.get("/sign-in")
def sign_in_form(
    request: Request,
    target: Annotated[str, Query(alias="next", max_length=500)] = "",
    left: bool = False,
) -> HTMLResponse:
    """Show the form."""
    return sign_in_page(request, "", target=target, left=left)


@router.post("/sign-in")
def sign_in(
    request: Request,
    form: Annotated[str, Form()],
    name: Annotated[str, Form(max_length=100)],
    password: Annotated[str, Form(max_length=1024)],
    target: Annotated[str, Form(alias="next", max_length=500)] = "",
) -> Response:
    """Open a session, and go where the reader was when the last one ended."""
    refuse_other_origins(request)
    if not same_form(request, form):
        return sign_in_page(request, "The form was out of date: try again.", target=target)
    try:
        opened = desk_of(request).accounts.sign_in(name, password)
    except MetaDxError as fault:
        return sign_in_page(request, str(fault), 403, target)
    wanted = own_page(target) or first_page(opened)
    response = RedirectResponse("/password" if opened.account.must_change else wanted, 303)
    keep_session(response, request, opened.token)
    return response


@router.get("/session")
def remaining(request: Request) -> Response:
    """Tell how long the session stays open; a page that nobody uses may ask, and does not keep it open."""
    return Response(status_code=204, headers={LEFT: str(seconds_left(request))})


@router.post("/session", dependencies=[Depends(from_our_pages)])
def stay() -> Response:
    """Keep the session open: being asked is enough."""
    return Response(status_code=204)


@router.post("/sign-out", dependencies=[Depends(from_our_pages)])
def sign_out(request: Request) -> Response:
    """End the session."""
    desk_of(request).accounts.sign_out(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/sign-in?left=1", 303)
    drop_session(response, request)
    return response


@router.get("/password")
def password_form(request: Request, session: Session) -> HTMLResponse:
    """Show the form for a new password."""
    return page(request, "password", session, message="")


@router.post("/password", dependencies=[Depends(from_our_pages)])
def password(
    request: Request,
    session: Session,
    old: Annotated[str, Form(max_length=1024)],
    new: Annotated[str, Form(max_length=1024)],
    again: Annotated[str, Form(max_length=1024)],
) -> Response:
    """Replace the password; every session of the account ends and a new one begins."""
    accounts, name = desk_of(request).accounts, session.account.name
    try:
        if new != again or new == old:
            raise MetaDxError(
                "bad_password", "Type the same new password twice; it must differ from the old one."
            )
        accounts.sign_out(accounts.sign_in(name, old).token)
        accounts.set_password(name, new, by=name)
    except MetaDxError as fault:
        return page(request, "password", session, 400, message=str(fault))
    opened = accounts.sign_in(name, new)
    response = RedirectResponse(first_page(opened), 303)
    keep_session(response, request, opened.token)
    return response


@router.get("/accounts")
def accounts_page(request: Request, session: Administrator) -> HTMLResponse:
    """List the accounts."""
    return _accounts(request, session)


@router.post("/accounts", dependencies=[Depends(from_our_pages)])
def add_account(
    request: Request,
    session: Administrator,
    name: Annotated[str, Form()],
    role: Annotated[str, Form()],
    subject: Annotated[str, Form(max_length=255)] = "",
) -> HTMLResponse:
    """Make an account and show its first password, once; one with a subject has none."""
    desk, whom = desk_of(request), subject.strip()
    try:
        known = Subject(desk.options.openid.issuer, whom) if whom else None
        account, secret = desk.accounts.add(name, role, subject=known, by=session.account.name)
    except MetaDxError as fault:
        return _accounts(request, session, 400, message=str(fault))
    return _accounts(request, session, told=(account.name, secret))


@router.post("/accounts/{name}", dependencies=[Depends(from_our_pages)])
def change_account(
    request: Request,
    session: Administrator,
    name: str,
    action: Annotated[str, Form()],
    role: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """Give another role, close, open, or set a new password."""
    accounts, by = desk_of(request).accounts, session.account.name
    try:
        if action == "password":
            return _accounts(request, session, told=(name, accounts.set_password(name, by=by)))
        if action == "role":
            accounts.change(name, role=role, by=by)
        elif action in ("close", "open"):
            accounts.change(name, enabled=action == "open", by=by)
        else:
            raise HTTPException(400, "Unknown action.")
    except MetaDxError as fault:
        return _accounts(request, session, 400, message=str(fault))
    return _accounts(request, session)


def _accounts(
    request: Request,
    session: SignIn,
    status: int = 200,
    *,
    message: str = "",
    told: tuple[str, str] | None = None,
) -> HTMLResponse:
    listed = desk_of(request).accounts.all()
    return page(
        request,
        "accounts",
        session,
        status,
        accounts=listed,
        roles=list(RIGHTS),
        message=message,
        told=told,
        openid=desk_of(request).options.openid.label if request.app.state.openid else "",
    )


def sign_in_page(
    request: Request, message: str, status: int = 200, target: str = "", left: bool = False
) -> HTMLResponse:
    """Answer with the form, and with the button of another provider where there is one."""
    holder, openid = Response(), request.app.state.openid
    number = fresh_form(holder, request)
    response = page(
        request,
        "sign_in",
        None,
        status,
        message=message,
        form=number,
        target=own_page(target),
        left=left,
        openid=desk_of(request).options.openid.label if openid else "",
        leaving=openid.leaving() if openid else "",
    )
    response.headers["set-cookie"] = holder.headers["set-cookie"]
    return response


def own_page(target: str) -> str:
    """Return where somebody wants to go, if that is a page of ours; else nothing."""
    return target if _OWN_PAGE.fullmatch(target) else ""


def first_page(session: SignIn) -> str:
    """Return where somebody begins who wanted to go nowhere else."""
    return "/worklist" if session.account.may("read") else "/accounts"
