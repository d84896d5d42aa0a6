"""What a DIMSE archive can do wrong: one of pynetdicom's, that lists and sends what a test tells it to."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)
from requests.certs import where

from meta_dx.cohort.fetch import FetchSummary, failed_instances, fetch, landing_folder
from meta_dx.dicom.codestreams import RETIRED
from meta_dx.dicom.pacs import dimse_service
from meta_dx.dicom.pacs.address import parse_address
from meta_dx.dicom.pacs.archive import ListedInstance
from meta_dx.dicom.pacs.dimse_requests import SYNTAXES, Match, portions
from meta_dx.dicom.pacs.dimse_service import DimseService
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError
from tests.dicom.builders import write_study


@dataclass
class World:
    """An archive that lists ``files`` and sends those that ``sends`` lets through."""

    files: list[Dataset]
    sends: Any = None
    status: int = 0x0000
    find_status: int = 0x0000
    answers: Any = None
    hidden: str | None = None
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"dimse://FAKE@127.0.0.1:{self.port}"

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        level = event.identifier.QueryRetrieveLevel
        key = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
        if self.find_status:
            yield self.find_status, None
            return
        if self.answers is not None:
            yield from self.answers(event)
            return
        for uid in dict.fromkeys(getattr(file, key) for file in self.files):
            first = next(file for file in self.files if getattr(file, key) == uid)
            entry = Dataset()
            with config.disable_value_validation():
                for name in (key, "SOPClassUID", "PatientID", "StudyDate", "Modality"):
                    setattr(entry, name, first[name].value)
            entry.QueryRetrieveLevel = level
            if level == "STUDY":
                entry.NumberOfStudyRelatedInstances = len(self.files)
            if level == "SERIES":
                entry.NumberOfSeriesRelatedInstances = len(self.files)
            if uid != self.hidden:
                yield 0xFF00, entry

    def get(self, event: Any) -> Iterator[Any]:
        wanted = event.identifier.SOPInstanceUID
        uids = [wanted] if isinstance(wanted, str) else list(wanted)
        self.asked += uids
        found = [file for file in self.files if file.SOPInstanceUID in uids]
        chosen = found if self.sends is None else self.sends(found)
        yield max(1, len(chosen)) if self.status else len(chosen)
        for file in chosen:
            yield 0xFF00, file
        if self.status:
            yield self.status, None


@pytest.fixture
def world(source: Path) -> Iterator[World]:
    world = World([dcmread(file) for file in write_study(source, images=4)])
    entity = AE("FAKE")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    for context in StoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, scu_role=True, scp_role=True)
    entity.require_called_aet = True
    handlers = [(evt.EVT_C_FIND, world.find), (evt.EVT_C_GET, world.get)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    world.port = server.server_address[1]
    yield world
    server.shutdown()


def test_what_is_listed_is_fetched_and_nothing_twice(home, world, quick) -> None:
    assert fetch(home, world.address, options=quick) == FetchSummary(found=4, fetched=4, studies=1)
    landed = [dcmread(file) for file in landing_folder(home, world.address).iterdir()]
    assert {file.SOPInstanceUID: file.PixelData for file in landed} == {
        file.SOPInstanceUID: file.PixelData for file in world.files
    }
    world.asked.clear()
    assert fetch(home, world.address, options=quick) == FetchSummary(found=4, already_here=4, studies=1)
    assert world.asked == []


def test_success_that_sent_nothing_is_asked_for_again_and_then_a_code_each(home, world, quick) -> None:
    world.sends = lambda _: []
    summary = fetch(home, world.address, options=quick)
    assert summary == FetchSummary(found=4, failed={"not_sent": 4}, studies=1)
    assert len(world.asked) == 4 * (1 + quick.retries)
    assert {one.state for one in failed_instances(home, world.address)} == {"not_sent"}
    world.sends = None
    assert fetch(home, world.address, options=quick).fetched == 4


def test_success_that_sent_less_is_completed(home, world, quick) -> None:
    world.sends = lambda found: found[:1]
    assert fetch(home, world.address, options=quick) == FetchSummary(
        found=4, fetched=3, failed={"not_sent": 1}, studies=1
    )
    assert len(world.asked) == 4 + 3 + 2, "only what is missing is asked for again"


def test_what_nobody_asked_for_is_turned_away(home, world, quick, source) -> None:
    foreign = dcmread(write_study(source / "foreign", images=1, study="other", patient="other")[0])
    world.sends = lambda found: [foreign, *found]
    assert fetch(home, world.address, options=quick) == FetchSummary(found=4, fetched=4, studies=1)
    landed = [dcmread(file).SOPInstanceUID for file in landing_folder(home, world.address).iterdir()]
    assert foreign.SOPInstanceUID not in landed and len(landed) == 4


def test_an_instance_over_the_limit_is_a_code_and_the_rest_is_fetched(home, world, quick) -> None:
    world.files[2].PixelData = b"\0" * 200_000
    summary = fetch(home, world.address, options=quick, max_file_bytes=50_000)
    assert summary == FetchSummary(found=4, fetched=3, failed={"too_large": 1}, studies=1)


@pytest.mark.parametrize(("status", "code"), [(0xA701, "not_sent"), (0xA900, "refused"), (0xC001, "refused")])
def test_a_refused_retrieval_is_a_code_each(home, world, quick, status, code) -> None:
    world.sends, world.status = (lambda _: []), status
    assert fetch(home, world.address, options=quick).failed == {code: 4}


def test_a_refused_query_is_one_sentence(home, world, quick) -> None:
    world.find_status = 0xA900
    with pytest.raises(MetaDxError) as caught:
        fetch(home, world.address, options=quick)
    assert caught.value.code == "pacs_refused"


def test_an_archive_that_lists_without_end_is_not_heard_out(home, world, quick, monkeypatch) -> None:
    monkeypatch.setattr(dimse_service, "MOST_MATCHES", 3)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, world.address, options=quick)
    assert caught.value.code == "pacs_paging"
    monkeypatch.setattr(dimse_service, "MOST_MATCHES", 4)
    assert fetch(home, world.address, options=quick).fetched == 4


def test_wrong_title_and_unreachable_host_are_one_sentence_each(home, world, quick) -> None:
    with pytest.raises(MetaDxError) as caught:
        fetch(home, world.address.replace("FAKE", "WRONG"), options=quick)
    assert caught.value.code == "pacs_refused" and "WRONG" in str(caught.value)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, "dimse://FAKE@127.0.0.1:9", options=quick)
    assert caught.value.code == "pacs_unreachable"
    with pytest.raises(MetaDxError) as caught:
        fetch(home, world.address.replace("dimse", "dimse+tls"), options=quick)
    assert caught.value.code == "pacs_unreachable"


def test_the_authorities_of_tls_are_those_of_dicomweb_and_not_of_the_environment(
    tmp_path, monkeypatch
) -> None:
    bundle = Path(where()).read_text()
    end = "-----END CERTIFICATE-----\n"
    one = tmp_path / "one.pem"
    one.write_text(bundle.partition(end)[0] + end)
    monkeypatch.setenv("SSL_CERT_FILE", str(one))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))

    def trusted(**options: Any) -> int:
        service = DimseService(parse_address("dimse+tls://A@pacs:2762"), PacsOptions(**options))
        context, host = service._tls()
        assert host == "pacs" and context.check_hostname
        return len(context.get_ca_certs())

    assert trusted() == bundle.count(end) > 1
    assert trusted(ca_file=str(one)) == 1


def test_every_syntax_that_ingest_decodes_is_asked_for() -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    def decoded(uid: UID) -> bool:
        try:
            return get_decoder(RETIRED.get(uid, uid)).is_available
        except NotImplementedError:
            return False

    assert {str(uid) for uid in (*AllTransferSyntaxes, *RETIRED) if decoded(uid)} <= set(SYNTAXES)


@pytest.mark.parametrize("count", [1, 7, 8, 30])
def test_every_class_is_asked_for_in_every_syntax_within_what_an_association_holds(count) -> None:
    wanted = [ListedInstance("1", "1.1", f"1.1.{n}", f"1.2.3.{n}", "mark") for n in range(count)]
    parts = list(portions(wanted, move=False))
    assert sorted(one.uid for _, part in parts for one in part) == sorted(one.uid for one in wanted)
    for contexts, part in parts:
        assert len(set(contexts)) == len(contexts) <= 126
        assert set(contexts) == {(one.sop_class, syntax) for one in part for syntax in SYNTAXES}


def test_where_no_class_is_known_every_usual_one_is_asked_for_in_the_syntaxes_that_matter() -> None:
    ((contexts, _),) = portions([ListedInstance("1", "1.1", "1.1.1", "", "mark")], move=False)
    classes = {one for one, _ in contexts}
    assert len(contexts) <= 126 and len(classes) == 8
    assert {(one, syntax) for one in classes for syntax in SYNTAXES[:15]} <= set(contexts)


@pytest.mark.parametrize("uid", ["../../etc/x", "1.2.3*", ""])
def test_a_uid_that_is_none_is_counted_and_never_asked_for(home, world, quick, uid) -> None:
    with config.disable_value_validation():
        world.files[1].SOPInstanceUID = uid
        summary = fetch(home, world.address, options=quick)
    assert summary == FetchSummary(found=4, fetched=3, failed={"bad_listing": 1}, studies=1)
    assert uid not in world.asked


def test_nothing_is_logged_or_warned_of_what_is_spoken(home, world, quick, caplog, recwarn) -> None:
    with config.disable_value_validation():
        for file in world.files:
            file.StudyDate = file.Modality = "John Doe, born in May"
            file.PatientID = "Doe " * 30
    recwarn.clear()
    with caplog.at_level(logging.DEBUG):
        assert fetch(home, world.address, options=quick).found == 4
    assert world.files[0].StudyInstanceUID not in caplog.text
    assert not [warning for warning in recwarn if "Doe" in str(warning.message)]


def test_an_answer_to_a_query_that_does_not_end_is_not_gathered(home, world, quick, monkeypatch) -> None:
    def find(_: Any) -> Iterator[tuple[int, Dataset]]:
        entry = Dataset()
        entry.StudyInstanceUID = "1.2.3"
        entry.PixelData = bytes(2 << 20)  # longer than any answer to a query has reason to be
        entry["PixelData"].VR = "OB"
        yield 0xFF00, entry

    monkeypatch.setattr(world, "answers", find)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, world.address, options=quick)
    assert caught.value.code == "pacs_paging"


def test_a_listing_with_more_bytes_than_allowed_is_one_sentence(home, world, quick, monkeypatch) -> None:
    monkeypatch.setattr(dimse_service, "LISTING_BYTES", 200)
    with pytest.raises(MetaDxError, match="narrow") as caught:
        fetch(home, world.address, options=quick)
    assert caught.value.code == "pacs_paging"


def test_a_match_that_cannot_be_decoded_is_asked_for_again_and_never_left_out(monkeypatch) -> None:
    status, match = Dataset(), Dataset()
    status.Status, match.StudyInstanceUID = 0xFF00, "1.2.3"
    answers = [[(status, match), (status, None)], [(status, match), (status, match)]]
    association = SimpleNamespace(
        is_established=True, abort=lambda: None, send_c_find=lambda *_: iter(answers.pop(0))
    )
    monkeypatch.setattr(
        "meta_dx.dicom.pacs.dimse_service.measure", lambda _: SimpleNamespace(begin=lambda _: None)
    )
    options = PacsOptions(retries=1, backoff_seconds=0.01)
    service = DimseService(parse_address("dimse://A@127.0.0.1:1"), options)
    monkeypatch.setattr(service, "_associate", lambda *_: association)
    assert [
        found.value("StudyInstanceUID") for found in service._find("STUDY", {"StudyInstanceUID": ""})
    ] == [
        "1.2.3",
        "1.2.3",
    ]
    assert not answers


@pytest.mark.parametrize("filters", ["", "?modality=CR"])
def test_an_instance_that_is_counted_but_not_listed_is_accounted_for(home, world, quick, filters) -> None:
    world.hidden = world.files[1].SOPInstanceUID
    summary = fetch(home, world.address + filters, options=quick)
    assert summary == FetchSummary(found=4, fetched=3, failed={"not_listed": 1}, studies=1)


class _Late(threading.Event):
    """What pynetdicom's reactor waits for; it is woken up late, as on a busy machine."""

    def wait(self, timeout: float | None = None) -> bool:
        woken = super().wait(timeout)
        time.sleep(0.02)
        return woken


