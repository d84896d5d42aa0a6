"""A reader's own lengths on the pictures of a case."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import SignIn
from meta_dx.records.lengths import Length
from meta_dx.review.desk import Desk
from meta_dx.review.images import frame_address
from meta_dx.review.security import desk_of, from_our_pages, having

router = APIRouter()
Reader = Annotated[SignIn, Depends(having("read"))]
_LARGEST = 1 << 17  # characters; all that a case may hold, sent at once, has fewer
_NAME = re.compile(r"[0-9A-Za-z-]{1,64}")
_UNREADABLE = MetaDxError("bad_length", "The lengths cannot be read, and nothing was changed.")


@router.get("/cases/{study}/lengths")
def lengths(request: Request, session: Reader, study: str) -> JSONResponse:
    """Tell a reader's own lengths."""
    desk = desk_of(request)
    desk.cases.get(study)
    held = desk.lengths.of(session.account, study)
    told = [
        {
            "id": name,
            "picture": frame_address(study, one.object, one.frame),
            "from": one.start,
            "to": one.end,
        }
        for name, one in held.items()
    ]
    return JSONResponse({"lengths": told})


@router.post("/cases/{study}/lengths", dependencies=[Depends(from_our_pages)])
def change(request: Request, session: Reader, study: str, changes: Annotated[str, Form()] = "{}") -> Response:
    """Keep what has changed: a JSON object with a length, or null where it was removed, under each one's id."""
    if len(changes) > _LARGEST:
        raise HTTPException(413, "These are too many lengths.")
    desk = desk_of(request)
    desk.cases.get(study)
    desk.lengths.change(session.account, study, _changes(desk, study, changes))
    return Response(status_code=204)


def _changes(desk: Desk, study: str, text: str) -> dict[str, Length | None]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise _UNREADABLE from fault
    if not isinstance(found, dict) or not all(_NAME.fullmatch(name) for name in found):
        raise _UNREADABLE
    return {name: None if one is None else _length(desk, study, one) for name, one in found.items()}


def _length(desk: Desk, study: str, told: Any) -> Length:
    if not isinstance(told, dict) or not isinstance(told.get("picture"), str):
        raise _UNREADABLE
    name, _, number = told["picture"].removeprefix(frame_address(study)).rpartition("/")
    if not re.fullmatch(r"[0-9]{1,6}", number) or not desk.images.holds(study, name, int(number)):
        raise MetaDxError("unknown_frame", "A length lies on a picture that this case does not have.")
    return Length(name, int(number), _point(told.get("from")), _point(told.get("to")))


def _point(told: Any) -> tuple[float, float]:
    if not isinstance(told, list) or len(told) != 2 or not all(type(value) in (int, float) for value in told):
        raise _UNREADABLE
    try:
        return float(told[0]), float(told[1])
    except OverflowError as fault:
        raise _UNREADABLE from fault
