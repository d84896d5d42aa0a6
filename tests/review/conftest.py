"""A small home with studies, a support set and predictions, and browsers that are signed in.

``META_DX_TEST_DATABASE_URL`` names a PostgreSQL server on which every home then gets a database of its own.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import import_diagnoses
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.database import URL_VARIABLE, Records
from meta_dx.records.predictions import EvidenceCase, PredictedStudy, PredictionRun, save_prediction_run
from meta_dx.records.support import SupportCase, SupportSets
from meta_dx.review import app as application
from meta_dx.review import rendering
from meta_dx.review.desk import Desk
from meta_dx.review.options import ReviewOptions
from meta_dx.steps.review import case_of
from tests.dicom.builders import write_instance
from tests.review.chromium import address, open_page  # noqa: F401 # fixtures
from tests.review.serving import PASSWORD, csrf_of, sign_in

SECRET = "NAME^OF-A-PATIENT"  # noqa: S105
CONFIRMED, OPEN = 2, 4
OTHER_DATABASE = os.environ.get("META_DX_TEST_DATABASE_URL")


@pytest.fixture(autouse=True)
def _without_a_build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("system") is None:  # a real browser needs the real scripts
        monkeypatch.setattr(rendering, "built_files", lambda: {"js": [], "css": []})


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two confirmed studies, four that are to be read."""
    folder = tmp_path_factory.mktemp("studies")
    rng = np.random.default_rng(0)
    lines = ["study_instance_uid,patient_id,accession_number,code,coding_scheme,meaning"]
    for number in range(CONFIRMED + OPEN):
        for image in range(2):
            pixels = rng.integers(0, 4000, (24, 24), dtype=np.uint16)
            write_instance(
                folder,
                patient=f"P{number}",
                study=f"1.2.3.{number}",
                pixels=pixels,
                PatientName=SECRET,
                InstanceNumber=image,
            )
        if number < CONFIRMED:
            lines.append(f"1.2.3.{number},P{number},,D{number},99T,Disease {number}")
    (folder / "diagnoses.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def taken_in(tmp_path_factory: pytest.TempPathFactory, studies: Path) -> Path:
    """A home with the studies, before anybody has said anything."""
    home = Home.open(tmp_path_factory.mktemp("taken-in") / "home")
    ingest_folder(home, studies)
    import_diagnoses(home, studies / "diagnoses.csv")
    Records.open(home).close()
    return home.root


@pytest.fixture
def make_database(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Lets the next desk work on a database of its own, empty or a copy of another; nothing to do for SQLite."""
    made: list[str] = []

    def make(copy_of: str | None = None) -> None:
        if OTHER_DATABASE is None:
            monkeypatch.delenv(URL_VARIABLE, raising=False)
            return
        from sqlalchemy import create_engine, make_url, text

        name = f"review_{os.getpid()}_{secrets.token_hex(4)}"
        server = create_engine(OTHER_DATABASE, isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            source = made[-1] if copy_of else "template1"
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {source}"))
        server.dispose()
        made.append(name)
        url = make_url(OTHER_DATABASE).set(database=name).render_as_string(hide_password=False)
        monkeypatch.setenv(URL_VARIABLE, url)

    return make


@pytest.fixture
def make_desk(tmp_path: Path, taken_in: Path, make_database: Callable[..., None]) -> Callable[..., Desk]:
    """A factory of homes that differ only in what was predicted."""

    def make(probability: float = 0.8, *, readers: int = 1, name: str = "home") -> Desk:
        shutil.copytree(taken_in, tmp_path / name)
        make_database()
        home = Home.open(tmp_path / name)
        desk = Desk(home, ReviewOptions(readers=readers))
        table = Catalog(home).diagnoses()
        rows = Catalog(home).studies()
        cases = [
            SupportCase(
                row.code, row.scheme, row.meaning, row.study, row.patient, "Dr A", "2024-01-01", "histology"
            )
            for row in table.itertuples()
        ]
        version = SupportSets(desk.records).add(cases, "test", "test").version
        unknown = rows[~rows["study"].isin(table["study"])]
        desk.cases.add(case_of(row) for row in unknown.to_dict("records"))
        images = Catalog(home).instances().drop_duplicates("study").set_index("study")["instance"]
        answers = [
            PredictedStudy(
                study,
                {"D0": probability, "D1": 1 - probability},
                0.5,
                epistemic=0.1,
                aleatoric=0.4,
                interval={"D0": (probability / 2, (1 + probability) / 2), "D1": (0.0, 1.0)},
                evidence=tuple(EvidenceCase(c.study, c.code, images[c.study], 0.5) for c in cases),
            )
            for study in unknown["study"]
        ]
        save_prediction_run(desk.records, PredictionRun("b" * 64, version, "v0001", "data", "b0001"), answers)
        return desk

    return make


@pytest.fixture
def copy_of(make_database: Callable[..., None]) -> Callable[[Desk, str], Desk]:
    """A factory of copies: surrogates, random orders and records are the same."""

    def make(desk: Desk, name: str) -> Desk:
        desk.records.close()
        root = desk.home.root.with_name(name)
        shutil.copytree(desk.home.root, root)
        make_database("the last one")
        return Desk(Home.open(root), desk.options)

    return make


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


class Browser:
    """One person's browser."""

    def __init__(self, desk: Desk, name: str, role: str) -> None:
        desk.accounts.add(name, role, password=PASSWORD, must_change=False)
        self.name, self.desk = name, desk
        self.client = TestClient(
            application.create_app(desk, {"testserver"}),
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        self.client.headers["accept"] = "text/html"

    def sign_in(self, password: str = PASSWORD):  # type: ignore[no-untyped-def]
        return sign_in(self.client, self.name, password)

    @property
    def csrf(self) -> str:
        return csrf_of(self.client)

    def get(self, path: str, **more):  # type: ignore[no-untyped-def]
        return self.client.get(path, **more)

    def shown(self, study: str) -> str:
        """Return what marks the answer on the page of a case; empty where none is shown."""
        found = re.search(r'name="answer" value="([^"]*)"', self.get(f"/cases/{study}").text)
        return found[1] if found else ""

    def awaited(self, study: str) -> str:
        """Return what the form of a case is for, without a look at its page."""
        (account,) = (one for one in self.desk.accounts.all() if one.name == self.name)
        try:
            return self.desk.cases.awaited(account, study)
        except MetaDxError:
            return ""

    def post(self, path: str, **fields: str):  # type: ignore[no-untyped-def]
        if path.endswith(("/decide", "/adjudicate")):
            fields = {"answer": self.shown(path.split("/")[2]), **fields}
        if path.endswith(("/draft", "/read", "/decide", "/adjudicate")):
            fields = {"for": self.awaited(path.split("/")[2]), **fields}
        return self.client.post(path, data={"csrf": self.csrf, **fields})

    def cases(self, view: str = "unread") -> list[str]:
        return re.findall(r'data-href="/cases/([\d.]+)"', self.get(f"/worklist?view={view}").text)

    def read(self, study: str, rank1: str = "D0", confidence: str = "70"):  # type: ignore[no-untyped-def]
        self.get(f"/cases/{study}")
        return self.post(f"/cases/{study}/read", rank1=rank1, confidence=confidence)


@pytest.fixture
def browser(desk: Desk) -> Iterator[Callable[..., Browser]]:
    """A factory of browsers, signed in unless told otherwise."""

    def make(role: str = "reader", name: str = "", signed_in: bool = True, at: Desk | None = None) -> Browser:
        made = Browser(at or desk, name or role, role)
        if signed_in:
            assert made.sign_in().status_code == 303
        return made

    yield make
