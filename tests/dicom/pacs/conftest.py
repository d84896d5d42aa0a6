"""One Orthanc for all tests of a worker, emptied before each; a home, quick options, and the login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from meta_dx.dicom.pacs.credentials import PASSWORD_VARIABLE, TOKEN_VARIABLE, USER_VARIABLE
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.home import Home
from tests.dicom.pacs.orthanc import PASSWORD, USER, Orthanc


@pytest.fixture(scope="session")
def running_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    archive = Orthanc(tmp_path_factory.mktemp("orthanc"))
    archive.start()
    yield archive
    archive.stop()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut would tell the difference, and no test makes one."""
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture
def orthanc(running_orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Orthanc:
    monkeypatch.setenv(USER_VARIABLE, USER)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    running_orthanc.empty()
    return running_orthanc


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> PacsOptions:
    """Options that wait for nothing, and look into every study."""
    port = request.getfixturevalue("orthanc").listener if "orthanc" in request.fixturenames else 0
    return PacsOptions(retries=2, backoff_seconds=0.01, max_pause_seconds=0.05, listen_port=port)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"
