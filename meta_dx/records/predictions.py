"""Predictions with their lineage: which bundle, support set, split and data said what about which study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.orm import Session

from meta_dx.errors import MetaDxError
from meta_dx.records.database import Records
from meta_dx.records.schema import PredictionRow, PredictionRunRow, SupportVersionRow, now, plain


@dataclass(frozen=True)
class PredictionRun:
    """One pass over one ingest batch.

    Parameters
    ----------
    bundle : str
        Hash of the bundle.
    support_version : int
        Version of the support set.
    split_version : str
        Version of the frozen split (``"v0001"``).
    data_version : str
        Version of the catalog and pictures.
    batch : str
        Ingest batch (``"b0001"``).
    created_at : str
        ISO 8601, UTC; the moment of making it if not given.
    """

    bundle: str
    support_version: int
    split_version: str
    data_version: str
    batch: str
    created_at: str = field(default_factory=now)


@dataclass(frozen=True)
class NearestCase:
    """A support case that lies near a study.

    Parameters
    ----------
    study, code : str
        The case.
    similarity : float
        Larger is nearer.
    """

    study: str
    code: str
    similarity: float


@dataclass(frozen=True)
class EvidenceCase:
    """A support case that an answer rests on, and its picture that looks most like the study.

    Parameters
    ----------
    study, code, image : str
        The case: surrogate study UID, disease code, surrogate SOP instance UID.
    weight : float
        Its share of the answer, between 0 and 1; all support cases together have 1.
    frame : int
        Number of the frame of that image, from 0.
    """

    study: str
    code: str
    image: str
    weight: float
    frame: int = 0


@dataclass(frozen=True)
class PredictedStudy:
    """The answer for one study.

    Parameters
    ----------
    study : str
        Surrogate UID.
    probabilities : mapping of str to float
        Probability of each offered disease, between 0 and 1.
    entropy : float
        Of the probabilities, in nats.
    nearest : tuple of NearestCase
        Nearest first.
    support_patient : bool
        The study's patient is also in the support set, so the answer flatters the model.
    epistemic, aleatoric : float, optional
        Nats; None where the head cannot tell. They sum to the entropy.
    interval : mapping of str to (float, float), optional
        Ends of the 95 % credible interval of each offered disease's probability; None where the head has none.
    evidence : tuple of EvidenceCase, optional
        Heaviest first; None where the head does not weigh its support cases.
    remoteness : float, optional
        Share of the confirmed cases that lie nearer to another confirmed one than the study does to any; None where too
        few cases are confirmed to say.
    """

    study: str
    probabilities: Mapping[str, float]
    entropy: float
    nearest: tuple[NearestCase, ...] = ()
    support_patient: bool = False
    epistemic: float | None = None
    aleatoric: float | None = None
    interval: Mapping[str, tuple[float, float]] | None = None
    evidence: tuple[EvidenceCase, ...] | None = None
    remoteness: float | None = None


@dataclass(frozen=True)
class Told:
    """Of an answer the probabilities, and whether the study's patient was in the support set, as in PredictedStudy."""

    probabilities: Mapping[str, float]
    support_patient: bool


@dataclass(frozen=True)
class SavedRun:
    """A prediction run as the records keep it.

    Parameters
    ----------
    id : int
        Number of the run.
    run : PredictionRun
        What it was made from.
    studies : tuple of PredictedStudy
        Sorted by study.
    """

    id: int
    run: PredictionRun
    studies: tuple[PredictedStudy, ...]


