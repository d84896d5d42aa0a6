"""What moved the model's number, on request and only after the reveal; off unless ``[review] saliency`` says so."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse

from meta_dx.errors import MetaDxError
from meta_dx.inference.saliency import SaliencyMap
from meta_dx.records.accounts import SignIn
from meta_dx.records.audit import AuditLine
from meta_dx.review.desk import Answer, Desk
from meta_dx.review.insight import CaseSaliency, Insight
from meta_dx.review.rendering import page
from meta_dx.review.routes.case import in_view, own_diseases
from meta_dx.review.security import desk_of, having
from meta_dx.review.wording import bars, case_words, named

router = APIRouter()
Reader = Annotated[SignIn, Depends(having("read"))]
Code = Annotated[str, Query(max_length=64)]
Place = Annotated[int, Query(ge=0, le=100_000)]

_SIDE = 256  # pixels of the picture that is shown
_LOWERS, _RAISES = (
    (255, 140, 0),
    (60, 140, 255),
)  # colours of what lowers and raises the probability when hidden
_OPACITY = 0.7
_REMEMBERED = 10_000  # looks
_NO_MAP = "There is no such map."


@router.get("/cases/{study}/saliency")
def saliency(
    request: Request, session: Reader, study: str, disease: Code, image: Place = 0, slice: Place | None = None
) -> HTMLResponse:
    """Show which part of a picture moved the probability of a disease."""
    desk = desk_of(request)
    _, answer = _allowed(desk, session, study, disease)
    own = own_diseases(desk, session.account, study)
    made, message, status = None, "", 200
    try:
        made = _map(request, session, study, disease, image)
    except MetaDxError as fault:
        message, status = str(fault), 429 if fault.code == "map_in_making" else 200
    return page(
        request,
        "saliency",
        session,
        status,
        case=case_words(desk.cases.get(study)),
        choices=bars(answer, named(desk.diseases(own)), {one.code for one in own}),
        disease=disease,
        image=image,
        message=message,
        saliency=None if made is None else _words(made, slice),
    )


@router.get("/cases/{study}/saliency.png")
def saliency_picture(
    request: Request, session: Reader, study: str, disease: Code, image: Place = 0, slice: Place = 0
) -> Response:
    """Answer with the picture as the network sees it, and the map over it."""
    found = _map(request, session, study, disease, image).found
    if found.fall.ndim == 3 and slice >= len(found.fall):
        raise HTTPException(404, _NO_MAP)
    return Response(_drawn(found, slice), media_type="image/png")


def _allowed(desk: Desk, session: SignIn, study: str, disease: str) -> tuple[Insight, Answer]:
    # One answer to whoever may not see it, so that none tells what the model has said before the reveal.
    answer = in_view(desk, session.account, study)
    if not desk.options.saliency or desk.insight is None or answer is None:
        raise HTTPException(404, _NO_MAP)
    own = {one.code for one in own_diseases(desk, session.account, study)}
    if disease not in {bar.code for bar in bars(answer, {}, own)}:
        raise HTTPException(404, _NO_MAP)
    return desk.insight, answer


class Looked:
    """Remembers which maps a session has seen: each is one line of the audit trail, with all its slices."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def before(self, *look: object) -> bool:
        """Return whether it has been seen; one that is forgotten for others is written down again."""
        return look in self._seen

    def keep(self, *look: object) -> None:
        """Remember it."""
        self._seen[look] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _map(request: Request, session: SignIn, study: str, disease: str, image: int) -> CaseSaliency:
    """Return a map, whichever address asks for it; nothing of it is served before it is written down."""
    desk = desk_of(request)
    insight, answer = _allowed(desk, session, study, disease)
    shown = answer.shown
    made = insight.saliency(study, shown, disease, image)
    looked: Looked = request.app.state.looked
    look = session.csrf, study, shown, disease, image
    if not looked.before(*look):
        details = {"code": disease, "image": image}
        desk.trail.add(
            AuditLine(
                session.account.name, "view_saliency", study, shown.bundle, shown.support_version, details
            )
        )
        looked.keep(*look)
    return made


def _words(made: CaseSaliency, chosen: int | None) -> dict[str, Any]:
    fall = made.found.fall
    slices = len(fall) if fall.ndim == 3 else 1
    return {
        "pictures": made.pictures,
        "slices": slices,
        "slice": min(slices // 2 if chosen is None else chosen, slices - 1),
        "lowers": max(100 * float(fall.max()), 0.0),
        "raises": max(-100 * float(fall.min()), 0.0),
        "probability": 100 * made.found.probability,
    }


def _drawn(found: SaliencyMap, at: int) -> bytes:
    from PIL import Image

    picture: npt.NDArray[Any] = found.picture if found.fall.ndim == 2 else found.picture[:, at]  # (C, H, W)
    fall = found.fall if found.fall.ndim == 2 else found.fall[at]
    grey = np.moveaxis(np.repeat(picture, 3, 0) if len(picture) == 1 else picture[:3], 0, -1)
    strength = np.abs(fall) / max(float(np.abs(found.fall).max()), 1e-9)
    colour = np.where((fall > 0)[..., None], _LOWERS, _RAISES)
    opacity = _OPACITY * strength[..., None]
    height, width = fall.shape
    size = (round(_SIDE * width / max(height, width)), round(_SIDE * height / max(height, width)))
    base = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    layer = np.concatenate([colour, 255 * opacity], axis=-1).astype(np.uint8)
    over = Image.fromarray(layer, "RGBA").resize(size, Image.Resampling.BILINEAR)
    held = io.BytesIO()
    Image.alpha_composite(base.convert("RGBA"), over).convert("RGB").save(held, "PNG")
    return held.getvalue()
