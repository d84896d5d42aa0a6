"""What the process that keeps the books looks at itself: the first bytes of a file, and never wrongly with no."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from meta_dx.dicom.encoding import content_start
from meta_dx.dicom.parsing import may_be_dicom, parse
from meta_dx.dicom.rejections import RefusedError, RejectionCode
from tests.dicom.builders import write_instance

_BEYOND = 132


@st.composite
def beginnings(draw: st.DrawFn) -> bytes:
    """Draw files that begin nearly as DICOM does, with and without its mark."""
    order = draw(st.sampled_from("<>"))
    element = struct.pack(f"{order}HH", draw(st.sampled_from([2, 8, 9, 0x10])), draw(st.integers(0, 0x90)))
    vr = draw(st.sampled_from([b"UI", b"CS", b"XX", b"\0\0", b"Z9"]))
    length = struct.pack(f"{order}I", draw(st.integers(0, 1 << 18)))
    start = draw(st.sampled_from([element + vr, element + length, b""]))
    body = start + draw(st.binary(max_size=200))
    marked = draw(st.booleans())
    return body.ljust(128, b"\0")[:128] + b"DICM" + body if marked else body


@given(data=beginnings())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_reader_takes_for_dicom_may_be_dicom(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    try:
        parse(data, 1 << 20)
        code = None
    except RefusedError as fault:
        code = fault.refusal.code
    if code not in (RejectionCode.NOT_DICOM, RejectionCode.EMPTY_FILE):
        assert may_be_dicom(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_picture_without_preamble_and_meta_group_may_be_dicom(tmp_path: Path, syntax: Any) -> None:
    whole = write_instance(tmp_path, transfer_syntax=syntax).read_bytes()
    bare = tmp_path / "bare"
    for start in (132, content_start(whole)):
        bare.write_bytes(whole[start:])
        assert may_be_dicom(bare)
    (tmp_path / "letter").write_text("Dear colleague, thank you for sending us this patient. " * 99)
    assert not may_be_dicom(tmp_path / "letter")


def test_no_more_than_the_first_132_bytes_of_a_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x08\0\x05\0" + struct.pack("<I", 10) + os.urandom(1 << 17))
    read: list[int] = []

    class Watched(io.FileIO):
        def read(self, size: int | None = -1) -> Any:
            data = super().read(size)
            read.append(len(data or b""))
            return data

    def opened(self: Path, mode: str, buffering: int = -1) -> io.RawIOBase:
        assert (mode, buffering) == ("rb", 0)
        return Watched(self)

    monkeypatch.setattr(Path, "open", opened)
    assert may_be_dicom(path)
    assert read == [_BEYOND]


def test_a_file_that_cannot_be_opened_may_be_dicom(tmp_path: Path) -> None:
    assert may_be_dicom(tmp_path / "gone")
