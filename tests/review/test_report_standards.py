"""Reports as an archive, a FHIR server and a spreadsheet read them: what their standards ask for, in unusual cases."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from highdicom.sr import srread
from pydicom import Dataset, dcmread

from meta_dx.cohort.catalog import Catalog
from meta_dx.records.coding_schemes import designator_of, uri_of
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis
from meta_dx.records.predictions import PredictedStudy, PredictionRun, save_prediction_run
from meta_dx.records.vault import Vault
from meta_dx.review.desk import Desk
from meta_dx.review.reports import decisions_table, diagnostic_report, report_of
from tests.review.conftest import Browser
from tests.review.test_reports import complaints

Browsers = Callable[..., Browser]


@pytest.fixture
def reader(browser: Browsers) -> Browser:
    return browser()


@pytest.fixture
def study(reader: Browser) -> str:
    """A case that the reader has read blind."""
    study: str = reader.cases()[0]
    reader.read(study, "D1")
    return study


def decide(desk: Desk, reader: Browser, study: str, decision: Decision, beside: bool = False) -> None:
    account = next(one for one in desk.accounts.all() if one.name == reader.name)
    answer = desk.answer(study)
    assert answer is not None
    desk.cases.decide(account, study, decision, answer.shown if beside else None)


def written(desk: Desk, study: str, path: Path) -> Dataset:
    """Return the report of a case, in which an independent program finds no error."""
    path.write_bytes(report_of(desk, study)[1])
    assert complaints(path) in (None, [])
    return dcmread(path)


def groups_of(report: Dataset) -> list[list[Dataset]]:
    (found,) = (item for item in report.ContentSequence if item.ValueType == "CONTAINER")
    return [list(group.ContentSequence) for group in found.ContentSequence]


def codes_of(group: list[Dataset], concept: str) -> list[tuple[str, str, str]]:
    """Return value, scheme and meaning of what a group says of a concept."""
    found = [
        item.ConceptCodeSequence[0]
        for item in group
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == concept
    ]
    return [
        (
            str(one.get("CodeValue") or one.LongCodeValue),
            str(one.CodingSchemeDesignator),
            str(one.CodeMeaning),
        )
        for one in found
    ]


DIAGNOSIS, OBSERVER_TYPE = "439401001", "121005"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (Diagnosis("233604007", "SNOMED CT", "Pneumonia"), ("233604007", "SCT", "Pneumonia")),
        (Diagnosis("J18.9", "ICD-10", "Pneumonia"), ("J18.9", "I10", "Pneumonia")),
        (Diagnosis("X1", "99OURS", "Größe 肺炎"), ("X1", "99OURS", "Größe 肺炎")),
        (
            Diagnosis("A\\B-longer-than-16-characters", "", "T1\\T2\r\n of\x1bours"),
            ("A/B-longer-than-16-characters", "99METADX", "T1/T2 of ours"),
        ),
        (Diagnosis("X2", "99OURS", "\x07"), ("X2", "99OURS", "X2")),
        (Diagnosis("X3", "99OURS", "می\u200cخواهم\u200c"), ("X3", "99OURS", "می\u200cخواهم")),
    ],
)
def test_a_new_disease_is_coded_as_dicom_codes_it(
    desk: Desk,
    reader: Browser,
    study: str,
    tmp_path: Path,
    named: Diagnosis,
    told: tuple[str, str, str],
) -> None:
    decide(desk, reader, study, Decision("own", named))
    report = written(desk, study, tmp_path / "sr.dcm")
    assert codes_of(groups_of(report)[0], DIAGNOSIS) == [told]
    (group,) = srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert group.get_qualitative_evaluations()[1].value.meaning == told[2]


@pytest.mark.parametrize(
    ("typed", "designator"),
    [
        ("sct", "SCT"),
        ("SNOMED CT", "SCT"),
        ("99SDM", "SRT"),
        ("ICD-10", "I10"),
        ("ICD-10-CM", "I10C"),
        ("ICD10PCS", "I10P"),
        ("ICD-9-CM", "I9C"),
        ("ICD-11", "I11"),
        ("ICD-O-3", "ICDO3"),
        ("RadLex", "RADLEX"),
        ("LOINC", "LN"),
        ("ICD-10-GM", "ICD-10-GM"),  # DICOM has none for it
        ("99 ours", "99 ours"),
        (" \x07", "99METADX"),
    ],
)
def test_a_coding_scheme_has_the_designator_of_dicom_and_one_uri(typed: str, designator: str) -> None:
    assert designator_of(typed) == designator
    if designator not in ("99 ours", "99METADX"):
        assert uri_of(typed) == uri_of(designator)
        assert uri_of(typed).startswith("http://")


def test_the_model_has_observed_its_answers_and_the_reader_the_decision(
    desk: Desk, reader: Browser, study: str, tmp_path: Path
) -> None:
    decide(desk, reader, study, Decision("accept", desk.diseases()[0]), beside=True)
    report = written(desk, study, tmp_path / "sr.dcm")
    decision, *answers = groups_of(report)
    kinds = [codes_of(group, OBSERVER_TYPE) for group in (list(report.ContentSequence), decision, *answers)]
    person, device = ("121006", "DCM", "Person"), ("121007", "DCM", "Device")
    assert kinds == [[person], [], [device], [device]]  # the decision is observed by whom the report names
    for group in answers:
        told = {item.ConceptNameCodeSequence[0].CodeValue: item for item in group}
        assert told["121012"].UID.startswith("2.25.")
        assert told["121013"].TextValue == told["111001"].TextValue == "meta_dx"  # device and algorithm
        assert told["121012"].RelationshipType == "HAS OBS CONTEXT"


def test_two_readers_who_saw_different_answers_are_each_reported_beside_their_own(
    make_desk: Callable[..., Desk], browser: Browsers, tmp_path: Path
) -> None:
    two = make_desk(readers=2, name="two")
    anna, bert = (browser(name=name, at=two) for name in ("anna", "bert"))
    study = anna.cases()[0]
    d0 = two.diseases()[0]
    for reader in (anna, bert):
        reader.read(study, "D0")
    decide(two, anna, study, Decision("accept", d0), beside=True)
    taught = PredictionRun(
        "c" * 64, 1, "v0001", "data", "b0001"
    )  # a lesson has changed the answer in between
    save_prediction_run(two.records, taught, [PredictedStudy(study, {"D0": 0.1, "D1": 0.9}, 0.5)])
    decide(two, bert, study, Decision("override", d0, "finding_invented"), beside=True)
    groups = groups_of(written(two, study, tmp_path / "sr.dcm"))
    beside = [
        [str(item.TextValue) for item in group if item.ConceptNameCodeSequence[0].CodeValue == "beside"]
        for group in groups[:2]
    ]
    assert beside == [["answer 1"], ["answer 2"]]
    told = []
    for group in groups[2:]:
        words = [str(item.TextValue) for item in group if item.ValueType == "TEXT"]
        told.append((words[0], next(w for w in words if "bundle" in w)[-1], codes_of(group, DIAGNOSIS)[0][0]))
    assert told == [
        ("answer 1, rank 1", "b", "D0"),
        ("answer 1, rank 2", "b", "D1"),
        ("answer 2, rank 1", "c", "D1"),
        ("answer 2, rank 2", "c", "D0"),
    ]
    parts = [
        {part["url"]: part for part in one["extension"]} for one in diagnostic_report(two, study)["extension"]
    ]
    assert [(one["bundle"]["valueString"][0], one["probability"]["valueDecimal"]) for one in parts] == [
        ("b", 0.8),
        ("b", pytest.approx(0.2)),
        ("c", 0.9),
        ("c", 0.1),
    ]


def test_what_belongs_to_the_series_is_the_same_in_every_report_of_it(
    desk: Desk, reader: Browser, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for moment, disease in zip(
        ("2026-01-01T10:00:00+00:00", "2026-02-03T11:00:00+00:00"), desk.diseases(), strict=True
    ):
        monkeypatch.setattr("meta_dx.records.case_rows.now", lambda moment=moment: moment)
        decide(desk, reader, study, Decision("own", disease))
        found.append(dcmread(BytesIO(report_of(desk, study)[1])))
    assert [one.ContentDate for one in found] == ["20260101", "20260203"]
    series = (
        "SeriesInstanceUID SeriesNumber SeriesDate SeriesTime SeriesDescription Modality Manufacturer".split()
    )
    first, second = ({keyword: one.get(keyword) for keyword in series} for one in found)
    assert first == second


def test_the_accession_number_is_that_of_any_image_that_has_one(
    desk: Desk, reader: Browser, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(desk, reader, study, Decision("own", desk.diseases()[0]))
    rows, known = Catalog.instances, Vault.originals

    def instances(catalog: Catalog, *args: Any, **options: Any) -> Any:
        table = rows(catalog, *args, **options)
        of_it = table.index[table["study"] == study]
        table["accession"] = None
        table.loc[of_it[-1], "accession"] = "surrogate"
        return table

    def originals(vault: Vault, kind: str, names: Any) -> dict[str, str]:
        return {"surrogate": "A-17"} if kind == "accession" else known(vault, kind, names)

    monkeypatch.setattr(Catalog, "instances", instances)
    monkeypatch.setattr(Vault, "originals", originals)
    assert dcmread(BytesIO(report_of(desk, study)[1])).AccessionNumber == "A-17"


def leaves(value: Any) -> Iterator[Any]:
    """Yield what a resource holds, lists and objects before what is in them."""
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(part)


@pytest.mark.parametrize(
    ("decision", "beside"),
    [
        (Decision("cannot_tell", None, "other", "a\x1b$B\x07b\r\nc"), True),
        (Decision("bad_image", None, "image_quality"), False),
        (Decision("own", Diagnosis("X  1\x07", "99OURS", "Quite\x07new")), False),
    ],
)
def test_a_fhir_report_holds_nothing_empty_and_no_character_that_controls(
    desk: Desk, reader: Browser, study: str, decision: Decision, beside: bool
) -> None:
    decide(desk, reader, study, decision, beside)
    found = json.loads(json.dumps(diagnostic_report(desk, study)))
    for value in leaves(found):  # R4, 2.6.2: no empty array, object or string, and null in none of ours
        assert value or isinstance(value, int | float)
        if isinstance(value, str):  # R4, 2.24.0.1
            assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", value)
        if isinstance(value, dict) and "code" in value and "system" in value:
            assert re.fullmatch(r"[^\s]+(\s[^\s]+)*", value["code"])
    assert ("conclusionCode" in found) == (decision.diagnosis is not None)
    assert ("extension" in found) == beside
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", found["issued"])


def test_a_row_of_the_table_is_one_row_to_any_spreadsheet_and_says_the_scheme(
    desk: Desk, reader: Browser, study: str
) -> None:
    account = next(one for one in desk.accounts.all() if one.name == reader.name)
    another = reader.cases()[0]
    desk.cases.open(account, another)
    new = Diagnosis("Q1", "SCT", "New\r=HYPERLINK(1)\nand\tmore")
    desk.cases.read(account, another, BlindOpinion((new,), 40))
    for case in (study, another):
        decide(desk, reader, case, Decision("own", new))
    table = decisions_table(desk)
    lines = table.splitlines()  # also at a carriage return
    assert len(lines) == 5
    assert not any(line.startswith("=") for line in lines)
    rows = list(csv.DictReader(io.StringIO(table)))
    found = [(row["kind"], row["code"], row["scheme"], row["meaning"], row["confidence"]) for row in rows]
    words = "New =HYPERLINK(1) and more"
    assert sorted(found) == [
        ("blind", "D1", "99T", "Disease 1", "70"),
        ("blind", "Q1", "SCT", words, "40"),
        ("decision", "Q1", "SCT", words, ""),
        ("decision", "Q1", "SCT", words, ""),
    ]


def test_who_could_not_tell_has_no_confidence_in_the_table(desk: Desk, browser: Browsers) -> None:
    reader = browser()
    study = reader.cases()[0]
    account = next(one for one in desk.accounts.all() if one.name == reader.name)
    desk.cases.open(account, study)
    desk.cases.read(account, study, BlindOpinion((), 0))
    decide(desk, reader, study, Decision("own", desk.diseases()[0]))
    blind, _ = csv.DictReader(io.StringIO(decisions_table(desk)))
    assert (blind["kind"], blind["code"], blind["confidence"]) == ("blind", "", "")


@pytest.mark.parametrize("name", ["", "Clinic of Radiology\\Basel"])
def test_reports_carry_the_real_day_of_the_study_and_for_whom_readers_decide(
    desk: Desk, reader: Browser, study: str, tmp_path: Path, name: str
) -> None:
    decide(desk, reader, study, Decision("own", desk.diseases()[0]))
    desk.options = replace(desk.options, organisation=name)
    report = written(desk, study, tmp_path / "sr.dcm")
    kept = Catalog(desk.home).studies().set_index("study").loc[study, "study_date"]
    assert (report.StudyDate, kept < "2024-02-29") == ("20240229", True)  # the store's is shifted
    (verified,) = report.VerifyingObserverSequence
    assert verified.VerifyingOrganization == (name.replace("\\", "/") or "Research use only")
    assert report.get("InstitutionName", "") == name.replace("\\", "/")
    assert "Research use only" in report.SeriesDescription
    fhir = diagnostic_report(desk, study)
    assert fhir["effectiveDateTime"] == "2024-02-29"
    assert [one["display"] for one in fhir["performer"]] == [reader.name, *([name] if name else [])]
    assert [one["display"] for one in fhir["resultsInterpreter"]] == [reader.name]


def test_one_uid_has_one_content_whatever_changes_afterwards(
    desk: Desk, reader: Browser, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(desk, reader, study, Decision("own", desk.diseases()[0]), beside=True)
    written_before = report_of(desk, study)
    desk.options = replace(desk.options, organisation="Another clinic")
    monkeypatch.setattr("meta_dx.__version__", "9.9")
    assert report_of(desk, study) == written_before
    decide(desk, reader, study, Decision("own", desk.diseases()[1]), beside=True)
    name, content = report_of(desk, study)
    assert name != written_before[0]
    assert b"Another clinic" in content


def test_reports_of_a_study_without_a_day_have_none(
    desk: Desk, reader: Browser, study: str, tmp_path: Path
) -> None:
    decide(desk, reader, study, Decision("own", desk.diseases()[0]))
    for file in desk.home.root.rglob("instances*.parquet"):
        table = pd.read_parquet(file)
        table.assign(study_date=None).to_parquet(file)
    assert written(desk, study, tmp_path / "sr.dcm").StudyDate == ""
    assert "effectiveDateTime" not in diagnostic_report(desk, study)
