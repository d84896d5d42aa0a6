"""How often the rare diseases were looked at, and the figures of every evaluation.

Rare diseases are the test: each look at them with another bundle or protocol is an *opening*, and a report
that does not count its openings overstates what it proves. Repeating the same look is no new opening, but is
noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from meta_dx.records.database import Records
from meta_dx.records.schema import EvaluationRow, OpeningRow, now, plain


@dataclass(frozen=True)
class Opening:
    """One look at the rare diseases.

    Parameters
    ----------
    bundle : str
        Hash of the bundle that was evaluated.
    split_version : str
        The frozen split whose rare diseases were opened.
    protocol : str
        Name of the protocol with everything that sets its figures (ways, shots, episodes, seed).
    first_at, first_by, last_at, last_by : str
        When (ISO 8601, UTC) and by whom, the first and the last time.
    times : int
        How often the same look was repeated, the first included.
    """

    bundle: str
    split_version: str
    protocol: str
    first_at: str
    first_by: str
    last_at: str
    last_by: str
    times: int


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation.

    Parameters
    ----------
    bundle, protocol, split_version, data_version : str
        What was measured, how and on what; together they name the evaluation.
    numbers : mapping
        The figures, JSON-like; a figure that is not finite is kept as None.
    created_at : str
        ISO 8601, UTC; the moment of making it if not given.
    """

    bundle: str
    protocol: str
    split_version: str
    data_version: str
    numbers: Mapping[str, Any]
    created_at: str = field(default_factory=now)


def record_opening(records: Records, *, bundle: str, split_version: str, protocol: str, by: str) -> int:
    """Note that the rare diseases of a split are about to be looked at; call it before the figures exist.

    Parameters
    ----------
    records : Records
        The opened records.
    bundle, split_version, protocol : str
        What is evaluated, on which split, how; together they name the opening.
    by : str
        Who or what runs the evaluation.

    Returns
    -------
    int
        Distinct openings of this split so far, this one included.
    """

    def work(session: Session) -> int:
        same = (
            OpeningRow.bundle == bundle,
            OpeningRow.split_version == split_version,
            OpeningRow.protocol == protocol,
        )
        opening = session.scalar(select(OpeningRow).where(*same))
        moment = now()
        if opening is None:
            opening = OpeningRow(
                bundle=bundle,
                split_version=split_version,
                protocol=protocol,
                first_at=moment,
                first_by=by,
                times=0,
            )
            session.add(opening)
        opening.last_at, opening.last_by, opening.times = moment, by, opening.times + 1
        session.flush()
        return _count(session, split_version)

    return records.write(work)


def count_openings(records: Records, split_version: str | None = None) -> int:
    """Count the distinct openings of one split, or of all."""
    with records.reading() as session:
        return _count(session, split_version)


def openings(records: Records, split_version: str | None = None) -> list[Opening]:
    """Return the openings of one split, or of all, in the order of their first time."""
    query = select(OpeningRow).order_by(OpeningRow.first_at, OpeningRow.id)
    if split_version is not None:
        query = query.where(OpeningRow.split_version == split_version)
    names = Opening.__dataclass_fields__
    with records.reading() as session:
        return [Opening(**{name: getattr(row, name) for name in names}) for row in session.scalars(query)]


def save_evaluation(records: Records, evaluation: Evaluation) -> int:
    """Save the figures of an evaluation, in place of those that the same names had before.

    Parameters
    ----------
    records : Records
        The opened records.
    evaluation : Evaluation
        The figures.

    Returns
    -------
    int
        Number of the evaluation; the same one when it is repeated.
    """

    def work(session: Session) -> int:
        same = (
            EvaluationRow.bundle == evaluation.bundle,
            EvaluationRow.protocol == evaluation.protocol,
            EvaluationRow.split_version == evaluation.split_version,
            EvaluationRow.data_version == evaluation.data_version,
        )
        row = session.scalar(select(EvaluationRow).where(*same))
        if row is None:
            row = EvaluationRow(**vars(evaluation))
            session.add(row)
        row.numbers, row.created_at = plain(evaluation.numbers), evaluation.created_at
        session.flush()
        return row.id

    return records.write(work)


def evaluations(records: Records, bundle: str | None = None) -> list[Evaluation]:
    """Return the evaluations of one bundle, or of all, newest first."""
    query = select(EvaluationRow).order_by(EvaluationRow.created_at.desc(), EvaluationRow.id.desc())
    if bundle is not None:
        query = query.where(EvaluationRow.bundle == bundle)
    names = Evaluation.__dataclass_fields__
    with records.reading() as session:
        return [Evaluation(**{name: getattr(row, name) for name in names}) for row in session.scalars(query)]


def _count(session: Session, split_version: str | None) -> int:
    query = select(func.count()).select_from(OpeningRow)
    if split_version is not None:
        query = query.where(OpeningRow.split_version == split_version)
    return session.scalar(query) or 0
