"""When cases came, were read and were first shown with an answer, and whose they are: what figures are made of."""

from __future__ import annotations

from sqlalchemy import func, select

from meta_dx.records.database import Records
from meta_dx.records.schema import AuditRow, CaseRow, ReadingRow


def arrivals(records: Records) -> dict[str, str]:
    """Return when every case was added, newest first."""
    query = select(CaseRow.study, CaseRow.added_at).order_by(CaseRow.added_at.desc(), CaseRow.study)
    with records.reading() as session:
        return {study: moment for study, moment in session.execute(query)}


def patients(records: Records) -> dict[str, str]:
    """Return whose case each is, as a surrogate."""
    with records.reading() as session:
        return {study: who for study, who in session.execute(select(CaseRow.study, CaseRow.patient))}


def spans(records: Records) -> list[tuple[str, str | None, str | None]]:
    """Return when every reading was started, read blind and first decided; None where it has not come so far."""
    columns = ReadingRow.started_at, ReadingRow.read_at, ReadingRow.decided_at
    with records.reading() as session:
        return [(start, read, end) for start, read, end in session.execute(select(*columns))]


def first_shown(records: Records, study: str) -> str | None:
    """Return when a reader was first shown an answer of the model about a case, None before that."""
    row = AuditRow
    seen = select(func.min(row.at)).where(row.study == study, row.action == "reveal", row.bundle.is_not(None))
    with records.reading() as session:
        return session.scalar(seen)
