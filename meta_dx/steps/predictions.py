"""Steps of prediction: refresh the support set, predict the undiagnosed studies of a batch. No training, no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.examples import Examples
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.home import fingerprint_of
from meta_dx.inference.bundle import Bundle, latest_bundle
from meta_dx.inference.serving import choose_cases, class_prior, offered_diseases
from meta_dx.records.database import Records
from meta_dx.records.predictions import (
    PredictedStudy,
    PredictionRun,
    latest_predictions,
    save_prediction_run,
)
from meta_dx.records.support import SupportCase, SupportSets, SupportSetVersion
from meta_dx.records.switch import model_mode
from meta_dx.records.vault import Vault
from meta_dx.steps import Project
from meta_dx.steps.answering import picture_names, predicted_studies
from meta_dx.steps.cohort import CohortData, assemble

if TYPE_CHECKING:
    from meta_dx.inference.evidence import EmbeddedStudies
    from meta_dx.inference.predictor import Predictor


OFF = "The model is switched off on the review pages: nothing is predicted, and the cases wait."


@dataclass(frozen=True)
class BatchPredictions:
    """What was predicted for one batch."""

    studies: int
    diseases: int
    mean_entropy: float | None
    bundle: str
    support_version: int


@dataclass(frozen=True)
class Serving:
    """What predictions choose between: offered diseases, the cases each of them rests on, and who has each."""

    codes: tuple[str, ...]
    cases: tuple[SupportCase, ...]
    #: All confirmed patients of each offered disease, also those above ``[serve] max_shots``.
    patients: Mapping[str, frozenset[str]]


def refresh_support(project: Project) -> SupportSetVersion:
    """Bring the support set up to the diagnosis table; what people added, corrected or removed by hand stands.

    Hidden diagnoses (``[inbox] holdout``) are not in it.
    """
    data = assemble(project)
    sets = SupportSets(Records.open(project.home))
    return sets.import_table(
        table_cases(data), author="meta_dx", reason=f"diagnosis table, {len(data.diagnoses)} active rows"
    )


def table_cases(data: CohortData) -> list[SupportCase]:
    """Return the cases that the diagnosis table confirms: usable studies with one diagnosis, not hidden."""
    rows = data.diagnoses.drop_duplicates(["study", "code"])
    single = rows[~rows["study"].duplicated(keep=False)]
    usable = set(data.store.index["study"])
    hidden_groups = _groups(data, set(data.hidden))
    patient_of = dict(zip(data.studies["study"], data.studies["patient"], strict=True))
    cases = []
    for row in single.to_dict("records"):
        study = row["study"]
        if study not in usable or data.groups.get(patient_of[study], patient_of[study]) in hidden_groups:
            continue
        cases.append(
            SupportCase(
                code=row["code"],
                scheme=_text(row.get("scheme")) or "",
                meaning=_text(row.get("meaning")) or row["code"],
                study=study,
                patient=patient_of[study],
                confirmed_on=_text(row.get("diagnosed_on")),
                basis=_text(row.get("basis")),
            )
        )
    return cases


def serving_of(project: Project, data: CohortData, confirmed: Sequence[SupportCase]) -> Serving:
    """Apply ``[serve]`` to confirmed cases: which diseases are offered, and on which cases each rests.

    Raises
    ------
    MetaDxError
        ``too_few_diseases`` when fewer than two diseases are offered; from :func:`offered_diseases`.
    """
    # A diagnosis that is hidden stays hidden, even if a person has added its case to the support set by hand.
    usable = set(data.store.index["study"]) - _studies_of(data, _groups(data, set(data.hidden)))
    described: dict[str, list[tuple[str, str]]] = defaultdict(list)
    columns = data.studies[["study", "modality", "body_part"]].itertuples(index=False, name=None)
    of_study = {study: (str(modality), str(part)) for study, modality, part in columns}
    for case in confirmed:
        if case.study in usable:
            described[case.code].append(of_study[case.study])
    options = project.settings.serve
    codes = offered_diseases(options, data.split.diseases, described)
    if len(codes) < 2:
        raise MetaDxError(
            "too_few_diseases",
            f"[serve] offers {len(codes)} disease(s) with a confirmed study: a diagnosis needs at "
            "least 2 to choose between; widen [serve], or add cases with 'meta-dx support add'.",
        )
    shift_days = Surrogates(Vault.open(project.home).key).shift_days
    cases = [
        # Near-duplicate patients count as one. Dates are shifted per patient: to order them, shift them back.
        replace(
            case,
            patient=data.groups.get(case.patient, case.patient),
            confirmed_on=unshifted(case.confirmed_on, shift_days(case.patient)),
        )
        for case in confirmed
        if case.code in set(codes) and case.study in usable
    ]
    patients = {code: frozenset(case.patient for case in cases if case.code == code) for code in codes}
    return Serving(tuple(codes), tuple(choose_cases(cases, options)), patients)


def unshifted(day: str | None, days: int) -> str | None:
    """Return the true day of a shifted ISO date; what is no date stays as it is."""
    try:
        return None if day is None else (date.fromisoformat(day) + timedelta(days=days)).isoformat()
    except ValueError:
        return day


def predict_batch(project: Project, batch: str) -> BatchPredictions | None:
    """Predict every study of a batch without a known diagnosis, and keep the answers in the records.

    Parameters
    ----------
    project : Project
        Cohort and home.
    batch : str
        Ingest batch.

    Returns
    -------
    BatchPredictions or None
        None where a lead has switched the model off: the cases of the batch wait.

    Raises
    ------
    MetaDxError
        ``no_bundle``, ``no_support_set``, or from :func:`serving_of`.
    """
    records = Records.open(project.home)
    if model_mode(records) == "off":
        return None
    data = assemble(project)
    version = SupportSets(records).current()
    if version is None:
        raise MetaDxError(
            "no_support_set", f"The home {project.home.root} has no support set yet: run 'make run'."
        )
    serving = serving_of(project, data, version.cases)
    confirmed = {case.study for case in version.cases}
    queries = data.to_predict(batch)
    queries = queries.take(~np.isin(queries.study, sorted(confirmed)))
    made = latest_bundle(project.home)
    run = run_of(project, data, serving, version.version, made, queries, batch)
    answers = _kept(records, run)
    if answers is None:
        known = confirmed_patients(data, version.cases)
        answers = _answers(project, data, serving, made, queries, known) if len(queries) else []
        try:
            save_prediction_run(records, run, answers, in_force=True)
        except MetaDxError as fault:
            if fault.code != "support_changed":
                raise
            return predict_batch(project, batch)  # somebody has taught meanwhile
    mean = float(np.mean([answer.entropy for answer in answers])) if answers else None
    return BatchPredictions(len(answers), len(serving.codes), mean, made.id, version.version)


def run_of(
    project: Project,
    data: CohortData,
    serving: Serving,
    version: int,
    made: Bundle,
    queries: Examples,
    batch: str,
) -> PredictionRun:
    """Name a run by what it rests on: other options of [serve] or other studies are another run."""
    options = project.settings.serve
    rests_on: dict[str, object] = {"codes": serving.codes, "cases": serving.cases}
    if options.prior == "support":  # with a uniform one it does not matter who else is confirmed
        rests_on["prior"] = class_prior(serving.codes, serving.patients, options).tolist()
    asked = [data.version, options, rests_on, queries.study.tolist()]
    return PredictionRun(made.id, version, data.split.version, fingerprint_of(asked), batch)


def confirmed_patients(data: CohortData, cases: Sequence[SupportCase]) -> set[str]:
    """Return the patients with any confirmed case, whether or not it is among the K that answers rest on."""
    return {data.groups.get(case.patient, case.patient) for case in cases}


def _kept(records: Records, run: PredictionRun) -> list[PredictedStudy] | None:
    """Return the answers of the same run, if it was made before."""
    for saved in latest_predictions(records, run.batch):
        if replace(saved.run, created_at=run.created_at) == run:
            return list(saved.studies)
    return None


def _answers(
    project: Project, data: CohortData, serving: Serving, made: Bundle, queries: Examples, known: set[str]
) -> list[PredictedStudy]:
    """Adapt to the confirmed cases and answer the queries."""
    from meta_dx.inference.predictor import Predictor

    predictor = Predictor(made, device=project.settings.cohort.device)
    rows = {study: group["row"].to_numpy(np.int64) for study, group in data.store.index.groupby("study")}
    support = predictor.embed_cases(
        data.store.images,
        [rows[case.study] for case in serving.cases],
        names=picture_names(data.store),
    )
    query_x = predictor.embed_studies(data.store.images, queries.images)
    return answered(project, predictor, serving, support, query_x, queries, known)


def answered(
    project: Project,
    predictor: Predictor,
    serving: Serving,
    support: EmbeddedStudies,
    query_x: npt.NDArray[np.float32],
    queries: Examples,
    known: set[str],
) -> list[PredictedStudy]:
    """Adapt to embedded cases and answer embedded queries.

    Parameters
    ----------
    project : Project
        Cohort and home.
    predictor : Predictor
        The bundle at work.
    serving : Serving
        Offered diseases and their S cases.
    support : EmbeddedStudies
        The cases, in that order, pictures named.
    query_x : ndarray of float32, shape (Q, D)
        Embeddings of the queries.
    queries : Examples
        Their studies and patients.
    known : set of str
        Patients of whom a case is confirmed.

    Returns
    -------
    list of PredictedStudy
        One a query.
    """
    from meta_dx.inference.support import adapted_state

    labels = np.array([serving.codes.index(case.code) for case in serving.cases], dtype=np.int64)
    return predicted_studies(
        predictor,
        adapted_state(project.home, predictor, support.x, labels, len(serving.codes)),
        serving.codes,
        support,
        [case.study for case in serving.cases],
        labels,
        query_x,
        queries.study.tolist(),
        [patient in known for patient in queries.patient.tolist()],
        class_prior(serving.codes, serving.patients, project.settings.serve),
    )


def _groups(data: CohortData, studies: set[str]) -> set[str]:
    chosen = data.studies[data.studies["study"].isin(studies)]
    return {data.groups.get(patient, patient) for patient in chosen["patient"]}


def _studies_of(data: CohortData, groups: set[str]) -> set[str]:
    group = data.studies["patient"].map(lambda patient: data.groups.get(patient, patient))
    return set(data.studies["study"][group.isin(groups)])


def _text(value: Any) -> str | None:
    return None if pd.isna(value) or value == "" else str(value)
