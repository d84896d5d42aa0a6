"""Storing the report of a case in the archive of ``[review] archive``, and what the page says about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meta_dx.dicom.pacs.storing import Delivery, Receipt
from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Account
from meta_dx.records.opinions import Opinion
from meta_dx.records.stored_reports import StoredReport, StoredReports
from meta_dx.review.desk import Desk
from meta_dx.review.report_archive import ReportArchive
from meta_dx.review.reports import report_of, settled_of


@dataclass(frozen=True)
class ReportState:
    """What the page says about the report of a case.

    Parameters
    ----------
    archive : str
        Where it is or would be.
    decision : str
        Which decision it tells of; comes back with the click. Empty where no decision stands.
    report : StoredReport, optional
        What became of it; None where nobody had it stored.
    before : StoredReport, optional
        The newest report of an earlier decision that is, or may be, in the archive.
    sending : bool
        A report of the case is on its way just now.
    contested : bool
        The case is in dispute again: the report that is, or may be, in the archive tells of a decision that does not
        stand any more, and there is none to store until the dispute is settled.
    """

    archive: str
    decision: str
    report: StoredReport | None
    before: StoredReport | None
    sending: bool = False
    contested: bool = False


def report_state(desk: Desk, study: str) -> ReportState | None:
    """Return what the page says about the report of a case.

    None without an archive, and where no decision stands and no report of an earlier one can be in the archive.
    """
    if desk.archive is None:
        return None
    sending = desk.archive.is_sending(study)  # asked first: what ends in between is then read as ended
    if desk.cases.get(study).state != "done":
        left = [report for report in _in_archive(desk, desk.archive, study).values() if report.may_be_there]
        return ReportState(desk.archive.label, "", left[-1], None, sending, contested=True) if left else None
    opinion = settled_of(desk, study)[-1]
    there = _in_archive(desk, desk.archive, study)
    own = there.pop(opinion.key, None)
    earlier = [report for report in there.values() if report.may_be_there]
    return ReportState(desk.archive.label, opinion.key, own, earlier[-1] if earlier else None, sending)


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
        if decision != opinion.key:
            raise MetaDxError(
                "decision_changed",
                "The decision has changed since you opened the page: look at it again first.",
            )
        known = _in_archive(desk, desk.archive, study).get(opinion.key)
        if known is not None and known.state == "stored":
            return known
        _send(desk, desk.archive, account, settled, known)
        return _in_archive(desk, desk.archive, study)[opinion.key]


def _send(
    desk: Desk,
    archive: ReportArchive,
    account: Account,
    settled: Sequence[Opinion],
    known: StoredReport | None,
) -> None:
    """Send the report of the last decision, and write down how that ended."""
    opinion, reports = settled[-1], StoredReports(desk.records, desk.trail)
    if known is not None and known.may_be_there:  # what may have arrived is the same instance each time
        named = known.predecessors
    else:
        try:
            named = _there(desk, archive, account, settled)
        except MetaDxError as fault:
            reports.begin(account, opinion, archive.name, [])
            reports.end(account, opinion, archive.name, Delivery.NOT_SENT.value, str(fault))
            return
    _, content = report_of(desk, opinion.study, settled, _named(desk, archive, settled, named))
    reports.begin(account, opinion, archive.name, named)
    receipt = _end_of(archive.take, content)
    reports.end(account, opinion, archive.name, receipt.delivery.value, receipt.why)


def _there(desk: Desk, archive: ReportArchive, account: Account, settled: Sequence[Opinion]) -> list[str]:
    """Return the earlier decisions whose reports the archive has; those of which nobody knows are asked for."""
    reports, found = StoredReports(desk.records, desk.trail), list[str]()
    for place, opinion in enumerate(settled[:-1], start=1):
        known = _in_archive(desk, archive, opinion.study).get(opinion.key)
        if known is None or not known.may_be_there:
            continue
        if known.state != "stored":
            until = settled[:place]
            of_it = _named(desk, archive, until, known.predecessors)
            if not archive.shows(report_of(desk, opinion.study, until, of_it)[1]):
                continue
            reports.end(account, opinion, archive.name, Delivery.STORED.value, "")
        found.append(opinion.key)
    return found


def _named(
    desk: Desk, archive: ReportArchive, settled: Sequence[Opinion], predecessors: Sequence[str] | None
) -> dict[str, Sequence[str]]:
    """Return which decisions each report in the archive names, and that of the last one."""
    there = _in_archive(desk, archive, settled[-1].study)
    told = {key: report.predecessors for key, report in there.items()} | {settled[-1].key: predecessors}
    keys = [one.key for one in settled]
    every = {key: keys[:place] for place, key in enumerate(keys)}
    return {key: every[key] if names is None else names for key, names in told.items() if key in every}


def _in_archive(desk: Desk, archive: ReportArchive, study: str) -> dict[str, StoredReport]:
    """Return what became of each report of a case in the archive, by decision and in their order."""
    reports = StoredReports(desk.records, desk.trail).of(study)
    return {report.key: report for report in reports if report.archive == archive.name}


def _end_of(take: Callable[[bytes], Receipt], content: bytes) -> Receipt:
    """Have it taken; what is wrong with a login or a certificate of ours is an end, too."""
    try:
        return take(content)
    except MetaDxError as fault:
        return Receipt(Delivery.NOT_SENT, str(fault))
