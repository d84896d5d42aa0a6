"""What a lesson would change, and teaching it: a confirmed case answers for others within a second, without training.

All studies of the cohort are embedded once for each bundle and kept in memory; a support set is then only adapted to.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import diagnoses_version
from meta_dx.cohort.examples import Examples
from meta_dx.cohort.splits import current_split
from meta_dx.errors import MetaDxError
from meta_dx.inference.bundle import Bundle, latest_bundle
from meta_dx.inference.evidence import EmbeddedStudies
from meta_dx.inference.predictor import Predictor
from meta_dx.inference.serving import class_prior
from meta_dx.records.database import Records
from meta_dx.records.predictions import PredictedStudy, is_newest, save_prediction_run
from meta_dx.records.support import SupportCase, SupportSets, SupportSetVersion
from meta_dx.records.switch import model_mode
from meta_dx.review.teaching import Change, Lesson, Preview, Suspect
from meta_dx.steps import Project
from meta_dx.steps.answering import picture_names
from meta_dx.steps.cohort import CohortData, assemble
from meta_dx.steps.predictions import (
    Serving,
    answered,
    confirmed_patients,
    run_of,
    serving_of,
)

_SUSPECT = 0.5  # probability of another disease from which a case is named


@dataclass(frozen=True)
class _Cohort:
    """The cohort as one bundle sees it: every usable study embedded, in the order of ``place``.

    ``queries`` are the studies to be predicted, by batch.
    """

    data: CohortData
    predictor: Predictor
    embedded: EmbeddedStudies
    place: dict[str, int]
    queries: dict[str, Examples]

    def cases(self, serving: Serving) -> EmbeddedStudies:
        return self.embedded.take([self.place[case.study] for case in serving.cases])

    def vectors(self, studies: Sequence[str]) -> npt.NDArray[np.float32]:
        return self.embedded.x[[self.place[study] for study in studies]]


class ProjectTeacher:
    """Teaches the support set of a project.

    Parameters
    ----------
    project : Project
        Cohort and home; a bundle has to be there.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._records = Records.open(project.home)
        self._lock = threading.Lock()
        self._held: tuple[tuple[str, ...], _Cohort] | None = None

    def warm(self) -> None:
        """Embed the cohort, so that the first lesson need not wait for it; nothing before there is a bundle.

        Cases that a lesson has left unanswered, because the process died, are answered.
        """
        with suppress(MetaDxError):
            self.answer()
            self._cohort()

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
        cohort = self._cohort()
        before = self._current().cases
        after = _with(before, self._cases(cohort, lesson))
        old, new = (self._serving(cohort, cases) for cases in (before, after))
        code = lesson.disease.code
        accuracy_before, _ = self._left_out(cohort, old, code)
        accuracy_after, suspects = self._left_out(cohort, new, code)
        return Preview(
            cases_before=sum(case.code == code for case in old.cases),
            cases_after=sum(case.code == code for case in new.cases),
            accuracy_before=accuracy_before,
            accuracy_after=accuracy_after,
            suspects=suspects,
            near_duplicates=_near_duplicates(cohort, lesson, before),
            changes=self._changes(cohort, old, new, [study for study in reviewed if study in cohort.place]),
        )

    def cases(self, lesson: Lesson) -> list[SupportCase]:
        """Return the cases of a lesson as the support set keeps them.

        Raises
        ------
        MetaDxError
            ``unknown_case`` when a study is not in use.
        """
        return self._cases(self._cohort(), lesson)

    def answer(self) -> None:
        """Answer the open cases by the support set in force, unless that has been done, or the model is off.

        Raises
        ------
        MetaDxError
            ``no_support_set``, or from :func:`~meta_dx.steps.predictions.serving_of`.
        """
        if model_mode(self._records) != "off":
            self._answer_anew(self._cohort(), self._current())

    def _answer_anew(self, cohort: _Cohort, version: SupportSetVersion) -> None:
        data, serving = cohort.data, self._serving(cohort, version.cases)
        taken = {case.study for case in version.cases}
        for batch, waiting in cohort.queries.items():
            queries = waiting.take(~np.isin(waiting.study, sorted(taken)))
            run = run_of(
                self._project, data, serving, version.version, cohort.predictor.bundle, queries, batch
            )
            if len(queries) and not is_newest(self._records, run):
                save_prediction_run(
                    self._records, run, self._answers(cohort, serving, queries, version.cases)
                )

    def _answers(
        self, cohort: _Cohort, serving: Serving, queries: Examples, cases: Sequence[SupportCase]
    ) -> list[PredictedStudy]:
        known = confirmed_patients(cohort.data, cases)
        support, query_x = cohort.cases(serving), cohort.vectors(queries.study.tolist())
        return answered(self._project, cohort.predictor, serving, support, query_x, queries, known)

    def _cohort(self) -> _Cohort:
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

    def _current(self) -> SupportSetVersion:
        version = SupportSets(self._records).current()
        if version is None:
            raise MetaDxError(
                "no_support_set", "There is no support set yet: 'make run' makes the first one."
            )
        return version

    def _serving(self, cohort: _Cohort, cases: Sequence[SupportCase]) -> Serving:
        return serving_of(self._project, cohort.data, cases)

    def _cases(self, cohort: _Cohort, lesson: Lesson) -> list[SupportCase]:
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
        self, cohort: _Cohort, serving: Serving, studies: Sequence[str], without: str = ""
    ) -> npt.NDArray[np.float64]:
        """Return the probabilities (n, N) of studies, resting on all cases but those of one patient."""
        cases = [case for case in serving.cases if case.patient != without]
        labels = np.array([serving.codes.index(case.code) for case in cases], dtype=np.int64)
        predictor = cohort.predictor
        state = predictor.adapt(cohort.vectors([case.study for case in cases]), labels, len(serving.codes))
        prior = class_prior(serving.codes, [case.code for case in cases], self._project.settings.serve)
        return predictor.predict(state, cohort.vectors(studies), prior, serving.codes)

    def _left_out(
        self, cohort: _Cohort, serving: Serving, code: str
    ) -> tuple[float | None, tuple[Suspect, ...]]:
        own = [case for case in serving.cases if case.code == code]
        if len({case.patient for case in own}) < 2:
            return None, ()
        right, suspects = 0, []
        for case in own:
            found = self._probabilities(cohort, serving, [case.study], case.patient)[0]
            best = int(found.argmax())
            right += serving.codes[best] == code
            if serving.codes[best] != code and found[best] >= _SUSPECT:
                suspects.append(Suspect(case.study, serving.codes[best], float(found[best])))
        return right / len(own), tuple(sorted(suspects, key=lambda one: -one.probability))

    def _changes(
        self, cohort: _Cohort, old: Serving, new: Serving, studies: Sequence[str]
    ) -> tuple[Change, ...]:
        if not studies:
            return ()
        before, after = (
            [serving.codes[k] for k in self._probabilities(cohort, serving, studies).argmax(-1)]
            for serving in (old, new)
        )
        return tuple(Change(s, b, a) for s, b, a in zip(studies, before, after, strict=True) if b != a)


def _embedded(project: Project, made: Bundle, data: CohortData) -> _Cohort:
    predictor = Predictor(made, device=project.settings.cohort.device)
    rows = {str(study): group["row"].to_numpy(np.int64) for study, group in data.store.index.groupby("study")}
    embedded = predictor.embed_cases(data.store.images, list(rows.values()), names=picture_names(data.store))
    queries = {batch: data.to_predict(batch) for batch in sorted(set(data.studies["batch"]))}
    return _Cohort(data, predictor, embedded, {study: n for n, study in enumerate(rows)}, queries)


def _with(before: Sequence[SupportCase], more: Sequence[SupportCase]) -> list[SupportCase]:
    from meta_dx.records.support_case import refuse_second_disease

    held = {case.study: case for case in before}
    for case in more:
        refuse_second_disease(case, held.get(case.study))
        held[case.study] = case
    return list(held.values())


def _near_duplicates(
    cohort: _Cohort, lesson: Lesson, before: Sequence[SupportCase]
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
