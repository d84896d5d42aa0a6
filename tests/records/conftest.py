"""Fresh records for every test, copied from one migrated file because migrating takes a third of a second.

``META_DX_TEST_DATABASE_URL`` runs the same tests on a database of your own, PostgreSQL for instance. Every
test drops its tables.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from meta_dx.home import Home
from meta_dx.records.database import URL_VARIABLE, VERSION_TABLE, Records
from meta_dx.records.schema import Base

OTHER_DATABASE = os.environ.get("META_DX_TEST_DATABASE_URL")


@pytest.fixture(autouse=True)
def only_this_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home", "trial")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Home.open(tmp_path_factory.mktemp("migrated"))
    Records.open(home, f"sqlite:///{home.root}/records.sqlite")
    return home.root / "records.sqlite"


@pytest.fixture
def fresh(tmp_path: Path, migrated_file: Path) -> Callable[[], Records]:
    """A factory of empty records, each in a home of its own."""
    numbers = itertools.count()

    def make() -> Records:
        home = Home.open(tmp_path / f"fresh{next(numbers)}")
        if OTHER_DATABASE:
            _empty(OTHER_DATABASE)
            return Records.open(home, OTHER_DATABASE)
        shutil.copy(migrated_file, home.root / "records.sqlite")
        return Records.open(home)

    return make


@pytest.fixture
def records(fresh: Callable[[], Records]) -> Records:
    return fresh()


def _empty(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
    engine.dispose()
