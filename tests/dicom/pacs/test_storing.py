"""Storing an instance: nothing counts as stored but what a query shows, and nothing is sent twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian

from meta_dx.dicom.pacs.address import ReceivedAddress, parse_address
from meta_dx.dicom.pacs.credentials import Credentials
from meta_dx.dicom.pacs.dimse_service import FIND
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.storing import (
    BrokenOffError,
    Delivery,
    RefusedError,
    Store,
    StowStore,
    _failures,
    _words,
    deliver,
    open_store,
)
from meta_dx.errors import MetaDxError
from tests.dicom.pacs.web_server import Handler, WebServer, serving


@pytest.fixture
def content() -> bytes:
    """An instance as we write it."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComprehensiveSRStorage, "1.2.1.9.7"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = "1.2.1", "1.2.1.9", "P"
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    held = BytesIO()
    dcmwrite(held, dataset, enforce_file_format=True)
    return held.getvalue()


class Fake:
    """An archive that shows what it has from the n-th look on, and does what it is told when something is sent."""

    def __init__(self, shows: list[bool | Exception], sends: Exception | None = None) -> None:
        self.shows, self.sends, self.sent, self.looks = shows, sends, 0, 0

    def holds(self, instance: Dataset) -> bool:
        answer = self.shows[min(self.looks, len(self.shows) - 1)]
        self.looks += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def send(self, instance: Dataset, content: bytes) -> None:
        self.sent += 1
        if self.sends is not None:
            raise self.sends

    def close(self) -> None: ...


DOWN = MetaDxError("pacs_unreachable", "The archive cannot be reached.")


@pytest.mark.parametrize(
    ("fake", "delivery", "why", "sent"),
    [
        (Fake([True]), Delivery.STORED, "", 0),  # it has it already: nothing is sent
        (Fake([False, True]), Delivery.STORED, "", 1),
        (Fake([False, False, False, True]), Delivery.STORED, "", 1),  # filed a little later
        (Fake([False]), Delivery.UNCONFIRMED, "", 1),  # all is well, and nothing there
        (Fake([False], BrokenOffError()), Delivery.UNCONFIRMED, "connection broke", 1),
        (Fake([False, True], BrokenOffError()), Delivery.STORED, "", 1),
        (Fake([False], RefusedError("it is full")), Delivery.REFUSED, "It is full.", 1),
        (Fake([False, True], RefusedError("it has it")), Delivery.STORED, "", 1),
        (Fake([False], DOWN), Delivery.REFUSED, "cannot be reached", 1),
        (Fake([DOWN]), Delivery.NOT_SENT, "cannot be reached", 0),  # who cannot be asked is sent nothing
        (Fake([False, DOWN]), Delivery.UNCONFIRMED, "cannot be reached", 1),
    ],
)
def test_what_counts_is_what_a_query_shows(content, fake: Fake, delivery, why: str, sent: int) -> None:
    receipt = deliver(fake, content, pause=lambda _: None)
    assert (receipt.delivery, fake.sent, receipt.sent) == (delivery, sent, bool(sent))
    assert why in receipt.why
    assert bool(receipt.why) == bool(why)


def test_a_late_archive_is_waited_for_a_few_seconds_and_no_longer(content) -> None:
    pauses: list[float] = []
    deliver(Fake([False]), content, pause=pauses.append)
    assert pauses == sorted(pauses)
    assert 2 < sum(pauses) < 10


def test_what_we_receive_ourselves_is_no_archive() -> None:
    with pytest.raises(MetaDxError, match="archive"):
        open_store(ReceivedAddress(), PacsOptions())


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        ({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [43264]}}]}}, [0xA900]),
        ([{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xB000]}}]}}], []),
        ({"00081198": {"vr": "SQ", "Value": [{}]}}, [0]),
        ({"00081199": {"vr": "SQ", "Value": [{}]}}, []),
        (None, []),
        ("nonsense", []),
        ({"00081198": {"Value": 7}}, []),
    ],
)
def test_failures_are_read_out_of_whatever_comes(answer, reasons) -> None:
    assert _failures(answer) == reasons


@pytest.mark.parametrize(
    ("code", "words"),
    [(0xA702, "out of resources"), (0xC123, "not understand"), (0x0124, "authorised"), (0x9999, "why")],
)
def test_a_status_is_said_in_words(code: int, words: str) -> None:
    assert words in _words(code)
    assert f"{code:#06x}" in _words(code)


# Against servers that do what real ones should not


