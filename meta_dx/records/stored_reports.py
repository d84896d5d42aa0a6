"""Which report was stored in which archive, when and by whom, and how that ended.

A report is named by the decision that it tells of. Its UID, which the archive knows too, is not kept here: it would
lead from a surrogate to the real study without the vault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from meta_dx.records.accounts import Account
from meta_dx.records.audit import AuditLine, AuditTrail, Write
from meta_dx.records.database import Records
from meta_dx.records.opinions import Opinion, opinion_key
from meta_dx.records.schema import AccountRow, OpinionRow, StoredReportRow, now

State = Literal["begun", "stored", "unconfirmed", "refused", "not_sent"]


@dataclass(frozen=True)
class StoredReport:
    """What became of the report of one decision in one archive.

    Parameters
    ----------
    reader, kind, version : str, str, int
        The decision: whose it is, ``"decision"`` or ``"adjudication"``, and in which version.
    archive : str
        The server, without any login.
    state : {"begun", "stored", "unconfirmed", "refused", "not_sent"}
        ``"begun"``: nobody knows how it ended, because the server was stopped in the middle.
    why : str
        One sentence; may be empty.
    by : str
        Account that had it stored last.
    begun_at, ended_at : str
        ISO 8601, UTC; ``ended_at`` is empty while it is only begun.
    predecessors : list of str, optional
        The decisions whose reports it names as superseded, as :attr:`key`; None: all earlier ones.
    """

    reader: str
    kind: str
    version: int
    archive: str
    state: State
    why: str
    by: str
    begun_at: str
    ended_at: str
    predecessors: list[str] | None = None

    @property
    def key(self) -> str:
        """Which decision it tells of, as :attr:`~meta_dx.records.opinions.Opinion.key` names it."""
        return opinion_key(self.kind, self.reader, self.version)

    @property
    def may_be_there(self) -> bool:
        """Whether the archive has it, or nobody knows."""
        return self.state in ("stored", "unconfirmed", "begun")

    def names(self, other: StoredReport) -> bool:
        """Tell whether it names the report of an earlier decision as superseded."""
        return self.predecessors is None or other.key in self.predecessors


class StoredReports:
    """The stored reports of one home.

    Parameters
    ----------
    records : Records
        The opened records.
    trail : AuditTrail
        Every attempt is written down there twice: when it begins, and how it ended.
    """

    def __init__(self, records: Records, trail: AuditTrail) -> None:
        self._records, self._trail = records, trail

    def of(self, study: str) -> list[StoredReport]:
        """Return what became of the reports of a case, in order of their decisions."""
        reader, sender = AccountRow.__table__.alias("reader"), AccountRow.__table__.alias("sender")
        query = (
            select(StoredReportRow, OpinionRow, reader.c.name, sender.c.name)
            .join(OpinionRow, OpinionRow.id == StoredReportRow.opinion)
            .join(reader, reader.c.id == OpinionRow.account)
            .join(sender, sender.c.id == StoredReportRow.account)
            .where(OpinionRow.study == study)
            .order_by(OpinionRow.id)
        )
        with self._records.reading() as session:
            return [
                StoredReport(
                    name,
                    said.kind,
                    said.version,
                    row.archive,
                    row.state,
                    row.why,
                    by,
                    row.begun_at,
                    row.ended_at or "",
                    row.predecessors,
                )
                for row, said, name, by in session.execute(query)
            ]

    def begin(
        self, account: Account, opinion: Opinion, archive: str, predecessors: Sequence[str] | None
    ) -> None:
        """Write down that a report is about to be sent, and which it names, before a byte of it leaves."""
        self._set(account, opinion, archive, "begun", "", predecessors)

    def end(self, account: Account, opinion: Opinion, archive: str, state: str, why: str) -> None:
        """Write down how it ended."""
        if state not in get_args(State):
            raise ValueError(f"{state!r} is no state of a stored report")
        self._set(account, opinion, archive, state, why)

    def _set(
        self,
        account: Account,
        opinion: Opinion,
        archive: str,
        state: str,
        why: str,
        predecessors: Sequence[str] | None = None,
    ) -> None:
        def work(session: Session, write: Write) -> None:
            query = select(OpinionRow.id).join(AccountRow, AccountRow.id == OpinionRow.account)
            said = session.scalars(
                query.where(
                    OpinionRow.study == opinion.study,
                    OpinionRow.kind == opinion.kind,
                    OpinionRow.version == opinion.version,
                    AccountRow.name == opinion.account,
                )
            ).one()
            row = session.get(StoredReportRow, (said, archive))
            if row is None:
                row = StoredReportRow(opinion=said, archive=archive)
                session.add(row)
            row.account, row.state, row.why = account.id, state, why
            if state == "begun":
                row.begun_at, row.ended_at = now(), None
                row.predecessors = None if predecessors is None else list(predecessors)
            else:
                row.ended_at = now()
            session.flush()
            details = {"archive": archive, "state": state, "of": opinion.account, "version": opinion.version}
            write(
                AuditLine(
                    account.name,
                    "store_report",
                    opinion.study,
                    opinion.bundle,
                    opinion.support_version,
                    {**details, "kind": opinion.kind},
                )
            )

        self._trail.write(work)
