"""Whatever a file does to the process that reads it: it is refused with a code, and the others are read."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import threading
import time
from pathlib import Path

import pytest

from meta_dx.dicom import child, messages, sandbox
from meta_dx.dicom.frames import FRAME_FIELDS, MOST_FRAMES
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, read_instance
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sandbox import Reader, borrowed_reader, end_readers
from meta_dx.dicom.sources import FoundFile
from meta_dx.errors import MetaDxError
from tests.dicom.builders import write_instance
from tests.processes import runs

KEY = b"a key of the test, 32 bytes long"
LIMITS = ReadLimits(memory_bytes=1 << 29, seconds=2.0)


def found(path: Path) -> FoundFile:
    about = path.stat()
    return FoundFile(str(path), about.st_size, about.st_mtime_ns)


def read(folder: Path, *patients: str, limits: ReadLimits = LIMITS, **options) -> list:
    """Read one file for each patient's number, in this order, by one reader."""
    files = [
        found(write_instance(folder, name=f"{number:03d}", patient=patient, **options))
        for number, patient in enumerate(patients)
    ]
    reader = Reader(KEY, limits)
    try:
        return [r.code.value if isinstance(r, Refusal) else "accepted" for r in reader.read(files)]
    finally:
        reader.close()


def test_a_reader_gives_the_same_as_reading_in_this_process(tmp_path):
    files = [found(write_instance(tmp_path, patient=f"P{n}")) for n in range(5)]
    cut = write_instance(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-9])
    files.append(found(cut))
    reader = Reader(KEY, LIMITS)
    results = reader.read(files)
    reader.close()
    surrogates = Surrogates(KEY)
    for file, result in zip(files, results, strict=True):
        here = read_instance(file.path, surrogates)
        if isinstance(here, Refusal):
            assert result == here
            continue
        assert isinstance(result, AcceptedInstance)
        assert (result.object, result.identities) == (here.object, here.identities)
        assert repr(sorted(result.row.items())) == repr(sorted(here.row.items()))


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("ABORT", "worker_crashed"),
        ("EXIT", "worker_crashed"),
        ("IDLE", "worker_crashed"),
        ("KILL", "worker_crashed"),
        ("HANG", "time_limit"),
        ("SWELL", "memory_limit"),
        ("RAISE", "damaged_header"),
        ("PRINT", "accepted"),
    ],
)
def test_a_file_that_harms_its_reader_is_refused_and_the_others_are_read(hostile, tmp_path, act, code):
    assert read(tmp_path / "s", "P1", "P2", act, "P3", "P4") == [
        "accepted",
        "accepted",
        code,
        "accepted",
        "accepted",
    ]
    assert read(tmp_path / "first", act, "P3") == [code, "accepted"]


def test_a_library_that_finds_no_memory_and_aborts_is_a_case_of_memory(hostile, tmp_path):
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limits = ReadLimits(memory_bytes=max(1 << 29, int(1.5 * most)), seconds=60)
    assert read(tmp_path / "s", "P1", "SWELL_IN_C", "P3", limits=limits) == [
        "accepted",
        "memory_limit",
        "accepted",
    ]


def test_every_file_of_many_hostile_ones_has_its_own_code(hostile, tmp_path):
    acts = ["ABORT", "P1", "ABORT", "ABORT", "RAISE", "P2", "EXIT", "P3"]
    assert read(tmp_path / "s", *acts) == [
        "worker_crashed",
        "accepted",
        "worker_crashed",
        "worker_crashed",
        "damaged_header",
        "accepted",
        "worker_crashed",
        "accepted",
    ]


def test_what_one_file_leaves_behind_is_not_held_against_the_next(hostile, tmp_path):
    assert read(tmp_path / "s", "POISON", "P1", "P2") == ["accepted"] * 3


