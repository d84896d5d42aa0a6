"""A reviewed case as a DICOM structured report (TID 1500): what the model said, who decided what.

Written for the real study, so its identifiers are the originals. Codes that no standard has are of the private scheme
``99METADX`` and listed in ``docs/review.md``.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

SCHEME = "99METADX"
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
    """

    reader: str
    decided_at: str
    verdict: str
    diagnoses: tuple[ReportedDiagnosis, ...] = ()
    reason: tuple[str, str] | None = None
    remarks: str = ""


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
    answer : tuple of ReportedDiagnosis
        What the model said, most probable first; empty where it was not shown.
    bundle : str
        Hash of the bundle; empty without an answer.
    support_version : int, optional
        Version of its support set.
    """

    patient_id: str
    study: str
    accession: str
    images: tuple[SourceImage, ...]
    decisions: tuple[ReportedDecision, ...]
    answer: tuple[ReportedDiagnosis, ...] = ()
    bundle: str = ""
    support_version: int | None = None


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
        institution_name=None,
        is_complete=True,
        is_final=True,
        is_verified=True,
        verifying_observer_name=_person(case.decisions[0].reader),
        verifying_organization=RESEARCH,
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
    from highdicom.sr import (
        AlgorithmIdentification,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
    )
    from pydicom.sr.codedict import codes

    sources = [SourceImageForMeasurementGroup(image.sop_class, image.instance) for image in _cited(case)]
    several = len(case.decisions) > 1
    groups = [
        _decided(one, _tracked(identity, f"decision {number}" if several else "decision"), sources, several)
        for number, one in enumerate(case.decisions, start=1)
    ]
    parameters = [f"bundle {case.bundle}", f"support set {case.support_version}", RESEARCH]
    for rank, named in enumerate(case.answer, start=1):
        groups.append(
            MeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracked(identity, f"answer {rank}"),
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
        )
    return groups


def _decided(decision: ReportedDecision, tracked: Any, sources: list[Any], several: bool) -> Any:
    """Return what a reader decided, as a group of its own, which names them where there are several."""
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        PnameContentItem,
        QualitativeEvaluation,
        RelationshipTypeValues,
        TextContentItem,
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
        finding_type=_concept("decision", "Decision of the reader"),
        qualitative_evaluations=stated,
        source_images=sources,
    )
    remarks = "".join(c if c.isprintable() or c in "\r\n\t" else " " for c in decision.remarks).strip()
    if remarks:
        contains = RelationshipTypeValues.CONTAINS
        group[0].ContentSequence.append(TextContentItem(codes.DCM.Comment, remarks, contains))
    if several:
        whose, context = _person(decision.reader), RelationshipTypeValues.HAS_OBS_CONTEXT
        group[0].ContentSequence.append(PnameContentItem(codes.DCM.PersonObserverName, whose, context))
    return group


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

    digest = hashlib.sha256(f"{identity.instance}/{name}".encode()).digest()
    return TrackingIdentifier(f"2.25.{int.from_bytes(digest[:16], 'big')}", name)


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
    # The vault keeps no more than this; an archive joins the report to its study by the UID.
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"):
        setattr(dataset, keyword, "")
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
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        setattr(made, keyword, day)
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        setattr(made, keyword, clock)
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

    return CodedConcept(named.code, (named.scheme or SCHEME)[:16], (named.meaning or named.code)[:64])


def _person(login: str) -> str:
    return f"{login}^"[:64]
