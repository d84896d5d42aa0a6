"""Reports in a real archive: Orthanc, by STOW-RS and by C-STORE."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import srread
from pydicom import dcmread

from meta_dx.dicom.pacs.credentials import PASSWORD_VARIABLE
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.records.stored_reports import StoredReports
from meta_dx.review.desk import Desk
from meta_dx.review.report_archive import ReportArchive, archive_address
from meta_dx.review.reports import report_of
from tests.orthanc import Orthanc, forgetful, free_port
from tests.review.conftest import Browser
from tests.review.test_storing import click, decided, lead, states  # noqa: F401

pytestmark = pytest.mark.system
Connect = Callable[..., ReportArchive]


@pytest.fixture(params=["stow", "c-store"])
def connect(request: pytest.FixtureRequest, orthanc: Orthanc) -> Connect:
    """A factory of archives at Orthanc, one way and the other."""

    def make(**options: object) -> ReportArchive:
        text = orthanc.dicomweb if request.param == "stow" else orthanc.dimse_address
        pacs = replace(PacsOptions(connect_seconds=5, read_seconds=10, backoff_seconds=0.01), **options)  # type: ignore[arg-type]
        return ReportArchive(archive_address(text, pacs), pacs)

    make.way = request.param  # type: ignore[attr-defined]
    return make


def said(desk: Desk, study: str) -> tuple[str, str]:
    (report,) = StoredReports(desk.records, desk.trail).of(study)
    return report.state, report.why


def test_what_orthanc_hands_out_is_what_was_sent(
    desk: Desk,
    decided: str,  # noqa: F811
    lead: Browser,  # noqa: F811
    orthanc: Orthanc,
    connect: Connect,
    tmp_path: Path,
) -> None:
    desk.archive = connect()
    click(lead, decided)
    assert said(desk, decided) == ("stored", "")
    name, content = report_of(desk, decided)
    held = orthanc.instances()
    assert set(held) == {name}
    again = orthanc.file(held[name])
    assert dcmread(BytesIO(again)) == dcmread(BytesIO(content))
    (tmp_path / "sr.dcm").write_bytes(again)
    groups = srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert [e.value.meaning for e in groups[0].get_qualitative_evaluations()][1] == "Disease 1"
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run(["dciodvfy", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False)
    assert "ComprehensiveSR" in done.stderr + done.stdout
    assert "Error" not in done.stderr + done.stdout


@pytest.fixture(scope="module")
def forgetful_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    archive = forgetful(tmp_path_factory.mktemp("forgetful"))
    archive.start()
    yield archive
    archive.stop()


@pytest.mark.parametrize("way", ["dicomweb", "dimse_address"])
def test_an_answer_of_success_that_stored_nothing_is_not_believed(
    desk: Desk,
    decided: str,  # noqa: F811
    lead: Browser,  # noqa: F811
    orthanc: Orthanc,
    forgetful_orthanc: Orthanc,
    way: str,
) -> None:
    pacs = PacsOptions(connect_seconds=5, read_seconds=10)
    desk.archive = ReportArchive(archive_address(getattr(forgetful_orthanc, way), pacs), pacs)
    click(lead, decided)
    assert said(desk, decided) == ("unconfirmed", "")
    assert forgetful_orthanc.instances() == {}
    assert "the archive does not show it" in lead.get(f"/cases/{decided}").text


def test_a_kill_between_sending_and_asking_leaves_no_second_one(
    desk: Desk,
    decided: str,  # noqa: F811
    lead: Browser,  # noqa: F811
    orthanc: Orthanc,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from meta_dx.dicom.pacs import storing

    def die(*_: object) -> tuple[bool, str]:
        raise KeyboardInterrupt

    desk.archive = connect()
    with monkeypatch.context() as patch:
        patch.setattr(storing, "_look", die)
        with pytest.raises(KeyboardInterrupt):
            desk.archive.take(report_of(desk, decided)[1])
    assert set(orthanc.instances()) == {report_of(desk, decided)[0]}
    assert not desk.archive.take(report_of(desk, decided)[1]).sent
    click(lead, decided)
    assert said(desk, decided) == ("stored", "")
    assert set(orthanc.instances()) == {report_of(desk, decided)[0]}


def test_a_wrong_login_or_title_is_told_and_stores_nothing(
    desk: Desk,
    decided: str,  # noqa: F811
    lead: Browser,  # noqa: F811
    orthanc: Orthanc,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    desk.archive = connect(ae_title="STRANGER")
    click(lead, decided)
    state, why = said(desk, decided)
    assert state == "not_sent"
    assert ("refuses the login" if connect.way == "stow" else "STRANGER") in why  # type: ignore[attr-defined]
    assert orthanc.instances() == {}


def test_an_archive_that_lets_us_look_and_breaks_off_when_we_store_is_told(
    desk: Desk,
    decided: str,  # noqa: F811
    lead: Browser,  # noqa: F811
    orthanc: Orthanc,
) -> None:
    pacs = PacsOptions(ae_title="LOOKER", connect_seconds=5, read_seconds=10)
    desk.archive = ReportArchive(archive_address(orthanc.dimse_address, pacs), pacs)
    click(lead, decided)
    state, why = said(desk, decided)
    assert (state, "may not allow LOOKER to store" in why) == ("unconfirmed", True)
    assert orthanc.instances() == {}


def test_an_archive_that_is_down_is_told(
    desk: Desk,
    decided: str,  # noqa: F811
    lead: Browser,  # noqa: F811
) -> None:
    pacs = PacsOptions(backoff_seconds=0.01, connect_seconds=1)
    for text in (f"dicomweb+http://127.0.0.1:{free_port()}/web", f"dimse://ANY@127.0.0.1:{free_port()}"):
        desk.archive = ReportArchive(archive_address(text, pacs), pacs)
        click(lead, decided)
    assert states(desk, decided) == ["not_sent", "not_sent"]


def test_a_corrected_decision_stands_beside_the_one_it_supersedes(
    desk: Desk,
    browser: Callable[..., Browser],
    lead: Browser,  # noqa: F811
    orthanc: Orthanc,
    connect: Connect,
) -> None:
    desk.archive = connect()
    reader = browser("reader", "anna")
    study = reader.cases()[0]
    reader.read(study, "D1")
    for verdict in ({"verdict": "accept"}, {"verdict": "cannot_tell", "reason": "image_quality"}):
        reader.post(f"/cases/{study}/decide", **verdict)
        click(lead, study)
    held = {uid: dcmread(BytesIO(orthanc.file(name))) for uid, name in orthanc.instances().items()}
    assert len(held) == 2
    newest, _ = report_of(desk, study)
    (before,) = held[newest].PredecessorDocumentsSequence
    named = before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert set(held) == {newest, named}
    assert len({d.SeriesInstanceUID for d in held.values()}) == 1
