"""A small home with studies, a support set and predictions, and browsers that are signed in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import import_diagnoses
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.home import Home
from meta_dx.records.predictions import EvidenceCase, PredictedStudy, PredictionRun, save_prediction_run
from meta_dx.records.support import SupportCase, SupportSets
from meta_dx.review import app as application
from meta_dx.review.desk import Desk
from meta_dx.review.options import ReviewOptions
from meta_dx.steps.review import case_of
from tests.dicom.builders import write_instance

PASSWORD = "correct horse battery"  # noqa: S105
SECRET = "NAME^OF-A-PATIENT"  # noqa: S105
CONFIRMED, OPEN = 2, 4


@pytest.fixture(autouse=True)
def _without_a_build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("system") is None:  # a real browser needs the real scripts
        monkeypatch.setattr(application, "built_files", lambda: {"js": [], "css": []})


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
    """A home with the studies and the diagnoses; each test works on a copy."""
    home = Home.open(tmp_path_factory.mktemp("taken-in") / "home")
    ingest_folder(home, studies)
    import_diagnoses(home, studies / "diagnoses.csv")
    return home.root


@pytest.fixture
def make_desk(tmp_path: Path, taken_in: Path) -> Callable[..., Desk]:
    """A factory of homes that differ only in what was predicted."""

    def make(probability: float = 0.8, *, readers: int = 1, name: str = "home") -> Desk:
        shutil.copytree(taken_in, tmp_path / name)
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
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


class Browser:
    """One person's browser."""

    def __init__(self, desk: Desk, name: str, role: str) -> None:
        desk.accounts.add(name, role, password=PASSWORD, must_change=False)
        self.name = name
        self.client = TestClient(
            application.create_app(desk, {"testserver"}),
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        self.client.headers["accept"] = "text/html"

    def sign_in(self, password: str = PASSWORD):  # type: ignore[no-untyped-def]
        form = re.search(r'name="form" value="([^"]+)"', self.client.get("/sign-in").text)
        assert form
        return self.client.post("/sign-in", data={"form": form[1], "name": self.name, "password": password})

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf-token" content="([^"]*)"', self.client.get("/password").text)
        assert found
        return found[1]

    def get(self, path: str, **more):  # type: ignore[no-untyped-def]
        return self.client.get(path, **more)

    def post(self, path: str, **fields: str):  # type: ignore[no-untyped-def]
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
