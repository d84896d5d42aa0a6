"""The C-STORE listener, spoken to by pynetdicom (the real ``storescu`` comes in ``test_orthanc_system.py``)."""

from __future__ import annotations

import errno
import gc
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import ComputedRadiographyImageStorage, Verification

from meta_dx.cohort.fetch import alone_in, landing_of
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.dicom.pacs.address import ReceivedAddress
from meta_dx.dicom.pacs.landing import Landing, PartialFile
from meta_dx.dicom.pacs.receive import Listener, ListenerOptions, listening
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.dicom.builders import picture, write_instance


@pytest.fixture
def landing(home: Home) -> Landing:
    return landing_of(home, ReceivedAddress(), 100_000)


@contextmanager
def sending(listener: Listener, title: str = "META_DX", ours: str = "SENDER") -> Iterator[Any]:
    entity = AE(ours)
    entity.add_requested_context(ComputedRadiographyImageStorage)
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", listener.port, ae_title=title)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def files(landing: Landing) -> list[Path]:
    return sorted(landing.folder.iterdir())


def unfinished(landing: Landing) -> list[Path]:
    return sorted(landing.folder.with_name(f"{landing.folder.name}.unfinished").iterdir())


def test_what_is_sent_lands_in_the_order_of_arrival_and_is_taken_in(home, landing, source) -> None:
    sent = [write_instance(source, instance=f"i{n}", InstanceNumber=9 - n) for n in range(4)]
    with listening(landing, ListenerOptions(port=0)) as listener, sending(listener) as association:
        assert association.send_c_echo().Status == 0
        for file in sent:
            assert association.send_c_store(dcmread(file)).Status == 0
        assert listener.counts == {"received": 4}
    assert [dcmread(file).InstanceNumber for file in files(landing)] == [9, 8, 7, 6]
    assert all(
        dcmread(a).PixelData == dcmread(b).PixelData for a, b in zip(files(landing), sent, strict=True)
    )
    assert {file.stat().st_mode & 0o777 for file in files(landing)} == {0o600}
    assert landing.folder.stat().st_mode & 0o777 == 0o700
    assert not any(dcmread(file).SOPInstanceUID in str(file) for file in files(landing))
    assert ingest_folder(home, landing.folder).accepted == 4
    assert unfinished(landing) == []


def test_the_same_instance_sent_again_stays_beside_the_first(landing, source) -> None:
    file = write_instance(source)
    with listening(landing, ListenerOptions(port=0)) as listener, sending(listener) as association:
        for _ in range(2):
            association.send_c_store(dcmread(file))
    assert len(files(landing)) == 2


@pytest.mark.parametrize(("title", "ours"), [("OTHER", "SENDER"), ("META_DX", "STRANGER")])
def test_who_is_not_allowed_or_calls_another_title_is_turned_away(landing, title, ours) -> None:
    options = ListenerOptions(port=0, allowed=("SENDER",))
    with listening(landing, options) as listener:
        with sending(listener, title, ours) as association:
            assert association.is_rejected
        with sending(listener) as association:
            assert association.is_established


def test_a_file_over_the_limit_is_answered_and_leaves_nothing(landing, source, caplog) -> None:
    large = write_instance(source, pixels=picture(0, (300, 300)))
    small = write_instance(source)
    with listening(landing, ListenerOptions(port=0)) as listener, sending(listener) as association:
        assert association.send_c_store(dcmread(large)).Status == 0xA700
        assert association.send_c_store(dcmread(small)).Status == 0, "the association goes on"
        assert listener.counts == {"received": 1, "refused": 1}
    assert len(files(landing)) == 1 and unfinished(landing) == []
    assert dcmread(large).SOPInstanceUID not in caplog.text


@pytest.mark.parametrize("moment", ["write", "keep"])
def test_a_full_disk_is_answered_as_out_of_resources(landing, source, monkeypatch, moment) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = write_instance(source)
    with listening(landing, ListenerOptions(port=0)) as listener, sending(listener) as association:
        with monkeypatch.context() as patched:
            patched.setattr(PartialFile, moment, full)
            assert association.send_c_store(dcmread(file)).Status == 0xA700
        assert files(landing) == [] and unfinished(landing) == []
        assert association.send_c_store(dcmread(file)).Status == 0


def until_begun(landing: Landing) -> None:
    until = time.monotonic() + 20
    while not unfinished(landing) and time.monotonic() < until:
        time.sleep(0.01)
    assert unfinished(landing), "the listener has begun a file"


def test_a_sender_that_breaks_off_leaves_nothing(landing, source) -> None:
    file = write_instance(source, pixels=picture(0, (200, 200)))
    with listening(landing, ListenerOptions(port=0)) as listener:
        with sending(listener) as association:
            association.dul.socket.socket.settimeout(5)
            sent = association.dul.socket.send
            calls = []

            def cut(data: bytes) -> None:
                calls.append(len(data))
                if len(data) > 10_000:  # after the command, in the middle of the pixels
                    association.dul.socket.socket.sendall(data[:10_000])
                    until_begun(landing)
                    association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
                sent(data)

            association.dul.socket.send = cut
            association.send_c_store(dcmread(file))
        until = time.monotonic() + 20
        while unfinished(landing) and time.monotonic() < until:
            gc.collect()
            time.sleep(0.05)
    assert max(calls) > 10_000
    assert files(landing) == [] and unfinished(landing) == []


