"""The worklist: which cases a reader sees, in an order that tells nothing.

Within a band of priority every reader has an order of their own, drawn at random: no place in the list depends on a
prediction or on what others have said.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Select, and_, cast, func, or_, select, true
from sqlalchemy.orm import aliased

from meta_dx.records.accounts import Account
from meta_dx.records.cases import MIXES
from meta_dx.records.database import Records
from meta_dx.records.schema import CaseRow, ReadingRow

View = Literal["unread", "mine", "disputed", "done"]
VIEWS: tuple[View, ...] = ("unread", "mine", "disputed", "done")


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

        multiplier, offset = _own_order(account)
        own = (cast(CaseRow.mix, BigInteger) * multiplier + offset) % MIXES
        listed = select(CaseRow, mine).outerjoin(mine, joined).where(*narrowed)
        listed = listed.order_by(CaseRow.band, own, CaseRow.study).offset(start).limit(most)
        with self._records.reading() as session:
            counts = {name: session.scalar(counted(condition)) or 0 for name, condition in views.items()}
            total = counts[view] if len(narrowed) == 1 else session.scalar(counted(*narrowed)) or 0
            return CasePage([(row[0], row[1]) for row in session.execute(listed)], total, counts)

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


def _own_order(account: Account) -> tuple[int, int]:
    digest = hashlib.sha256(f"order/{account.id}/{account.name}".encode()).digest()
    multiplier, offset = (int.from_bytes(digest[at : at + 8], "big") % (MIXES - 1) for at in (0, 8))
    return 1 + multiplier, offset


def _narrowed(search: str, modality: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if modality:
        conditions.append(CaseRow.modality == modality)
    for word in search.split():
        columns = (CaseRow.study, CaseRow.modality, CaseRow.body_part)
        conditions.append(or_(*(column.icontains(word, autoescape=True) for column in columns)))
    return conditions
