"""The C-STORE listener, spoken to by pynetdicom (the real ``storescu`` comes in ``test_orthanc_system.py``)."""

from __future__ import annotations

import errno
import gc
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
