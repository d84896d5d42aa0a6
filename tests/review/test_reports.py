"""What leaves the review: a structured report that other programs read, FHIR, and a table."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import srread
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage

from meta_dx.dicom.structured_report import (
    ReportedAnswer,
    ReportedDecision,
    ReportedDiagnosis,
    ReportIdentity,
    ReviewedCase,
    SourceImage,
    structured_report,
)
from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis
from meta_dx.records.vault import Vault
from meta_dx.review.desk import Desk
from meta_dx.review.reports import decisions_table, diagnostic_report, report_of, settled_of
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


@pytest.fixture
def decided(browser: Browsers) -> tuple[Browser, str]:
    reader = browser()
    study = reader.cases()[0]
    reader.read(study, "D1")
    reader.post(
        f"/cases/{study}/decide", verdict="override", diagnosis="D1", reason="finding_missed", text="=1+1"
    )
    return reader, study


def test_the_report_is_one_of_the_real_study_and_says_who_decided_what(decided: tuple[Browser, str]) -> None:
    reader, study = decided
    answer = reader.get(f"/cases/{study}/report.dcm")
    assert answer.headers["content-type"] == "application/dicom"
    dataset = dcmread(BytesIO(answer.content))
    assert str(dataset.StudyInstanceUID).startswith("1.2.3.")
    assert dataset.PatientID == f"P{str(dataset.StudyInstanceUID)[-1]}"
    assert dataset.VerificationFlag == "VERIFIED"
    text = dataset.to_json()
    for part in ("rejected", "Disease 1", "Disease 0", "0.8", "Research use only", "b" * 64, "reader"):
        assert part in text, part


def test_the_report_reads_back_as_tid_1500(desk: Desk, decided: tuple[Browser, str], tmp_path: Path) -> None:
    _, study = decided
    _, content = report_of(desk, study)
    (tmp_path / "sr.dcm").write_bytes(content)
    report = srread(tmp_path / "sr.dcm")
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == 3  # the decision, and two diseases that the model spoke of
    said = [e.value.meaning for e in groups[0].get_qualitative_evaluations()]
    assert said == ["Rejected, another diagnosis given", "Disease 1", "The model misses a finding"]
    assert [m.value for g in groups[1:] for m in g.get_measurements()] == [0.8, 0.2]
    assert groups[1].source_images


def test_writing_the_report_again_gives_the_same_bytes(desk: Desk, decided: tuple[Browser, str]) -> None:
    assert report_of(desk, decided[1]) == report_of(desk, decided[1])


@pytest.mark.parametrize("kind", ["study", "patient", "series", "instance"])
@pytest.mark.parametrize("file", ["report.dcm", "report.json"])
def test_without_an_original_there_is_no_report(
    desk: Desk, decided: tuple[Browser, str], monkeypatch: pytest.MonkeyPatch, kind: str, file: str
) -> None:
    reader, study = decided
    known = Vault.originals
    monkeypatch.setattr(
        Vault, "originals", lambda vault, of, names: {} if of == kind else known(vault, of, names)
    )
    with pytest.raises(MetaDxError, match="vault does not know") as fault:
        report_of(desk, study)
    assert fault.value.code == "original_unknown"
    answer = reader.get(f"/cases/{study}/{file}")
    assert 400 <= answer.status_code < 500
    assert "export_report" not in [line.action for line in desk.trail.lines(study)]


def test_a_changed_decision_supersedes_the_report_before(desk: Desk, decided: tuple[Browser, str]) -> None:
    reader, study = decided
    first, _ = report_of(desk, study)
    reader.post(f"/cases/{study}/decide", verdict="accept")
    second, content = report_of(desk, study)
    dataset = dcmread(BytesIO(content))
    assert first != second == dataset.SOPInstanceUID
    (before,) = dataset.PredecessorDocumentsSequence
    assert before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first
    assert reader.get(f"/cases/{study}/report.json").json()["status"] == "corrected"


def test_the_times_of_the_report_say_that_they_are_utc(desk: Desk, decided: tuple[Browser, str]) -> None:
    moment = datetime.fromisoformat(desk.cases.opinions(decided[1])[-1].created_at).replace(microsecond=0)
    report = dcmread(BytesIO(report_of(desk, decided[1])[1]))
    assert report.TimezoneOffsetFromUTC == "+0000"  # of every date with a time beside it
    assert report.ContentDate + report.ContentTime == moment.strftime("%Y%m%d%H%M%S")
    told = [element.value for element in report.iterall() if element.VR == "DT"]
    assert told
    assert {datetime.strptime(str(one), "%Y%m%d%H%M%S%z") for one in told} == {moment}


def test_the_evidence_of_a_report_is_every_image_however_many(tmp_path: Path) -> None:
    slices = tuple(
        SourceImage(CTImageStorage, f"1.2.3.{series}.{n}", f"1.2.3.{series}")
        for series, count in ((1, 600), (2, 3))
        for n in range(count)
    )
    named = ReportedDiagnosis("D0", "99T", "Disease 0", 0.8)
    decision = ReportedDecision("anna", "2026-01-01T00:00:00+00:00", "accept", (named,))
    case = ReviewedCase("P", "1.2.3", "", slices, (decision,), (ReportedAnswer((named,), "b" * 64, 1),))
    content = structured_report(case, ReportIdentity("1.2.9.1", "1.2.9", 1), "1")
    report = dcmread(BytesIO(content))
    listed = {
        str(image.ReferencedSOPInstanceUID)
        for kind in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in report.get(kind, ())
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    assert listed == {image.instance for image in slices}
    (tmp_path / "sr.dcm").write_bytes(content)
    groups = srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    for group in groups:
        cited = [image.referenced_sop_instance_uid for image in group.source_images]
        assert cited == [f"1.2.3.1.{15 + 30 * n}" for n in range(20)] + [f"1.2.3.2.{n}" for n in range(3)]
    assert complaints(tmp_path / "sr.dcm") in (None, [])


def complaints(path: Path) -> list[str] | None:
    """Return the errors that an independent program finds in a report; None where it is not installed."""
    if shutil.which("dciodvfy") is None:
        return None
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    said = done.stderr + done.stdout
    assert "ComprehensiveSR" in said
    return [line for line in said.splitlines() if "Error" in line]


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)"
)
def test_an_independent_program_finds_no_error(
    desk: Desk, decided: tuple[Browser, str], tmp_path: Path
) -> None:
    (tmp_path / "sr.dcm").write_bytes(report_of(desk, decided[1])[1])
    assert complaints(tmp_path / "sr.dcm") == []


def test_fhir_says_the_same(decided: tuple[Browser, str]) -> None:
    reader, study = decided
    found = reader.get(f"/cases/{study}/report.json").json()
    assert (found["resourceType"], found["status"]) == ("DiagnosticReport", "final")
    assert found["conclusionCode"][0]["coding"][0]["code"] == "D1"
    assert found["imagingStudy"][0]["identifier"]["value"].startswith("urn:oid:1.2.3.")
    assert [e["extension"][1]["valueDecimal"] for e in found["extension"]] == [0.8, pytest.approx(0.2)]


def disputed(desk: Desk, anna: Browser, bert: Browser, beside: bool = True) -> str:
    """Return a case about which two readers differ; both have decided beside the model's answer or without one."""
    study = anna.cases()[0]
    for reader, code in ((anna, "D0"), (bert, "D1")):
        account = next(one for one in desk.accounts.all() if one.name == reader.name)
        known = next(disease for disease in desk.diseases() if disease.code == code)
        desk.cases.open(account, study)
        desk.cases.read(account, study, BlindOpinion((known,), 70))
        answer = desk.answer(study)
        assert answer is not None
        desk.cases.decide(account, study, Decision("own", known), answer.shown if beside else None)
    return study


