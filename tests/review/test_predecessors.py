"""What a report in an archive names as superseded: what is there, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import update

from meta_dx.dicom.pacs.address import parse_address
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.storing import Delivery, Receipt
from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Account
from meta_dx.records.opinions import Decision, Diagnosis
from meta_dx.records.schema import StoredReportRow
from meta_dx.records.stored_reports import StoredReports
from meta_dx.review.desk import Desk
from meta_dx.review.report_archive import ReportArchive
from meta_dx.review.reports import report_of, settled_of
from meta_dx.review.storing import store_report
from tests.review.conftest import Browser

STORED, LOST = Receipt(Delivery.STORED, sent=True), Receipt(Delivery.UNCONFIRMED, sent=True)
REFUSED, AWAY = Receipt(Delivery.REFUSED, "It is full.", True), Receipt(Delivery.NOT_SENT, "It sleeps.")
OTHER = "dicomweb+https://other.example.org/web"


class Shelf(ReportArchive):
    """An archive that ends as told; ``held`` are the UIDs that a query shows."""

    def __init__(self, address: str = "dicomweb+https://pacs.example.org/web") -> None:
        super().__init__(parse_address(address), PacsOptions())  # type: ignore[arg-type]
        self.ends: list[Receipt] = []
        self.given: list[bytes] = []
        self.held: set[str] = set()
        self.asleep = False

    def take(self, content: bytes) -> Receipt:
        self.given.append(content)
        receipt = self.ends.pop(0)
        if receipt is STORED:
            self.held.add(uid(content))
        return receipt

    def shows(self, content: bytes) -> bool:
        if self.asleep:
            raise MetaDxError("archive", "The archive sleeps.")
        return uid(content) in self.held


def uid(content: bytes) -> str:
    return str(dcmread(BytesIO(content)).SOPInstanceUID)


def named(content: bytes) -> list[str]:
    """Return the UIDs of the predecessors of a report."""
    return [
        reference.ReferencedSOPInstanceUID
        for item in dcmread(BytesIO(content)).get("PredecessorDocumentsSequence", [])
        for reference in item.ReferencedSeriesSequence[0].ReferencedSOPSequence
    ]


class Case:
    """A case whose decision changes, and whose report somebody has stored."""

    def __init__(self, desk: Desk, browser: Callable[..., Browser]) -> None:
        self.desk, self.lead = desk, browser("lead", "lena")
        self.study = self.lead.cases()[0]
        self.lead.read(self.study)
        self.archive = desk.archive = Shelf()
        self.decided = 0

    def account(self) -> Account:
        return next(one for one in self.desk.accounts.all() if one.name == "lena")

    def decide(self) -> None:
        self.decided += 1
        disease = Diagnosis(f"D{self.decided % 2}", "99T", "x")
        self.desk.cases.decide(self.account(), self.study, Decision("own", disease), None)

    def store(self, end: Receipt) -> bytes:
        self.archive.ends = [end]
        store_report(self.desk, self.account(), self.study, settled_of(self.desk, self.study)[-1].key)
        return self.archive.given[-1]

    def page(self) -> str:
        return re.sub(r"\s+", " ", self.lead.get(f"/cases/{self.study}").text)


@pytest.fixture
def case(desk: Desk, browser: Callable[..., Browser]) -> Case:
    made = Case(desk, browser)
    made.decide()
    return made


@pytest.mark.parametrize("end", [None, REFUSED, AWAY])
def test_a_report_that_is_not_in_the_archive_is_not_named_there(case: Case, end: Receipt | None) -> None:
    if end is not None:
        case.store(end)
    first, _ = report_of(case.desk, case.study)
    case.decide()
    sent = case.store(STORED)
    assert named(sent) == []
    name, file = report_of(
        case.desk, case.study
    )  # who has got the first one as a file finds it in the second
    assert named(file) == [first]
    assert uid(sent) != name, "two contents are two instances"
    assert "Stored and confirmed." in case.page()
    assert "predecessor" not in case.page()


def test_reports_that_are_there_are_named_and_the_file_is_the_same_instance(case: Case) -> None:
    given = [case.store(STORED)]
    for _ in range(2):
        case.decide()
        given.append(case.store(STORED))
    assert [named(one) for one in given] == [[], [uid(given[0])], [uid(given[0]), uid(given[1])]]
    assert given[-1] == report_of(case.desk, case.study)[1]
    assert "is superseded: this one names it as its predecessor." in case.page()


def test_a_report_names_the_one_before_it_as_the_archive_holds_it(case: Case) -> None:
    """The second names nothing there, so it is another instance than its file; the third has to name that one."""
    case.decide()
    second = case.store(STORED)
    case.decide()
    third = case.store(STORED)
    assert named(second) == []
    assert named(third) == [uid(second)]
    assert set(case.archive.held) == {uid(second), uid(third)}


@pytest.mark.parametrize("came", [True, False])
def test_of_a_report_that_may_have_arrived_the_archive_is_asked(case: Case, came: bool) -> None:
    first = case.store(LOST)
    case.decide()
    assert "may be in the archive and still counts there" in case.page()
    if came:
        case.archive.held.add(uid(first))
    second = case.store(STORED)
    assert named(second) == ([uid(first)] if came else [])
    states = [report.state for report in StoredReports(case.desk.records, case.desk.trail).of(case.study)]
    assert states == ["stored" if came else "unconfirmed", "stored"]
    said = "this one names it as its predecessor." if came else "which does not name it."
    assert said in case.page()


def test_while_the_archive_cannot_be_asked_nothing_is_sent_and_the_next_try_asks_again(case: Case) -> None:
    first = case.store(LOST)
    case.archive.held.add(uid(first))
    case.archive.asleep = True
    case.decide()
    case.store(STORED)
    assert len(case.archive.given) == 1
    assert "Not sent.</b> The archive sleeps." in case.page()
    case.archive.asleep = False
    assert named(case.store(STORED)) == [uid(first)]


def test_a_report_that_may_have_arrived_is_the_same_instance_at_the_next_try(case: Case) -> None:
    """Whatever has become of the earlier one meanwhile."""
    first = case.store(LOST)
    case.decide()
    tried = case.store(LOST)
    case.archive.held.add(uid(first))
    assert case.store(STORED) == tried
    case.decide()
    assert named(case.store(STORED)) == [uid(first), uid(tried)]


def test_another_archive_is_told_only_of_what_it_has_itself(case: Case) -> None:
    case.store(STORED)
    case.decide()
    case.archive = case.desk.archive = Shelf(OTHER)
    second = case.store(STORED)
    assert named(second) == []
    case.decide()
    assert named(case.store(STORED)) == [uid(second)]


def test_a_report_from_before_names_were_kept_keeps_its_uid(case: Case) -> None:
    """It named all earlier ones, and the archive holds it under that UID."""
    case.decide()
    old, content = report_of(case.desk, case.study)
    case.store(LOST)
    with case.desk.records.transaction() as session:
        session.execute(update(StoredReportRow).values(predecessors=None))
    assert case.store(STORED) == content
    case.decide()
    assert named(case.store(STORED)) == [old]


def test_the_first_of_two_readers_alone_has_no_report_to_be_named(
    make_desk: Callable[..., Desk], browser: Callable[..., Browser]
) -> None:
    desk = make_desk(readers=2, name="double")
    desk.archive = shelf = Shelf()
    anna, lena = browser("reader", "anna", at=desk), browser("lead", "lena", at=desk)
    study = anna.cases()[0]
    for person in (anna, lena):
        person.read(study)
        person.post(f"/cases/{study}/decide", verdict="accept")
    shelf.ends = [STORED]
    account = next(one for one in desk.accounts.all() if one.name == "lena")
    store_report(desk, account, study, settled_of(desk, study)[-1].key)
    assert named(shelf.given[0]) == []
    assert report_of(desk, study)[1] == shelf.given[0], "nor has it been handed out as a file"


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)"
)
def test_an_independent_program_finds_no_error_with_predecessors_or_without(
    case: Case, tmp_path: Path
) -> None:
    case.decide()
    given = [case.store(STORED)]
    case.decide()
    given.append(case.store(STORED))
    for content in given:
        (tmp_path / "sr.dcm").write_bytes(content)
        done = subprocess.run(["dciodvfy", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False)
        assert "ComprehensiveSR" in done.stderr + done.stdout
        assert "Error" not in done.stderr + done.stdout
