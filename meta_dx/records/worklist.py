"""The worklist: which cases a reader sees, in an order that tells nothing.

Within a band of priority every reader has an order of their own, drawn at random: no place in the list depends on a
prediction or on what others have said.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Select, and_, cast, func, or_, select, true
from sqlalchemy.orm import aliased

from meta_dx.records.accounts import Account
from meta_dx.records.cases import MIXES
from meta_dx.records.database import Records
from meta_dx.records.schema import CaseRow, ReadingRow

View = Literal["unread", "mine", "disputed", "done"]
VIEWS: tuple[View, ...] = ("unread", "mine", "disputed", "done")
_BEING_READ = timedelta(minutes=30)  # after which a reading that was begun holds nobody up


@dataclass(frozen=True)
class CasePage:
    """One page of the worklist.

    Parameters
    ----------
    rows : list of (CaseRow, ReadingRow or None)
        Cases, and how far this reader is with each.
    total : int
        Cases in this view.
    counts : dict of view to int
        Cases in every view, without search and filters.
    """

    rows: list[tuple[CaseRow, ReadingRow | None]]
    total: int
    counts: dict[View, int]


class Worklist:
    """Lists the cases of one home.

    Parameters
    ----------
    records : Records
        The opened records.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def page(
        self,
        account: Account,
        view: View,
        *,
        search: str = "",
        modality: str = "",
        start: int = 0,
        most: int = 50,
    ) -> CasePage:
        """Return one page of a reader's worklist.

        Parameters
        ----------
        account : Account
            The reader.
        view : {"unread", "mine", "disputed", "done"}
            Which cases.
        search : str
            Part of the case's number, body part or modality.
        modality : str
            Only this modality.
        start, most : int
            Which rows.

        Returns
        -------
        CasePage
        """
        mine = aliased(ReadingRow)
        joined = and_(mine.study == CaseRow.study, mine.account == account.id)
        views = {name: _view(name, mine, account) for name in VIEWS}
        narrowed = [views[view], *_narrowed(search, modality)]

        def counted(*conditions: ColumnElement[bool]) -> Select[Any]:
            query = select(func.count()).select_from(CaseRow).outerjoin(mine, joined)
            return query.where(*conditions)

        listed = select(CaseRow, mine).outerjoin(mine, joined).where(*narrowed)
        listed = listed.order_by(CaseRow.band, _own_order(account), CaseRow.study).offset(start).limit(most)
        with self._records.reading() as session:
            counts = {name: session.scalar(counted(condition)) or 0 for name, condition in views.items()}
            total = counts[view] if len(narrowed) == 1 else session.scalar(counted(*narrowed)) or 0
            return CasePage([(row[0], row[1]) for row in session.execute(listed)], total, counts)

    def next(self, account: Account, readers: int) -> str | None:
        """Return the case that a reader is to open next: the first unread one that others are not reading just now.

        Parameters
        ----------
        account : Account
            The reader.
        readers : int
            How many decide about a case: it is left to others where as many have decided, or have opened it within
            the last half hour.

        Returns
        -------
        str or None
            The first unread one where others are reading all of them; None where none is unread.
        """
        mine, others = aliased(ReadingRow), aliased(ReadingRow)
        since = (datetime.now(UTC) - _BEING_READ).isoformat(timespec="microseconds")
        held = or_(others.stage == "decided", others.started_at > since)
        taken = select(func.count()).where(others.study == CaseRow.study, held).scalar_subquery()
        query = select(CaseRow.study).outerjoin(
            mine, and_(mine.study == CaseRow.study, mine.account == account.id)
        )
        query = query.where(_view("unread", mine, account))
        query = query.order_by(taken >= readers, CaseRow.band, _own_order(account), CaseRow.study)
        with self._records.reading() as session:
            return session.scalar(query.limit(1))

    def modalities(self) -> list[str]:
        """Return the modalities that there are."""
        with self._records.reading() as session:
            return sorted(session.scalars(select(CaseRow.modality).distinct()))


def _view(view: View, mine: type[ReadingRow], account: Account) -> ColumnElement[bool]:
    decided = mine.stage == "decided"
    if view == "unread":  # what others have said so far never shows
        return and_(mine.study.is_(None), CaseRow.state == "open")
    if view == "mine":
        return and_(mine.stage.in_(("started", "read")), CaseRow.state != "done")
    if view == "disputed":
        return and_(CaseRow.state == "disputed", decided if not account.may("adjudicate") else true())
    return or_(CaseRow.state == "done", and_(decided, CaseRow.state == "open"))


def _own_order(account: Account) -> ColumnElement[int]:
    digest = hashlib.sha256(f"order/{account.id}/{account.name}".encode()).digest()
    multiplier, offset = (int.from_bytes(digest[at : at + 8], "big") % (MIXES - 1) for at in (0, 8))
    return (cast(CaseRow.mix, BigInteger) * (1 + multiplier) + offset) % MIXES


def _narrowed(search: str, modality: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if modality:
        conditions.append(CaseRow.modality == modality)
    for word in search.split():
        columns = (CaseRow.study, CaseRow.modality, CaseRow.body_part)
        conditions.append(or_(*(column.icontains(word, autoescape=True) for column in columns)))
    return conditions
