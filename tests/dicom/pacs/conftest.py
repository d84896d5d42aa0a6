"""A home, and quick options."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.home import Home


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut would tell the difference, and no test makes one."""
    monkeypatch.setattr(os, "sync", lambda: None)


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