def test_what_a_killed_listener_left_half_written_is_cleared(landing) -> None:
    landing.begin().write(b"half")
    assert unfinished(landing)
    with listening(landing, ListenerOptions(port=0)):
        assert unfinished(landing) == []


def test_two_listeners_for_one_home_or_port_are_refused_in_a_sentence(home, landing) -> None:
    with alone_in(landing), pytest.raises(MetaDxError) as caught:
        with alone_in(landing):
            raise AssertionError
    assert caught.value.code == "fetch_running"
    with listening(landing, ListenerOptions(port=0)) as listener, pytest.raises(MetaDxError) as caught:
        with listening(landing, ListenerOptions(port=listener.port)):
            raise AssertionError
    assert caught.value.code == "cannot_listen"


def test_off_the_loopback_somebody_must_be_named() -> None:
    with pytest.raises(MetaDxError) as caught:
        ListenerOptions(host="0.0.0.0")  # noqa: S104
    assert caught.value.code == "open_listener"
    assert ListenerOptions(host="0.0.0.0", allowed=("MODALITY",))  # noqa: S104
    with pytest.raises(MetaDxError):
        ListenerOptions(allowed=("not a title",))


def test_a_pdu_of_gigabytes_is_not_read_and_the_next_sender_is_heard(landing, source) -> None:
    with listening(landing, ListenerOptions(port=0)) as listener:
        with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as flood:
            flood.sendall(struct.pack(">BBI", 1, 0, (1 << 32) - 16))
            with pytest.raises(OSError):
                for _ in range(64):
                    flood.sendall(bytes(1 << 20))
        with sending(listener) as association:
            assert association.send_c_store(dcmread(write_instance(source))).Status == 0


def silent(listener: Listener, count: int, host: str) -> list[socket.socket]:
    """Open connections from an address of the loopback and say nothing."""
    place = ("127.0.0.1", listener.port)
    return [socket.create_connection(place, timeout=20, source_address=(host, 0)) for _ in range(count)]


def hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) in (b"", ABORT)
    except ConnectionResetError:
        return True


def still_open(connection: socket.socket) -> bool:
    return not select.select([connection], [], [], 0)[0] or not hung_up(connection)


ABORT = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 0])  # A-ABORT by the provider


def test_one_host_that_holds_all_the_places_it_can_get_leaves_some_to_others(landing, source, caplog) -> None:
    options = ListenerOptions(port=0, places=5, places_a_host=3)
    with listening(landing, options) as listener:
        held = silent(listener, 13, "127.0.0.9")
        until = time.monotonic() + 8
        while len(held) > 3 and time.monotonic() < until:
            held = [one for one in held if still_open(one)]
        assert len(held) == 3
        with sending(listener) as association:
            assert association.send_c_store(dcmread(write_instance(source))).Status == 0
        assert all(still_open(one) for one in held)
        for one in held:
            one.close()
    assert caplog.text.count("wants more") == 1


def test_a_place_that_a_host_gives_back_is_its_own_again(landing) -> None:
    with listening(landing, ListenerOptions(port=0, places_a_host=1)) as listener:
        for _ in range(3):
            until = time.monotonic() + 20
            while time.monotonic() < until:
                with sending(listener) as association:
                    if association.is_established:
                        break
            assert association.is_released


@pytest.mark.parametrize("said", [b"", b"\x01", b"\x01\0\0\0\0\xff"], ids=["nothing", "a byte", "a head"])
def test_who_asks_for_nothing_is_hung_up_on(landing, said) -> None:
    options = ListenerOptions(port=0, begin_seconds=0.3, places_a_host=1)
    with listening(landing, options) as listener:
        (one,) = silent(listener, 1, "127.0.0.1")
        one.sendall(said)
        assert hung_up(one)


def test_an_association_on_which_nothing_happens_is_ended(landing) -> None:
    with listening(landing, ListenerOptions(port=0, idle_seconds=0.3)) as listener:
        with sending(listener) as association:
            assert association.is_established
            until = time.monotonic() + 20
            while association.is_established and time.monotonic() < until:
                time.sleep(0.02)
            assert association.is_aborted


def test_a_pdu_that_comes_byte_by_byte_holds_no_place(landing, source) -> None:
    options = ListenerOptions(port=0, idle_seconds=0.3, places_a_host=1)
    with listening(landing, options) as listener, sending(listener) as association:
        connection = association.dul.socket.socket
        with pytest.raises(OSError):
            connection.sendall(struct.pack(">BBI", 4, 0, 100_000))
            for _ in range(1000):
                connection.sendall(b"\0")
                time.sleep(0.02)


def test_a_message_of_any_number_of_pieces_does_not_fill_the_memory(landing) -> None:
    with listening(landing, ListenerOptions(port=0)) as listener, sending(listener) as association:
        connection = association.dul.socket.socket
        more = struct.pack(">BBIIBB", 4, 0, 100_006, 100_002, 1, 1) + bytes(100_000)  # a command that goes on
        with pytest.raises(OSError):
            for _ in range(400):
                connection.sendall(more)