@pytest.fixture
def dimse() -> Iterator[Callable[..., Store]]:
    """A factory of a DIMSE archive that answers to C-STORE with a status, and keeps the instance or not."""
    from pynetdicom import AE, evt

    servers = []

    def make(status: int, keeps: bool = False) -> Store:
        kept: list[str] = []

        def store(event: Any) -> int:
            if keeps:
                kept.append(str(event.request.AffectedSOPInstanceUID))
            return status

        def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
            for uid in kept:
                match = Dataset()
                match.SOPInstanceUID = uid
                yield 0xFF00, match
            yield 0x0000, None

        entity = AE("ARCHIVE")
        entity.add_supported_context(ComprehensiveSRStorage)
        entity.add_supported_context(FIND)
        handlers = [(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        servers.append(server)
        address = parse_address(f"dimse://ARCHIVE@127.0.0.1:{server.socket.getsockname()[1]}")
        return open_store(address, PacsOptions(retries=0))

    yield make
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "keeps", "delivery", "why"),
    [
        (0x0000, True, Delivery.STORED, ""),
        (0xB000, True, Delivery.STORED, ""),  # stored, with a warning
        (0x0000, False, Delivery.UNCONFIRMED, ""),
        (0xA700, False, Delivery.REFUSED, "It is out of resources (0xa700)."),
        (0xA900, False, Delivery.REFUSED, "does not fit the class"),
        (0x0111, True, Delivery.STORED, ""),
    ],
)
def test_a_status_of_c_store_and_what_is_made_of_it(dimse, content, status, keeps, delivery, why) -> None:
    store = dimse(status, keeps)
    receipt = deliver(store, content, pause=lambda _: None)
    store.close()
    assert receipt.delivery == delivery
    assert why in receipt.why


@pytest.fixture
def stow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[StowStore, list[bytes]]]:
    """A factory of a server that answers to STOW-RS as told; gives the store and the bodies that came."""
    bodies: list[bytes] = []
    settings: dict[str, object] = {}

    def do_post(self: Handler) -> None:
        bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        if settings.get("keeps"):
            self.server.world.content.setdefault("1.2.1", {}).setdefault("1.2.1.9", {})["1.2.1.9.7"] = b""
        if settings.get("breaks"):
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.send(b"{}", "application/dicom+json", status=int(str(settings.get("status", 200))))

    monkeypatch.setattr(Handler, "do_POST", do_post, raising=False)
    world = WebServer({"1.2.1": {"1.2.1.9": {}}})
    context = serving(world)
    context.__enter__()

    def make(**wanted: object) -> tuple[StowStore, list[bytes]]:
        settings.update(wanted)
        options = PacsOptions(retries=0)
        return StowStore(parse_address(world.address), options, Credentials()), bodies  # type: ignore[arg-type]

    yield make
    context.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("settings", "delivery", "why"),
    [
        ({"keeps": True}, Delivery.STORED, ""),
        ({"keeps": True, "status": 202}, Delivery.STORED, ""),
        ({}, Delivery.UNCONFIRMED, ""),
        ({"status": 409}, Delivery.REFUSED, "does not say why (409)"),
        ({"status": 403}, Delivery.REFUSED, "may not store"),
        ({"status": 404}, Delivery.REFUSED, "no service"),
        ({"status": 401}, Delivery.REFUSED, "refuses the login"),
        ({"status": 302}, Delivery.REFUSED, "another address"),
        ({"status": 503}, Delivery.UNCONFIRMED, "too busy"),
        ({"status": 503, "keeps": True}, Delivery.STORED, ""),
        ({"breaks": True}, Delivery.UNCONFIRMED, "connection broke"),
        ({"breaks": True, "keeps": True}, Delivery.STORED, ""),
    ],
)
def test_an_answer_to_stow_and_what_is_made_of_it(stow, content, settings, delivery, why) -> None:
    store, bodies = stow(**settings)
    receipt = deliver(store, content, pause=lambda _: None)
    assert receipt.delivery == delivery
    assert why in receipt.why
    assert len(bodies) == 1  # never repeated by itself
    assert "1.2.1" not in receipt.why


def test_the_very_bytes_are_sent_as_one_part(stow, content) -> None:
    store, bodies = stow(keeps=True)
    deliver(store, content, pause=lambda _: None)
    head, _, rest = bodies[0].partition(b"\r\n\r\n")
    assert b"application/dicom" in head
    assert rest.startswith(content)
    assert dcmread(BytesIO(rest[: len(content)])).SOPInstanceUID == "1.2.1.9.7"
    deliver(store, content, pause=lambda _: None)
    assert len(bodies) == 1  # the second time it is there
