"""The cases that are to be read, and what becomes of them: started, read blind, revealed, decided, adjudicated.

Nothing here looks at a prediction before the blind opinion stands. :mod:`meta_dx.records.worklist` lists cases.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.records import case_rows
from meta_dx.records.accounts import Account
from meta_dx.records.audit import AuditLine, AuditTrail, Write, said_by
from meta_dx.records.database import Records
from meta_dx.records.opinions import BlindOpinion, Decision, Kind, Opinion, Shown
from meta_dx.records.schema import (
    CaseRow,
    OpinionRow,
    ReadingRow,
    now,
)

BANDS = ("first", "soon", "routine")
MIXES = (1 << 31) - 1
"""``CaseRow.mix`` lies from 1 to below this prime."""
_MANY = 1000


@dataclass(frozen=True)
class NewCase:
    """A study that has come in and has no diagnosis yet; all values are surrogates or code strings."""

    study: str
    patient: str
    batch: str
    modality: str
    body_part: str | None
    sex: str | None
    age_years: float | None
    study_date: str | None
    images: int
    series: int


class Cases:
    """The cases of one home.

    Parameters
    ----------
    records : Records
        The opened records.
    trail : AuditTrail
        Everything that happens is written down there.
    readers : int
        How many readers decide about a case: 1, or 2 with an adjudicator where they differ.
    """

    def __init__(self, records: Records, trail: AuditTrail, readers: int = 1) -> None:
        self._records, self._trail, self._readers = records, trail, readers

    def add(self, cases: Iterable[NewCase], band: int = len(BANDS) - 1) -> int:
        """Add cases that are not there yet; return how many were new."""
        wanted = {case.study: case for case in cases}

        def work(session: Session) -> int:
            known = set(session.scalars(select(CaseRow.study)))
            new = [case for study, case in wanted.items() if study not in known]
            begun = {"band": band, "state": "open", "decisions": 0, "added_at": now()}
            rows = [{**vars(case), **begun, "mix": 1 + secrets.randbelow(MIXES - 1)} for case in new]
            for start in range(0, len(rows), _MANY):
                session.execute(insert(CaseRow), rows[start : start + _MANY])
            return len(new)

        return self._records.write(work)

    def get(self, study: str) -> CaseRow:
        """Return one case.

        Raises
        ------
        MetaDxError
            ``unknown_case``.
        """
        with self._records.reading() as session:
            return case_rows.case(session, study)

    def reading(self, account: Account, study: str) -> ReadingRow | None:
        """Return how far a reader is with a case."""
        with self._records.reading() as session:
            return session.get(ReadingRow, (study, account.id))

    def open(self, account: Account, study: str, shown: Shown | None = None) -> ReadingRow:
        """Begin a reading, or go on with it; that the case was seen, and beside which answer, is written down.

        Parameters
        ----------
        account : Account
            Who.
        study : str
            Surrogate UID.
        shown : Shown, optional
            The answer that is about to be shown, if any: a reveal where it is another one than before.

        Returns
        -------
        ReadingRow

        Raises
        ------
        MetaDxError
            ``unknown_case``, or ``not_read_yet`` where an answer would come before the blind opinion.
        """

        def work(session: Session, write: Write) -> ReadingRow:
            case_rows.case(session, study)
            row = session.get(ReadingRow, (study, account.id))
            if row is None:
                row = ReadingRow(study=study, account=account.id, stage="started", started_at=now())
                session.add(row)
            write(case_rows.line(account, "view_case", study, shown, {"stage": row.stage}))
            if shown is not None and row.run != shown.run:
                case_rows.reveal(write, account, row, shown)
            return row

        return self._trail.write(work)

    def awaited(self, account: Account, study: str) -> str:
        """Name what a reader is to say next about a case that they have opened: kind and version."""
        with self._records.reading() as session:
            case, row = case_rows.case(session, study), case_rows.reading(session, account, study)
            return case_rows.awaited(session, account, case, row)

    def save_draft(self, account: Account, study: str, draft: dict[str, Any]) -> None:
        """Keep what a reader has typed so far.

        Parameters
        ----------
        account : Account
            The reader.
        study : str
            Surrogate UID.
        draft : dict
            The fields; ``for`` says what they are to become, as :meth:`awaited` has named it.

        Raises
        ------
        MetaDxError
            ``not_opened``, or ``draft_outdated`` where something else is awaited by now: what was typed for a blind
            read must not come up in a decision, nor what was typed for a decision in the change of it.
        """

        def work(session: Session) -> None:
            case, row = case_rows.case(session, study), case_rows.reading(session, account, study)
            if draft.get("for") != case_rows.awaited(session, account, case, row):
                raise MetaDxError(
                    "draft_outdated",
                    "Something else is asked about this case by now: this was not kept as a draft.",
                )
            row.draft = draft

        self._records.write(work)

    def read(self, account: Account, study: str, opinion: BlindOpinion) -> None:
        """Keep a blind opinion; it cannot be given twice.

        Raises
        ------
        MetaDxError
            ``unknown_case``, ``already_read``, or ``no_longer_blind`` once the case's readers have decided: from then
            on others may have told what they saw.
        """

        def work(session: Session, write: Write) -> None:
            row = case_rows.reading(session, account, study)
            if row.stage != "started":
                raise MetaDxError("already_read", "Your blind opinion of this case stands already.")
            if case_rows.case(session, study).state != "open":
                raise MetaDxError(
                    "no_longer_blind",
                    "Others have decided this case since you opened it: it needs no other blind read, and yours was "
                    "not kept.",
                )
            row.stage, row.read_at, row.draft = "read", now(), None
            said = self._said(session, account, study, "blind", opinion, None)
            write(AuditLine(account.name, "read_blind", study, details=said))

        self._trail.write(work)

    def reveal(self, account: Account, study: str, shown: Shown | None) -> None:
        """Write down that the model's answer, or that there is none, was shown.

        Raises
        ------
        MetaDxError
            ``not_read_yet`` before the blind opinion stands.
        """

        def work(session: Session, write: Write) -> None:
            case_rows.reveal(write, account, case_rows.reading(session, account, study), shown)

        self._trail.write(work)

    def decide(self, account: Account, study: str, decision: Decision, shown: Shown | None) -> int:
        """Keep a decision, or a new version of it where it says something else, or beside another answer.

        Returns
        -------
        int
            Its version.

        Raises
        ------
        MetaDxError
            ``not_read_yet``, ``already_adjudicated``, or ``no_longer_open`` for a first decision about a case that
            others have decided: one more would put it in dispute.
        """

        def work(session: Session, write: Write) -> int:
            row = case_rows.reading(session, account, study)
            if row.stage == "started":
                raise MetaDxError("not_read_yet", "Give your own opinion first.")
            case = case_rows.case(session, study)
            if case_rows.latest(session, study, "adjudication"):
                raise MetaDxError(
                    "already_adjudicated", "This case has been adjudicated: its decision stands."
                )
            if case.state != "open" and row.stage != "decided":
                raise MetaDxError(
                    "no_longer_open",
                    "Others have decided this case since you opened it: it needs no other decision, and yours was not "
                    "kept. Your blind opinion stands.",
                )
            last = case_rows.last_said(session, account, study, "decision")
            if last is not None and case_rows.repeats(last, decision, shown):
                row.draft, state = None, case.state
                case_rows.settle(session, case, self._readers)
                if case.state != state:  # how many decide about a case has been changed
                    write(case_rows.line(account, "settle", study, shown, {"state": case.state}))
                return last.version
            row.stage, row.decided_at, row.draft = "decided", row.decided_at or now(), None
            said = self._said(session, account, study, "decision", decision, shown)
            session.flush()
            case_rows.settle(session, case, self._readers)
            details = {**said, "verdict": decision.verdict, "state": case.state}
            write(case_rows.line(account, "decide", study, shown, details))
            return int(said["version"])

        return self._trail.write(work)

    def known_answer(self, account: Account, study: str) -> Shown | None:
        """Return the answer that somebody who is to settle a dispute may know; None where they cannot know any.

        Either it was shown to them, or the case had been done before, so that reports and tables told of it.
        """
        with self._records.reading() as session:
            row = session.get(ReadingRow, (study, account.id))
            return None if row is None else case_rows.known_answer(session, row)

    def adjudicate(self, account: Account, study: str, decision: Decision) -> int:
        """Settle a dispute, without the model, or change what one said; then everything may be shown.

        What is kept with it is the answer of :meth:`known_answer`: an adjudication without one is a reference label.
        A change is a new version, and made by somebody who has seen everything.

        Returns
        -------
        int
            Its version.

        Raises
        ------
        MetaDxError
            ``unknown_case``, ``not_opened``, ``not_disputed``, ``not_allowed`` without the right or for one of the two
            readers.
        """

        def work(session: Session, write: Write) -> int:
            row = case_rows.reading(session, account, study)
            case = case_rows.case(session, study)
            before = account.name in case_rows.latest(session, study, "adjudication")
            if not account.may("adjudicate") or (row.stage == "decided" and case.state == "disputed"):
                raise MetaDxError(
                    "not_allowed", "A dispute is settled by an adjudicator who has not decided before."
                )
            if case.state != "disputed" and not before:
                raise MetaDxError("not_disputed", "This case is not in dispute.")
            shown = case_rows.known_answer(session, row)
            last = case_rows.last_said(session, account, study, "adjudication")
            if case.state == "done" and last is not None and case_rows.repeats(last, decision, shown):
                row.draft = None
                return last.version
            case.state = "done"
            row.stage, row.decided_at, row.draft = "decided", row.decided_at or now(), None
            said = self._said(session, account, study, "adjudication", decision, shown)
            write(case_rows.line(account, "adjudicate", study, shown, {**said, "verdict": decision.verdict}))
            return int(said["version"])

        return self._trail.write(work)

    def put_first(self, account: Account, draw: Callable[[list[str]], Iterable[str]]) -> int:
        """Put some of the cases that nobody has opened before all others. No reason is kept that a reader could see.

        Parameters
        ----------
        account : Account
            A lead.
        draw : callable
            Chooses among the cases that nobody has opened, sorted.

        Returns
        -------
        int
            How many were put first.

        Raises
        ------
        MetaDxError
            ``not_allowed``, or ``queue_not_opened`` while nobody has opened one of those that were put first before:
            two draws beside each other would tell more than one.
        """
        if not account.may("lead"):
            raise MetaDxError("not_allowed", "Only a lead may change priorities.")

        def work(session: Session, write: Write) -> int:
            before = case_rows.waiting(session, band=0)
            if before:
                raise MetaDxError(
                    "queue_not_opened",
                    f"Nobody has opened {len(before)} of the cases that were put first before: put others first once "
                    "they have been opened.",
                )
            chosen = sorted(set(draw(case_rows.waiting(session))))
            for study in chosen:
                case_rows.case(session, study).band = 0
            write(AuditLine(account.name, "prioritise", details={"band": 0, "cases": len(chosen)}))
            return len(chosen)

        return self._trail.write(work)

    def done(self) -> set[str]:
        """Return the cases that are settled: every reader has decided, and a dispute is adjudicated."""
        with self._records.reading() as session:
            return set(session.scalars(select(CaseRow.study).where(CaseRow.state == "done")))

    def decided(self) -> dict[str, str]:
        """Return what every case that is done came to: the code of a disease, or that there is none."""
        done = self.done()
        with self._records.reading() as session:
            said = case_rows.opinions(session, OpinionRow.kind.in_(("decision", "adjudication")))
        found: dict[str, str] = {}
        for kind in ("decision", "adjudication"):  # an adjudication has the last word
            for one in said:
                if one.kind == kind and one.study in done and isinstance(one.content, Decision):
                    found[one.study] = one.content.outcome
        return found

    def waiting(self) -> list[str]:
        """Return the cases that nobody has opened yet, sorted."""
        with self._records.reading() as session:
            return case_rows.waiting(session)

    def everything(self) -> list[Opinion]:
        """Return every opinion about every case, in order of time."""
        with self._records.reading() as session:
            return case_rows.opinions(session)

    def opinions(self, study: str) -> list[Opinion]:
        """Return everything that was said about a case, in every version, in order of time."""
        with self._records.reading() as session:
            return case_rows.opinions(session, OpinionRow.study == study)

    def _said(
        self,
        session: Session,
        account: Account,
        study: str,
        kind: Kind,
        content: BlindOpinion | Decision,
        shown: Shown | None,
    ) -> dict[str, Any]:
        """Add what somebody says; return what its line in the trail tells of it, sealed but not quoted."""
        row = case_rows.add(session, account, study, kind, content, shown)
        seal = self._trail.seal(said_by(row, account.name))
        return {"kind": kind, "version": row.version, "seal": seal}

    def stood(self, study: str) -> list[Opinion]:
        """Return the decisions after which a case was done, in order of time; while it is done, the last one stands."""
        decisions: dict[str, Decision] = {}
        found = []
        for one in self.opinions(study):
            if not isinstance(one.content, Decision):
                continue
            if one.kind == "decision":
                decisions[one.account] = one.content
            if one.kind == "adjudication" or case_rows.state(decisions, self._readers) == "done":
                found.append(one)
        return found
