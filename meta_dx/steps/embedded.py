"""The cohort as a bundle sees it, embedded once and kept in memory for as long as nothing of it changes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import diagnoses_version
from meta_dx.cohort.examples import Examples
from meta_dx.cohort.splits import current_split
from meta_dx.inference.bundle import Bundle, latest_bundle
from meta_dx.inference.evidence import EmbeddedStudies
from meta_dx.inference.predictor import Predictor
from meta_dx.steps import Project
from meta_dx.steps.answering import picture_names
from meta_dx.steps.cohort import CohortData, assemble
from meta_dx.steps.predictions import Serving


@dataclass(frozen=True)
class EmbeddedCohort:
    """The cohort as one bundle sees it.

    Parameters
    ----------
    data : CohortData
        The assembled cohort.
    predictor : Predictor
        The bundle at work.
    embedded : EmbeddedStudies
        Every usable study.
    rows : mapping of str to ndarray of int64
        Study → rows of its pictures in the store, in the order of ``embedded``.
    place : mapping of str to int
        Study → its place in ``embedded``.
    queries : mapping of str to Examples
        Batch → its studies that are to be predicted.
    """

    data: CohortData
    predictor: Predictor
    embedded: EmbeddedStudies
    rows: dict[str, npt.NDArray[np.int64]]
    place: dict[str, int]
    queries: dict[str, Examples]

    def cases(self, serving: Serving) -> EmbeddedStudies:
        """Return the confirmed cases that answers rest on, in their order."""
        return self.embedded.take([self.place[case.study] for case in serving.cases])

    def vectors(self, studies: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the embeddings (n, D) of studies."""
        return self.embedded.x[[self.place[study] for study in studies]]


class KeptCohort:
    """Embeds a project's cohort when it is asked for, and anew when something of it has changed.

    Parameters
    ----------
    project : Project
        Cohort and home.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._held: tuple[tuple[str, ...], EmbeddedCohort] | None = None

    def get(self) -> EmbeddedCohort:
        """Return the cohort as the latest bundle sees it.

        Raises
        ------
        MetaDxError
            ``no_bundle``, or ``no_split``.
        """
        home = self._project.home
        with self._lock:
            made = latest_bundle(home)
            # To assemble the cohort takes a second: only when something of it has changed.
            key = (
                made.id,
                Catalog(home).version,
                str(diagnoses_version(home)),
                split.version if (split := current_split(home)) else "",
            )
            if self._held is None or self._held[0] != key:
                self._held = (key, _embedded(self._project, made, assemble(self._project)))
            return self._held[1]


def _embedded(project: Project, made: Bundle, data: CohortData) -> EmbeddedCohort:
    predictor = Predictor(made, device=project.settings.cohort.device)
    rows = {str(study): group["row"].to_numpy(np.int64) for study, group in data.store.index.groupby("study")}
    embedded = predictor.embed_cases(data.store.images, list(rows.values()), names=picture_names(data.store))
    place = {study: n for n, study in enumerate(rows)}
    queries = {batch: data.to_predict(batch) for batch in sorted(set(data.studies["batch"]))}
    return EmbeddedCohort(data, predictor, embedded, rows, place, queries)