def test_a_reader_that_the_system_killed_once_is_replaced_and_the_file_read_again(hostile, tmp_path):
    assert read(tmp_path / "s", "KILL_FIRST", "P1") == ["accepted", "accepted"]
    assert len(hostile.read_text().split()) > 1


def test_a_reader_writes_no_file(hostile, tmp_path):
    target = tmp_path / "written"
    assert read(tmp_path / "s", "WRITE", "P1", AccessionNumber=str(target))[1] == "accepted"
    assert not target.exists() or target.stat().st_size == 0


def test_the_time_of_a_file_begins_when_the_one_before_it_is_done(hostile, tmp_path, monkeypatch):
    limits = ReadLimits(memory_bytes=1 << 29, seconds=1.0)
    begun = time.monotonic()
    assert read(tmp_path / "s", "HANG", "HANG", "P1", "HANG", limits=limits) == [
        "time_limit",
        "time_limit",
        "accepted",
        "time_limit",
    ]
    assert time.monotonic() - begun >= 3.0  # each had its own second


def test_nothing_secret_is_in_the_arguments_or_the_environment_of_a_reader(hostile, tmp_path, monkeypatch):
    monkeypatch.setenv("META_DX_SOME_TOKEN", "token")
    with borrowed_reader(KEY, LIMITS) as reader:
        reader.read([found(write_instance(tmp_path / "s"))])
        (pid,) = hostile.read_text().split()
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
    assert KEY not in shown and KEY.hex().encode() not in shown and b"token" not in shown
    assert f"Max address space         {LIMITS.memory_bytes}" in limits
    for name in ("Max core file size", "Max file size"):
        assert next(line for line in limits.splitlines() if line.startswith(name)).split()[-3:-1] == [
            "0",
            "0",
        ]


def test_a_reader_rests_between_two_tasks_and_serves_only_its_own_home(hostile, tmp_path):
    file = found(write_instance(tmp_path / "s"))
    for key in (KEY, KEY, b"another key of another home, yes"):
        with borrowed_reader(key, LIMITS) as reader:
            reader.read([file])
    assert len(hostile.read_text().split()) == 2


