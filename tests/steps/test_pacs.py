"""Archives among the sources of a cohort: who speaks to them, when, and what is told where nothing came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.fetch import landing_folder
from meta_dx.dicom.pacs.credentials import PASSWORD_VARIABLE, TOKEN_VARIABLE, USER_VARIABLE
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.settings import load_settings
from meta_dx.steps import Project, open_project
from meta_dx.steps.incoming import idle_sources, pending_batches, require_batch, take_in
from meta_dx.steps.pacs import fetch_new, source_folders
from tests.dicom.builders import write_study
from tests.dicom.pacs.web_server import WebServer, serving


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TOKEN_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    files = write_study(tmp_path / "archive", images=3)
    content = {"1.2": {"1.2.1": {f"1.2.1.{n}": file.read_bytes() for n, file in enumerate(files)}}}
    with serving(WebServer(content)) as world:
        yield world


def project_of(folder: Path, *sources: str, more: str = "") -> Project:
    listed = ", ".join(f'"{source}"' for source in sources)
    (folder / "studies").mkdir(exist_ok=True)
    (folder / "c.toml").write_text(f'[cohort]\nname = "c"\nsources = [{listed}]\n{more}')
    return open_project(folder / "c.toml", folder / "home")


QUICK = "[pacs]\nretries = 0\nconnect_seconds = 0.5\n"


def test_folders_and_archives_stand_side_by_side_and_only_a_fetch_speaks_to_an_archive(tmp_path, web) -> None:
    write_study(tmp_path / "studies", images=2, study="S9", patient="P9")
    project = project_of(tmp_path, "studies", web.address)
    (folder,) = pending_batches(project)
    assert folder.source == tmp_path / "studies" and web.asked == []
    assert idle_sources(project)[0].startswith("Nothing has come from")
    assert fetch_new(project)[web.address].fetched == 3
    web.asked.clear()
    first, second = pending_batches(project)
    assert take_in(project, second.id).found == 3
    assert web.asked == []
    assert not any(source_folders(project)[web.address].iterdir()), "the objects store has them"
    assert [batch.id for batch in pending_batches(project)] == [first.id]


def test_a_cohort_of_archives_from_which_nothing_came_is_told_so(tmp_path, web) -> None:
    project = project_of(tmp_path, web.address, "received:")
    with pytest.raises(MetaDxError) as caught:
        require_batch(project)
    assert caught.value.code == "nothing_fetched"


def test_an_archive_that_is_away_is_a_warning_to_a_run_and_an_error_to_a_fetch(tmp_path, web, caplog) -> None:
    away = "dicomweb+http://127.0.0.1:9/web"
    project = project_of(tmp_path, away, web.address, more=QUICK)
    assert list(fetch_new(project)) == [web.address]
    assert "cannot be reached" in caplog.text
    assert meta_dx(["fetch", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]) == 2


def test_a_wrong_login_is_an_error_to_a_run_too(tmp_path, web) -> None:
    web.trouble = lambda handler: handler.send(b"", status=401) or True
    with pytest.raises(MetaDxError) as caught:
        fetch_new(project_of(tmp_path, web.address))
    assert caught.value.code == "pacs_credentials"


def test_the_one_login_of_the_environment_is_not_sent_to_two_servers(tmp_path, web, monkeypatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    with serving(WebServer()) as other:
        with pytest.raises(MetaDxError) as caught:
            fetch_new(project_of(tmp_path, web.address, other.address))
        assert other.asked == web.asked == []
    assert caught.value.code == "bad_credentials"


def test_addresses_are_checked_when_the_cohort_file_is_read(tmp_path) -> None:
    with pytest.raises(MetaDxError) as caught:
        project_of(tmp_path, "dimse://nobody:104")
    assert caught.value.code == "bad_source" and "c.toml [cohort] sources" in str(caught.value)
    with pytest.raises(MetaDxError) as caught:
        project_of(tmp_path, "dicomweb+http://pacs.example.org/web")
    assert caught.value.code == "insecure_source"
    project_of(tmp_path, "dicomweb+http://pacs.example.org/web", more="[pacs]\nallow_http = true\n")


def test_files_of_the_section_are_relative_to_the_cohort_file(tmp_path) -> None:
    (tmp_path / "c.toml").write_text(
        '[cohort]\nname = "c"\nsources = ["received:"]\n[pacs]\ncredentials = "logins.toml"\n'
    )
    settings = load_settings(tmp_path / "c.toml")
    assert settings.pacs.credentials == str(tmp_path / "logins.toml") and settings.pacs.ca_file == ""
    assert settings.sources == [] and settings.addresses == ["received:"]


def test_fetch_without_an_archive_among_the_sources_says_so(tmp_path, caplog) -> None:
    project_of(tmp_path, "studies")
    assert meta_dx(["fetch", "--cohort", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]) == 2
    assert "No source of the cohort is an archive" in caplog.text


def test_receive_off_the_loopback_without_a_name_is_refused(tmp_path, caplog) -> None:
    assert meta_dx(["receive", "--host", "0.0.0.0", "--home", str(tmp_path / "home")]) == 2  # noqa: S104
    assert "--allow" in caplog.text


@pytest.mark.parametrize("patient", [True, False])
def test_one_archive_that_fails_keeps_no_other_from_being_asked(tmp_path, web, caplog, patient) -> None:
    with serving(WebServer()) as refusing:
        refusing.trouble = lambda handler: handler.send(b"", status=401) or True
        away = ["dicomweb+http://127.0.0.1:9/web", "dicomweb+http://127.0.0.1:10/web"]
        project = project_of(tmp_path, away[0], refusing.address, away[1], web.address, more=QUICK)
        with pytest.raises(MetaDxError) as caught:
            fetch_new(project, patient=patient)
    assert caught.value.code == ("pacs_credentials" if patient else "pacs_unreachable")
    assert ("2 other archives" in str(caught.value)) is not patient
    for place in ("127.0.0.1:9 ", "127.0.0.1:10 "):
        assert place in caplog.text + str(caught.value)
    (batch,) = pending_batches(project)
    assert take_in(project, batch.id).accepted == 3


def captures(folder: Path) -> list[bytes]:
    files = write_study(folder, images=2, study="SC", patient="PC", ConversionType="WSD")
    return [file.read_bytes() for file in files]


def ingested(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, *more: str) -> str:
    capsys.readouterr()
    assert meta_dx(["ingest", source, "--home", str(tmp_path / "home"), *more]) == 0
    return capsys.readouterr().out


def test_quarantined_files_that_were_received_stay_until_they_are_allowed(tmp_path, capsys) -> None:
    home = Home.open(tmp_path / "home")
    folder = landing_folder(home, "received:")
    for number, data in enumerate([*captures(tmp_path / "out"), b"no DICOM"]):
        (folder / f"{number:020}-aaaaaaaa.dcm").write_bytes(data)
    said = ingested(tmp_path, capsys, "received:")
    assert "secondary_capture: 2" in said and "--again" not in said
    assert len(list(folder.iterdir())) == 2
    assert "secondary_capture: 2" in ingested(tmp_path, capsys, "received:")
    assert meta_dx(["rejections", "--home", str(home.root), "--code", "secondary_capture"]) == 0
    assert "--again" not in capsys.readouterr().out
    said = ingested(tmp_path, capsys, "received:", "--allow", "secondary_capture")
    assert "accepted 2" in said and not list(folder.iterdir())


def test_quarantined_files_of_an_archive_are_taken_after_another_fetch(tmp_path, web, capsys) -> None:
    web.content["1.9"] = {"1.9.1": {f"1.9.1.{n}": data for n, data in enumerate(captures(tmp_path / "out"))}}
    said = ingested(tmp_path, capsys, web.address)
    assert "accepted 3" in said and "meta-dx fetch --again" in said
    assert meta_dx(["rejections", "--home", str(tmp_path / "home"), "--code", "secondary_capture"]) == 0
    said = capsys.readouterr().out
    assert "fetch with --again" in said and "where they lie" not in said
    assert meta_dx(["fetch", web.address, "--again", "--home", str(tmp_path / "home")]) == 0
    said = ingested(tmp_path, capsys, web.address, "--allow", "secondary_capture")
    assert "accepted 2 + duplicates 3" in said
