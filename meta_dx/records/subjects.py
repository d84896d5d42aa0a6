"""Whom OpenID Connect means: a subject counts only together with the issuer that has named it.

Accounts from before issuers were kept have a subject alone. Nobody gets in with them: whoever the provider of today
calls so may be somebody else. An administrator says whose subjects they are (:func:`bind_subjects`).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.records.audit import AuditLine, AuditTrail, Write
from meta_dx.records.database import Records
from meta_dx.records.schema import AccountRow


@dataclass(frozen=True)
class Subject:
    """A person as a provider knows them (OpenID Connect Core, 5.7: only both together tell people apart).

    Parameters
    ----------
    issuer : str
        Address of the provider, exactly as it calls itself.
    name : str
        Its name for the person.
    """

    issuer: str
    name: str

    def __post_init__(self) -> None:
        if not self.issuer:
            raise MetaDxError(
                "bad_account",
                "A subject counts only with its issuer: set [review.openid] issuer in the cohort file.",
            )


def account_of(session: Session, subject: Subject) -> AccountRow | None:
    """Return whose subject this is; None where nobody's.

    Raises
    ------
    MetaDxError
        ``openid_unbound`` where an account from before issuers were kept has it, which may be somebody else's.
    """
    row = AccountRow
    found = session.scalar(select(row).where(row.issuer == subject.issuer, row.subject == subject.name))
    unbound = select(row.id).where(row.issuer.is_(None), row.subject == subject.name)
    if found is None and session.scalar(unbound) is not None:
        raise MetaDxError(
            "openid_unbound",
            f"An account with the subject '{subject.name}' is bound to no issuer yet: an administrator has to run "
            "'meta-dx review bind-subjects'.",
        )
    return found


def unbound_accounts(records: Records) -> list[str]:
    """Return the names of accounts whose subject has no issuer, sorted."""
    row = AccountRow
    unbound = select(row.name).where(row.issuer.is_(None), row.subject.is_not(None)).order_by(row.name)
    with records.reading() as session:
        return list(session.scalars(unbound))


def bind_subjects(
    trail: AuditTrail, issuer: str, *, earlier: str | None = None, by: str
) -> tuple[list[str], list[str]]:
    """Say that the subjects of an earlier issuer, or those without one, are an issuer's: the same people.

    Parameters
    ----------
    trail : AuditTrail
        Each account that is bound is a line.
    issuer : str
        Whose they are.
    earlier : str, optional
        Whose they were; without it, those that have no issuer.
    by : str
        Who says so.

    Returns
    -------
    bound, left : list of str
        Names of the accounts that are bound now, and of those that are not, since another account has that subject of
        that issuer.
    """
    whose = AccountRow.issuer.is_(None) if earlier is None else AccountRow.issuer == earlier

    def work(session: Session, write: Write) -> tuple[list[str], list[str]]:
        wanted = select(AccountRow).where(AccountRow.subject.is_not(None), whose).order_by(AccountRow.name)
        taken = set(session.scalars(select(AccountRow.subject).where(AccountRow.issuer == issuer)))
        bound, left = list[str](), list[str]()
        for row in session.scalars(wanted):
            (left if row.subject in taken else bound).append(row.name)
            if row.subject not in taken:
                row.issuer = issuer
                write(AuditLine(by, "bind_subject", details={"account": row.name, "issuer": issuer}))
        return bound, left

    return trail.write(work)
