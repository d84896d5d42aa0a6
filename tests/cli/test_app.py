"""Exit status: 0 done, 2 the user's fault with one clear line on stderr, 1 a fault of ours."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meta_dx.cli import app as cli
from meta_dx.home import Home
from meta_dx.records.database import Records
from meta_dx.records.support import SupportSets
from meta_dx.records.support_case import SupportCase


def test_wrong_use_is_one_line_and_status_2(caplog: pytest.LogCaptureFixture) -> None:
    assert cli.run(["ingest"]) == 2
    assert cli.run(["no-such-command"]) == 2
    assert cli.run(["evaluate", "--ways", "one"]) == 2
    for record in caplog.records:
        assert "\n" not in record.getMessage()


@pytest.mark.parametrize("named", ["--home HOME", "--home=HOME", "in the environment"])
def test_a_fault_of_ours_is_status_1_and_quotes_no_library(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home.open(tmp_path)

    def explode(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("no number: Smith^John")

    monkeypatch.setattr("meta_dx.home.Home.open", explode)
    monkeypatch.setenv("META_DX_HOME", str(tmp_path if named == "in the environment" else tmp_path / "other"))
    options = named.replace("HOME", str(tmp_path)).split(" ") if named.startswith("--") else []
    assert cli.run(["ingest", ".", *options]) == 1
    assert "RuntimeError" in caplog.text and "explode" in caplog.text and "Smith" not in caplog.text
    (kept,) = (home.private / "faults").iterdir()
    assert str(kept) in caplog.text and "Smith^John" in kept.read_text()


def test_a_full_disk_anywhere_is_the_users_to_mend(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")

    monkeypatch.setattr("meta_dx.home.Home.open", full)
    assert cli.run(["ingest", "."]) == 2
    assert "no space left" in caplog.text


def test_help_lists_every_command_and_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, meta_dx.cli.app as a\n"
        "assert a.run(['--help']) == 0\n"
        "heavy = {'torch', 'dagster', 'great_expectations', 'monai', 'onnxruntime', 'sklearn', 'matplotlib'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in (
        "init",
        "phantom",
        "from-images",
        "ingest",
        "train",
        "export",
        "export-adapted",
        "evaluate",
        "predict",
        "support",
    ):
        assert command in done.stdout


def test_doctor_answers_json_for_a_fresh_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--home", str(tmp_path / "home"), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"machine", "training", "ONNX Runtime", "decoders", "readers", "disk", "home"} <= {
        f["what"] for f in findings
    }
    assert all(f["state"] in {"ok", "note", "fault"} for f in findings)


def test_support_needs_an_existing_home(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert cli.run(["support", "list", "--home", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in caplog.text


def test_without_a_command_it_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    assert cli.run([]) == 2
    assert caplog.messages[-1] == "meta-dx: Name a command. ('meta-dx --help' lists what there is.)"


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["ingest"], "meta-dx ingest"),
        (["support", "add", "--code", "X"], "meta-dx support add"),
        (["support", "ad"], "meta-dx support"),
        (["ingets"], "meta-dx"),
    ],
)
def test_wrong_use_points_to_the_help_of_the_command(
    typed: list[str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert cli.run(typed) == 2
    assert f"('{named} --help' lists what there is.)" in caplog.messages[-1]


def test_a_home_inside_of_the_folder_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Home.open(tmp_path / "demo")
    assert cli.run(["support", "list", "--home", str(tmp_path)]) == 2
    assert caplog.messages[-1] == (
        f"meta-dx: There is no home at {tmp_path}, but at {tmp_path / 'demo'}: name it with --home."
    )


@pytest.mark.parametrize("command", ["rejections", "predictions"])
def test_a_batch_that_was_never_planned_is_no_empty_list(
    command: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Home.open(tmp_path)
    assert cli.run([command, "--home", str(tmp_path), "--batch", "b9"]) == 2
    assert caplog.messages[-1] == f"meta-dx: The home {tmp_path} has no batch 'b9': it has none yet."


def test_a_disease_that_the_support_set_does_not_hold_is_no_empty_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SupportSets(Records.open(Home.open(tmp_path))).add(
        [SupportCase(code="X", scheme="99X", study="s", patient="p", meaning="Ex")], author="a", reason="r"
    )
    assert cli.run(["support", "show", "--home", str(tmp_path), "--code", "Y"]) == 2
    assert caplog.messages[-1] == "meta-dx: Version 1 of the support set holds no disease 'Y'."


def test_a_folder_that_may_not_be_read_is_not_said_to_be_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/locked/x")

    monkeypatch.setattr("meta_dx.home.Home.open", closed)
    assert cli.run(["ingest", "."]) == 2
    assert caplog.messages[-1].startswith("meta-dx: No permission for /locked/x: ask")


def test_doctor_tells_a_home_of_no_cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Home.open(tmp_path)
    assert cli.run(["doctor", "--home", str(tmp_path), "--json"]) == 0
    home = next(f for f in json.loads(capsys.readouterr().out)["findings"] if f["what"] == "home")
    assert "None" not in str(home.values()) and "of no cohort yet" in str(home.values())


def test_no_help_loses_a_word_in_brackets_to_markup() -> None:
    from rich.text import Text
    from typer.main import get_command

    def texts(command: Any, path: str) -> Iterator[tuple[str, str]]:
        yield path, command.help or ""
        for parameter in command.params:
            yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
        for name, inner in getattr(command, "commands", {}).items():
            yield from texts(inner, f"{path} {name}")

    told = dict(texts(get_command(cli.app), "meta-dx"))
    assert len(told) > 100
    assert {name: text for name, text in told.items() if Text.from_markup(text).plain != text} == {}
