"""Rows of cases, readings and opinions inside one transaction: what :mod:`meta_dx.records.cases` is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Account
from meta_dx.records.audit import AuditLine, Write
from meta_dx.records.opinions import BlindOpinion, Decision, Kind, Opinion, Shown, as_json, from_json
from meta_dx.records.schema import (
    AccountRow,
    AuditRow,
    CaseRow,
    OpinionRow,
    PredictionRunRow,
    ReadingRow,
    now,
)


def case(session: Session, study: str) -> CaseRow:
    """Return one case; ``unknown_case`` where there is none."""
    row = session.get(CaseRow, study)
    if row is None:
        raise MetaDxError("unknown_case", "There is no such case.")
    return row


def reading(session: Session, account: Account, study: str) -> ReadingRow:
    """Return a reading that has begun; ``unknown_case`` or ``not_opened``."""
    case(session, study)
    row = session.get(ReadingRow, (study, account.id))
    if row is None:
        raise MetaDxError("not_opened", "Open the case first.")
    return row


def settles(account: Account, case: CaseRow, reading: ReadingRow | None) -> bool:
    """Tell whether somebody may settle a case that is in dispute."""
    decided = reading is not None and reading.stage == "decided"
    return case.state == "disputed" and account.may("adjudicate") and not decided


def awaited(session: Session, account: Account, case: CaseRow, reading: ReadingRow) -> str:
    """Name what somebody is to say next about a case: the kind of opinion, and which version of it."""
    own = opinions(session, OpinionRow.study == case.study, OpinionRow.account == account.id)
    said = Counter(one.kind for one in own)
    if settles(account, case, reading) or said["adjudication"]:
        return f"adjudication {said['adjudication'] + 1}"
    return "blind 1" if reading.stage == "started" else f"decision {said['decision'] + 1}"


def waiting(session: Session, band: int | None = None) -> list[str]:
    """Return the cases that nobody has opened yet, sorted; of one band of priority if named."""
    opened = select(ReadingRow.study)
    query = select(CaseRow.study).where(CaseRow.state == "open", CaseRow.study.not_in(opened))
    if band is not None:
        query = query.where(CaseRow.band == band)
    return sorted(session.scalars(query))


def reveal(write: Write, account: Account, row: ReadingRow, shown: Shown | None) -> None:
    """Note which answer a reader was shown, or that there was none; ``not_read_yet`` before the blind opinion."""
    if row.stage == "started":
        raise MetaDxError("not_read_yet", "Give your own opinion first.")
    row.revealed_at = row.revealed_at or now()
    row.run = shown.run if shown else row.run  # who has seen an answer has seen it
    write(line(account, "reveal", row.study, shown))


def known_answer(session: Session, row: ReadingRow) -> Shown | None:
    """Return the answer that whoever is reading may know; see :meth:`meta_dx.records.cases.Cases.known_answer`."""
    if row.run is not None:
        made = session.get_one(PredictionRunRow, row.run)
        return Shown(made.id, made.bundle, made.support_version)
    # Only the trail remembers that a case was done before: its state says what it is now.
    told = select(AuditRow.details).where(AuditRow.study == row.study, AuditRow.action == "decide")
    if not any(details.get("state") == "done" for details in session.scalars(told)):
        return None
    said = select(OpinionRow).where(OpinionRow.study == row.study, OpinionRow.run.is_not(None))
    last = session.scalars(said.order_by(OpinionRow.id.desc()).limit(1)).first()
    return (
        None if last is None else Shown(int(last.run or 0), str(last.bundle), int(last.support_version or 0))
    )


def add(
    session: Session,
    account: Account,
    study: str,
    kind: Kind,
    content: BlindOpinion | Decision,
    shown: Shown | None,
) -> OpinionRow:
    """Add the next version of what a reader says about a case, and return it."""
    same = (OpinionRow.study == study, OpinionRow.account == account.id, OpinionRow.kind == kind)
    version = 1 + (session.scalar(select(func.max(OpinionRow.version)).where(*same)) or 0)
    row = OpinionRow(
        study=study,
        account=account.id,
        kind=kind,
        version=version,
        content=as_json(content),
        run=shown.run if shown else None,
        bundle=shown.bundle if shown else None,
        support_version=shown.support_version if shown else None,
        created_at=now(),
    )
    session.add(row)
    return row


def opinions(session: Session, *conditions: ColumnElement[bool]) -> list[Opinion]:
    """Return the opinions that meet all conditions, in order of time."""
    query = select(OpinionRow, AccountRow.name).join(AccountRow, AccountRow.id == OpinionRow.account)
    return [
        Opinion(
            row.study,
            name,
            row.kind,  # type: ignore[arg-type]
            row.version,
            from_json(row.kind, row.content),
            row.run,
            row.bundle,
            row.support_version,
            row.created_at,
        )
        for row, name in session.execute(query.where(*conditions).order_by(OpinionRow.id))
    ]


def last_said(session: Session, account: Account, study: str, kind: Kind) -> Opinion | None:
    """Return the newest version of what a reader said, None where they said nothing of this kind."""
    row = OpinionRow
    found = opinions(session, row.study == study, row.account == account.id, row.kind == kind)
    return found[-1] if found else None


def repeats(last: Opinion, content: Decision, shown: Shown | None) -> bool:
    """Tell whether something was said before, word for word and beside the same answer."""
    return last.content == content and last.run == (shown.run if shown else None)


def latest(session: Session, study: str, kind: Kind) -> dict[str, Decision]:
    """Return each reader's newest decision."""
    found = opinions(session, OpinionRow.study == study, OpinionRow.kind == kind)
    return {said.account: said.content for said in found if isinstance(said.content, Decision)}


def settle(session: Session, case: CaseRow, readers: int) -> None:
    """Write down how many have decided a case and what that makes of it."""
    decisions = latest(session, case.study, "decision")
    case.decisions, case.state = len(decisions), state(decisions, readers)


def state(decisions: Mapping[str, Decision], readers: int) -> str:
    """Return what decisions, by reader, make of a case: ``open``, ``done`` or ``disputed``."""
    if len(decisions) < readers:
        return "open"
    first, *others = decisions.values()
    return "done" if all(first.agrees_with(each) for each in others) else "disputed"


def line(
    account: Account, action: str, study: str, shown: Shown | None, details: dict[str, Any] | None = None
) -> AuditLine:
    """Return the line of the trail about a case and the answer beside it."""
    bundle, support = (shown.bundle, shown.support_version) if shown else (None, None)
    return AuditLine(account.name, action, study, bundle, support, details or {})
