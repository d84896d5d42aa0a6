"""A reviewed case as a DICOM structured report (TID 1500): what the model said, who decided what.

Written for the real study, so its identifiers are the originals. Codes that no standard has are of the private scheme
``99METADX`` and listed in ``docs/review.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from meta_dx.records.coding_schemes import SCHEME, designator_of, one_line, printable

VERDICTS = {
    "accept": ("accepted", "Accepted"),
    "override": ("rejected", "Rejected, another diagnosis given"),
    "supplemented": ("supplemented", "Supplemented"),
    "own": ("own", "Given without a model's answer"),
    "informed": ("informed", "Own diagnosis of somebody who could know the model's answer"),
    "cannot_tell": ("undecided", "Cannot be told from the images"),
    "bad_image": ("unfit", "Images not fit for reading"),
}
RESEARCH = "Research use only"
_UTC = "+0000"
_MOST_CITED = 20  # images of a series; each finding cites them anew, and writing many takes long


@dataclass(frozen=True)
class SourceImage:
    """An image that was read: original SOP class, SOP instance and series UID."""

    sop_class: str
    instance: str
    series: str


@dataclass(frozen=True)
class ReportedDiagnosis:
    """A coded disease, and the probability that the model gave it, where it was asked."""

    code: str
    scheme: str
    meaning: str
    probability: float | None = None


@dataclass(frozen=True)
class ReportedDecision:
    """What a reader decided.

    Parameters
    ----------
    reader : str
        Who.
    decided_at : str
        ISO 8601, UTC.
    verdict : str
        One of :data:`VERDICTS`.
    diagnoses : tuple of ReportedDiagnosis
        What the case shows; of a supplement the disease that was affirmed before the one that was added.
    reason : (str, str), optional
        Code and words, where one was chosen.
    remarks : str
        Free text, as it was typed.
    beside : int, optional
        Place in :attr:`ReviewedCase.answers` of what the model had said; None without an answer.
    adjudicated : bool
        It has settled a dispute between others.
    """

    reader: str
    decided_at: str
    verdict: str
    diagnoses: tuple[ReportedDiagnosis, ...] = ()
    reason: tuple[str, str] | None = None
    remarks: str = ""
    beside: int | None = None
    adjudicated: bool = False


@dataclass(frozen=True)
class ReportedAnswer:
    """What the model said, most probable first, and by which bundle (its hash) and version of its support set."""

    diagnoses: tuple[ReportedDiagnosis, ...]
    bundle: str
    support_version: int


@dataclass(frozen=True)
class ReviewedCase:
    """Everything that a report says.

    Parameters
    ----------
    patient_id, study, accession : str
        Originals; the accession number may be empty.
    images : tuple of SourceImage
        What was read, each series in its order; at least one.
    decisions : tuple of ReportedDecision
        Those that stand, of one reader each, oldest first; at least one.
    answers : tuple of ReportedAnswer
        Beside which was decided, oldest first; empty where none was shown. Several where the model was taught between
        two readers.
    study_date : str
        The day of the study, ISO 8601; may be empty.
    organisation : str
        For whom the readers decide; may be empty.
    """

    patient_id: str
    study: str
    accession: str
    images: tuple[SourceImage, ...]
    decisions: tuple[ReportedDecision, ...]
    answers: tuple[ReportedAnswer, ...] = ()
    study_date: str = ""
    organisation: str = ""


@dataclass(frozen=True)
class ReportIdentity:
    """The identifiers of a report: those of the instance, of its series, and of what it supersedes, newest last."""

    instance: str
    series: str
    number: int
    supersedes: tuple[str, ...] = ()


def structured_report(case: ReviewedCase, identity: ReportIdentity, version: str) -> bytes:
    """Write the report.

    Parameters
    ----------
    case : ReviewedCase
        What it says.
    identity : ReportIdentity
        Its identifiers.
    version : str
        Version of this software.

    Returns
    -------
    bytes
        A complete DICOM file: Comprehensive SR, TID 1500, verified by every reader whose decision stands.
    """
    from highdicom.sr import ComprehensiveSR, MeasurementReport
    from pydicom.sr.codedict import codes

    evidence = [_evidence(case, image) for image in case.images]
    report = MeasurementReport(
        observation_context=_observers(case),
        procedure_reported=_concept("review", "Review of images"),
        imaging_measurements=_groups(case, identity, version),
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = ComprehensiveSR(
        evidence=evidence,
        content=report[0],
        series_instance_uid=identity.series,
        series_number=9900,
        sop_instance_uid=identity.instance,
        instance_number=identity.number,
        manufacturer="meta_dx",
        institution_name=_organisation(case) or None,
        is_complete=True,
        is_final=True,
        is_verified=True,
        verifying_observer_name=_person(case.decisions[0].reader),
        verifying_organization=_organisation(case) or RESEARCH,  # it may not be empty
        previous_versions=[_previous(case, identity.series, uid) for uid in identity.supersedes] or None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.SeriesDescription = f"meta_dx review. {RESEARCH}."
    made.SoftwareVersions = version
    made.VerifyingObserverSequence = [
        _verified(made.VerifyingObserverSequence[0], one) for one in case.decisions
    ]
    _settle_times(made, case.decisions[-1].decided_at)
    held = BytesIO()
    dcmwrite(held, made, enforce_file_format=True)
    return held.getvalue()


def _groups(case: ReviewedCase, identity: ReportIdentity, version: str) -> list[Any]:
    from highdicom.sr import SourceImageForMeasurementGroup

    sources = [SourceImageForMeasurementGroup(image.sop_class, image.instance) for image in _cited(case)]
    several, told = len(case.decisions) > 1, len(case.answers) > 1
    groups = []
    for number, one in enumerate(case.decisions, start=1):
        tracked = _tracked(identity, f"decision {number}" if several else "decision")
        group = _decided(one, tracked, sources, several)
        if told:
            beside = "none" if one.beside is None else f"answer {one.beside + 1}"
            _add_text(group, _concept("beside", "Answer of the model that had been shown"), beside)
        groups.append(group)
    for number, answer in enumerate(case.answers, start=1):
        for rank, named in enumerate(answer.diagnoses, start=1):
            tracked = _tracked(identity, f"answer {number}, rank {rank}" if told else f"answer {rank}")
            groups.append(_answered(answer, named, tracked, sources, version))
    return groups


def _answered(
    answer: ReportedAnswer, named: ReportedDiagnosis, tracked: Any, sources: list[Any], version: str
) -> Any:
    """Return a diagnosis that the model gave, as a group that a device has observed, not the readers."""
    from highdicom.sr import (
        AlgorithmIdentification,
        DeviceObserverIdentifyingAttributes,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        ObserverContext,
        QualitativeEvaluation,
    )
    from pydicom.sr.codedict import codes

    parameters = [f"bundle {answer.bundle}", f"support set {answer.support_version}", RESEARCH]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked,
        finding_type=_concept("answer", "Answer of the model"),
        algorithm_id=AlgorithmIdentification("meta_dx", version, parameters),
        measurements=[
            Measurement(
                _concept("probability", "Probability of the diagnosis"),
                round(float(named.probability or 0.0), 6),
                codes.UCUM.NoUnits,
            )
        ],
        qualitative_evaluations=[QualitativeEvaluation(_diagnosis(), _coded(named))],
        source_images=sources,
    )
    device = DeviceObserverIdentifyingAttributes(_made_uid(f"bundle/{answer.bundle}"), "meta_dx")
    _observed_by(group, ObserverContext(codes.DCM.Device, device))
    return group


def _decided(decision: ReportedDecision, tracked: Any, sources: list[Any], several: bool) -> Any:
    """Return what a reader decided, as a group of its own, which names them where there are several."""
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        PnameContentItem,
        QualitativeEvaluation,
        RelationshipTypeValues,
    )
    from pydicom.sr.codedict import codes

    stated = [
        QualitativeEvaluation(
            _concept("verdict", "Verdict of the reader"), _concept(*VERDICTS[decision.verdict])
        ),
        *(QualitativeEvaluation(_diagnosis(), _coded(one)) for one in decision.diagnoses),
    ]
    if decision.reason is not None:
        stated.append(QualitativeEvaluation(_concept("reason", "Reason"), _concept(*decision.reason)))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked,
        finding_type=_concept("adjudication", "Decision that has settled a dispute")
        if decision.adjudicated
        else _concept("decision", "Decision of the reader"),
        qualitative_evaluations=stated,
        source_images=sources,
    )
    remarks = printable(decision.remarks)
    if remarks:
        _add_text(group, codes.DCM.Comment, remarks)
    if several:
        whose, context = _person(decision.reader), RelationshipTypeValues.HAS_OBS_CONTEXT
        _observed_by(group, [PnameContentItem(codes.DCM.PersonObserverName, whose, context)])
    return group


def _observed_by(group: Any, observer: Sequence[Any]) -> None:
    """Say who has observed what is in a group, if not who has observed the rest of the report."""
    for item in reversed(observer):
        group[0].ContentSequence.insert(2, item)  # after what the group is called, before what it says


def _add_text(group: Any, concept: Any, text: str) -> None:
    from highdicom.sr import RelationshipTypeValues, TextContentItem

    group[0].ContentSequence.append(TextContentItem(concept, text, RelationshipTypeValues.CONTAINS))


def _cited(case: ReviewedCase) -> list[SourceImage]:
    """Choose what the findings point at, evenly out of each series; the evidence lists every image."""
    series: dict[str, list[SourceImage]] = {}
    for image in case.images:
        series.setdefault(image.series, []).append(image)
    found = []
    for images in series.values():
        count = min(len(images), _MOST_CITED)
        found += [images[(2 * n + 1) * len(images) // (2 * count)] for n in range(count)]
    return found


def _tracked(identity: ReportIdentity, name: str) -> Any:
    from highdicom.sr import TrackingIdentifier

    return TrackingIdentifier(_made_uid(f"{identity.instance}/{name}"), name)


def _made_uid(what: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(what.encode()).digest()[:16], 'big')}"


def _observers(case: ReviewedCase) -> Any:
    from highdicom.sr import ObservationContext, ObserverContext, PersonObserverIdentifyingAttributes
    from pydicom.sr.codedict import codes

    persons = [
        ObserverContext(
            codes.DCM.Person, PersonObserverIdentifyingAttributes(_person(one.reader), login_name=one.reader)
        )
        for one in case.decisions
    ]
    context = ObservationContext(observer_person_context=persons[0])
    for person in persons[1:]:
        context.extend(person)
    return context


def _evidence(case: ReviewedCase, image: SourceImage) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"  # names of diseases and remarks are in any language
    dataset.SOPClassUID, dataset.SOPInstanceUID = image.sop_class, image.instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = case.study, image.series
    dataset.PatientID, dataset.AccessionNumber = case.patient_id, case.accession
    # The vault keeps no more than this, and the day; an archive joins the report to its study by the UID.
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyTime"):
        setattr(dataset, keyword, "")
    dataset.StudyDate = case.study_date.replace("-", "")
    dataset.ReferringPhysicianName = ""
    return dataset


def _previous(case: ReviewedCase, series: str, instance: str) -> Dataset:
    from pydicom.uid import ComprehensiveSRStorage

    return _evidence(case, SourceImage(ComprehensiveSRStorage, instance, series))


def _verified(observer: Dataset, decision: ReportedDecision) -> Dataset:
    """Return the item of a reader who has verified the report with their decision."""
    one = deepcopy(observer)
    one.VerifyingObserverName = _person(decision.reader)
    one.VerificationDateTime = "".join((*_day_and_clock(decision.decided_at), _UTC))
    return one


def _day_and_clock(moment: str) -> tuple[str, str]:
    return moment[:10].replace("-", ""), moment[11:19].replace(":", "")


def _settle_times(made: Dataset, decided_at: str) -> None:
    """Give the report the moment of the decision, so that writing it again gives the same bytes; it is in UTC."""
    made.TimezoneOffsetFromUTC = _UTC
    day, clock = _day_and_clock(decided_at)
    made.ContentDate = made.InstanceCreationDate = day
    made.ContentTime = made.InstanceCreationTime = clock
    for keyword in ("SeriesDate", "SeriesTime"):  # a series holds the reports of every decision about a case
        made.pop(keyword, None)
    for item in made.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = f"{day}{clock}{_UTC}"


def _diagnosis() -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept("439401001", "SCT", "Diagnosis")


def _concept(code: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code[:16], SCHEME, meaning[:64])


def _coded(named: ReportedDiagnosis) -> Any:
    from highdicom.sr import CodedConcept

    # A backslash would separate two values.
    code, scheme, meaning = (
        one_line(part).replace("\\", "/") for part in (named.code, designator_of(named.scheme), named.meaning)
    )
    return CodedConcept(code, scheme[:16], (meaning or code)[:64])


def _organisation(case: ReviewedCase) -> str:
    return one_line(case.organisation).replace("\\", "/")[:64]


def _person(login: str) -> str:
    return f"{login}^"[:64]