@pytest.mark.parametrize("knew", [True, False])
def test_the_report_of_an_adjudication_says_whether_the_models_answer_could_be_known(
    make_desk: Callable[..., Desk], browser: Browsers, tmp_path: Path, knew: bool
) -> None:
    two = make_desk(readers=2, name="two")
    anna, bert = (browser(name=name, at=two) for name in ("anna", "bert"))
    study = disputed(two, anna, bert)
    browser("adjudicator", "settler", at=two)
    settler = next(one for one in two.accounts.all() if one.name == "settler")
    two.cases.open(settler, study)
    if knew:  # the two agree, the report tells of the answer, and then one of them changes her mind
        account = next(one for one in two.accounts.all() if one.name == "anna")
        for disease in (two.diseases()[1], two.diseases()[0]):
            two.cases.decide(account, study, Decision("own", disease), None)
    assert (two.cases.known_answer(settler, study) is not None) == knew
    two.cases.adjudicate(settler, study, Decision("own", two.diseases()[0]))
    (tmp_path / "sr.dcm").write_bytes(report_of(two, study)[1])
    decision, *answers = srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    verdict = decision.get_qualitative_evaluations()[0].value
    assert verdict.value == ("informed" if knew else "own")
    assert ("Given without" in diagnostic_report(two, study)["conclusion"]) == (not knew)
    assert len(answers) == (2 if knew else 0)
    assert decision.finding_type.value == "adjudication"
    assert "Decision that has settled a dispute: " in diagnostic_report(two, study)["conclusion"]