def test_no_answer_is_lost_to_a_reactor_that_wakes_up_late(world, monkeypatch) -> None:
    begin = Association.__init__

    def late(self: Association, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        if self.is_requestor:
            self._reactor_checkpoint = _Late()
            self._reactor_checkpoint.set()

    monkeypatch.setattr(Association, "__init__", late)

    def thirty(_: Any) -> Iterator[tuple[int, Dataset]]:
        for number in range(30):
            entry = Dataset()
            entry.QueryRetrieveLevel, entry.SOPInstanceUID = "IMAGE", f"1.2.{number}"
            yield 0xFF00, entry

    world.answers = thirty
    service = DimseService(parse_address(world.address), PacsOptions(retries=0, read_seconds=5))
    keys = {"StudyInstanceUID": "1.2.3", "SOPInstanceUID": ""}
    try:
        assert {len(service._find("IMAGE", keys)) for _ in range(50)} == {30}
    finally:
        service.close()


def test_of_an_answer_only_what_was_asked_for_is_kept() -> None:
    dataset = Dataset()
    dataset.StudyInstanceUID, dataset.PatientName = "1.2.3", "Doe^Jane"
    match = Match(dataset, ["StudyInstanceUID", "PatientID"])
    assert (match.value("StudyInstanceUID"), match.value("PatientID")) == ("1.2.3", "")
    assert "Doe" not in repr(vars(match))


def test_a_study_that_lists_without_end_over_its_series_is_not_heard_out(
    home, world, quick, monkeypatch
) -> None:
    for file in world.files[2:]:  # this archive lists all four in each of the two series
        file.SeriesInstanceUID = "1.2.3"
    monkeypatch.setattr(dimse_service, "MOST_MATCHES", 7)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, world.address, options=quick)
    assert caught.value.code == "pacs_paging"
    monkeypatch.setattr(dimse_service, "MOST_MATCHES", 8)
    assert fetch(home, world.address, options=quick).fetched == 4
