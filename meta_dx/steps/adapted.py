"""Offline step for learners whose state is a network: adapt one to confirmed studies and export what is left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meta_dx.cohort.examples import Examples
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.home import fingerprint_of
from meta_dx.inference.adapted import (
    AdaptedNetwork,
    AdaptedParts,
    ConfirmedDisease,
    require_empty,
    write_adapted,
)
from meta_dx.records.database import Records
from meta_dx.records.support import SupportCase, SupportSets
from meta_dx.records.vault import Vault
from meta_dx.steps import Project
from meta_dx.steps.cohort import CohortData, assemble
from meta_dx.steps.external import read_support
from meta_dx.steps.predictions import serving_of, table_cases
from meta_dx.steps.training import training_task

if TYPE_CHECKING:
    from meta_dx.training.stage import StageResult


@dataclass(frozen=True)
class _Confirmed:
    """The studies to adapt to, and the support set that they come from (None: a table, or none was made yet)."""

    cases: tuple[SupportCase, ...]
    version: int | None


def export_adapted(project: Project, learner: str, out: Path, support: Path | None = None) -> AdaptedNetwork:
    """Adapt a trained learner to confirmed studies and write the adapted network as a folder of its own.

    Parameters
    ----------
    project : Project
        Cohort and home, in which the learner's training is finished.
    learner : str
        One whose state is a network: ``maml``, ``anil``, ``proto_maml``, ``reptile``, ``meta_lstm``, ``fine_tuning``.
    out : Path
        New or empty folder.
    support : Path, optional
        Table ``study_instance_uid,code`` of confirmed studies in the home. Without it, those that predictions rest
        on: the support set in force (before the first, the diagnosis table) under ``[serve]``.

    Returns
    -------
    AdaptedNetwork

    Raises
    ------
    MetaDxError
        ``unknown_learner``, ``serves_from_state``, ``not_empty``, ``not_trained``, ``other_ways``, ``transductive``,
        ``unknown_support_study``, or from the table, ``[serve]`` and the disk.
    """
    from meta_dx.training.adapted import adapted_network, normalised_with, pools_logits
    from meta_dx.training.train import trained_learner

    _refuse_others(learner)
    require_empty(out)
    data = assemble(project)
    confirmed = _confirmed(project, data, support)
    task = training_task(project, data)
    stage = trained_learner(task, learner, project.home.features)
    examples = _examples(data, confirmed.cases)
    own = project.settings.learner.own(learner)
    parts = AdaptedParts(
        network=adapted_network(task, stage, examples, data.store.images),
        diseases=_diseases(confirmed.cases),
        image_options=project.settings.images,
        pools_logits=pools_logits(learner),
        batch_norm=normalised_with(learner, own),
        learner=own,
        about=_about(project, data, confirmed, stage),
    )
    return write_adapted(out, parts)


def _refuse_others(learner: str) -> None:
    from meta_dx.learners.registry import BODY_LEARNERS, HEADS

    if learner in BODY_LEARNERS:
        return
    listed = ", ".join(BODY_LEARNERS)
    if learner in HEADS:
        raise MetaDxError(
            "serves_from_state",
            f"'{learner}' adapts no network, it serves from a bundle that takes confirmed cases at any time: use "
            f"'meta-dx export' and 'meta-dx support add' (export-adapted is for {listed}).",
        )
    raise MetaDxError(
        "unknown_learner", f"--learner is '{learner}': those that adapt a network are {listed}."
    )


def _confirmed(project: Project, data: CohortData, support: Path | None) -> _Confirmed:
    if support is not None:
        return _Confirmed(tuple(_cases_of_table(project, data, support)), None)
    current = SupportSets(Records.open(project.home)).current()
    cases = table_cases(data) if current is None else current.cases
    return _Confirmed(serving_of(project, data, cases).cases, None if current is None else current.version)


def _cases_of_table(project: Project, data: CohortData, support: Path) -> list[SupportCase]:
    wanted = read_support(support)
    surrogates = Surrogates(Vault.open(project.home).key)
    code_of = {surrogates.uid(original): code for original, code in wanted.items()}
    usable = dict(zip(data.store.index["study"], data.store.index["patient"], strict=True))
    missing = len(set(code_of) - set(usable))
    if missing:
        raise MetaDxError(
            "unknown_support_study",
            f"{missing} of the {len(code_of)} studies in {support} are not in the home {project.home.root}, or no "
            "image of theirs counts: take them in first with 'meta-dx ingest' and 'meta-dx train', or take them out.",
        )
    known = data.diagnoses.drop_duplicates("code").set_index("code")[["scheme", "meaning"]].fillna("")
    named = known.to_dict("index")
    return [
        SupportCase(
            code=code,
            scheme=named.get(code, {}).get("scheme", ""),
            meaning=named.get(code, {}).get("meaning") or code,
            study=study,
            patient=usable[study],
        )
        for study, code in sorted(code_of.items())
    ]


def _examples(data: CohortData, cases: tuple[SupportCase, ...]) -> Examples:
    rows = {study: part["row"].to_numpy(np.int64) for study, part in data.store.index.groupby("study")}
    return Examples(
        np.array([case.study for case in cases]),
        np.array([data.groups.get(case.patient, case.patient) for case in cases]),
        np.array([case.code for case in cases]),
        tuple(rows[case.study] for case in cases),
    )


def _diseases(cases: tuple[SupportCase, ...]) -> tuple[ConfirmedDisease, ...]:
    counts = Counter(case.code for case in cases)
    first = {case.code: case for case in reversed(cases)}
    return tuple(
        ConfirmedDisease(code, first[code].scheme, first[code].meaning, counts[code])
        for code in sorted(counts)
    )


def _about(
    project: Project, data: CohortData, confirmed: _Confirmed, stage: StageResult
) -> dict[str, object]:
    return {
        "cohort": project.settings.cohort.name,
        "backbone": project.settings.backbone.name,
        "seed": project.settings.cohort.seed,
        "training": {
            "version": stage.version,
            "best_step": stage.best_step,
            "validation_accuracy": stage.best_accuracy,
        },
        "data_version": data.version,
        "split_version": data.split.version,
        "support": {
            "version": confirmed.version,
            "studies": len(confirmed.cases),
            "fingerprint": fingerprint_of(sorted((case.study, case.code) for case in confirmed.cases)),
        },
    }