def test_who_decided_beside_an_answer_before_has_not_decided_without_one(
    desk: Desk, decided: tuple[Browser, str]
) -> None:
    reader, study = decided
    account = next(one for one in desk.accounts.all() if one.name == reader.name)
    desk.cases.decide(account, study, Decision("own", desk.diseases()[0]), None)  # the model is off by now
    assert diagnostic_report(desk, study)["conclusion"].startswith("Own diagnosis of somebody who could know")


def test_the_report_names_every_reader_whose_decision_stands(
    make_desk: Callable[..., Desk], browser: Browsers, tmp_path: Path
) -> None:
    two = make_desk(readers=2, name="two")
    anna, bert = (browser(name=name, at=two) for name in ("anna", "bert"))
    study = disputed(two, anna, bert)
    accounts = {one.name: one for one in two.accounts.all()}
    d0, d1 = two.diseases()
    answer = two.answer(study)
    assert answer is not None
    # Anna supplements what the model says by what Bert has named: the two agree.
    said = Decision("supplemented", d1, "other", "Both, I think")
    two.cases.decide(accounts["anna"], study, said, answer.shown)
    (tmp_path / "sr.dcm").write_bytes(report_of(two, study)[1])
    report = dcmread(tmp_path / "sr.dcm")
    assert [str(one.VerifyingObserverName) for one in report.VerifyingObserverSequence] == ["bert^", "anna^"]
    moments = [str(one.VerificationDateTime) for one in report.VerifyingObserverSequence]
    stood = [one for one in two.cases.opinions(study) if one.kind == "decision"][1:]
    assert moments == [
        one.created_at[:19].translate({ord(c): None for c in "-:T"}) + "+0000" for one in stood
    ]
    names = [
        str(item.PersonName)
        for item in report.ContentSequence
        if item.ValueType == "PNAME" and item.ConceptNameCodeSequence[0].CodeValue == "121008"
    ]
    assert names == ["bert^", "anna^"]
    first, second, *answers = srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    told = [[e.value.meaning for e in group.get_qualitative_evaluations()] for group in (first, second)]
    assert told == [
        ["Own diagnosis of somebody who could know the model's answer", "Disease 1"],
        ["Supplemented", "Disease 0", "Disease 1", "Other reason"],
    ]
    whose = [
        [str(item.PersonName) for item in group[0].ContentSequence if item.ValueType == "PNAME"]
        for group in (first, second)
    ]
    assert whose == [["bert^"], ["anna^"]]
    assert len(answers) == 2
    assert complaints(tmp_path / "sr.dcm") in (None, [])
    found = diagnostic_report(two, study)
    assert found["performer"] == found["resultsInterpreter"] == [{"display": "bert"}, {"display": "anna"}]
    assert [one["coding"][0]["code"] for one in found["conclusionCode"]] == ["D1", "D0"]
    assert (
        found["conclusion"]
        .splitlines()[1]
        .startswith("anna: Supplemented: Disease 0 (D0) and Disease 1 (D1). Reason: Other reason.")
    )
    # The model is off when she says so once more: what Bert has decided beside is in the report all the same.
    two.cases.decide(accounts["bert"], study, Decision("accept", d1), answer.shown)
    two.cases.decide(accounts["anna"], study, Decision("own", d1), None)
    assert len(diagnostic_report(two, study)["extension"]) == 2
    # Anna goes back, and somebody settles it: theirs is the decision that stands.
    two.cases.decide(accounts["anna"], study, Decision("own", d0), None)
    browser("adjudicator", "settler", at=two)
    settler = next(one for one in two.accounts.all() if one.name == "settler")
    two.cases.open(settler, study)
    two.cases.adjudicate(settler, study, Decision("own", d0))
    report = dcmread(BytesIO(report_of(two, study)[1]))
    assert [str(one.VerifyingObserverName) for one in report.VerifyingObserverSequence] == ["settler^"]
    assert diagnostic_report(two, study)["performer"] == [{"display": "settler"}]


