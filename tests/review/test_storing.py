"""Storing a report in an archive: who may, what is written down, what the page says, and that nothing goes twice."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread

from meta_dx.dicom.pacs.address import parse_address
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.storing import Delivery, Receipt
from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis
from meta_dx.records.schema import Base
from meta_dx.records.stored_reports import StoredReports
from meta_dx.review import storing
from meta_dx.review.desk import Desk
from meta_dx.review.report_archive import ReportArchive
from meta_dx.review.reports import report_of, settled_of
from meta_dx.review.storing import report_state, store_report
from meta_dx.steps.pacs import require_one_login
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]
ADDRESS = parse_address("dicomweb+https://pacs.example.org/web")


class FakeArchive(ReportArchive):
    """Ends as told; remembers what it was given."""

    def __init__(self, *receipts: Receipt | Exception) -> None:
        super().__init__(ADDRESS, PacsOptions())  # type: ignore[arg-type]
        self.receipts, self.given = list(receipts), []  # type: ignore[var-annotated]

    def take(self, content: bytes) -> Receipt:
        self.given.append(content)
        receipt = self.receipts.pop(0)
        if isinstance(receipt, BaseException):
            raise receipt
        return receipt


STORED = Receipt(Delivery.STORED, sent=True)


@pytest.fixture
def decided(desk: Desk, browser: Browsers) -> str:
    reader = browser("reader", "anna")
    study = reader.cases()[0]
    reader.read(study, "D1")
    reader.post(f"/cases/{study}/decide", verdict="override", diagnosis="D1", reason="finding_missed")
    return study


@pytest.fixture
def lead(browser: Browsers) -> Browser:
    return browser("lead", "lena")


def click(person: Browser, study: str):  # type: ignore[no-untyped-def]
    """Press the button that the page shows."""
    form = re.search(r'name="decision" value="([^"]+)"', person.get(f"/cases/{study}").text)
    assert form, "there is no button"
    return person.post(f"/cases/{study}/store", decision=form[1])


def has_button(person: Browser, study: str) -> bool:
    return f'action="/cases/{study}/store"' in person.get(f"/cases/{study}").text


def states(desk: Desk, study: str) -> list[str]:
    return [report.state for report in StoredReports(desk.records, desk.trail).of(study)]


def lines(desk: Desk, study: str) -> list[dict[str, object]]:
    """What the audit trail says of storing, oldest first."""
    found = [line for line in desk.trail.lines(study) if line.action == "store_report"]
    return [dict(line.details) | {"by": line.account} for line in reversed(found)]


def test_a_stored_report_is_kept_audited_and_said(desk: Desk, decided: str, lead: Browser) -> None:
    desk.archive = archive = FakeArchive(STORED)
    assert "is not in <b>pacs.example.org</b>" in lead.get(f"/cases/{decided}").text
    assert click(lead, decided).headers["location"] == f"/cases/{decided}"
    (report,) = StoredReports(desk.records, desk.trail).of(decided)
    assert (report.state, report.by, report.reader, report.version) == ("stored", "lena", "anna", 1)
    assert (report.archive, report.why) == ("dicomweb:https://pacs.example.org/web", "")
    assert report.begun_at < report.ended_at
    assert [(line["state"], line["by"], line["of"]) for line in lines(desk, decided)] == [
        ("begun", "lena", "anna"),
        ("stored", "lena", "anna"),
    ]
    assert "Stored and confirmed." in lead.get(f"/cases/{decided}").text
    assert not has_button(lead, decided)
    assert archive.given == [report_of(desk, decided)[1]]
    assert desk.trail.verify().whole


@pytest.mark.parametrize(
    ("receipt", "state", "words", "button"),
    [
        (
            Receipt(Delivery.UNCONFIRMED, "", True),
            "unconfirmed",
            "the archive does not show it",
            "Look again",
        ),
        (
            Receipt(Delivery.REFUSED, "It is full.", True),
            "refused",
            "not in the archive.</b> It is full.",
            "Try again",
        ),
        (
            Receipt(Delivery.NOT_SENT, "The archive sleeps."),
            "not_sent",
            "Not sent.</b> The archive",
            "Try again",
        ),
        (
            MetaDxError("open_credentials", "Others may read it."),
            "not_sent",
            "Others may read it.",
            "Try again",
        ),
    ],
)
def test_each_other_end_is_said_in_words_and_can_be_tried_again(
    desk: Desk, decided: str, lead: Browser, receipt, state: str, words: str, button: str
) -> None:
    desk.archive = archive = FakeArchive(receipt, STORED)
    assert click(lead, decided).status_code == 303
    assert states(desk, decided) == [state]
    shown = lead.get(f"/cases/{decided}").text
    assert words in shown
    assert button in shown
    click(lead, decided)
    assert states(desk, decided) == ["stored"]
    assert archive.given[0] == archive.given[1]  # the same instance, byte for byte


def test_only_an_adjudicator_or_a_lead_stores(desk: Desk, decided: str, browser: Browsers) -> None:
    desk.archive = archive = FakeArchive(STORED)
    key = settled_of(desk, decided)[-1].key
    for role in ("reader", "administrator"):
        person = browser(role, f"other-{role}")
        assert person.post(f"/cases/{decided}/store", decision=key).status_code == 403
        account = next(a for a in desk.accounts.all() if a.name == person.name)
        with pytest.raises(MetaDxError, match="no right"):
            store_report(desk, account, decided, key)
    assert archive.given == []
    assert not has_button(browser("reader", "third"), decided)
    assert click(browser("adjudicator", "adam"), decided).status_code == 303
    assert len(archive.given) == 1


def test_the_reader_who_decided_sees_what_became_of_it_but_no_button(desk: Desk, browser: Browsers) -> None:
    desk.archive = FakeArchive(STORED)
    reader = browser("reader", "anna")
    study = reader.cases()[0]
    reader.read(study, "D1")
    assert "Report in the archive" not in reader.get(f"/cases/{study}").text
    reader.post(f"/cases/{study}/decide", verdict="accept")
    shown = reader.get(f"/cases/{study}").text
    assert "An adjudicator or a lead can store it." in shown
    assert "/store" not in shown


def test_a_click_that_comes_without_the_pages_number_does_nothing(
    desk: Desk, decided: str, lead: Browser
) -> None:
    desk.archive = FakeArchive()
    key = settled_of(desk, decided)[-1].key
    answer = lead.client.post(f"/cases/{decided}/store", data={"csrf": "wrong", "decision": key})
    assert answer.status_code == 403
    assert lines(desk, decided) == []


def test_clicking_twice_sends_once(desk: Desk, decided: str, lead: Browser) -> None:
    desk.archive = archive = FakeArchive(STORED)
    key = settled_of(desk, decided)[-1].key
    for _ in range(2):
        assert lead.post(f"/cases/{decided}/store", decision=key).status_code == 303
    assert len(archive.given) == 1
    assert len(lines(desk, decided)) == 2


def test_two_clicks_at_once_send_once(desk: Desk, decided: str, lead: Browser) -> None:
    desk.archive = archive = FakeArchive(STORED)
    entered, go_on = threading.Event(), threading.Event()
    take = archive.take

    def slow(content: bytes) -> Receipt:
        entered.set()
        assert go_on.wait(30)
        return take(content)

    archive.take = slow  # type: ignore[method-assign]
    account = next(a for a in desk.accounts.all() if a.name == "lena")
    key = settled_of(desk, decided)[-1].key
    first = threading.Thread(target=store_report, args=(desk, account, decided, key))
    first.start()
    assert entered.wait(30)
    with pytest.raises(MetaDxError) as caught:
        store_report(desk, account, decided, key)
    go_on.set()
    first.join()
    assert caught.value.code == "being_stored"
    assert (len(archive.given), states(desk, decided)) == (1, ["stored"])


def test_while_a_report_is_sent_the_page_says_so(desk: Desk, decided: str, lead: Browser) -> None:
    desk.archive = archive = FakeArchive(STORED)
    take, shown = archive.take, []

    def look(content: bytes) -> Receipt:
        shown.append(lead.get(f"/cases/{decided}").text)
        assert not has_button(lead, decided)
        return take(content)

    archive.take = look  # type: ignore[method-assign]
    assert click(lead, decided).status_code == 303
    assert "is being sent" in shown[0]
    assert "this server was stopped" not in shown[0]
    assert "is being sent" not in lead.get(f"/cases/{decided}").text


def test_after_a_kill_between_sending_and_asking_the_page_says_that_nobody_knows(
    desk: Desk, decided: str, lead: Browser
) -> None:
    desk.archive = archive = FakeArchive(KeyboardInterrupt(), STORED)
    account = next(a for a in desk.accounts.all() if a.name == "lena")
    with pytest.raises(KeyboardInterrupt):
        store_report(desk, account, decided, settled_of(desk, decided)[-1].key)
    assert states(desk, decided) == ["begun"]
    assert "Nobody knows whether it arrived." in lead.get(f"/cases/{decided}").text
    click(lead, decided)
    assert states(desk, decided) == ["stored"]
    assert archive.given[0] == archive.given[1]
    assert [line["state"] for line in lines(desk, decided)] == ["begun", "begun", "stored"]


def test_a_corrected_decision_is_a_new_report_that_supersedes_the_one_before(
    desk: Desk, decided: str, lead: Browser
) -> None:
    desk.archive = archive = FakeArchive(STORED, STORED)
    click(lead, decided)
    old = settled_of(desk, decided)[-1].key
    anna = Browser.__new__(Browser)
    anna.desk, anna.name, anna.client = (
        desk,
        "anna",
        lead.client.__class__(lead.client.app, follow_redirects=False),
    )  # type: ignore[attr-defined]
    anna.client.headers["accept"] = "text/html"
    anna.sign_in()
    anna.get(f"/cases/{decided}")
    anna.post(f"/cases/{decided}/decide", verdict="accept")
    shown = lead.get(f"/cases/{decided}").text
    assert "still counts there: store this one, which supersedes it" in re.sub(r"\s+", " ", shown)
    assert (
        lead.post(f"/cases/{decided}/store", decision=old).status_code == 409
    )  # of a page that is out of date
    assert len(archive.given) == 1
    click(lead, decided)
    assert states(desk, decided) == ["stored", "stored"]
    first, second = (dcmread(BytesIO(content)) for content in archive.given)
    (before,) = second.PredecessorDocumentsSequence
    named = before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == first.SOPInstanceUID != second.SOPInstanceUID
    assert "is superseded: this one names it as its predecessor" in lead.get(f"/cases/{decided}").text


def test_a_decision_that_changes_while_the_report_is_written_does_not_get_into_it(
    desk: Desk, decided: str, lead: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.archive = archive = FakeArchive(STORED)
    name, _ = report_of(desk, decided)
    anna = next(account for account in desk.accounts.all() if account.name == "anna")
    write = storing.report_of

    def late(*given: Any) -> tuple[str, bytes]:
        desk.cases.decide(anna, decided, Decision("own", Diagnosis("D0", "99T", "Disease 0")), None)
        return write(*given)

    monkeypatch.setattr(storing, "report_of", late)
    click(lead, decided)
    assert len(settled_of(desk, decided)) == 2
    (report,) = StoredReports(desk.records, desk.trail).of(decided)
    assert (report.version, report.state) == (1, "stored")
    assert dcmread(BytesIO(archive.given[0])).SOPInstanceUID == name


def test_neither_records_nor_audit_hold_an_original_uid(desk: Desk, decided: str, lead: Browser) -> None:
    desk.archive = FakeArchive(STORED)
    name, content = report_of(desk, decided)
    click(lead, decided)
    with desk.records.reading() as session:
        rows = [session.execute(table.select()).all() for table in Base.metadata.sorted_tables]
    dump = repr(rows)
    assert decided in dump
    original = str(dcmread(BytesIO(content)).StudyInstanceUID)
    assert f"'{original}'" not in dump
    assert name not in dump


def test_without_an_archive_nothing_is_offered(desk: Desk, decided: str, lead: Browser) -> None:
    assert "Report in the archive" not in lead.get(f"/cases/{decided}").text
    answer = lead.post(f"/cases/{decided}/store", decision="x")
    assert (answer.status_code, "[review] archive" in answer.text) == (400, True)


def test_a_case_that_is_not_done_has_no_report_to_store(desk: Desk, lead: Browser) -> None:
    desk.archive = FakeArchive()
    study = lead.cases()[0]
    assert "Report in the archive" not in lead.get(f"/cases/{study}").text
    assert lead.post(f"/cases/{study}/store", decision="x").status_code == 409


@pytest.mark.parametrize(
    "end", [STORED, Receipt(Delivery.UNCONFIRMED, sent=True), Receipt(Delivery.REFUSED, "Full.")]
)
def test_a_stored_report_of_a_case_that_is_in_dispute_again_is_called_contested(
    make_desk: Callable[..., Desk], browser: Browsers, end: Receipt
) -> None:
    two = make_desk(readers=2, name="two")
    two.archive = FakeArchive(end)
    settler = browser("adjudicator", "settler", at=two)
    study = settler.cases()[0]
    d0, d1 = two.diseases()
    for name in ("anna", "bert"):
        browser("reader", name, at=two)
    accounts = {one.name: one for one in two.accounts.all()}
    for name in ("anna", "bert"):
        two.cases.open(accounts[name], study)
        two.cases.read(accounts[name], study, BlindOpinion((d0,), 70))
        assert report_state(two, study) is None
        two.cases.decide(accounts[name], study, Decision("own", d0), None)
    stored = store_report(two, accounts["settler"], study, settled_of(two, study)[-1].key)
    state = report_state(two, study)
    assert state is not None
    assert (state.report, state.contested) == (stored, False)
    two.cases.decide(accounts["bert"], study, Decision("own", d1), None)
    state = report_state(two, study)
    if end.delivery is Delivery.REFUSED:
        assert state is None
        return
    assert state is not None
    assert (state.report, state.contested, state.decision) == (stored, True, "")
    page = settler.get(f"/cases/{study}").text
    assert "<b>Contested.</b>" in page
    assert "Stored and confirmed" not in page
    assert f'action="/cases/{study}/store"' not in page
    two.cases.adjudicate(accounts["settler"], study, Decision("own", d0))
    state = report_state(two, study)
    assert state is not None
    assert (state.report, state.before, state.contested) == (None, stored, False)


def test_the_one_login_of_the_environment_goes_to_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("META_DX_PACS_TOKEN", "secret")
    addresses = ["dicomweb+https://a.example/web", "dicomweb+https://b.example/web"]
    with pytest.raises(MetaDxError, match="2 DICOMweb servers"):
        require_one_login(addresses, PacsOptions())
    require_one_login([addresses[0], f"{addresses[0]}?modality=CT"], PacsOptions())
