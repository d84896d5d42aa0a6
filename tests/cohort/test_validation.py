"""The lists of checks, their documentation, and the Data Docs: complete, private, silent and bounded."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from meta_dx.cohort.catalog import series_of, studies_of
from meta_dx.cohort.validation import (
    ValidationReport,
    data_docs,
    diagnosis_checks,
    ingest_checks,
    validate_batch,
    validate_diagnoses,
)
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.cohort.validation_tables import TODAY, Batch, clean_batch, clean_diagnoses, stored

DOCS = Path(__file__).parents[2] / "docs" / "validation.md"
ALL_CHECKS = (*ingest_checks(), *diagnosis_checks())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def validate(home: Home, batch: Batch) -> ValidationReport:
    taken = batch.taken()
    return validate_batch(
        home, batch.name, taken, batch.refused(), studies_of(taken), series_of(taken), today=TODAY
    )


def blank_some(batch: Batch, images: int = 30) -> Batch:
    batch.instances.loc[: images - 1, "pixel_max"] = batch.instances["pixel_min"][:images]
    return batch


class Page(HTMLParser):
    """What a browser would do with a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset", "poster") and value:
                (self.linked if tag == "a" else self.loaded).append(value)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def pages(home: Home) -> dict[str, Page]:
    site = home.validation / "data_docs"
    return {str(file.relative_to(site)): Page(file.read_text()) for file in site.rglob("*.html")}


def test_names_are_unique_and_faults_are_one_sentence() -> None:
    names = [check.name for check in ALL_CHECKS]
    assert len(names) == len(set(names))
    assert len(ingest_checks()) >= 20
    assert len(diagnosis_checks()) >= 20
    for check in ALL_CHECKS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", check.name)
        assert check.fault.endswith(".")
        assert ". " not in check.fault
        # It becomes the description in Great Expectations, where these would be markup or parameters.
        assert not set(check.fault) & set("<>&$")


def test_only_mixed_up_or_lost_data_block() -> None:
    blocking = {check.name for check in ALL_CHECKS if check.severity == "blocking"}
    assert {"study_of_one_patient", "patient_matches_images", "few_files_damaged"} <= blocking
    assert not {check.name for check in ALL_CHECKS if check.suite == "cohort"} & blocking


