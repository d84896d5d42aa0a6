"""Which files were not taken can be traced to where they lie."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.dicom.rejections import RejectionCode
from tests.dicom.archive_builders import write_archive
from tests.dicom.builders import write_instance


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    studies = tmp_path / "studies"
    for number in range(3):
        pixels = np.full((20, 20), 100 * number, dtype=np.uint16)
        path = write_instance(studies, patient=f"P{number}", study=f"1.2.{number + 1}", pixels=pixels)
    path.write_bytes(path.read_bytes()[:-200])
    (studies / "note.txt").write_text("no picture")
    assert meta_dx(["ingest", str(studies), "--home", str(tmp_path / "home"), "--json"]) == 0
    capsys.readouterr()
    return tmp_path / "home"


def test_every_file_that_was_not_taken_is_listed_with_path_code_and_reason(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert meta_dx(["rejections", "--home", str(home), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(Path(row["path"]).suffix, row["code"]) for row in found} == {
        (".txt", "not_dicom"),
        (".dcm", "truncated"),
    }
    assert all(Path(row["path"]).exists() and row["reason"].endswith(".") for row in found)
    assert meta_dx(["rejections", "--home", str(home), "--code", "truncated"]) == 0
    assert "note.txt" not in capsys.readouterr().out
    assert meta_dx(["rejections", "--home", str(home), "--batch", "b0009", "--json"]) == 2


def test_a_batch_lists_what_it_refused_when_a_later_one_has_taken_the_file(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*options: str) -> dict[str, tuple[str, str]]:
        assert meta_dx(["rejections", "--home", str(home), "--json", *options]) == 0
        rows = json.loads(capsys.readouterr().out)
        return {row["path"]: (row["batch"], row["code"]) for row in rows}

    before = listed("--batch", "b0001")
    path = next(path for path, (_, code) in before.items() if code == "truncated")
    write_instance(Path(path).parent, name=Path(path).name, patient="P2", study="1.2.3")
    assert meta_dx(["ingest", str(home.parent / "studies"), "--home", str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rejected"] == {}
    assert listed("--batch", "b0001") == before and len(before) == 2
    assert path not in listed() and listed("--batch", "b0002") == {}


@pytest.mark.parametrize("options", [[], ["--batch", "b0001"]])
def test_a_reason_says_what_exactly_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    write_instance(tmp_path / "studies", patient="P1")
    write_instance(tmp_path / "studies", name="bad", patient="P2", study="1.2.9", BitsStored=99)
    home = str(tmp_path / "home")
    assert meta_dx(["ingest", str(tmp_path / "studies"), "--home", home, "--json"]) == 0
    capsys.readouterr()
    assert meta_dx(["rejections", "--home", home, "--json", *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["reason"] != RejectionCode(row["code"]).sentence
    assert row["reason"].startswith(RejectionCode(row["code"]).sentence[:-1] + ": ")


def test_a_code_or_outcome_that_does_not_exist_is_refused(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert meta_dx(["rejections", "--home", str(home), "--code", "broken"]) == 2
    assert "There is no code 'broken'" in caplog.text
    assert meta_dx(["rejections", "--home", str(home), "--outcome", "accepted"]) == 2
    assert "There is no outcome 'accepted'" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--outcome", "not_dicom"], {"not_dicom"}),
        (["--outcome", "rejected"], {"truncated"}),
        (["--code", "truncated", "--code", "not_dicom"], {"truncated", "not_dicom"}),
        (["--code", "truncated", "--outcome", "not_dicom"], set()),
        (["--batch", "b0001"], {"truncated", "not_dicom"}),
    ],
)
def test_the_list_can_be_filtered_and_exported_for_its_owner_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: set[str]
) -> None:
    exported = tmp_path / "list.csv"
    exported.touch(0o644)
    assert meta_dx(["rejections", "--home", str(home), "--json", "--csv", str(exported), *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["code"] for row in shown} == expected
    with exported.open(newline="") as stream:
        assert list(csv.DictReader(stream)) == shown
    assert exported.stat().st_mode & 0o777 == 0o600


def test_a_list_that_cannot_be_written_is_said(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert meta_dx(["rejections", "--home", str(home), "--csv", str(tmp_path / "nowhere" / "list.csv")]) == 2
    assert "list.csv" in caplog.text


def test_a_file_in_an_archive_is_listed_under_the_name_of_both(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "studies" / "a.zip", "w") as archive:
        archive.writestr("inner/x.txt", "text")
    assert meta_dx(["ingest", str(tmp_path / "studies"), "--home", str(home), "--json"]) == 0
    capsys.readouterr()
    assert meta_dx(["rejections", "--home", str(home), "--json"]) == 0
    names = {row["path"] for row in json.loads(capsys.readouterr().out)}
    assert f"{tmp_path / 'studies' / 'a.zip'}!/inner/x.txt" in names and len(names) == 3


def test_names_in_an_archive_neither_write_to_the_terminal_nor_stop_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_instance(tmp_path / "studies")
    names = ["a\x1b]0;title\x07", "b\nforged line", os.fsdecode(b"c\xff")]
    write_archive(tmp_path / "studies" / "x.tar", {name: path.read_bytes()[:-200] for name in names})
    home = str(tmp_path / "home")
    assert meta_dx(["ingest", str(tmp_path / "studies"), "--home", home, "--json"]) == 0
    capsys.readouterr()
    assert meta_dx(["rejections", "--home", home]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 5 and all(line.isprintable() for line in said.splitlines())
    assert meta_dx(["rejections", "--home", home, "--json"]) == 0
    out = capsys.readouterr().out
    assert {row["path"].rpartition("!/")[2] for row in json.loads(out)} == set(names)
    assert out.encode()


def test_ingest_keeps_to_the_limits_of_the_cohort_file_and_allows_what_it_allows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_instance(tmp_path / "s", patient="P1", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    large = np.zeros((200, 200), np.uint16)
    write_instance(
        tmp_path / "s", patient="P2", study="1.2.7", series="1.2.8", instance="1.2.9", pixels=large
    )
    file = tmp_path / "of" / "cohort.toml"
    file.parent.mkdir()
    limits = '[ingest]\nmax_file_bytes = 40000\nallow = ["secondary_capture"]\n'
    file.write_text('[cohort]\nname = "x"\nsources = ["../s"]\ndiagnoses = "d.csv"\n' + limits)

    def rejected(home: str, *more: str) -> dict[str, int]:
        assert meta_dx(["ingest", str(tmp_path / "s"), "--home", str(tmp_path / home), "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)["rejected"]

    assert rejected("h1") == {"secondary_capture": 1}
    assert rejected("h2", "--cohort", str(file)) == {"file_too_large": 1}
    monkeypatch.setenv("META_DX_COHORT", str(file))
    assert rejected("h3", "--allow", "ultrasound") == {"file_too_large": 1, "secondary_capture": 1}
