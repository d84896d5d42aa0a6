"""The audit trail: every view and decision of the review pages, so that nobody can change it unnoticed.

Each line carries an HMAC-SHA256 over itself and the line before it, under a key that lies outside the database
(``private/audit.key``). The newest line is also written to ``private/audit.anchors``, a file that is only ever
appended to. Whoever has the database but not the key can neither change nor remove a line, and whoever cuts lines
off the end leaves an anchor that nothing answers. Both files belong on a place that the database's administrator
cannot write; ``docs/review.md`` says how.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.home import Home, storage_faults
from meta_dx.records.database import Records
from meta_dx.records.schema import AccountRow, AuditRow, OpinionRow, now, plain

_START = "meta_dx audit trail"
_SEAL = "meta_dx opinion "
_FEW = 20  # faults that are named
_SAYING = {"read_blind": "blind", "decide": "decision", "adjudicate": "adjudication"}
T = TypeVar("T")


@dataclass(frozen=True)
class AuditLine:
    """What happened.

    Parameters
    ----------
    account : str
        Who: the name of an account, or ``"-"`` where nobody was signed in.
    action : str
        What: ``"sign_in"``, ``"view_case"``, ``"decide"`` and so on (``docs/review.md`` lists them).
    study : str, optional
        Surrogate UID of the case.
    bundle : str, optional
        Hash of the bundle whose answer was in view.
    support_version : int, optional
        Version of the support set behind it.
    details : mapping
        Particulars that JSON can hold; never an original identifier.
    """

    account: str
    action: str
    study: str | None = None
    bundle: str | None = None
    support_version: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditVerdict:
    """What :meth:`AuditTrail.verify` found.

    Parameters
    ----------
    lines : int
        Lines in the database.
    anchors : int
        Anchors in the file.
    head : str
        MAC of the last line, to be written down elsewhere; empty where there is none.
    faults : tuple of str
        What is wrong, one sentence each; empty when the trail is whole.
    """

    lines: int
    anchors: int
    head: str
    faults: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing was changed, removed or cut off."""
        return not self.faults


Write = Callable[[AuditLine], None]
"""Adds a line within a transaction."""


