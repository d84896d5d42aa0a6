"""The review pages as a web application."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from meta_dx.errors import MetaDxError
from meta_dx.faults import told
from meta_dx.review.desk import Desk
from meta_dx.review.openid import OpenIdProvider
from meta_dx.review.rendering import STATIC, Pages, page
from meta_dx.review.routes import (
    account,
    case,
    lead,
    lengths,
    openid,
    saliency,
    store,
    teach,
    worklist,
)
from meta_dx.review.security import NewPasswordNeededError, SignInNeededError, careful, with_headers

log = logging.getLogger("meta_dx")

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_STATUS = {
    "unknown_case": 404,
    "unknown_frame": 404,
    "unknown_account": 404,
    "not_allowed": 403,
    "already_read": 409,
    "no_longer_blind": 409,
    "no_longer_open": 409,
    "decide_first": 409,
    "not_read_yet": 409,
    "already_adjudicated": 409,
    "not_disputed": 409,
    "queue_not_opened": 409,
    "not_opened": 409,
    "draft_outdated": 409,
    "not_decided": 409,
    "decision_changed": 409,
    "being_stored": 409,
    "map_in_making": 429,
}

_SENTENCES = {
    404: "There is no such page.",
    405: "This address does not take that kind of request.",
    413: "That is more than any page here sends: nothing was kept.",
}
_LARGEST_BODY = 1 << 20  # bytes; the largest that a page sends is a case's lengths, well below


def create_app(desk: Desk, hosts: Iterable[str] = LOOPBACK) -> FastAPI:
    """Make the application of one home.

    Parameters
    ----------
    desk : Desk
        What it works with.
    hosts : iterable of str
        Names under which browsers may ask for it.

    Returns
    -------
    fastapi.FastAPI
    """
    app = FastAPI(
        title="meta_dx review", docs_url=None, redoc_url=None, openapi_url=None, form_limits={"max_files": 0}
    )
    app.state.desk, app.state.hosts = desk, frozenset(name.lower() for name in hosts)
    app.state.pages, app.state.openid, app.state.looked = Pages(), None, saliency.Looked()
    # Before the headers are added, so that its answers get them too.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=_LARGEST_BODY)
    app.middleware("http")(with_headers)
    for part in (
        account,
        worklist,
        case,
        lengths,
        saliency,
        store,
        teach,
        lead,
    ):
        app.include_router(part.router)
    if desk.options.openid.issuer:
        app.state.openid = OpenIdProvider(desk.options.openid)
        app.include_router(openid.router)
    if STATIC.is_dir():
        app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _answer_faults(app)
    return app


def without_quotes(app: FastAPI, root: Path) -> ASGIApp:
    """Keep what libraries say in a fault of ours out of the server's log, where it may name a patient.

    Parameters
    ----------
    app : FastAPI
        From :func:`create_app`; it has answered before a fault comes here.
    root : Path
        The home, whose owner's folder gets what was said (:func:`meta_dx.faults.told`).
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as fault:
            if scope["type"] != "http":
                raise
            log.error("meta-dx: %s", told(fault, root))

    return served


def _answer_faults(app: FastAPI) -> None:
    @app.exception_handler(SignInNeededError)
    def _sign_in(request: Request, _: Exception) -> Response:
        if request.headers.get("hx-request"):
            return Response(status_code=401, headers={"HX-Redirect": "/sign-in"})
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/sign-in", 303)
        return Response("Sign in first.", 401)

    @app.exception_handler(NewPasswordNeededError)
    def _new_password(request: Request, _: Exception) -> Response:
        return RedirectResponse("/password", 303)

    @app.exception_handler(MetaDxError)
    def _fault(request: Request, fault: MetaDxError) -> Response:
        return _told(request, _STATUS.get(fault.code, 400), str(fault))

    @app.exception_handler(RequestValidationError)
    def _values(request: Request, fault: RequestValidationError) -> Response:
        fields = ", ".join(dict.fromkeys(str(one["loc"][-1]).replace("_", " ") for one in fault.errors()))
        return _told(
            request, 422, f"What was given cannot be used: {fields[:200]} is missing, too long or no number."
        )

    @app.exception_handler(StarletteHTTPException)
    def _http(request: Request, fault: HTTPException) -> Response:
        own = str(fault.detail) != HTTPStatus(fault.status_code).phrase
        sentence = str(fault.detail) if own else _SENTENCES.get(fault.status_code, str(fault.detail))
        return _told(request, fault.status_code, sentence)

    @app.exception_handler(Exception)
    def _unforeseen(request: Request, _: Exception) -> Response:
        answer = _told(
            request, 500, "Something went wrong on the server; nothing that was kept before is lost."
        )
        return careful(answer)  # Starlette answers outside of every middleware


def _told(request: Request, status: int, sentence: str) -> Response:
    if "text/html" in request.headers.get("accept", "") or request.headers.get("hx-request"):
        return page(request, "fault", None, status, sentence=sentence, number=status)
    return Response(sentence, status, media_type="text/plain; charset=utf-8")
