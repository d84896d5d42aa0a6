"""What leaves the review: a structured report for the real study, a FHIR DiagnosticReport, a table of decisions."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date
from typing import Any

import meta_dx
from meta_dx.cohort.catalog import Catalog
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.structured_report import (
    RESEARCH,
    VERDICTS,
    ReportedAnswer,
    ReportedDecision,
    ReportedDiagnosis,
    ReportIdentity,
    ReviewedCase,
    SourceImage,
    structured_report,
)
from meta_dx.errors import MetaDxError
from meta_dx.home import storage_faults, write_bytes
from meta_dx.records.coding_schemes import one_line, printable, uri_of
from meta_dx.records.opinions import REASONS, BlindOpinion, Decision, Diagnosis, Opinion
from meta_dx.records.predictions import ranked, run_answer
from meta_dx.records.vault import Vault
from meta_dx.review.desk import Desk
from meta_dx.review.wording import named

_MOST_ANSWERS = 5


def report_of(
    desk: Desk,
    study: str,
    settled: Sequence[Opinion] | None = None,
    named: Mapping[str, Sequence[str]] | None = None,
) -> tuple[str, bytes]:
    """Write the structured report of a case's decision.

    The report of any decision that stood before may have been handed out as a file, so a file names them all as
    superseded. In an archive a report names those that are there (``named``); where that is not the same it is another
    instance, for one UID has one content. What has been written once is kept (``private/reports``), to be given again.

    Parameters
    ----------
    desk : Desk
        The review.
    study : str
        Surrogate UID.
    settled : sequence of Opinion, optional
        What :func:`settled_of` has returned and somebody has looked at; read now if absent.
    named : mapping of str to sequence of str, optional
        Decision → the earlier ones whose reports its own names, by :attr:`~meta_dx.records.opinions.Opinion.key`; those
        that stood before for a decision that is not in it.

    Returns
    -------
    name : str
        SOP instance UID of the report.
    content : bytes
        A DICOM file under the original identities.

    Raises
    ------
    MetaDxError
        ``not_decided``, or ``original_unknown`` when the vault does not know the study, its patient or an image.
    """
    settled = settled or settled_of(desk, study)
    instance, before = _instance(desk, study, settled, named or {})
    # One UID has one content, for good; a name that is mended, or a newer version of meta_dx, would write another.
    kept = desk.home.private / "reports" / f"{instance}.dcm"
    if kept.exists():
        with storage_faults(kept):
            return instance, kept.read_bytes()
    case = _reviewed(desk, study, settled)
    series = _uid(desk, f"{study}/series")
    identity = ReportIdentity(instance, series, len(settled), before)
    content = structured_report(case, identity, meta_dx.__version__)
    write_bytes(kept, content)
    return instance, content


def diagnostic_report(desk: Desk, study: str) -> dict[str, Any]:
    """Return the decision as a FHIR R4 DiagnosticReport, under the original identities.

    Raises
    ------
    MetaDxError
        As :func:`report_of`.
    """
    settled = settled_of(desk, study)
    case = _reviewed(desk, study, settled)
    readers = [{"display": one.reader} for one in case.decisions]
    concluded = list(dict.fromkeys(one for said in case.decisions for one in said.diagnoses))
    report = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{_uid(desk, f'{study}/fhir')}"}],
        "status": "corrected" if len(desk.cases.stood(study)) > 1 else "final",
        "category": [{"text": RESEARCH}],
        "code": {"text": "Review of images with meta_dx"},
        "subject": {"identifier": {"value": case.patient_id}},
        "imagingStudy": [
            {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{case.study}"}},
        ],
        "issued": case.decisions[-1].decided_at,
        "effectiveDateTime": case.study_date,
        "performer": [*readers, *({"display": name} for name in [case.organisation] if name)],
        "resultsInterpreter": readers,
        "conclusion": _conclusion(case.decisions),
        "conclusionCode": [_coding(one) for one in concluded],
        "extension": [
            {
                "url": "urn:meta-dx:answer",
                "extension": [
                    {"url": "diagnosis", "valueCodeableConcept": _coding(one)},
                    {"url": "probability", "valueDecimal": one.probability},
                    {"url": "bundle", "valueString": answer.bundle},
                    {"url": "support_set", "valueInteger": answer.support_version},
                ],
            }
            for answer in case.answers
            for one in answer.diagnoses
        ],
    }
    return {name: value for name, value in report.items() if value}  # FHIR has no empty lists


def decisions_table(desk: Desk) -> str:
    """Return everything that was said about cases that are done, in every version, as CSV under surrogates.

    Whoever reads it may have other cases yet to read blind, or to settle.
    """
    done = desk.cases.done()
    names = named(desk.diseases())
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(
        [
            "case",
            "account",
            "kind",
            "version",
            "at",
            "verdict",
            "code",
            "scheme",
            "meaning",
            "confidence",
            "reason",
            "bundle",
            "support_version",
        ]
    )
    for one in desk.cases.everything():
        if one.study not in done:
            continue
        writer.writerow(
            [
                _harmless(cell)
                for cell in (
                    one.study,
                    one.account,
                    one.kind,
                    one.version,
                    one.created_at,
                    *_cells(one, names),
                )
            ]
        )
    return held.getvalue()


def _cells(one: Opinion, names: Mapping[str, str]) -> list[Any]:
    lineage = [one.bundle or "", "" if one.support_version is None else one.support_version]
    if isinstance(one.content, BlindOpinion):
        if not one.content.ranked:  # nor has anybody been asked how confident they are
            return ["", "", "", "", "", "", *lineage]
        first = one.content.ranked[0]
        meaning = names.get(first.code) or first.meaning
        return ["", first.code, first.scheme, meaning, one.content.confidence, "", *lineage]
    said = one.content.diagnosis
    code, scheme, meaning = (said.code, said.scheme, said.meaning) if said else ("", "", "")
    return [one.content.verdict, code, scheme, meaning, "", one.content.reason, *lineage]


def _harmless(cell: Any) -> Any:
    """Keep a spreadsheet from taking what somebody typed for a formula."""
    if not isinstance(cell, str):
        return cell
    # Spreadsheets skip white space, some take a carriage return for the end of a row, or the wide forms of East Asian
    # keyboards for the others.
    text = one_line(cell)
    return f"'{text}" if text[:1] in tuple("=+-@＝＋－＠") else text


def settled_of(desk: Desk, study: str) -> list[Opinion]:
    """Return the decisions that have stood for a case, in order; the last one stands.

    Raises
    ------
    MetaDxError
        ``unknown_case`` or ``not_decided``.
    """
    desk.cases.get(study)
    said = [one for one in desk.cases.opinions(study) if one.kind != "blind"]
    if not said or desk.cases.get(study).state != "done":
        raise MetaDxError("not_decided", "This case is not decided yet.")
    return said


def _reviewed(desk: Desk, study: str, settled: Sequence[Opinion]) -> ReviewedCase:
    standing, names = _standing(settled), {d.code: d for d in desk.diseases()}
    runs, answers = _answers(desk, standing, names)
    instances = Catalog(desk.home).instances(
        columns=[
            "study",
            "series",
            "instance_number",
            "instance",
            "sop_class",
            "patient",
            "accession",
            "study_date",
        ]
    )
    rows = instances[instances["study"] == study].sort_values(["series", "instance_number", "instance"])
    with closing(Vault.open(desk.home)) as vault:
        known = {
            "study": vault.originals("study", [study]),
            "patient": vault.originals("patient", rows["patient"].unique()),
            "series": vault.originals("series", rows["series"].unique()),
            "instance": vault.originals("instance", rows["instance"]),
            "accession": vault.originals("accession", rows["accession"].dropna().unique()),
        }
        surrogates = Surrogates(vault.key)
    if study not in known["study"] or rows.empty:
        raise MetaDxError("original_unknown", "The vault does not know whose study this is.")
    wanted = {kind: set(rows[kind].dropna()) for kind in ("patient", "series", "instance", "accession")}
    lost = [kind for kind, names in wanted.items() if names - known[kind].keys()]
    if lost or not wanted["patient"]:
        raise MetaDxError(
            "original_unknown",
            f"The vault does not know the original {lost[0] if lost else 'patient'} of this study, so there is no "
            "report of it: bring back the vault that it was taken in with.",
        )
    first = rows.iloc[0]
    accession = next(iter(rows["accession"].dropna()), "")  # not every image of a study need carry them
    days = sorted(date.fromisoformat(day) for day in rows["study_date"].dropna())
    return ReviewedCase(
        patient_id=known["patient"][first["patient"]],
        study=known["study"][study],
        accession=known["accession"].get(accession, ""),
        images=tuple(
            SourceImage(
                str(row["sop_class"]), known["instance"][row["instance"]], known["series"][row["series"]]
            )
            for row in rows.to_dict("records")
        ),
        decisions=tuple(_decision(desk, one, settled, names, runs) for one in standing),
        answers=answers,
        study_date=surrogates.shifted_back(days[0], first["patient"]).isoformat() if days else "",
        organisation=desk.options.organisation,
    )


def _answers(
    desk: Desk, standing: Sequence[Opinion], names: Mapping[str, Diagnosis]
) -> tuple[list[int], tuple[ReportedAnswer, ...]]:
    """Return the runs beside which was decided, oldest first, and what they answered."""
    found = dict[int, ReportedAnswer]()
    for one in standing:
        answer = run_answer(desk.records, one.run, one.study)
        if one.run is None or answer is None:
            continue
        most = ranked(answer.probabilities)[:_MOST_ANSWERS]
        told = tuple(_reported(names.get(code, Diagnosis(code)), chance) for code, chance in most)
        found[one.run] = ReportedAnswer(told, one.bundle or "", one.support_version or 0)
    runs = sorted(found)
    return runs, tuple(found[run] for run in runs)


def _standing(settled: Sequence[Opinion]) -> list[Opinion]:
    """Return the decisions that make the case what it is: an adjudication, or the last one of every reader."""
    if settled[-1].kind == "adjudication":
        return [settled[-1]]
    last = {one.account: one for one in settled if one.kind == "decision"}
    return [one for one in settled if last.get(one.account) is one]


def _decision(
    desk: Desk,
    said: Opinion,
    settled: Sequence[Opinion],
    names: Mapping[str, Diagnosis],
    runs: Sequence[int],
) -> ReportedDecision:
    decision = said.content
    if not isinstance(decision, Decision):
        raise RuntimeError("a decision was expected")
    stated = [] if decision.diagnosis is None else [decision.diagnosis]
    if decision.verdict == "supplemented":  # the decision holds what is added to the model's first disease
        answer = run_answer(desk.records, said.run, said.study)
        first = ranked(answer.probabilities)[0][0] if answer else None
        if first is not None and first not in [one.code for one in stated]:
            stated = [names.get(first, Diagnosis(first)), *stated]
    # Who has decided beside an answer before knows it; of an adjudicator, the run says what could be known.
    known = any(one.run is not None for one in settled if one.account == said.account)
    return ReportedDecision(
        said.account,
        said.created_at,
        "informed" if known and decision.verdict == "own" else decision.verdict,
        tuple(_reported(one) for one in stated),
        (decision.reason, REASONS[decision.reason]) if decision.reason else None,
        decision.text,
        runs.index(said.run) if said.run in runs else None,
        said.kind == "adjudication",
    )


def _conclusion(decisions: Sequence[ReportedDecision]) -> str:
    if len(decisions) == 1:
        return _words(decisions[0])
    return "\n".join(f"{one.reader}: {_words(one)}" for one in decisions)


def _words(decision: ReportedDecision) -> str:
    settled = "Decision that has settled a dispute: " if decision.adjudicated else ""
    reason = f" Reason: {decision.reason[1]}." if decision.reason else ""
    typed = printable(decision.remarks)
    remarks = f"\nRemarks: {typed}" if typed else ""
    codes = [(one_line(one.meaning), one_line(one.code)) for one in decision.diagnoses]
    names = " and ".join(f"{name} ({code})" if name else code for name, code in codes)
    verdict = f"{VERDICTS[decision.verdict][1]}: {names}" if names else VERDICTS[decision.verdict][1]
    return f"{settled}{verdict}.{reason} {RESEARCH}.{remarks}"


def _reported(disease: Diagnosis, probability: float | None = None) -> ReportedDiagnosis:
    return ReportedDiagnosis(disease.code, disease.scheme, disease.meaning, probability)


def _instance(
    desk: Desk, study: str, settled: Sequence[Opinion], named: Mapping[str, Sequence[str]]
) -> tuple[str, tuple[str, ...]]:
    """Return the UID of the last decision's report, and those of the reports that it names."""
    stood = {one.key for one in desk.cases.stood(study)}
    usual, used, before = list[str](), dict[str, str](), list[str]()
    for one in settled:
        what = f"{study}/{one.account}/{one.kind}/{one.version}"
        before = [used[key] for key in named.get(one.key, [key for key in used if key in stood])]
        used[one.key] = _uid(desk, what if before == usual else f"{what}/after/{','.join(before)}")
        usual.append(_uid(desk, what))
    return used[settled[-1].key], tuple(before)


def _uid(desk: Desk, what: str) -> str:
    """Return the UID of something that we write: always the same one, and nobody else's."""
    with closing(Vault.open(desk.home)) as vault:
        digest = hmac.new(vault.key, f"report/{what}".encode(), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _coding(one: ReportedDiagnosis) -> dict[str, Any]:
    code = one_line(one.code)
    meaning = one_line(one.meaning) or code
    return {"coding": [{"system": uri_of(one.scheme), "code": code, "display": meaning}], "text": meaning}