def test_every_expectation_is_built_in_and_judges_each_value_by_itself() -> None:
    """Failing rows are found by their values, which would be wrong for an expectation on a whole column."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.expectation import ColumnMapExpectation

    for check in ALL_CHECKS:
        expectation = getattr(gxe, check.expectation)
        assert issubclass(expectation, ColumnMapExpectation) == (check.column is not None)
        assert check.expectation != "ExpectColumnValuesToBeUnique"


def test_the_lists_of_checks_come_without_great_expectations() -> None:
    code = (
        "import sys; from meta_dx.cohort.validation import ingest_checks, diagnosis_checks; "
        "ingest_checks(), diagnosis_checks(); sys.exit('great_expectations' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documentation_lists_exactly_the_checks() -> None:
    rows = re.findall(
        r"^\| (.+?) \| `(\w+)` \| (blocking|warning) \| (\w+) \| `(\w+)` \|$", DOCS.read_text(), re.M
    )
    documented = [
        (name, severity, unit, expectation, fault) for fault, name, severity, unit, expectation in rows
    ]
    assert documented == [(c.name, c.severity, c.unit, c.expectation, c.fault) for c in ALL_CHECKS]


def test_the_documentation_says_what_becomes_of_every_refusal() -> None:
    text = DOCS.read_text()
    assert [code for code in RejectionCode if f"`{code}`" not in text] == []


def test_failing_rows_appear_with_their_batch_in_results_and_pages(home: Home) -> None:
    report = validate(home, blank_some(clean_batch()))
    failing = report["image_not_blank"].failing
    assert len(failing) == 20

    result = json.loads((home.validation / "results" / "ingest" / "b0002.json").read_text())
    assert result["batch"] == "b0002"
    assert result["results"] == json.loads(json.dumps([asdict(r) for r in report.results]))
    assert list(data_docs.stored_reports(home)) == [report]

    site = pages(home)
    assert report.data_docs == home.validation / "data_docs" / "index.html"
    assert set(site) == {"index.html", "ingest/b0002.html"}
    words = " ".join(site["ingest/b0002.html"].words)
    assert all(uid in words for uid in failing)
    assert all(check.name in words and check.fault in words for check in ingest_checks())
    assert "20 of 30 named" in words
    # What Great Expectations itself says of the column.
    assert "30 unexpected values found" in words
    index = " ".join(site["index.html"].words)
    assert "image_not_blank" in index
    assert f"30 of {len(clean_batch().instances)} images fail" in index


def test_pages_load_nothing_and_their_links_exist(home: Home) -> None:
    batch = blank_some(clean_batch())
    validate(home, batch)
    taken = batch.taken()
    studies = studies_of(taken)
    validate_diagnoses(home, stored(clean_diagnoses(studies)), studies, taken, today=TODAY)
    site = pages(home)
    assert set(site) == {"index.html", "ingest/b0002.html", "diagnoses/all.html"}
    for name, page in site.items():
        assert not {"script", "iframe", "object", "embed", "img", "form"} & set(page.tags)
        assert set(page.loaded) == {"data:,"}
        folder = (home.validation / "data_docs" / name).parent
        assert page.linked
        assert all((folder / link).resolve().is_file() for link in page.linked)
    for file in (home.validation / "data_docs").rglob("*"):
        if file.is_file():
            assert not re.search(r"https?://|url\(|@import|//[\w-]+\.\w", file.read_text())


def test_nothing_is_sent_anywhere(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("validation opened a connection")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    validate(home, clean_batch())


def test_text_from_headers_and_tables_cannot_become_markup(home: Home) -> None:
    batch = clean_batch(patients=60)
    studies = studies_of(batch.taken())
    diagnoses = clean_diagnoses(studies)
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    wanted = diagnoses["code"] == "1E50.0"
    # A mangled code, a basis, and the scanner of a tied disease: each is shown as it was found.
    diagnoses.loc[wanted, ["code", "meaning"]] = ["#NAME?", evil]
    diagnoses.loc[0, "basis"] = evil
    images = batch.instances["study"].isin(diagnoses["study"][wanted])
    batch.instances.loc[images, ["manufacturer", "model"]] = [evil, evil]
    report = validate_diagnoses(home, stored(diagnoses), studies, batch.taken(), today=TODAY)
    assert not report["basis_known"].passed
    assert not report["disease_not_tied_to_scanner"].passed
    page = pages(home)["diagnoses/all.html"]
    assert not {"script", "img"} & set(page.tags)
    assert "<script>alert(1)</script>" in " ".join(page.words)


def test_validating_again_replaces_the_results(home: Home) -> None:
    validate(home, blank_some(clean_batch()))
    before = {file for file in home.validation.rglob("*") if file.is_file()}
    validate(home, clean_batch())
    assert {file for file in home.validation.rglob("*") if file.is_file()} == before
    (report,) = data_docs.stored_reports(home)
    assert not report.failures
    assert "blank" not in " ".join(pages(home)["index.html"].words)


def test_the_site_keeps_pages_of_the_newest_results_only(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_docs, "PAGES_KEPT", 2)
    for name in ("b0001", "b0002", "b0003"):
        validate(home, clean_batch(name, patients=3))
    site = pages(home)
    assert set(site) == {"index.html", "ingest/b0002.html", "ingest/b0003.html"}
    assert site["index.html"].linked == ["ingest/b0003.html", "ingest/b0002.html"]
    assert "1 older results" in " ".join(site["index.html"].words)
    assert len(list(data_docs.stored_reports(home))) == 3


def test_a_page_stays_small_however_much_fails(home: Home) -> None:
    batch = clean_batch(patients=100)
    batch.instances["pixel_max"] = batch.instances["pixel_min"]
    batch.instances["body_part"] = None
    batch.instances["age_years"] = np.where(batch.instances["age_years"] > 0, 123.0, 123.0)
    validate(home, batch)
    assert (home.validation / "data_docs" / "ingest" / "b0002.html").stat().st_size < 200_000
    assert (home.validation / "results" / "ingest" / "b0002.json").stat().st_size < 40_000


def test_a_batch_id_cannot_leave_the_store(home: Home) -> None:
    with pytest.raises(ValueError, match="batch id"):
        validate(home, clean_batch("../../b0001", patients=2))
    assert not home.validation.exists() or not list(home.validation.rglob("*.html"))


def test_a_home_that_cannot_be_written_is_one_clear_sentence(home: Home) -> None:
    (home.root / "validation").write_text("in the way")
    with pytest.raises(MetaDxError) as caught:
        validate(home, clean_batch(patients=2))
    assert caught.value.code == "not_writable"


def test_two_threads_do_not_mix_their_batches() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def check(broken: bool) -> list[str]:
        batch = blank_some(clean_batch()) if broken else clean_batch()
        taken = batch.taken()
        report = validate_batch(
            Home(Path()), "b0002", taken, batch.refused(), studies_of(taken), series_of(taken), docs=False
        )
        return [failure.name for failure in report.failures]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(check, [True, False] * 2)) == [["image_not_blank"], []] * 2


def test_tables_are_left_as_they_were() -> None:
    batch = clean_batch()
    taken = batch.taken()
    before = taken.copy(deep=True)
    validate_batch(
        Home(Path()), "b0002", taken, batch.refused(), studies_of(taken), series_of(taken), docs=False
    )
    pd.testing.assert_frame_equal(taken, before)


def test_great_expectations_announces_nothing() -> None:
    code = (
        "import logging, sys\n"
        "logging.basicConfig(level=logging.WARNING, stream=sys.stderr)\n"
        "from meta_dx.cohort.validation.runner import _frames\n"
        "_frames()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == ""
