"""Which files were not taken can be traced to where they lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from meta_dx.cli.app import run as meta_dx
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
    assert meta_dx(["rejections", "--home", str(home), "--batch", "b0009", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_code_that_does_not_exist_is_refused(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert meta_dx(["rejections", "--home", str(home), "--code", "broken"]) == 2
    assert "There is no code 'broken'" in caplog.text