class AuditTrail:
    """Writes and verifies the trail of one home.

    Parameters
    ----------
    records : Records
        The opened records.
    home : Home
        Its private folder holds key and anchors; both are made when they are missing and the trail is empty.

    Raises
    ------
    MetaDxError
        ``audit_key_missing`` when there are lines but no key, or a storage fault.
    """

    def __init__(self, records: Records, home: Home) -> None:
        self._records = records
        self._anchors = home.private / "audit.anchors"
        self._key = _key(records, home.private / "audit.key")

    def write(self, work: Callable[[Session, Write], T]) -> T:
        """Do something and write down that it was done, in one transaction.

        Parameters
        ----------
        work : callable
            Takes the session and a function that adds a line.

        Returns
        -------
        T
            What ``work`` returned.
        """

        def whole(session: Session) -> tuple[T, AuditRow | None]:
            last: list[AuditRow] = []

            def add(line: AuditLine) -> None:
                last.append(self._append(session, line))

            return work(session, add), last[-1] if last else None

        result, newest = self._records.write(whole)
        if newest is not None:
            self._anchor(newest.seq, newest.mac)
        return result

    def add(self, line: AuditLine) -> None:
        """Write one line."""
        self.write(lambda session, add: add(line))

    def seal(self, said: Any) -> str:
        """Return the keyed SHA-256 of something that lies in another table, for the line that tells of it."""
        text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hmac.new(self._key, f"{_SEAL}{text}".encode(), "sha256").hexdigest()

    def lines(
        self,
        study: str | None = None,
        most: int = 1000,
        *,
        account: str = "",
        action: str = "",
        before: int | None = None,
    ) -> list[AuditRow]:
        """Return the newest lines, newest first.

        Parameters
        ----------
        study : str, optional
            Only of this case: its UID, or the end of it.
        most : int
            How many.
        account, action : str
            Only of this account; only of this kind.
        before : int, optional
            Only lines before this one.

        Returns
        -------
        list of AuditRow
        """
        query = select(AuditRow).order_by(AuditRow.seq.desc()).limit(most)
        if study:
            query = query.where(AuditRow.study.endswith(study, autoescape=True))
        if account:
            query = query.where(AuditRow.account == account)
        if action:
            query = query.where(AuditRow.action == action)
        if before is not None:
            query = query.where(AuditRow.seq < before)
        with self._records.reading() as session:
            return list(session.scalars(query))

    def said(self) -> tuple[list[str], list[str]]:
        """Return the accounts that lines name, and the kinds of lines that there are, both sorted."""
        with self._records.reading() as session:
            accounts, actions = (
                sorted(session.scalars(select(one).distinct())) for one in (AuditRow.account, AuditRow.action)
            )
        return accounts, actions

    def verify(self) -> AuditVerdict:
        """Compute the whole chain anew, and hold against it the anchors and every opinion that a line has sealed.

        Returns
        -------
        AuditVerdict
        """
        faults: list[str] = []
        # Before the lines: what is anchored meanwhile belongs to lines that are not read here.
        anchors = self._read_anchors(faults)
        macs: dict[int, str] = {}
        before, expected = _START, 1
        with self._records.reading() as session:
            sealed: dict[str, tuple[int, str]] = {}
            unsealed: Counter[str] = Counter()
            for row in session.scalars(
                select(AuditRow).order_by(AuditRow.seq).execution_options(yield_per=1000)
            ):
                if row.seq != expected:
                    faults.append(f"Lines {expected} to {row.seq - 1} are missing.")
                elif not hmac.compare_digest(row.mac, self._mac(before, row)):
                    faults.append(f"Line {row.seq} was changed, or the line before it.")
                if "seal" in row.details:
                    key = row.study, row.account, row.details.get("kind"), row.details.get("version")
                    sealed[_name(key)] = row.seq, str(row.details["seal"])
                elif row.action in _SAYING:
                    unsealed[_name((row.study, row.account, _SAYING[row.action]))] += 1
                macs[row.seq] = before = row.mac
                expected = row.seq + 1
            # After the lines: an opinion that is given meanwhile is there before anybody sees its line.
            faults += self._opinion_faults(session, sealed, unsealed)
        for seq, mac in anchors:
            if seq not in macs:
                faults.append(f"Line {seq} was anchored and is gone.")
            elif macs[seq] != mac:
                faults.append(f"Line {seq} is not the one that was anchored.")
        if macs and not anchors and not self._read_anchors([]):
            faults.append("There are lines and no anchor: the file of anchors is gone.")
        return AuditVerdict(len(macs), len(anchors), before if macs else "", tuple(faults[:_FEW]))

    def _opinion_faults(
        self, session: Session, sealed: Mapping[str, tuple[int, str]], unsealed: Mapping[str, int]
    ) -> list[str]:
        """Say which opinions are not what the lines say that have sealed them, and which no line tells of.

        Lines from before opinions were sealed name no version: of each reader, case and kind there may be as many
        opinions without a seal as there are such lines.
        """
        query = select(OpinionRow, AccountRow.name).join(AccountRow, AccountRow.id == OpinionRow.account)
        faults, left, bare, unknown = {}, dict(sealed), Counter(unsealed), list[str]()
        for row, name in session.execute(query.execution_options(yield_per=1000)):
            key = row.study, name, row.kind, row.version
            seq, seal = left.pop(_name(key), (0, ""))
            if seq:
                # Lineage and time are sealed since December 2026; a line's own MAC keeps its seal from being exchanged.
                forms = said_by(row, name), said_by(row, name)[:5]
                if not any(hmac.compare_digest(self.seal(said), seal) for said in forms):
                    faults[seq] = f"The opinion that line {seq} tells of was changed."
            elif bare[_name(key[:3])]:
                bare[_name(key[:3])] -= 1
            else:
                unknown.append(
                    f"No line tells of the {row.kind} opinion of {name} about case {row.study}, version {row.version}."
                )
        faults |= {seq: f"The opinion that line {seq} tells of is gone." for seq, _ in left.values()}
        return [faults[seq] for seq in sorted(faults)] + unknown

    def _append(self, session: Session, line: AuditLine) -> AuditRow:
        query = select(AuditRow).order_by(AuditRow.seq.desc()).limit(1)
        last = session.scalar(query)
        row = AuditRow(
            seq=1 if last is None else last.seq + 1,
            at=now(),
            account=line.account,
            action=line.action,
            study=line.study,
            bundle=line.bundle,
            support_version=line.support_version,
            details=plain(dict(line.details)),
        )
        row.mac = self._mac(_START if last is None else last.mac, row)
        session.add(row)
        session.flush()
        return row

    def _mac(self, before: str, row: AuditRow) -> str:
        said = [
            row.seq,
            row.at,
            row.account,
            row.action,
            row.study,
            row.bundle,
            row.support_version,
            row.details,
        ]
        text = json.dumps([before, *said], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    def _anchor(self, seq: int, mac: str) -> None:
        # After the commit: a process that dies here leaves a line without its anchor, never the other way round.
        with storage_faults(self._anchors):
            descriptor = os.open(self._anchors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, f"{seq} {mac}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _read_anchors(self, faults: list[str]) -> list[tuple[int, str]]:
        found = []
        try:
            lines = self._anchors.read_text().splitlines()
        except FileNotFoundError:
            return []
        for number, line in enumerate(lines, start=1):
            seq, _, mac = line.partition(" ")
            if not seq.isdigit() or len(mac) != 64:
                faults.append(f"Anchor {number} is damaged.")
            else:
                found.append((int(seq), mac))
        return found


def said_by(row: OpinionRow, name: str) -> list[Any]:
    """Return what the line of an opinion seals: who said what about which case, when, and beside which answer."""
    what = [row.study, name, row.kind, row.version, row.content]
    return [*what, row.run, row.bundle, row.support_version, row.created_at]


def _name(key: Sequence[Any]) -> str:
    """Name an opinion by case, reader, kind and version, whatever a line that was changed holds for them."""
    return json.dumps(list(key), default=str)


def _key(records: Records, path: Path) -> bytes:
    with storage_faults(path):
        if path.exists():
            return bytes.fromhex(path.read_text().strip())
        with records.reading() as session:
            if session.scalar(select(AuditRow.seq).limit(1)) is not None:
                raise MetaDxError(
                    "audit_key_missing",
                    f"The key of the audit trail, {path}, is gone: restore it from a back-up; without it nobody can "
                    "tell whether the trail is whole.",
                )
        made = path.with_name(f".{secrets.token_hex(8)}.key")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as stream:
                stream.write(secrets.token_hex(32))
                stream.flush()
                os.fsync(stream.fileno())
            with suppress(FileExistsError):  # another process was faster: its key counts
                os.link(made, path)
        finally:
            made.unlink()
        return bytes.fromhex(path.read_text().strip())