REMARKS = "Größer als zuvor;\r\nsonst wie 一月, می\u200cخواهم\\."


def test_a_supplement_states_the_disease_that_it_affirms_before_the_one_that_it_adds(
    desk: Desk, decided: tuple[Browser, str], tmp_path: Path
) -> None:
    reader, study = decided
    reader.post(
        f"/cases/{study}/decide", verdict="supplemented", diagnosis="D1", reason="other", text=REMARKS
    )
    assert settled_of(desk, study)[-1].content.outcome == "D1"  # type: ignore[union-attr]
    (tmp_path / "sr.dcm").write_bytes(report_of(desk, study)[1])
    group = srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()[0]
    said = [e.value.meaning for e in group.get_qualitative_evaluations()]
    assert said == ["Supplemented", "Disease 0", "Disease 1", "Other reason"]
    assert [str(item.TextValue) for item in _texts(tmp_path / "sr.dcm", "121106")] == [REMARKS]
    assert complaints(tmp_path / "sr.dcm") in (None, [])
    found = diagnostic_report(desk, study)
    assert [one["coding"][0]["code"] for one in found["conclusionCode"]] == ["D0", "D1"]
    start = "Supplemented: Disease 0 (D0) and Disease 1 (D1). Reason: Other reason. Research use only."
    assert found["conclusion"] == f"{start}\nRemarks: {REMARKS}"


def test_a_supplement_that_adds_what_the_model_said_names_it_once(
    desk: Desk, decided: tuple[Browser, str]
) -> None:
    reader, study = decided
    reader.post(f"/cases/{study}/decide", verdict="supplemented", diagnosis="D0", reason="clinical_context")
    found = diagnostic_report(desk, study)
    assert [one["coding"][0]["code"] for one in found["conclusionCode"]] == ["D0"]


def test_remarks_leave_no_table_of_surrogates(desk: Desk, decided: tuple[Browser, str]) -> None:
    reader, study = decided
    reader.post(f"/cases/{study}/decide", verdict="cannot_tell", reason="other", text="Mrs Smith moved.")
    assert "Mrs Smith" in diagnostic_report(desk, study)["conclusion"]
    assert "Smith" not in decisions_table(desk)


def test_control_characters_do_not_get_into_a_report(desk: Desk, decided: tuple[Browser, str]) -> None:
    account = next(one for one in desk.accounts.all() if one.name == decided[0].name)
    said = Decision("own", Diagnosis("D0", "99T", "Disease 0"), text="a\x1b$B\x07b")
    desk.cases.decide(account, decided[1], said, None)
    (item,) = _texts(BytesIO(report_of(desk, decided[1])[1]), "121106")
    assert str(item.TextValue) == "a $B b"


def _texts(report: Path | BytesIO, code: str) -> list[Dataset]:
    """Return the text items of a report that a code of DICOM names."""
    found: list[Dataset] = []

    def look(item: Dataset) -> None:
        for child in item.get("ContentSequence", ()):
            if child.ValueType == "TEXT" and child.ConceptNameCodeSequence[0].CodeValue == code:
                found.append(child)
            look(child)

    look(dcmread(report))
    return found


@pytest.mark.parametrize(
    ("scheme", "system"),
    [
        ("SCT", "http://snomed.info/sct"),
        ("SNOMED CT", "http://snomed.info/sct"),
        ("I10", "http://hl7.org/fhir/sid/icd-10"),
        ("ICD-10", "http://hl7.org/fhir/sid/icd-10"),
        ("I10C", "http://hl7.org/fhir/sid/icd-10-cm"),
        ("ICD10CM", "http://hl7.org/fhir/sid/icd-10-cm"),
        ("ICD-10-GM", "http://fhir.de/CodeSystem/bfarm/icd-10-gm"),
        ("ICDO3", "http://terminology.hl7.org/CodeSystem/icd-o-3"),
        ("RADLEX", "http://radlex.org"),
        ("LN", "http://loinc.org"),
        ("DCM", "http://dicom.nema.org/resources/ontology/DCM"),
        ("UMLS", "http://terminology.hl7.org/CodeSystem/umls"),
        ("99T", "urn:meta-dx:scheme:99T"),
        ("99 our:list", "urn:meta-dx:scheme:99%20our%3Alist"),
        ("", "urn:meta-dx:scheme:99METADX"),  # as the structured report calls it
    ],
)
def test_fhir_says_of_which_scheme_a_code_is(
    desk: Desk, decided: tuple[Browser, str], scheme: str, system: str
) -> None:
    account = next(one for one in desk.accounts.all() if one.name == decided[0].name)
    desk.cases.decide(account, decided[1], Decision("own", Diagnosis("Q1", scheme, "Quite new")), None)
    (found,) = diagnostic_report(desk, decided[1])["conclusionCode"]
    assert found["coding"] == [{"system": system, "code": "Q1", "display": "Quite new"}]