def test_who_reads_good_files_does_not_wait_for_who_hangs(hostile, tmp_path):
    files = [found(write_instance(tmp_path / "s", patient="HANG" if n == 0 else f"P{n}")) for n in range(4)]
    done: list[str] = []

    def work(name, some):
        with borrowed_reader(KEY, LIMITS) as reader:
            reader.read(some)
        done.append(name)

    parts = {"hangs": files[:1], "good": files[1:]}
    threads = [threading.Thread(target=work, args=item) for item in parts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["good", "hangs"]


def test_a_reader_that_cannot_start_is_said_in_one_sentence(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such library')"))
    with pytest.raises(MetaDxError, match="does not start") as fault:
        Reader(KEY, LIMITS).read([found(write_instance(tmp_path))])
    assert fault.value.code == "reader_start"
    assert "no such library" in capfd.readouterr().err


def answer() -> tuple[dict, bytes]:
    content = b"object"
    uids = {kind: f"2.25.{number}" for number, kind in enumerate(("study", "series", "instance"))}
    row = {
        **uids,
        "patient": "P" + "A" * 16,
        "accession": None,
        "object": hashlib.sha256(content).hexdigest(),
        "content": "0" * 64,
        "pixels": "1" * 64,
    }
    return {"row": row, "identities": {"study": {uids["study"]: "1.2"}}}, content


LIES = {
    "object": ("0" * 64,),
    "study": ("1.2.840", "2.25.1\n", 5, None, "2.25.x"),
    "patient": ("John", "P123", None),
    "accession": ("12345", 7),
    "pixels": ("xyz", None),
}


@pytest.mark.parametrize(("name", "lie"), [(name, lie) for name, lies in LIES.items() for lie in lies])
def test_an_answer_of_another_form_is_not_believed(name, lie):
    words, content = answer()
    sandbox._accepted(words, content)
    words["row"][name] = lie
    with pytest.raises(ValueError):
        sandbox._accepted(words, content)


@pytest.mark.parametrize(
    "identities",
    [
        {"name": {"x": "y"}},
        {"study": {"John": "y"}},
        {"study": {"2.25.1": 4}},
        {"study": {"2.25.1": "1" * 65}},
        {"study": {"2.25.1": "1.2", "2.25.2": "1.3"}},
        {"patient": {"P" + "A" * 16: "1" * 257}},
        {"study": 3},
        [],
    ],
)
def test_identities_of_another_form_are_not_believed(identities):
    words, content = answer()
    with pytest.raises(ValueError):
        sandbox._accepted({**words, "identities": identities}, content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_type", "AXIAL\\" * 200),
        ("frame_geometry", [0.0] * (MOST_FRAMES * len(FRAME_FIELDS) + 1)),
        ("frame_geometry", {"a": 1}),
    ],
)
def test_a_row_that_is_too_long_is_not_believed(name, value):
    words, content = answer()
    sandbox._accepted(
        {**words, "row": {**words["row"], name: value[:7] if type(value) is list else None}}, content
    )
    words["row"][name] = value
    with pytest.raises(ValueError):
        sandbox._accepted(words, content)


def test_a_reason_that_is_not_in_our_words_is_not_passed_on():
    for detail in ("a\nb", "x" * 300, "<b>", None, 'say "Doe"'):
        with pytest.raises(ValueError):
            sandbox._refusal({"refused": "truncated", "detail": detail})
    assert sandbox._refusal({"refused": "truncated", "detail": "parser raised KeyError"}) == Refusal(
        RejectionCode.TRUNCATED, "parser raised KeyError"
    )


PROGRAM = """
import sys
from meta_dx.dicom import messages
import os
messages.received(lambda n: os.read(0, n), 1 << 20)
head, _ = messages.packed({"ready": True})
os.write(1, head)
while True:
    messages.received(lambda n: os.read(0, n), 0)
    %s
"""


@pytest.mark.parametrize(
    "act",
    [
        "os.write(1, b'garbage' * 1000)",
        "os.write(1, bytes([255] * 64))",
        "os.write(1, messages.packed({'row': {}, 'identities': {}})[0])",
        "os.write(1, messages.packed({'refused': 'no_such_code', 'detail': ''})[0])",
        "os.write(1, b'\\x02' + bytes(15) + b'[]')",
        "os.close(1)",
    ],
)
def test_a_reader_that_was_taken_over_and_lies_is_ended(tmp_path, monkeypatch, act):
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", PROGRAM % act))
    reader = Reader(KEY, LIMITS)
    (result,) = reader.read([found(write_instance(tmp_path))])
    reader.close()
    assert isinstance(result, Refusal) and result.code is RejectionCode.WORKER_CRASHED


def test_a_message_comes_through_as_it_is():
    words = {"path": "\udcff/é", "nan": float("nan"), "many": [1, 2.5, None], "low": float("-inf")}
    head, content = messages.packed(words, b"\0\xff" * 1000)
    stream = head + content
    place = 0

    def receive(size: int) -> bytes:
        nonlocal place
        piece = stream[place : place + min(size, 7)]
        place += len(piece)
        return piece

    found_words, found_content = messages.received(receive, 2000)
    assert json.dumps(found_words) == json.dumps(words) and found_content == content
    with pytest.raises(messages.BrokenMessageError):
        messages.received(receive, 2000)
    place = 0
    with pytest.raises(messages.BrokenMessageError):
        messages.received(receive, 1999)


def test_readers_end_when_told(hostile, tmp_path):
    with borrowed_reader(KEY, LIMITS) as reader:
        reader.read([found(write_instance(tmp_path / "s"))])
    end_readers()
    (pid,) = map(int, hostile.read_text().split())
    assert not runs(pid)
