"""What moved an answer, and what has come in lately: looks into the model that the answers do not show."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from meta_dx.errors import MetaDxError
from meta_dx.inference.saliency import occlusion
from meta_dx.inference.serving import class_prior
from meta_dx.inference.support import adapted_state
from meta_dx.records.database import Records
from meta_dx.records.opinions import Shown
from meta_dx.records.support import SupportSets
from meta_dx.review.drift import Inputs
from meta_dx.review.insight import CaseSaliency
from meta_dx.steps import Project
from meta_dx.steps.drift import inputs_of
from meta_dx.steps.embedded import KeptCohort
from meta_dx.steps.predictions import serving_of

_KEPT = 32  # maps; a reader turns the slices of one


class ProjectInsight:
    """Looks into the model of a project.

    Parameters
    ----------
    project : Project
        Cohort and home.
    kept : KeptCohort
        Its embedded cohort.
    """

    def __init__(self, project: Project, kept: KeptCohort) -> None:
        self._project, self._kept = project, kept
        self._records = Records.open(project.home)
        self._turn = threading.Lock()
        self._maps: OrderedDict[tuple[str, Shown, str, int], CaseSaliency] = OrderedDict()

    def inputs(self, recent: Sequence[str]) -> Inputs:
        """Put studies of lately beside those that the model knows; nothing before there is a bundle."""
        try:
            return inputs_of(self._project, self._kept.get(), recent)
        except MetaDxError as fault:
            if fault.code in ("no_bundle", "no_split"):
                return Inputs()
            raise

    def saliency(self, study: str, shown: Shown, code: str, which: int) -> CaseSaliency:
        """Tell which part of a picture moved the probability of a disease; one map is made at a time.

        Parameters
        ----------
        study : str
            The case.
        shown : Shown
            The answer, which bundle and support set have to give again.
        code : str
            The disease.
        which : int
            Which of the case's pictures, from 0.

        Returns
        -------
        CaseSaliency

        Raises
        ------
        MetaDxError
            ``map_in_making`` while another one is made, ``answer_outdated`` where another bundle is in use now,
            ``unknown_case``, ``unknown_picture``, ``unknown_disease``, or from
            :func:`~meta_dx.inference.saliency.occlusion`.
        """
        key = (study, shown, code, which)
        kept = self._maps.get(key)
        if kept is not None:
            return kept
        # Waiting would hold a thread of the server for as long as the map before takes.
        if not self._turn.acquire(blocking=False):
            raise MetaDxError("map_in_making", "Another map is being made: try again in a few seconds.")
        try:
            made = self._maps[key] = self._made(study, shown, code, which)
            while len(self._maps) > _KEPT:
                self._maps.popitem(last=False)
            return made
        finally:
            self._turn.release()

    def _made(self, study: str, shown: Shown, code: str, which: int) -> CaseSaliency:
        project, cohort = self._project, self._kept.get()
        predictor = cohort.predictor
        if predictor.bundle.id != shown.bundle:
            raise MetaDxError(
                "answer_outdated", "The answer comes from a bundle that is not in use any more."
            )
        if study not in cohort.rows:
            raise MetaDxError("unknown_case", "There is no such case among those that the model looks at.")
        rows = cohort.rows[study]
        if not 0 <= which < len(rows):
            raise MetaDxError(
                "unknown_picture", f"The case has {len(rows)} picture(s) that the model looks at."
            )
        serving = serving_of(
            project, cohort.data, SupportSets(self._records).get(shown.support_version).cases
        )
        codes = serving.codes
        if code not in codes:
            raise MetaDxError("unknown_disease", "The answer does not offer this disease.")
        labels = np.array([codes.index(case.code) for case in serving.cases], dtype=np.int64)
        state = adapted_state(project.home, predictor, cohort.cases(serving).x, labels, len(codes))
        prior = class_prior(codes, serving.patients, project.settings.serve)
        pictures = np.asarray(cohort.data.store.images[rows])
        place = codes.index(code)
        found = occlusion(
            predictor, pictures, which, lambda x: predictor.predict(state, x, prior, codes)[:, place]
        )
        return CaseSaliency(found, len(rows))