def test_no_code_in_fhir_is_bare(desk: Desk, decided: tuple[Browser, str]) -> None:
    found = diagnostic_report(desk, decided[1])
    answers = [one["extension"][0]["valueCodeableConcept"] for one in found["extension"]]
    systems = [code["system"] for said in (*found["conclusionCode"], *answers) for code in said["coding"]]
    assert systems == ["urn:meta-dx:scheme:99T"] * 3


def test_fhir_calls_a_report_corrected_only_where_another_decision_stood_before(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    two = make_desk(readers=2, name="two")
    anna, bert = (browser(name=name, at=two) for name in ("anna", "bert"))
    settler = browser("adjudicator", at=two)
    agreed, disputed, reopened = anna.cases()[:3]

    def decide(reader: Browser, study: str, code: str) -> None:
        # No answer of the model is needed here, and none is shown while readers differ.
        known = next(disease for disease in two.diseases() if disease.code == code)
        account = next(one for one in two.accounts.all() if one.name == reader.name)
        two.cases.open(account, study)
        if two.cases.reading(account, study).stage == "started":  # type: ignore[union-attr]
            two.cases.read(account, study, BlindOpinion((known,), 70))
        two.cases.decide(account, study, Decision("own", known), None)

    def settle(study: str) -> None:
        account = next(one for one in two.accounts.all() if one.name == settler.name)
        two.cases.open(account, study)
        two.cases.adjudicate(account, study, Decision("own", two.diseases()[0]))

    def status(study: str) -> str:
        return str(diagnostic_report(two, study)["status"])

    decide(anna, agreed, "D0")
    decide(anna, agreed, "D1")  # changed her mind before anything stood
    decide(bert, agreed, "D1")
    assert status(agreed) == "final"
    decide(anna, disputed, "D0")
    decide(bert, disputed, "D1")
    settle(disputed)
    assert status(disputed) == "final"
    decide(anna, reopened, "D0")
    decide(bert, reopened, "D0")
    assert status(reopened) == "final"
    decide(anna, reopened, "D1")
    settle(reopened)
    assert status(reopened) == "corrected"


def test_what_is_not_decided_leaves_nothing(desk: Desk, browser: Browsers) -> None:
    reader = browser()
    study = reader.cases()[0]
    for name in ("report.dcm", "report.json"):
        assert reader.get(f"/cases/{study}/{name}").status_code == 409
    assert "export_report" not in [line.action for line in desk.trail.lines()]


def test_handing_out_is_written_down(desk: Desk, decided: tuple[Browser, str]) -> None:
    reader, study = decided
    reader.get(f"/cases/{study}/report.dcm")
    assert desk.trail.lines(study)[0].action == "export_report"


def test_the_table_holds_every_version_and_no_identity_and_no_formula(
    desk: Desk, decided: tuple[Browser, str]
) -> None:
    reader, study = decided
    reader.post(
        f"/cases/{study}/decide",
        verdict="override",
        diagnosis="=HYPERLINK(1)",
        new_scheme="99T",
        new_meaning="+x",
        reason="not_offered",
    )
    rows = list(csv.DictReader(io.StringIO(decisions_table(desk))))
    assert [(r["kind"], r["version"], r["code"]) for r in rows] == [
        ("blind", "1", "D1"),
        ("decision", "1", "D1"),
        ("decision", "2", "'=HYPERLINK(1)"),
    ]
    assert rows[2]["meaning"] == "'+x"
    assert {r["case"] for r in rows} == {study}
    assert "1.2.3." not in decisions_table(desk)
