"""What a lesson would change, and teaching it: a confirmed case answers for others within a second, without training.

All studies of the cohort are embedded once for each bundle (:mod:`meta_dx.steps.embedded`); a support set is then only
adapted to.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.inference.serving import class_prior
from meta_dx.records.database import Records
from meta_dx.records.predictions import PredictedStudy, is_newest, save_prediction_run
from meta_dx.records.support import SupportCase, SupportSets, SupportSetVersion
from meta_dx.records.switch import model_mode
from meta_dx.records.vault import Vault
from meta_dx.review.teaching import Change, Lesson, Preview, Suspect
from meta_dx.steps import Project
from meta_dx.steps.embedded import EmbeddedCohort, KeptCohort
from meta_dx.steps.predictions import (
    Serving,
    answered,
    confirmed_patients,
    run_of,
    serving_of,
)

_SUSPECT = 0.5  # probability of another disease from which a case is named


class ProjectTeacher:
    """Teaches the support set of a project.

    Parameters
    ----------
    project : Project
        Cohort and home; a bundle has to be there.
    kept : KeptCohort, optional
        Its embedded cohort, where others use it too.
    """

    def __init__(self, project: Project, kept: KeptCohort | None = None) -> None:
        self._project = project
        self._records = Records.open(project.home)
        self._kept = kept or KeptCohort(project)
        self._answering = threading.Lock()

    def warm(self) -> None:
        """Embed the cohort, so that the first lesson need not wait for it; nothing before there is a bundle.

        Cases that a lesson has left unanswered, because the process died, are answered.
        """
        with suppress(MetaDxError):
            self.answer()
            self._kept.get()

    def preview(self, lesson: Lesson, reviewed: Sequence[str]) -> Preview:
        """Tell what a lesson would do.

        Parameters
        ----------
        lesson : Lesson
            Cases of one disease.
        reviewed : sequence of str
            Cases that readers have decided about; those whose answer would change are named.

        Returns
        -------
        Preview

        Raises
        ------
        MetaDxError
            ``unknown_case`` when a study is not in use, ``study_in_two_diseases``.
        """
        cohort = self._kept.get()
        before = self._current().cases
        after = _with(before, self._cases(cohort, lesson))
        old, new = (self._serving(cohort, cases) for cases in (before, after))
        code = lesson.disease.code
        taught = {case.study for case in lesson.cases}
        used = {case.study for case in new.cases} & taught
        beside = [case for case in after if case.study in taught - used]
        accuracy_before, _ = self._left_out(cohort, old, code)
        accuracy_after, suspects = self._left_out(cohort, new, code, beside)
        return Preview(
            cases_before=sum(case.code == code for case in old.cases),
            cases_after=sum(case.code == code for case in new.cases),
            used=len(used),
            accuracy_before=accuracy_before,
            accuracy_after=accuracy_after,
            suspects=suspects,
            near_duplicates=_near_duplicates(cohort, lesson, before),
            changes=self._changes(cohort, old, new, [study for study in reviewed if study in cohort.place]),
        )

    def cases(self, lesson: Lesson, by: str) -> list[SupportCase]:
        """Return the cases of a lesson, confirmed today by somebody, as the support set keeps them.

        Raises
        ------
        MetaDxError
            ``unknown_case`` when a study is not in use.
        """
        with closing(Vault.open(self._project.home)) as vault:
            surrogates = Surrogates(vault.key)
        today = datetime.now(UTC).date()
        made = []
        for case in self._cases(self._kept.get(), lesson):
            day = surrogates.shift(today, case.patient)  # the store holds every day of a patient shifted
            made.append(replace(case, confirmed_by=by, confirmed_on=day.isoformat() if day else None))
        return made

    def answer(self) -> None:
        """Answer the open cases by the support set in force, unless that has been done, or the model is off.

        Raises
        ------
        MetaDxError
            ``no_support_set``, or from :func:`~meta_dx.steps.predictions.serving_of`.
        """
        with self._answering:
            while model_mode(self._records) != "off":
                try:
                    return self._answer_anew(self._kept.get(), self._current())
                except MetaDxError as fault:
                    # Changed by another person or process: the next turn answers by what it is now.
                    if fault.code != "support_changed":
                        raise

    def _answer_anew(self, cohort: EmbeddedCohort, version: SupportSetVersion) -> None:
        data, serving = cohort.data, self._serving(cohort, version.cases)
        taken = {case.study for case in version.cases}
        for batch, waiting in cohort.queries.items():
            queries = waiting.take(~np.isin(waiting.study, sorted(taken)))
            run = run_of(
                self._project, data, serving, version.version, cohort.predictor.bundle, queries, batch
            )
            if is_newest(self._records, run):
                continue
            # Where all cases of a batch are confirmed by now, an empty run ends what was said of them before.
            answers = self._answers(cohort, serving, queries, version.cases) if len(queries) else []
            save_prediction_run(self._records, run, answers, in_force=True)

    def _answers(
        self, cohort: EmbeddedCohort, serving: Serving, queries: Examples, cases: Sequence[SupportCase]
    ) -> list[PredictedStudy]:
        known = confirmed_patients(cohort.data, cases)
        support, query_x = cohort.cases(serving), cohort.vectors(queries.study.tolist())
        return answered(self._project, cohort.predictor, serving, support, query_x, queries, known)

    def _current(self) -> SupportSetVersion:
        version = SupportSets(self._records).current()
        if version is None:
            raise MetaDxError(
                "no_support_set", "There is no support set yet: 'make run' makes the first one."
            )
        return version

    def _serving(self, cohort: EmbeddedCohort, cases: Sequence[SupportCase]) -> Serving:
        return serving_of(self._project, cohort.data, cases)

    def _cases(self, cohort: EmbeddedCohort, lesson: Lesson) -> list[SupportCase]:
        patients = dict(zip(cohort.data.studies["study"], cohort.data.studies["patient"], strict=True))
        missing = [case.study for case in lesson.cases if case.study not in cohort.place]
        if missing:
            raise MetaDxError(
                "unknown_case",
                "A case is not in use: its images have been left out or not passed their checks.",
            )
        named = lesson.disease
        return [
            SupportCase(named.code, named.scheme, named.meaning, c.study, patients[c.study], basis=c.basis)
            for c in lesson.cases
        ]

    def _probabilities(
        self, cohort: EmbeddedCohort, serving: Serving, studies: Sequence[str], without: str = ""
    ) -> npt.NDArray[np.float64]:
        """Return the probabilities (n, N) of studies, resting on all cases but those of one patient."""
        cases = [case for case in serving.cases if case.patient != without]
        labels = np.array([serving.codes.index(case.code) for case in cases], dtype=np.int64)
        predictor = cohort.predictor
        state = predictor.adapt(cohort.vectors([case.study for case in cases]), labels, len(serving.codes))
        patients = {code: who - {without} for code, who in serving.patients.items()}
        prior = class_prior(serving.codes, patients, self._project.settings.serve)
        return predictor.predict(state, cohort.vectors(studies), prior, serving.codes)

    def _left_out(
        self, cohort: EmbeddedCohort, serving: Serving, code: str, beside: Sequence[SupportCase] = ()
    ) -> tuple[float | None, tuple[Suspect, ...]]:
        """Return the accuracy of a disease's cases by the others, and those, or cases beside them, that seem wrong."""
        own = [case for case in serving.cases if case.code == code]
        if len({case.patient for case in own}) < 2:
            return None, ()
        right, suspects = 0, []
        for case in (*own, *beside):
            found = self._probabilities(cohort, serving, [case.study], case.patient)[0]
            best = int(found.argmax())
            right += case in own and serving.codes[best] == code
            if serving.codes[best] != code and found[best] >= _SUSPECT:
                suspects.append(Suspect(case.study, serving.codes[best], float(found[best])))
        return right / len(own), tuple(sorted(suspects, key=lambda one: -one.probability))

    def _changes(
        self, cohort: EmbeddedCohort, old: Serving, new: Serving, studies: Sequence[str]
    ) -> tuple[Change, ...]:
        if not studies:
            return ()
        before, after = (
            [serving.codes[k] for k in self._probabilities(cohort, serving, studies).argmax(-1)]
            for serving in (old, new)
        )
        return tuple(Change(s, b, a) for s, b, a in zip(studies, before, after, strict=True) if b != a)


def _with(before: Sequence[SupportCase], more: Sequence[SupportCase]) -> list[SupportCase]:
    from meta_dx.records.support_case import refuse_second_disease

    held = {case.study: case for case in before}
    for case in more:
        refuse_second_disease(case, held.get(case.study))
        held[case.study] = case
    return list(held.values())


def _near_duplicates(
    cohort: EmbeddedCohort, lesson: Lesson, before: Sequence[SupportCase]
) -> tuple[tuple[str, str], ...]:
    data = cohort.data
    patients = dict(zip(data.studies["study"], data.studies["patient"], strict=True))
    group = {study: data.groups.get(patient, patient) for study, patient in patients.items()}
    new = {case.study for case in lesson.cases}
    others = [*new, *(case.study for case in before if case.study not in new)]
    pairs = {
        (study, other)
        for study in new
        for other in others
        if study != other and group.get(study) == group.get(other) and not (other in new and other < study)
    }
    return tuple(sorted(pairs))