def ranked(probabilities: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return diseases with their probabilities, most probable first; of equal ones the one whose code sorts first."""
    return sorted(probabilities.items(), key=lambda pair: (-pair[1], pair[0]))


def save_prediction_run(
    records: Records, run: PredictionRun, rows: Iterable[PredictedStudy], *, in_force: bool = False
) -> int:
    """Save the answers of one run, in one transaction, in place of an earlier run with the same lineage.

    Parameters
    ----------
    records : Records
        The opened records.
    run : PredictionRun
        Lineage; everything except ``created_at`` names the run.
    rows : iterable of PredictedStudy
        One answer a study.
    in_force : bool
        Save only answers of the newest support set: whoever was slower than a change of it must not answer last.

    Returns
    -------
    int
        Number of the run; the same one when a run is repeated.

    Raises
    ------
    MetaDxError
        ``unknown_support_version`` when the records do not hold that version; ``support_changed`` when there is a
        newer one by now and ``in_force`` was asked for.
    ValueError
        A probability, an entropy, an interval or a weight is no such number, or a study occurs twice.
    """
    answers = [_row(study) for study in rows]
    if len({answer["study"] for answer in answers}) != len(answers):
        raise ValueError("a study was predicted twice in one run")

    def work(session: Session) -> int:
        if session.get(SupportVersionRow, run.support_version) is None:
            raise MetaDxError(
                "unknown_support_version",
                f"These predictions name support set version {run.support_version}, which the records do not "
                "hold: predict with a version from this home.",
            )
        newest = session.scalar(select(func.max(SupportVersionRow.version)))
        if in_force and newest != run.support_version:
            raise MetaDxError(
                "support_changed",
                f"The support set was changed while its version {run.support_version} was answering: predict again.",
            )
        saved = session.scalar(select(PredictionRunRow).where(*_same(run)))
        if saved is None:
            saved = PredictionRunRow(**vars(run))
            session.add(saved)
            session.flush()
        saved.created_at = run.created_at
        session.execute(delete(PredictionRow).where(PredictionRow.run == saved.id))
        if answers:
            session.execute(insert(PredictionRow), [{**answer, "run": saved.id} for answer in answers])
        return saved.id

    return records.write(work)


def prediction_runs(records: Records, batch: str | None = None) -> list[tuple[int, PredictionRun]]:
    """Return the number and lineage of every run, newest first; of one batch if named."""
    with records.reading() as session:
        return _runs(session, batch)


def is_newest(records: Records, run: PredictionRun) -> bool:
    """Tell whether the newest run of its batch has this lineage."""
    with records.reading() as session:
        newest = _runs(session, run.batch)[:1]
    return any(replace(made, created_at=run.created_at) == run for _, made in newest)


def latest_predictions(records: Records, batch: str | None = None) -> list[SavedRun]:
    """Return the newest run of every batch with its answers, sorted by batch; of one batch if named.

    Parameters
    ----------
    records : Records
        The opened records.
    batch : str, optional
        Ingest batch.

    Returns
    -------
    list of SavedRun
        Empty before the first prediction.
    """
    newest: dict[str, tuple[int, PredictionRun]] = {}
    with records.reading() as session:
        for number, run in _runs(session, batch):
            newest.setdefault(run.batch, (number, run))
        return [
            SavedRun(number, run, _studies(session, number)) for _, (number, run) in sorted(newest.items())
        ]


def prediction_of(records: Records, study: str) -> SavedRun | None:
    """Return the newest run that answered for a study, with that answer alone; None where there is none."""
    row, made = PredictionRow, PredictionRunRow
    newest = select(made).join(row, row.run == made.id).where(row.study == study)
    with records.reading() as session:
        run = session.scalar(newest.order_by(made.created_at.desc(), made.id.desc()).limit(1))
        if run is None:
            return None
        lineage = PredictionRun(**{name: getattr(run, name) for name in PredictionRun.__dataclass_fields__})
        return SavedRun(run.id, lineage, _studies(session, run.id, study))


def run_answer(records: Records, run: int | None, study: str) -> PredictedStudy | None:
    """Return what one run answered for a study; None where it did not, or is not kept any more."""
    if run is None:
        return None
    with records.reading() as session:
        found = _studies(session, run, study)
    return found[0] if found else None


def run_answers(records: Records, runs: Iterable[int]) -> dict[tuple[int, str], Told]:
    """Return what some runs say about every study, by run and study."""
    wanted, row = sorted(set(runs)), PredictionRow
    query = select(row.run, row.study, row.probabilities, row.support_patient).where(row.run.in_(wanted))
    with records.reading() as session:
        return {(run, study): Told(said, flattered) for run, study, said, flattered in session.execute(query)}


def unseen_answers(records: Records, studies: Iterable[str]) -> dict[str, Told]:
    """Return what the newest run for each study says, whoever may see it."""
    wanted = sorted(set(studies))
    row, made = PredictionRow, PredictionRunRow
    query = (
        select(row.study, row.probabilities, row.support_patient)
        .join(made, row.run == made.id)
        .where(row.study.in_(wanted))
        .order_by(made.created_at, made.id)
    )
    with records.reading() as session:
        return {study: Told(said, flattered) for study, said, flattered in session.execute(query)}


def _same(run: PredictionRun) -> list[ColumnElement[bool]]:
    row = PredictionRunRow
    return [
        row.bundle == run.bundle,
        row.support_version == run.support_version,
        row.split_version == run.split_version,
        row.data_version == run.data_version,
        row.batch == run.batch,
    ]


def _runs(session: Session, batch: str | None) -> list[tuple[int, PredictionRun]]:
    query = select(PredictionRunRow).order_by(PredictionRunRow.created_at.desc(), PredictionRunRow.id.desc())
    if batch is not None:
        query = query.where(PredictionRunRow.batch == batch)
    names = PredictionRun.__dataclass_fields__
    return [
        (row.id, PredictionRun(**{name: getattr(row, name) for name in names}))
        for row in session.scalars(query)
    ]


def _row(study: PredictedStudy) -> dict[str, Any]:
    probabilities = {code: float(p) for code, p in study.probabilities.items()}
    wrong = [code for code, p in probabilities.items() if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"study {study.study}: the probability of {wrong[0]} is {probabilities[wrong[0]]}")
    nats = [x for x in (study.entropy, study.epistemic, study.aleatoric) if x is not None]
    if not all(math.isfinite(x) for x in (*nats, *(case.similarity for case in study.nearest))):
        raise ValueError(f"study {study.study}: an entropy or a similarity is not finite")
    for code, (low, high) in (study.interval or {}).items():
        if not 0 <= low <= probabilities.get(code, -1) <= high <= 1:
            raise ValueError(
                f"study {study.study}: the interval {low} … {high} of {code} misses its probability"
            )
    if not all(0 <= case.weight <= 1 + 1e-6 for case in study.evidence or ()):
        raise ValueError(f"study {study.study}: a weight of the evidence is not between 0 and 1")
    if study.remoteness is not None and not 0 <= study.remoteness <= 1:
        raise ValueError(f"study {study.study}: a share of {study.remoteness} of the confirmed cases")
    return {
        "study": study.study,
        "entropy": float(study.entropy),
        "support_patient": bool(study.support_patient),
        "probabilities": probabilities,
        "nearest": plain(study.nearest),
        "epistemic": None if study.epistemic is None else float(study.epistemic),
        "aleatoric": None if study.aleatoric is None else float(study.aleatoric),
        "remoteness": None if study.remoteness is None else float(study.remoteness),
        "interval": plain(study.interval),
        "evidence": plain(study.evidence),
    }


def _studies(session: Session, run: int, study: str | None = None) -> tuple[PredictedStudy, ...]:
    query = select(PredictionRow).where(PredictionRow.run == run)
    rows = session.scalars(query if study is None else query.where(PredictionRow.study == study))
    studies = (
        PredictedStudy(
            row.study,
            row.probabilities,
            row.entropy,
            tuple(NearestCase(**case) for case in row.nearest),
            row.support_patient,
            row.epistemic,
            row.aleatoric,
            None
            if row.interval is None
            else {code: (low, high) for code, (low, high) in row.interval.items()},
            None if row.evidence is None else tuple(EvidenceCase(**case) for case in row.evidence),
            row.remoteness,
        )
        for row in rows
    )
    return tuple(sorted(studies, key=lambda study: study.study))
