"""Who may sign in to the review pages: accounts, passwords and sessions.

Passwords are kept as Argon2id hashes (RFC 9106) and sessions as SHA-256 of their token, so a copy of the database
opens no door. After :data:`FAILURES` wrong passwords an account is locked for :data:`LOCKED`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.records.audit import AuditLine, AuditTrail, Write
from meta_dx.records.database import Records
from meta_dx.records.passwords import hashed_password, password_matches
from meta_dx.records.schema import AccountRow, SignInRow, now
from meta_dx.records.subjects import Subject, account_of

Role = Literal["reader", "adjudicator", "lead", "administrator"]
Right = Literal["read", "adjudicate", "teach", "identity", "export", "store", "lead", "accounts", "audit"]

#: What each role may do; whoever manages accounts sees no case.
RIGHTS: dict[str, frozenset[Right]] = {
    "reader": frozenset({"read", "export"}),
    "adjudicator": frozenset({"read", "export", "store", "adjudicate", "teach", "identity"}),
    "lead": frozenset({"read", "export", "store", "adjudicate", "teach", "identity", "lead", "audit"}),
    "administrator": frozenset({"accounts", "audit"}),
}
FAILURES, LOCKED = 5, timedelta(minutes=15)
IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=10)
_OURS = ("openid", "meta_dx")  # stand in the audit trail for what no person did
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class Account:
    """A person who may sign in.

    Parameters
    ----------
    id : int
        Number.
    name : str
        What they sign in with, in lower case.
    role : {"reader", "adjudicator", "lead", "administrator"}
        Decides the rights (:data:`RIGHTS`).
    must_change : bool
        The password was given by somebody else and has to be replaced first.
    enabled : bool
        False: may not sign in any more.
    """

    id: int
    name: str
    role: Role
    must_change: bool = False
    enabled: bool = True

    def may(self, right: Right) -> bool:
        """Tell whether the account has a right; none before a given password was replaced."""
        return not self.must_change and right in RIGHTS[self.role]


@dataclass(frozen=True)
class SignIn:
    """An open session.

    Parameters
    ----------
    account : Account
        Whose it is.
    csrf : str
        Has to come back with everything that changes something.
    token : str
        What the browser holds; empty where it was not just made.
    seconds_left : int
        Until it ends if nobody uses it.
    """

    account: Account
    csrf: str
    token: str = ""
    seconds_left: int = int(IDLE.total_seconds())


class Accounts:
    """The accounts of one home.

    Parameters
    ----------
    records : Records
        The opened records.
    trail : AuditTrail
        Every change and every sign-in is written down there.
    """

    def __init__(self, records: Records, trail: AuditTrail) -> None:
        self._records, self._trail = records, trail

    def add(
        self,
        name: str,
        role: str,
        *,
        password: str | None = None,
        subject: Subject | None = None,
        by: str = "-",
        must_change: bool = True,
    ) -> tuple[Account, str]:
        """Make an account.

        Parameters
        ----------
        name : str
            Letters, digits and ``. _ @ -``; kept in lower case.
        role : str
            One of :data:`RIGHTS`.
        password : str, optional
            At least 12 characters; drawn at random if absent.
        subject : Subject, optional
            Whom OpenID Connect means by this account; then there is no password.
        by : str
            Who makes it.
        must_change : bool
            Whether the password has to be replaced at the first sign-in.

        Returns
        -------
        account : Account
        password : str
            The password, to be told once; empty with a ``subject``.

        Raises
        ------
        MetaDxError
            ``bad_account``, ``bad_password``, ``account_exists``, or as :meth:`of_subject`.
        """
        name = name.strip().lower()
        if not _NAME.fullmatch(name) or role not in get_args(Role):
            raise MetaDxError(
                "bad_account",
                f"'{name}' with role '{role}' cannot be an account: a name has letters, digits and . _ @ -, and a role "
                f"is one of {', '.join(get_args(Role))}.",
            )
        if name in _OURS:
            raise MetaDxError(
                "bad_account", f"'{name}' stands for the system in the audit trail: choose another name."
            )
        secret = "" if subject else password or secrets.token_urlsafe(12)
        hashed = None if subject else hashed_password(secret)

        def work(session: Session, write: Write) -> Account:
            if subject is not None and account_of(session, subject) is not None:
                raise MetaDxError("account_exists", "There is an account with this subject already.")
            if session.scalar(select(AccountRow).where(AccountRow.name == name)) is not None:
                raise MetaDxError(
                    "account_exists", f"There is an account '{name}' already: choose another name."
                )
            row = AccountRow(
                name=name,
                role=role,
                password_hash=hashed,
                issuer=subject.issuer if subject else None,
                subject=subject.name if subject else None,
                must_change=must_change and not subject,
                enabled=True,
                failures=0,
                locked_until=None,
                created_at=now(),
            )
            session.add(row)
            session.flush()
            write(AuditLine(by, "add_account", details={"account": name, "role": role}))
            return _account(row)

        return self._trail.write(work), secret

    def all(self) -> list[Account]:
        """Return every account, sorted by name."""
        with self._records.reading() as session:
            return [_account(row) for row in session.scalars(select(AccountRow).order_by(AccountRow.name))]

    def change(self, name: str, *, role: str | None = None, enabled: bool | None = None, by: str) -> Account:
        """Give an account another role, or close or open it; its sessions end.

        Raises
        ------
        MetaDxError
            ``unknown_account``, ``bad_account``, or ``last_administrator``.
        """
        if role is not None and role not in get_args(Role):
            raise MetaDxError(
                "bad_account", f"'{role}' is no role: it is one of {', '.join(get_args(Role))}."
            )

        def work(session: Session, write: Write) -> Account:
            row = _row(session, name)
            governed = row.enabled and row.role == "administrator"
            row.role = role or row.role
            row.enabled = row.enabled if enabled is None else enabled
            session.flush()
            open_ones = select(AccountRow.id).where(AccountRow.role == "administrator", AccountRow.enabled)
            if governed and session.scalar(open_ones) is None:
                raise MetaDxError(
                    "last_administrator", f"'{name}' is the last administrator: make another one before."
                )
            session.execute(delete(SignInRow).where(SignInRow.account == row.id))
            said = {"account": row.name, "role": row.role, "enabled": row.enabled}
            write(AuditLine(by, "change_account", details=said))
            return _account(row)

        return self._trail.write(work)

    def set_password(self, name: str, password: str | None = None, *, by: str) -> str:
        """Set a password, drawn at random if absent, unlock the account and end its sessions; return the password.

        A password that somebody else set has to be replaced at the next sign-in.

        Raises
        ------
        MetaDxError
            ``unknown_account``, ``bad_password``, or ``no_password`` for an account with a subject.
        """
        secret = password or secrets.token_urlsafe(12)
        hashed = hashed_password(secret)

        def work(session: Session, write: Write) -> None:
            row = _row(session, name)
            if row.subject is not None:
                raise MetaDxError(
                    "no_password", f"'{row.name}' signs in through OpenID Connect and has no password here."
                )
            row.password_hash, row.failures, row.locked_until = hashed, 0, None
            row.must_change = by != row.name
            session.execute(delete(SignInRow).where(SignInRow.account == row.id))
            write(AuditLine(by, "set_password", details={"account": row.name}))

        self._trail.write(work)
        return secret

    def sign_in(self, name: str, password: str) -> SignIn:
        """Check a password and open a session.

        Raises
        ------
        MetaDxError
            ``sign_in_failed``, in the same words and the same time whether the name or the password is wrong, or the
            account is closed; ``account_locked`` after too many failures.
        """
        # Counted as a failure before it is checked, and forgotten if it is right: else many tries at once are all free.
        row, locked = self._try(name.strip().lower())
        if locked:
            raise MetaDxError(
                "account_locked",
                "Too many wrong passwords: the account is locked, try again in a quarter of an hour.",
            )
        right = password_matches(None if row is None else row.password_hash, password)
        if row is None or not right:
            # What was typed may be a password in the wrong field.
            self._trail.add(AuditLine("-" if row is None else row.name, "sign_in_failed"))
            raise MetaDxError("sign_in_failed", "The name or the password is wrong.")
        return self._open(row.id, "password")

    def of_subject(self, subject: Subject) -> Account | None:
        """Return whose subject of OpenID Connect this is; None where nobody's.

        Raises
        ------
        MetaDxError
            ``openid_unbound`` where only an account from before issuers were kept has it.
        """
        with self._records.reading() as session:
            row = account_of(session, subject)
        return None if row is None else _account(row)

    def failed(self, how: str, why: str) -> None:
        """Write down a sign-in that came to nothing elsewhere, with the code of the reason."""
        self._trail.add(AuditLine("-", "sign_in_failed", details={"how": how, "why": why}))

    def sign_in_as(self, subject: Subject) -> SignIn:
        """Open a session for whom OpenID Connect vouches.

        Raises
        ------
        MetaDxError
            ``sign_in_failed`` when no open account has this subject, or as :meth:`of_subject`.
        """
        with self._records.reading() as session:
            row = account_of(session, subject)
        if row is None or not row.enabled:
            raise MetaDxError(
                "sign_in_failed", "Your sign-in is known, but nobody has given you an account here yet."
            )
        return self._open(row.id, "openid")

    def session(self, token: str, *, used: bool = True) -> SignIn | None:
        """Return the session of a token, or None when it has ended; being used keeps it open."""
        digest = _digest(token)
        with self._records.reading() as session:
            row = session.get(SignInRow, digest)
            account = None if row is None else session.get(AccountRow, row.account)
        if row is None or account is None or not account.enabled:
            return None
        moment = datetime.now(UTC)
        seen = datetime.fromisoformat(row.seen_at)
        if row.ends_at <= now() or moment - seen > IDLE:
            if used:
                self.sign_out(token)
            return None
        if used and moment - seen > IDLE / 30:  # not a write for every picture of a case
            self._records.write(lambda session: _touch(session, digest))
        left = min((moment if used else seen) + IDLE, datetime.fromisoformat(row.ends_at)) - moment
        return SignIn(_account(account), row.csrf, seconds_left=int(left.total_seconds()))

    def sign_out(self, token: str) -> None:
        """End a session."""

        def work(session: Session, write: Write) -> None:
            row = session.get(SignInRow, _digest(token))
            if row is not None:
                account = session.get(AccountRow, row.account)
                session.delete(row)
                write(AuditLine(account.name if account else "-", "sign_out"))

        self._trail.write(work)

    def _open(self, account: int, how: str) -> SignIn:
        token, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)

        def work(session: Session, write: Write) -> Account:
            row = session.get_one(AccountRow, account)
            row.failures, row.locked_until = 0, None
            moment = datetime.now(UTC)
            session.execute(delete(SignInRow).where(SignInRow.ends_at <= now()))
            session.add(
                SignInRow(
                    token_hash=_digest(token),
                    account=account,
                    csrf=csrf,
                    created_at=now(),
                    seen_at=now(),
                    ends_at=(moment + LONGEST).isoformat(timespec="microseconds"),
                )
            )
            write(AuditLine(row.name, "sign_in", details={"how": how}))
            return _account(row)

        return SignIn(self._trail.write(work), csrf, token)

    def _try(self, name: str) -> tuple[AccountRow | None, bool]:
        """Count a try; return whose password it is about, None where nobody's, and whether the account is locked."""

        def work(session: Session, write: Write) -> tuple[AccountRow | None, bool]:
            row = session.scalar(select(AccountRow).where(AccountRow.name == name))
            if row is None or not row.enabled or row.password_hash is None:
                # Takes as long as counting: how long a sign-in takes does not tell whose account there is.
                session.execute(
                    update(AccountRow).where(AccountRow.id == 1).values(failures=AccountRow.failures)
                )
                return None, False
            if row.locked_until is not None and row.locked_until > now():
                write(AuditLine(name, "sign_in_locked"))
                return row, True
            row.failures += 1
            if row.failures >= FAILURES:
                row.locked_until = (datetime.now(UTC) + LOCKED).isoformat(timespec="microseconds")
                row.failures = 0
            return row, False

        return self._trail.write(work)


def _account(row: AccountRow) -> Account:
    return Account(row.id, row.name, row.role, row.must_change, row.enabled)  # type: ignore[arg-type]


def _row(session: Session, name: str) -> AccountRow:
    row = session.scalar(select(AccountRow).where(AccountRow.name == name.strip().lower()))
    if row is None:
        raise MetaDxError("unknown_account", f"There is no account '{name}'.")
    return row


def _touch(session: Session, digest: str) -> None:
    row = session.get(SignInRow, digest)
    if row is not None:
        row.seen_at = now()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
