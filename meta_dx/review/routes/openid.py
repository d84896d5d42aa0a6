"""Signing in through the provider of ``[review.openid]``: there, and back."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Accounts, SignIn
from meta_dx.review.openid import OpenIdProvider, Vouched
from meta_dx.review.openid_attempts import MINUTES
from meta_dx.review.openid_options import OpenIdOptions
from meta_dx.review.rendering import page
from meta_dx.review.routes.account import first_page, own_page, sign_in_page
from meta_dx.review.security import desk_of, keep_session, refuse_other_origins

router = APIRouter()
BACK = "/sign-in/openid/back"
_COOKIE = "meta_dx_openid"
_BY = "openid"


@router.get("/sign-in/openid")
def leave(request: Request, target: Annotated[str, Query(alias="next", max_length=500)] = "") -> Response:
    """Send the browser to the provider."""
    refuse_other_origins(request)
    attempt = _provider(request).attempts.begin()
    try:
        address = _provider(request).address(attempt, _redirect(request))
    except MetaDxError as fault:
        return sign_in_page(request, str(fault), 502, target)
    response = RedirectResponse(address, 303)
    # Lax: the way back begins on another site, where a strict cookie would stay behind.
    response.set_cookie(
        _COOKIE,
        f"{attempt.secret}.{quote(target, safe='')}",
        max_age=60 * MINUTES,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path=BACK,
    )
    return response


@router.get(BACK)
def come_back(request: Request) -> Response:
    """Check what the provider says, and open a session."""
    desk = desk_of(request)
    secret, _, target = request.cookies.get(_COOKIE, "").partition(".")
    target, provider = own_page(unquote(target)), _provider(request)
    attempt = provider.attempts.known(secret)
    try:
        if attempt is None:
            raise MetaDxError(
                "openid_refused",
                f"This sign-in is older than {MINUTES} minutes, or was begun elsewhere: begin again.",
            )
        vouched = provider.vouched(attempt, request.query_params, _redirect(request))
        opened = _admitted(desk.accounts, vouched, desk.options.openid)
    except MetaDxError as fault:
        if attempt is not None and provider.attempts.fails(attempt):  # nobody fills the trail from outside
            desk.accounts.failed(_BY, fault.code)
        response: Response = sign_in_page(request, str(fault), 403, target)
        response.delete_cookie(_COOKIE, path=BACK)
        return response
    # Not a redirect: a browser would leave the strict cookie of the session out, since the way began on another site.
    response = page(request, "signed_in", None, target=target or first_page(opened))
    response.delete_cookie(_COOKIE, path=BACK)
    keep_session(response, request, opened.token)
    return response


def _admitted(accounts: Accounts, vouched: Vouched, options: OpenIdOptions) -> SignIn:
    """Open a session for whom the provider vouches, in the role that it gives, if it gives any."""
    known = accounts.of_subject(vouched.subject)
    if known is None and options.create_accounts and vouched.role is not None:
        try:
            known, _ = accounts.add(vouched.name, vouched.role, subject=vouched.subject, by=_BY)
        except MetaDxError as fault:
            if fault.code not in ("bad_account", "account_exists"):
                raise
            raise MetaDxError(
                "openid_no_account",
                "You are known, but an account of your name cannot be made: it exists already and is not yours, or is "
                "no name here. Ask an administrator for an account.",
            ) from None
    if known is None:
        raise MetaDxError(
            "openid_no_account",
            f"You are known as '{vouched.subject.name}', but no account here belongs to you: ask an administrator for "
            "one with this subject.",
        )
    if known.enabled and vouched.role is not None and vouched.role != known.role:
        accounts.change(known.name, role=vouched.role, by=_BY)
    return accounts.sign_in_as(vouched.subject)


def _provider(request: Request) -> OpenIdProvider:
    provider: OpenIdProvider = request.app.state.openid
    return provider


def _redirect(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers['host']}{BACK}"
