"""Matches of QIDO-RS are read one by one, cut anywhere, and nothing that a server sends fills the memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import pytest

from meta_dx.dicom.pacs.dicom_json import LONGEST_MATCH, entries

STUDIES = [
    {
        "0020000D": {"vr": "UI", "Value": [f"1.2.{n}"]},
        "00081030": {"vr": "LO", "Value": ["Brust, “schräg” ]}"]},
    }
    for n in range(5)
]


def cut(text: str | bytes, size: int) -> Iterator[bytes]:
    body = text.encode() if isinstance(text, str) else text
    return (body[at : at + size] for at in range(0, len(body), size))


def uids(body: str | bytes, size: int = 1 << 16) -> list[str]:
    return [entry.value("StudyInstanceUID") for entry in entries(cut(body, size))]


@pytest.mark.parametrize("size", [1, 3, 100, 1 << 16])
@pytest.mark.parametrize("indent", [None, 4])
def test_a_list_is_read_whole_wherever_it_is_cut(size, indent) -> None:
    body = json.dumps(STUDIES, indent=indent, ensure_ascii=False)
    assert uids(body, size) == [f"1.2.{n}" for n in range(5)]
    found = list(entries(cut(body, size)))
    assert {entry.value("StudyDescription") for entry in found} == {"Brust, “schräg” ]}"}
    assert found[0].value("PatientID") == "" and len({entry.key for entry in found}) == 5


@pytest.mark.parametrize(
    ("body", "found"),
    [("", 0), (" \r\n", 0), ("[]", 0), (" [ ] \n", 0), (json.dumps(STUDIES[0]), 1), ("\ufeff[{}]", 1)],
)
def test_nothing_one_match_and_a_byte_order_mark_are_understood(body, found) -> None:
    assert len(uids(body)) == found


@pytest.mark.parametrize(
    "body",
    [
        *("[", "[{}", "[{},", "[{},]", "[{} {}]", "[{}]]", "[{}] x", "{} {}", "[1]", '["a"]', "[[]]", "null"),
        *('[{"a"}]', '{"a":', "<html>", b"\xff\xfe", b'[{"a":"\xff"}]', "[" * 100_000, '{"a":' * 100_000),
    ],
)
def test_what_is_no_list_of_matches_is_refused(body) -> None:
    with pytest.raises(ValueError):
        uids(body)


def test_a_long_match_is_read_and_one_that_is_too_long_is_not() -> None:
    def study(letters: int) -> str:
        return json.dumps([{"00081030": {"Value": ["x" * letters]}, "0020000D": {"Value": ["1.2"]}}])

    assert uids(study(LONGEST_MATCH - 200)) == ["1.2"]
    with pytest.raises(ValueError):
        uids(study(LONGEST_MATCH))


@pytest.mark.parametrize("filling", ['{"":0}', "[]", '"a"', "0"])
def test_a_list_made_to_swell_takes_no_more_than_a_few_megabytes_at_a_time(filling) -> None:
    inner = ",".join([filling] * (100_000 // (len(filling) + 1)))
    match = (
        b'{"0020000D":{"vr":"UI","Value":["1.2"]},"00090010":{"vr":"SQ","Value":[' + inner.encode() + b"]}}"
    )

    def body() -> Iterator[bytes]:
        yield b"["
        for _ in range(11):
            yield match + b","
        yield match + b"]"

    count = 0
    tracemalloc.start()
    kept = [entry for entry in entries(body()) if (count := count + 1)]
    left, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == len(kept) == 12
    assert most < 12 << 20, "one match swells, not all of them together"
    assert left < 1 << 20, "what nobody asks for does not stay"
