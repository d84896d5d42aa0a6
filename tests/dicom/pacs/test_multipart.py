from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_dx.dicom.pacs.multipart import CutOffError, boundary_of, copy_parts

LINE = b"line"
# Contents that nearly hold a boundary are the hard ones.
PIECES = [b"\r\n", b"--", b"\r\n--lin", b"-", b"\r", b"x", b"line", b"\r\n--l"]
CONTENT = (
    st.lists(st.sampled_from(PIECES), max_size=8)
    .map(b"".join)
    .filter(lambda part: b"\r\n--line" not in b"\r\n" + part)
)


def body_of(parts: list[bytes], preamble: bytes = b"") -> bytes:
    pieces = [b"\r\n--line\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts]
    return preamble + b"".join(pieces) + b"\r\n--line--\r\nepilogue"


def cut_up(body: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in [*sizes, len(body)]:
        chunks.append(body[at : at + size])
        at += size
    return chunks


def copied(chunks: list[bytes]) -> list[bytes]:
    parts: dict[int, bytes] = {}

    def write(number: int, data: bytes) -> None:
        parts[number] = parts.get(number, b"") + data

    count = copy_parts(chunks, LINE, write)
    return [parts.get(number, b"") for number in range(count)]


@given(st.lists(CONTENT, max_size=4), st.lists(st.integers(0, 30), max_size=40))
def test_parts_come_out_whole_wherever_the_body_is_cut(parts, sizes) -> None:
    assert copied(cut_up(body_of(parts), sizes)) == parts
    assert copied(cut_up(body_of(parts, b"preamble"), sizes)) == parts


@given(st.lists(CONTENT, min_size=1, max_size=3), st.data())
def test_a_body_that_ends_early_is_noticed(parts, data) -> None:
    body = body_of(parts)
    end = data.draw(st.integers(0, body.index(b"\r\n--line--") + len(b"\r\n--line-")))
    with pytest.raises(CutOffError):
        copied([body[:end]])


def test_a_header_without_end_is_no_multipart() -> None:
    with pytest.raises(CutOffError):
        copied([b"\r\n--line" + b"x" * 100] + [b"x" * 10_000] * 100)


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=a-b', b"a-b"),
        ('Multipart/Related; boundary="a b"; type="application/dicom"', b"a b"),
        ("multipart/related", None),
        ("application/dicom", None),
        ("", None),
        (";;;=", None),
    ],
)
def test_the_boundary_is_read_from_the_content_type(kind, boundary) -> None:
    assert boundary_of(kind) == boundary
