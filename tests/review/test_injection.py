"""What a file or a person says stays text: on pages, in reports, in tables, in paths."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.home import Home
from meta_dx.review.desk import Desk
from meta_dx.steps.review import case_of
from tests.dicom.builders import write_instance
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]
MARK = "zq7x"
NASTY = f"<img src=x onerror={MARK}>\"'</textarea></script><script>{MARK}()</script>{{{{7*191}}}}${{7*191}}"


class Live(HTMLParser):
    """Finds elements and attributes that carry the mark, which in text is harmless."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag in ("script", "style")
        harmless = ("value", "content", "href")
        self.found += [
            f"{tag} {name}" for name, value in attrs if MARK in (value or "") and name not in harmless
        ]
        self.found += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script and MARK in data:
            self.found.append("script")


def test_the_finder_finds() -> None:
    assert Live(f"<p>{NASTY}</p>").found
    assert Live(f"<script>{MARK}</script>").found
    assert not Live(f"<p>{MARK} &lt;script&gt;</p><input value='{MARK}'>").found


def pages_of(person: Browser, study: str) -> dict[str, str]:
    paths = [
        "/worklist",
        f"/worklist?search={NASTY}&modality={NASTY[:10]}",
        "/worklist?view=done",
        f"/cases/{study}",
        "/lead",
        "/teach",
        "/audit",
        f"/audit?study={NASTY[:60]}",
        f"/cases/{NASTY}",
        f"/sign-in?next={NASTY}",
    ]
    return {path: person.get(path).text for path in paths}


def harmless(pages: dict[str, str]) -> None:
    for path, page in pages.items():
        assert Live(page).found == [], path
        assert "1337" not in page, path  # 7 * 191: nothing evaluates what was typed


def test_free_text_is_shown_as_text_on_every_page(browser: Browsers) -> None:
    lead = browser("lead")
    study = lead.cases()[0]
    lead.get(f"/cases/{study}")
    lead.post(f"/cases/{study}/draft", text=NASTY, rank1=NASTY)
    pages = pages_of(lead, study)
    assert MARK in pages[f"/cases/{study}"]
    harmless(pages)
    assert Live(lead.post(f"/cases/{study}/read", rank1=NASTY, confidence="5").text).found == []
    lead.post(f"/cases/{study}/read", rank1="D0", confidence="10", text=NASTY)
    fields = {"verdict": "override", "reason": "other", "text": NASTY, "new_scheme": NASTY[:16]}
    lead.post(f"/cases/{study}/decide", diagnosis=NASTY[:60], new_meaning=NASTY, **fields)
    pages = pages_of(lead, study)
    assert pages[f"/cases/{study}"].count(MARK) >= 3
    harmless(pages)
    assert (
        Live(lead.post("/teach", disease=NASTY, new_meaning=NASTY, study=NASTY, basis="x").text).found == []
    )


def test_what_a_file_says_stays_in_the_vault_or_is_text(
    tmp_path: Path, make_database: Callable[..., None], browser: Browsers
) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_instance(
        folder,
        patient="P1<b>",
        study="1.2.3.9",
        PatientName=f"<script>{MARK}</script>^=1+1",
        PatientID=f"<b>{MARK}",
        SeriesDescription=NASTY[:64],
        StudyDescription="=HYPERLINK(1)",
        AccessionNumber="=1+1",
        BodyPartExamined="<B>BODY",
        ViewPosition="<I>",
    )
    home = Home.open(tmp_path / "nasty")
    ingest_folder(home, folder)
    make_database()
    desk = Desk(home)
    desk.cases.add(case_of(row) for row in Catalog(home).studies().to_dict("records"))
    lead = browser("lead", at=desk)
    (study,) = lead.cases()
    harmless(pages_of(lead, study))
    page = lead.get(f"/cases/{study}").text
    assert "<B>" not in page.replace("<b>", "")
    assert MARK not in page
    assert MARK not in lead.get(f"/cases/{study}/images").text
    shown = lead.post(f"/cases/{study}/identity").text
    assert f"&lt;b&gt;{MARK}" in shown
    assert Live(shown).found == []


def test_a_report_holds_what_was_typed_as_text(desk: Desk, browser: Browsers) -> None:
    reader = browser()
    study = reader.cases()[0]
    reader.read(study)
    code, meaning = '"}],"x":[{"\\', '\\^"<b>\r\nPID|1'
    reader.post(
        f"/cases/{study}/decide",
        verdict="override",
        diagnosis=code,
        new_scheme="99T",
        new_meaning=meaning,
        reason="not_offered",
        text=NASTY,
    )
    assert desk.cases.opinions(study)[-1].kind == "decision"
    fhir = reader.get(f"/cases/{study}/report.json")
    (concluded,) = json.loads(fhir.text)["conclusionCode"]
    assert concluded["coding"][0]["code"] == code
    assert fhir.headers["content-type"].startswith("application/fhir+json")
    report = reader.get(f"/cases/{study}/report.dcm")
    assert report.headers["content-disposition"].startswith("attachment")
    dataset = dcmread(BytesIO(report.content))
    assert dataset.VerificationFlag == "VERIFIED"
    texts = [element.value for element in dataset.iterall() if element.keyword == "CodeMeaning"]
    assert not any("\r" in text or "\n" in text or "\\" in text for text in texts)


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", " =1", "＝1"])
def test_no_cell_of_the_table_is_a_formula(desk: Desk, browser: Browsers, start: str) -> None:
    lead = browser("lead")
    study = lead.cases()[0]
    lead.read(study)
    lead.post(
        f"/cases/{study}/decide",
        verdict="override",
        diagnosis=f"{start}X",
        new_scheme="99T",
        new_meaning=f"{start}|cmd",
        reason="not_offered",
    )
    rows = list(csv.reader(io.StringIO(lead.get("/lead/decisions.csv").text)))
    assert len(rows) == 3
    for cell in (cell for row in rows for cell in row):
        assert cell.strip()[:1] not in tuple("=+-@＝"), cell


def test_frames_of_other_patients_and_paths_that_are_none_are_refused(browser: Browsers) -> None:
    person = browser()
    first, second = person.cases()[:2]
    for study in (first, second):
        person.get(f"/cases/{study}")
    url = person.get(f"/cases/{second}/images").json()["studies"][0]["series"][0]["frames"][0]["url"]
    name = url.split("/")[-2]
    tricks = ["%2e%2e%2f", "..%2f..%2fprivate", "..%5c..", "%00", "~", "C:%5c", "%2fetc%2fpasswd"]
    tricks += [
        "....//....//",
        "%252e%252e%252f",
        "．．／",
        "file:%2f%2f",
        "2.25.1",
        "0" * 64,
        "'%20OR%201=1--",
    ]
    paths = [f"/cases/{first}/frames/{name}/0", f"/cases/{second}/frames/{name}/7"]
    paths += [f"/cases/{second}/frames/{name}/{odd}" for odd in ("-1", "1e9", "9" * 30, "0x0", "")]
    for trick in tricks:
        paths += [
            f"/cases/{second}/frames/{trick}/0",
            f"/cases/{second}/frames/{trick}{name}/0",
            f"/cases/{second}/evidence/{trick}",
            f"/cases/{trick}/images",
            f"/cases/{trick}/report.dcm",
            f"/static/{trick}/records.sqlite",
            f"/static/{trick}/{trick}/private/audit.key",
        ]
    for path in paths:
        assert person.get(path).status_code in (303, 307, 404, 405, 422), path
    assert person.get(url).status_code == 200
