"""The lead's switch of the model: shown, made and kept from everybody, or not asked at all."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.records.database import Records
from meta_dx.records.schema import ReviewStateRow

ModelMode = Literal["on", "shadow", "off"]
MODES: tuple[ModelMode, ...] = ("on", "shadow", "off")
_NAME = "model"


def model_mode(records: Records) -> ModelMode:
    """Return whether the model's answers are shown (on), made and shown to nobody (shadow), or not made (off)."""
    with records.reading() as session:
        row = session.get(ReviewStateRow, _NAME)
    return row.value if row is not None and row.value in MODES else "on"


def set_model_mode(session: Session, mode: str) -> None:
    """Switch the model within a transaction.

    Raises
    ------
    MetaDxError
        ``bad_mode``.
    """
    if mode not in MODES:
        raise MetaDxError("bad_mode", f"The model is one of {', '.join(MODES)}.")
    session.merge(ReviewStateRow(name=_NAME, value=mode))
