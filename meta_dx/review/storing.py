"""Storing the report of a case in the archive of ``[review] archive``, and what the page says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meta_dx.dicom.pacs.storing import Delivery, Receipt
from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Account
from meta_dx.records.opinions import Opinion
from meta_dx.records.stored_reports import StoredReport, StoredReports
from meta_dx.review.desk import Desk
from meta_dx.review.reports import report_of, settled_of


@dataclass(frozen=True)
class ReportState:
    """What the page says about the report of a case.

    Parameters
    ----------
    archive : str
        Where it is or would be.
    decision : str
        Which decision it tells of; comes back with the click.
    report : StoredReport, optional
        What became of it; None where nobody had it stored.
    before : StoredReport, optional
        The newest report of an earlier decision that is, or may be, in the archive.
    sending : bool
        A report of the case is on its way just now.
    """

    archive: str
    decision: str
    report: StoredReport | None
    before: StoredReport | None
    sending: bool = False


def report_state(desk: Desk, study: str) -> ReportState | None:
    """Return what the page says about the report of a case; None without an archive or a decision."""
    if desk.archive is None or desk.cases.get(study).state != "done":
        return None
    sending = desk.archive.is_sending(study)  # asked first: what ends in between is then read as ended
    settled = settled_of(desk, study)
    there = [r for r in StoredReports(desk.records, desk.trail).of(study) if r.archive == desk.archive.name]
    own = next((report for report in there if report.is_of(settled[-1])), None)
    earlier = [r for r in there if r is not own and r.state in ("stored", "unconfirmed", "begun")]
    before = earlier[-1] if earlier else None
    return ReportState(desk.archive.label, decision_key(settled[-1]), own, before, sending)


def store_report(desk: Desk, account: Account, study: str, decision: str) -> StoredReport:
    """Store the report of the decision that stands, and write down what became of it.

    That it is about to be sent is written down before: whatever kills the server in between, the next click finds the
    instance by its UID, or sends the same one again.

    Parameters
    ----------
    desk : Desk
        The review.
    account : Account
        Who wants it.
    study : str
        Surrogate UID.
    decision : str
        The decision that this person saw, as :attr:`ReportState.decision` names it.

    Returns
    -------
    StoredReport

    Raises
    ------
    MetaDxError
        ``not_allowed``, ``no_archive``, ``not_decided``, ``decision_changed``, ``being_stored``.
    """
    if not account.may("store"):
        raise MetaDxError("not_allowed", "You have no right to store reports in the archive.")
    if desk.archive is None:
        raise MetaDxError("no_archive", "No archive is named for reports: set [review] archive.")
    with desk.archive.alone(study):
        settled = settled_of(desk, study)
        opinion = settled[-1]
        if decision != decision_key(opinion):
            raise MetaDxError(
                "decision_changed",
                "The decision has changed since you opened the page: look at it again first.",
            )
        reports, archive = StoredReports(desk.records, desk.trail), desk.archive.name
        known = _of(reports, study, opinion, archive)
        if known is not None and known.state == "stored":
            return known
        _, content = report_of(desk, study, settled)
        reports.begin(account, opinion, archive)
        receipt = _end_of(desk.archive.take, content)
        reports.end(account, opinion, archive, receipt.delivery.value, receipt.why)
        found = _of(reports, study, opinion, archive)
        if found is None:
            raise RuntimeError("what was written down is gone")
        return found


def decision_key(opinion: Opinion) -> str:
    """Name a decision, so that a click tells which one it was about."""
    return f"{opinion.kind}/{opinion.account}/{opinion.version}"


def _of(reports: StoredReports, study: str, opinion: Opinion, archive: str) -> StoredReport | None:
    found = (r for r in reports.of(study) if r.archive == archive and r.is_of(opinion))
    return next(found, None)


def _end_of(take: Callable[[bytes], Receipt], content: bytes) -> Receipt:
    """Have it taken; what is wrong with a login or a certificate of ours is an end, too."""
    try:
        return take(content)
    except MetaDxError as fault:
        return Receipt(Delivery.NOT_SENT, str(fault))
