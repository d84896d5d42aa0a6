"""Who is asking, may they, and does the question come from our own pages."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Form, Header, HTTPException, Request, Response

from meta_dx.records.accounts import Right, SignIn
from meta_dx.review.desk import Desk

COOKIE, FORM_COOKIE = "meta_dx_session", "meta_dx_form"
LEFT = "X-Session-Expires-In"  # seconds, on every answer to a request that has kept its session open
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "Cache-Control": "no-store",
}


class SignInNeededError(Exception):
    """Nobody is signed in; pages send the reader to the form, everything else is answered with 401."""


class NewPasswordNeededError(Exception):
    """The account still has the password that somebody else gave it."""


def desk_of(request: Request) -> Desk:
    """Return the desk that the application works at."""
    desk: Desk = request.app.state.desk
    return desk


def signed_in(request: Request) -> SignIn:
    """Return the session of a request, which keeps it open; the answer will say for how long.

    Raises
    ------
    SignInNeededError
        There is none, or it has ended.
    """
    token = request.cookies.get(COOKIE, "")
    found = desk_of(request).accounts.session(token) if token else None
    if found is None:
        raise SignInNeededError
    request.state.seconds_left = found.seconds_left
    return found


def seconds_left(request: Request) -> int:
    """Return how long the session of a request stays open if nobody uses it; asking does not keep it open.

    Raises
    ------
    SignInNeededError
        There is none, or it has ended.
    """
    found = desk_of(request).accounts.session(request.cookies.get(COOKIE, ""), used=False)
    if found is None:
        raise SignInNeededError
    return found.seconds_left


def having(*rights: Right) -> Callable[[SignIn], SignIn]:
    """Make a dependency that lets nobody through without one of these rights."""

    def check(session: Annotated[SignIn, Depends(signed_in)]) -> SignIn:
        if session.account.must_change:
            raise NewPasswordNeededError
        if not any(session.account.may(right) for right in rights):
            raise HTTPException(403, "Your role does not allow this.")
        return session

    return check


def from_our_pages(
    request: Request,
    session: Annotated[SignIn, Depends(signed_in)],
    csrf: Annotated[str, Form()] = "",
    x_csrf_token: Annotated[str, Header()] = "",
) -> None:
    """Refuse what changes something and does not come from a page of this session."""
    refuse_other_origins(request)
    if not hmac.compare_digest((x_csrf_token or csrf).encode(), session.csrf.encode()):
        raise HTTPException(403, "This form is out of date: load the page again.")


def refuse_other_origins(request: Request) -> None:
    """Refuse a request that another site has made."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "The request comes from another site.")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "The request comes from another site.")


def fresh_form(response: Response, request: Request) -> str:
    """Give the sign-in form a number that has to come back with it; return the number."""
    number = secrets.token_urlsafe(16)
    response.set_cookie(
        FORM_COOKIE, number, httponly=True, samesite="strict", secure=_secure(request), path="/"
    )
    return number


def same_form(request: Request, number: str) -> bool:
    """Tell whether a sign-in form comes from this browser."""
    held = request.cookies.get(FORM_COOKIE, "")
    return bool(held) and hmac.compare_digest(held.encode(), number.encode())


def keep_session(response: Response, request: Request, token: str) -> None:
    """Hand the browser its session."""
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=_secure(request), path="/")


def drop_session(response: Response, request: Request) -> None:
    """Take the session from the browser."""
    request.state.seconds_left = None
    response.delete_cookie(COOKIE, path="/")


def careful(response: Response) -> Response:
    """Add the headers that keep browsers careful; return the response."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Add the headers of every answer; refuse other names for this server (DNS rebinding)."""
    host = (urlsplit(f"//{request.headers.get('host', '')}").hostname or "").lower()
    if host not in request.app.state.hosts:
        return careful(Response("This server does not answer to that name.", 421))
    response = careful(await call_next(request))
    left = getattr(request.state, "seconds_left", None)
    if left is not None:
        response.headers[LEFT] = str(left)
    if _secure(request):
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if request.url.path.startswith("/static/") and response.status_code == 200:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def _secure(request: Request) -> bool:
    return request.url.scheme == "https"
