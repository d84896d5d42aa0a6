"""The lengths that readers draw on pictures: kept for each reader and case, seen by nobody else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Account
from meta_dx.records.database import Records
from meta_dx.records.schema import ReadingRow

MOST_LENGTHS = 200
"""Lengths of one reader on one case."""
_FARTHEST = 100_000.0  # pixels; the largest pictures that we read are smaller

Point = tuple[float, float]


@dataclass(frozen=True)
class Length:
    """A straight line on one picture.

    Parameters
    ----------
    object : str
        Name of the picture's object in the store.
    frame : int
        Number of its frame, from 0.
    start, end : tuple of float
        Column and row in pixels of that frame; a whole number is the middle of a pixel.

    Raises
    ------
    MetaDxError
        ``bad_length``.
    """

    object: str
    frame: int
    start: Point
    end: Point

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and abs(value) <= _FARTHEST for value in (*self.start, *self.end)):
            raise MetaDxError("bad_length", f"A length lies within {_FARTHEST:,.0f} pixels of its picture.")


class Lengths:
    """The lengths of all readers of one home.

    Parameters
    ----------
    records : Records
        The opened records.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def of(self, account: Account, study: str) -> dict[str, Length]:
        """Return a reader's lengths on a case, in the order in which they were drawn."""
        with self._records.reading() as session:
            row = _reading(session, account, study)
            return _held(row) if row else {}

    def change(self, account: Account, study: str, changes: Mapping[str, Length | None]) -> None:
        """Add, move or remove (None) lengths of a reader; those that are not named stay.

        Raises
        ------
        MetaDxError
            ``not_opened``, or ``too_many_lengths``, in which case nothing is changed.
        """

        def work(session: Session) -> None:
            row = _reading(session, account, study)
            if row is None:
                raise MetaDxError("not_opened", "Open the case first.")
            wanted = {**_held(row), **changes}
            kept = {name: asdict(length) for name, length in wanted.items() if length is not None}
            if len(kept) > MOST_LENGTHS:
                raise MetaDxError("too_many_lengths", f"A case holds {MOST_LENGTHS} lengths: remove some.")
            row.lengths = kept or None

        self._records.write(work)


def _reading(session: Session, account: Account, study: str) -> ReadingRow | None:
    query = select(ReadingRow).where(ReadingRow.study == study, ReadingRow.account == account.id)
    return session.scalar(query.options(undefer(ReadingRow.lengths)))


def _held(row: ReadingRow) -> dict[str, Length]:
    return {
        name: Length(kept["object"], kept["frame"], tuple(kept["start"]), tuple(kept["end"]))
        for name, kept in (row.lengths or {}).items()
    }
