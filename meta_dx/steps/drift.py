"""What has come in lately beside what the model knows: grey values, machines, and what the network makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.fingerprint import read_fingerprint
from meta_dx.errors import MetaDxError
from meta_dx.records.database import Records
from meta_dx.records.support import SupportSets
from meta_dx.review.answered import FEWEST_TO_COMPARE
from meta_dx.review.dashboard import Share
from meta_dx.review.drift import Inputs
from meta_dx.steps import Project
from meta_dx.steps.cohort import CohortData, usable_catalog
from meta_dx.steps.embedded import EmbeddedCohort
from meta_dx.steps.predictions import serving_of

_MEASURES = {"pixel_min": "Darkest value", "pixel_max": "Brightest value", "pixel_std": "Spread of grey"}
_KINDS = {"modality": "Modality", "body_part": "Body part", "manufacturer": "Manufacturer"}
_TRAINED = ("common", "validation")


def inputs_of(project: Project, cohort: EmbeddedCohort, recent: Sequence[str]) -> Inputs:
    """Put what has come in lately beside the studies whose diagnosis is known.

    One study a patient on either side; who is on both is of lately only. What is measured is compared within its
    modality.

    Parameters
    ----------
    project : Project
        Cohort and home.
    cohort : EmbeddedCohort
        Its studies, embedded.
    recent : sequence of str
        Studies of lately, newest first.

    Returns
    -------
    Inputs
    """
    table = _studies(project, cohort.data)
    here = table[table.index.isin(recent)]
    here = here.loc[[study for study in recent if study in here.index]].drop_duplicates("patient")
    known = set(cohort.data.everybody().study.tolist())
    before = table[table.index.isin(known) & ~table["patient"].isin(set(here["patient"]))]
    before = before.drop_duplicates("patient")
    kinds = {what: (_counts(here[name]), _counts(before[name])) for name, what in _KINDS.items()}
    return Inputs(
        {what: _by_modality(here, before, name) for name, what in _MEASURES.items()},
        {what: sides for what, sides in kinds.items() if len({*sides[0], *sides[1]}) > 1},
        _distances(project, cohort, here.index.tolist()),
        _outside(project, here),
    )


def _studies(project: Project, data: CohortData) -> pd.DataFrame:
    """Return one row a study: the middle of its images' measures, and what it is named by."""
    instances = usable_catalog(project).instances()
    found = instances.groupby("study")[list(_MEASURES)].median()
    named = instances.groupby("study")[list(_KINDS)].first().fillna("unknown")
    patient = instances.groupby("study")["patient"].first().map(lambda one: data.groups.get(one, one))
    return pd.concat([found, named, patient], axis=1).sort_index()


def _by_modality(
    here: pd.DataFrame, before: pd.DataFrame, name: str
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Return the values of lately and of before in each modality; nothing of rare modalities."""
    known = {modality: part.to_numpy(np.float64) for modality, part in before.groupby("modality")[name]}
    return [
        (part.to_numpy(np.float64), known[modality])
        for modality, part in here.groupby("modality")[name]
        if len(known.get(modality, ())) >= FEWEST_TO_COMPARE
    ]


def _counts(names: pd.Series[Any]) -> dict[str, int]:
    return {str(name): int(n) for name, n in names.value_counts().items()}


def _outside(project: Project, here: pd.DataFrame) -> dict[str, Share]:
    units = (read_fingerprint(project.home) or {}).get("physical_units", {})
    found = {}
    for name, what in _MEASURES.items():
        ends = {modality: each[name] for modality, each in units.items() if "p5" in each.get(name, {})}
        rows = here[here["modality"].isin(set(ends))]
        pairs = zip(rows["modality"], rows[name], strict=True)
        beyond = sum(not ends[modality]["p5"] <= value <= ends[modality]["p95"] for modality, value in pairs)
        if len(rows):
            found[what] = Share(beyond, len(rows))
    return found


def _distances(
    project: Project, cohort: EmbeddedCohort, recent: list[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return how far cases of lately, and confirmed ones, lie from the nearest study that was trained on."""
    version = SupportSets(Records.open(project.home)).current()
    if version is None:
        return None
    try:
        serving = serving_of(project, cohort.data, version.cases)
    except MetaDxError:  # [serve] offers nothing to choose between: there is nothing to compare with
        return None
    patients = dict(zip(cohort.data.studies["study"], cohort.data.studies["patient"], strict=True))
    lately = [study for study in recent if study in cohort.place]
    taken = {_group(cohort.data, patients[study]) for study in lately}
    offered = (case for case in version.cases if case.code in serving.codes and case.study in cohort.place)
    one_each = {_group(cohort.data, case.patient): case.study for case in offered}
    confirmed = [study for group, study in sorted(one_each.items()) if group not in taken]
    trained = [study for role in _TRAINED for study in cohort.data.by_role[role].study.tolist()]
    if not lately or not confirmed or not trained:
        return None
    unit = {
        name: _unit(cohort, studies) for name, studies in (("a", lately), ("b", confirmed), ("c", trained))
    }
    own = np.array([_group(cohort.data, patients[study]) for study in trained])

    def nearest(name: str, studies: list[str]) -> npt.NDArray[np.float64]:
        distance = 1 - unit[name] @ unit["c"].T  # (n, trained)
        groups = np.array([_group(cohort.data, patients[study]) for study in studies])
        distance[groups[:, None] == own[None]] = np.inf
        closest: npt.NDArray[np.float64] = distance.min(1)
        return closest

    return nearest("a", lately), nearest("b", confirmed)


def _unit(cohort: EmbeddedCohort, studies: list[str]) -> npt.NDArray[np.float64]:
    x = cohort.predictor.centred(cohort.vectors(studies)).astype(np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _group(data: CohortData, patient: str) -> str:
    return data.groups.get(patient, patient)
