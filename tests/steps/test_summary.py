"""What to type next names the cohort and the home that were run, as the Makefile takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta_dx.steps import open_project
from meta_dx.steps.summary import make_line


@pytest.mark.parametrize(
    ("file", "home", "line"),
    [
        ("examples/demo.toml", ".meta_dx/demo", "make review"),
        ("mine.toml", ".meta_dx/mine", "make review COHORT=mine.toml"),
        ("my own.toml", "homes/x", "META_DX_HOME=homes/x make review COHORT='my own.toml'"),
        ("examples/demo.toml", "elsewhere", "META_DX_HOME=elsewhere make review"),
    ],
)
def test_the_next_line_opens_the_home_that_was_run(
    file: str, home: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cohort = tmp_path / file
    cohort.parent.mkdir(exist_ok=True)
    cohort.write_text('[cohort]\nname = "c"\nsources = ["studies"]\ndiagnoses = ""\n')
    open_project(cohort, tmp_path / home)
    assert make_line(tmp_path / home).format("review") == line
