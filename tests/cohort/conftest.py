"""A home and a source folder, both empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta_dx.home import Home


@pytest.fixture
def home(tmp_path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder
