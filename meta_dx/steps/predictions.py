"""Steps of prediction: refresh the support set, predict the undiagnosed studies of a batch. No training, no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from meta_dx.errors import MetaDxError
from meta_dx.inference.serving import choose_cases, class_prior, offered_diseases
from meta_dx.records.database import Records
from meta_dx.records.predictions import NearestCase, PredictedStudy, PredictionRun, save_prediction_run
from meta_dx.records.support import SupportCase, SupportSets, SupportSetVersion
from meta_dx.steps import Project
from meta_dx.steps.cohort import CohortData, assemble

_NEAREST = 3


@dataclass(frozen=True)
class BatchPredictions:
    """What was predicted for one batch."""

    studies: int
    diseases: int
    mean_entropy: float
    bundle: str
    support_version: int


@dataclass(frozen=True)
class Serving:
    """What predictions choose between: offered diseases and the cases each of them rests on."""

    codes: tuple[str, ...]
    cases: tuple[SupportCase, ...]


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
    of_study = data.studies.set_index("study")
    for case in confirmed:
        if case.study in usable:
            row = of_study.loc[case.study]
            described[case.code].append((str(row["modality"]), str(row["body_part"])))
    options = project.settings.serve
    codes = offered_diseases(options, data.split.diseases, described)
    if len(codes) < 2:
        raise MetaDxError(
            "too_few_diseases",
            f"[serve] offers {len(codes)} disease(s) with a confirmed study: a diagnosis needs at "
            "least 2 to choose between; widen [serve], or add cases with 'meta-dx support add'.",
        )
    cases = [case for case in confirmed if case.code in set(codes) and case.study in usable]
    return Serving(tuple(codes), tuple(choose_cases(cases, options)))


def predict_batch(project: Project, batch: str) -> BatchPredictions:
    """Predict every study of a batch without a known diagnosis, and keep the answers in the records.

    Parameters
    ----------
    project : Project
        Cohort and home.
    batch : str
        Ingest batch.

    Returns
    -------
    BatchPredictions

    Raises
    ------
    MetaDxError
        ``no_bundle``, ``no_support_set``, or from :func:`serving_of`.
    """
    from meta_dx.inference.bundle import latest_bundle
    from meta_dx.inference.predictor import Predictor, entropy, nearest_support
    from meta_dx.inference.support import adapted_state

    data = assemble(project)
    records = Records.open(project.home)
    version = SupportSets(records).current()
    if version is None:
        raise MetaDxError(
            "no_support_set", f"The home {project.home.root} has no support set yet: run 'make run'."
        )
    serving = serving_of(project, data, version.cases)
    made = latest_bundle(project.home)
    predictor = Predictor(made, device=project.settings.cohort.device)
    rows = {study: group["row"].to_numpy(np.int64) for study, group in data.store.index.groupby("study")}
    support_x = predictor.embed_studies(data.store.images, [rows[case.study] for case in serving.cases])
    labels = np.array([serving.codes.index(case.code) for case in serving.cases], dtype=np.int64)
    state = adapted_state(project.home, predictor, support_x, labels, len(serving.codes))
    prior = class_prior(serving.codes, [case.code for case in serving.cases], project.settings.serve)
    queries = data.to_predict(batch)
    answers: list[PredictedStudy] = []
    if len(queries):
        query_x = predictor.embed_studies(data.store.images, queries.images)
        probabilities = predictor.predict(state, query_x, prior=prior)  # (Q, N)
        entropies = entropy(probabilities)
        nearest, similarity = nearest_support(
            predictor.centred(support_x), predictor.centred(query_x), min(_NEAREST, len(serving.cases))
        )
        known = {data.groups.get(case.patient, case.patient) for case in serving.cases}
        for at, study in enumerate(queries.study.tolist()):
            evidence = tuple(
                NearestCase(serving.cases[k].study, serving.cases[k].code, float(s))
                for k, s in zip(nearest[at], similarity[at], strict=True)
            )
            answers.append(
                PredictedStudy(
                    study=study,
                    probabilities=dict(zip(serving.codes, probabilities[at].tolist(), strict=True)),
                    entropy=float(entropies[at]),
                    nearest=evidence,
                    support_patient=str(queries.patient[at]) in known,
                )
            )
    run = PredictionRun(
        bundle=made.id,
        support_version=version.version,
        split_version=data.split.version,
        data_version=data.version,
        batch=batch,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    save_prediction_run(records, run, answers)
    mean = float(np.mean([answer.entropy for answer in answers])) if answers else float("nan")
    return BatchPredictions(len(answers), len(serving.codes), mean, made.id, version.version)


def _groups(data: CohortData, studies: set[str]) -> set[str]:
    chosen = data.studies[data.studies["study"].isin(studies)]
    return {data.groups.get(patient, patient) for patient in chosen["patient"]}


def _studies_of(data: CohortData, groups: set[str]) -> set[str]:
    group = data.studies["patient"].map(lambda patient: data.groups.get(patient, patient))
    return set(data.studies["study"][group.isin(groups)])


def _text(value: Any) -> str | None:
    return None if pd.isna(value) or value == "" else str(value)
