"""``meta-dx volumes`` names every series under its own UID, with its volume or the reason why there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.home import Home
from tests.cohort.test_volumes import write
from tests.dicom.builders import uid_of
from tests.dicom.series import along_z


@pytest.fixture
def taken(tmp_path: Path) -> str:
    write(along_z([0, 2, 4, 6], series="good"), tmp_path / "studies" / "a")
    write(along_z([0, 2, 6, 8], series="gap"), tmp_path / "studies" / "b")
    ingest_folder(Home.open(tmp_path / "home"), tmp_path / "studies")
    return str(tmp_path / "home")


def test_volumes_and_reasons_are_listed_with_their_counts(
    taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert meta_dx(["volumes", "--home", taken, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"volumes": 1, "frames_in_volumes": 4, "gap": 4}
    parts = {part["series_instance_uid"]: part for part in told["parts"]}
    good, gap = parts[uid_of("good")], parts[uid_of("gap")]
    assert good["shape"] == [4, 5, 6] and good["spacing_mm"] == [2.0, 1.0, 1.0] and good["reason"] is None
    assert gap["reason"] == "gap" and gap["affine_lps"] is None and gap["detail"].startswith("1 missing")


def test_people_read_a_table(taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert meta_dx(["volumes", "--home", taken, "--reason", "gap"]) == 0
    out = capsys.readouterr().out
    assert "1 missing, the first after" in " ".join(out.split()) and "4 x 5 x 6" not in out
    assert "1 volume of 4 frames; 4 frames are in none" in out


def test_a_code_that_is_none_is_refused(taken: str, caplog: pytest.LogCaptureFixture) -> None:
    assert meta_dx(["volumes", "--home", taken, "--reason", "nonsense"]) == 2
    assert "localiser" in caplog.text


def test_phantom_writes_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p"
    assert meta_dx(["phantom", str(out), "--volumes", "--diseases", "6", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["diseases"] == 6 and told["files"] == len(list(out.rglob("*.dcm")))
    assert meta_dx(["phantom", str(tmp_path / "q"), "--volumes", "--without", "shape"]) == 2
