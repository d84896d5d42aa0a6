"""Everything that the review pages work with: records, pictures, the names of diseases, and what the model has said."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from random import Random, SystemRandom

from sqlalchemy.orm import Session

from meta_dx.cohort.catalog import Catalog
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.accounts import Account, Accounts
from meta_dx.records.audit import AuditLine, AuditTrail, AuditVerdict, Write
from meta_dx.records.case_times import arrivals, first_shown, patients, spans
from meta_dx.records.cases import Cases
from meta_dx.records.database import Records
from meta_dx.records.lengths import Lengths
from meta_dx.records.opinions import Decision, Diagnosis, Opinion, Shown
from meta_dx.records.predictions import (
    PredictedStudy,
    latest_predictions,
    prediction_of,
    ranked,
    run_answers,
    unseen_answers,
)
from meta_dx.records.schema import now
from meta_dx.records.support import SupportSets
from meta_dx.records.support_case import SupportCase
from meta_dx.records.switch import ModelMode, model_mode, set_model_mode
from meta_dx.records.vault import Vault
from meta_dx.records.worklist import Worklist
from meta_dx.review.answered import AnsweredCase, agreements
from meta_dx.review.dashboard import Dashboard, ReadCase, dashboard, read_cases, week_of, with_unseen
from meta_dx.review.drift import Drift, Inputs, drift
from meta_dx.review.images import CaseImages
from meta_dx.review.insight import Insight
from meta_dx.review.options import ReviewOptions
from meta_dx.review.report_archive import ReportArchive
from meta_dx.review.teaching import Lesson, Teacher, confirmed

_MOST_QUEUED = 500
_WEIGHT, _QUARTER = 3, 4  # of a case among the most uncertain quarter, when cases are drawn to be read first
_RECENT = 400  # newest cases that are looked at for drift
_REFERENCE = ("pathology", "follow-up")  # grounds beside what readers say


_QUICK_SECONDS = 0.25  # in which a trail may be checked with every look at it


@dataclass(frozen=True)
class Answer:
    """What the model has said about a case, and on what it rests.

    Parameters
    ----------
    shown : Shown
        Its lineage.
    answer : PredictedStudy
        Probabilities, uncertainty, evidence.
    cases : mapping of str to SupportCase
        The confirmed cases of that support set, by study.
    """

    shown: Shown
    answer: PredictedStudy
    cases: Mapping[str, SupportCase]


class Desk:
    """The review of one home.

    Parameters
    ----------
    home : Home
        The home.
    options : ReviewOptions
        How cases are reviewed.
    teacher : Teacher, optional
        Makes confirmed cases answer for others; without one nothing can be taught.
    archive : ReportArchive, optional
        Where reports can be stored.
    insight : Insight, optional
        Looks into the model; without one nothing is shown of it beyond its answers.
    """

    def __init__(
        self,
        home: Home,
        options: ReviewOptions | None = None,
        teacher: Teacher | None = None,
        archive: ReportArchive | None = None,
        insight: Insight | None = None,
    ) -> None:
        self.home, self.options, self._teacher = home, options or ReviewOptions(), teacher
        self.archive, self.insight = archive, insight
        self.records = Records.open(home)
        self.trail = AuditTrail(self.records, home)
        self.accounts = Accounts(self.records, self.trail)
        self.cases = Cases(self.records, self.trail, self.options.readers)
        self.worklist = Worklist(self.records)
        self.lengths = Lengths(self.records)
        self.images = CaseImages(home, self.options.cache_mb << 20)
        self._checked: tuple[AuditVerdict, str] | None = None
        self._checking, self._quickly = threading.Lock(), True

    @property
    def mode(self) -> ModelMode:
        """Whether the model's answers are shown (on), made and shown to nobody (shadow), or not made (off)."""
        return model_mode(self.records)

    def switch(self, account: Account, mode: str) -> None:
        """Show the model's answers, keep them from everybody, or have none made.

        Raises
        ------
        MetaDxError
            ``not_allowed`` or ``bad_mode``.
        """
        if not account.may("lead"):
            raise MetaDxError("not_allowed", "Only a lead may switch the model.")

        def work(session: Session, write: Write) -> None:
            set_model_mode(session, mode)
            write(AuditLine(account.name, "switch_model", details={"mode": mode}))

        self.trail.write(work)

    def verdict(self, *, again: bool = False) -> tuple[AuditVerdict, str]:
        """Return whether the audit trail is whole, and when that was found out (ISO 8601, UTC).

        Parameters
        ----------
        again : bool
            Find it out now, however long that takes: of a long trail, seconds in which everybody waits longer for
            their pages, so otherwise what this process has found out before stands.
        """
        asked_at = now()
        with self._checking:
            # Whoever has waited for somebody else's check takes what that found.
            if self._checked is None or ((again or self._quickly) and self._checked[1] < asked_at):
                began, begun_at = time.monotonic(), now()
                self._checked = self.trail.verify(), begun_at
                self._quickly = time.monotonic() - began < _QUICK_SECONDS
            return self._checked

    def catch_up(self) -> None:
        """Have the cases answered that waited while the model was off, or that a dead process has left."""
        if self._teacher is not None:
            self._teacher.warm()

    def answer(self, study: str) -> Answer | None:
        """Return what the model has said about a case; None where it was not asked, or may not be shown.

        Only for readers whose own opinion stands.
        """
        if self.mode != "on":
            return None
        saved = prediction_of(self.records, study)
        if saved is None:
            return None
        version = SupportSets(self.records).get(saved.run.support_version)
        shown = Shown(saved.id, saved.run.bundle, saved.run.support_version)
        return Answer(shown, saved.studies[0], {case.study: case for case in version.cases})

    def queue(self, account: Account, count: int) -> int:
        """Put cases first, drawn so that the most uncertain ones are more likely to be among them (:func:`drawn`).

        Parameters
        ----------
        account : Account
            A lead.
        count : int
            How many cases; at most half of those that nobody has opened are drawn.

        Returns
        -------
        int
            How many were put first.

        Raises
        ------
        MetaDxError
            ``bad_count``, or as :meth:`meta_dx.records.cases.Cases.put_first`.
        """
        if not 2 <= count <= _MOST_QUEUED:
            raise MetaDxError("bad_count", f"Queue from 2 to {_MOST_QUEUED} cases at once.")
        runs = [] if self.mode == "off" else latest_predictions(self.records)
        doubt = {study.study: study.entropy for run in runs for study in run.studies}
        return self.cases.put_first(account, lambda waiting: drawn(waiting, doubt, count, SystemRandom()))

    def dashboard(self) -> Dashboard:
        """Return what a lead wants to know."""
        said = self.cases.everything()
        # The last adjudication of a case, where it names a disease and was made without knowing the model's answer.
        last = {one.study: one for one in said if one.kind == "adjudication"}
        references = {
            study: one.content.outcome
            for study, one in last.items()
            if isinstance(one.content, Decision) and one.content.diagnosis is not None and one.run is None
        }
        current = SupportSets(self.records).current()
        for case in current.cases if current else ():
            if (case.basis or "").startswith(_REFERENCE):
                references[case.study] = case.code
        return dashboard(self._read_cases(said), references, spans(self.records))

    def drift(self) -> Drift:
        """Return what has changed in what comes in, in what the model answers and in how readers agree with it.

        What the model answers counts only for cases that are done.
        """
        arrived = arrivals(self.records)
        asked = self.insight if self.mode != "off" else None
        inputs = asked.inputs(list(arrived)[:_RECENT]) if asked is not None else Inputs()
        # A lead reads too: no figure may tell what the model says about a case that somebody has yet to read blind.
        done = self.cases.done()
        answers = [one for run in latest_predictions(self.records) for one in run.studies]
        whose = patients(self.records)
        answered = [
            AnsweredCase(
                week_of(arrived[one.study]),
                ranked(one.probabilities)[0][0],
                one.epistemic,
                one.aleatoric,
                whose[one.study],
            )
            for one in answers
            if one.study in arrived and one.study in done
        ]
        return drift(inputs, answered, agreements(self._read_cases(self.cases.everything())))

    def _read_cases(self, said: Sequence[Opinion]) -> list[ReadCase]:
        answers = run_answers(self.records, {one.run for one in said if one.run is not None})
        done, told = self.cases.done(), read_cases(said, answers, patients(self.records))
        read = [case if case.study in done else replace(case, answer={}, beside={}) for case in told]
        unseen = {case.study for case in read if not case.answer and case.study in done}
        return with_unseen(read, unseen_answers(self.records, unseen)) if unseen else read

    def diseases(self, also: Iterable[Diagnosis] = ()) -> list[Diagnosis]:
        """Return the diseases that readers may choose from, sorted by name: those of the table and the support set.

        They do not depend on any prediction.

        Parameters
        ----------
        also : iterable of Diagnosis
            Others, which stand behind: of a code that is known the known name counts.
        """
        found: dict[str, Diagnosis] = {}
        table = Catalog(self.home).diagnoses()
        for code, scheme, meaning in table[["code", "scheme", "meaning"]].itertuples(index=False, name=None):
            known = found.get(code)
            if known is None or not known.meaning:
                found[code] = Diagnosis(str(code), _text(scheme), _text(meaning))
        current = SupportSets(self.records).current()
        for case in current.cases if current else ():
            found.setdefault(case.code, Diagnosis(case.code, case.scheme, case.meaning))
        for disease in also:
            found.setdefault(disease.code, disease)
        return sorted(found.values(), key=lambda disease: (disease.meaning or disease.code, disease.code))

    def decided_diseases(self) -> list[Diagnosis]:
        """Return the diseases as :meth:`diseases`, with those that decisions about cases that are done have named.

        Of several names of one of these, the newest counts: the others may be how it was misspelt. They may depend on
        predictions: only for those who may see what done cases came to.
        """
        done = self.cases.done()
        said = (one.content for one in reversed(self.cases.everything()) if one.study in done)
        return self.diseases(one.diagnosis for one in said if isinstance(one, Decision) and one.diagnosis)

    @property
    def teacher(self) -> Teacher:
        """Who makes confirmed cases answer for others.

        Raises
        ------
        MetaDxError
            ``no_teacher`` before there is a bundle.
        """
        if self._teacher is None:
            raise MetaDxError(
                "no_teacher", "There is no model yet that could be taught: 'make run' makes the first one."
            )
        return self._teacher

    def lesson(self, disease: Diagnosis, studies: Sequence[str], basis: str) -> Lesson:
        """Check the grounds of every case that is to become support.

        Raises
        ------
        MetaDxError
            ``nothing_chosen``, ``not_reviewed``, ``not_fit``, or from :func:`~meta_dx.review.teaching.confirmed`.
        """
        if not studies:
            raise MetaDxError("nothing_chosen", "Choose at least one case.")
        done = self.cases.decided()
        if any(study not in done for study in studies):
            raise MetaDxError(
                "not_reviewed", "Only cases that have been read and decided can become support."
            )
        if any(done[study] == "bad_image" for study in studies):
            raise MetaDxError(
                "not_fit",
                "A case whose images readers have called not fit for reading cannot become support.",
            )
        cases = [
            confirmed(study, disease, basis, self.cases.opinions(study), first_shown(self.records, study))
            for study in dict.fromkeys(studies)
        ]
        return Lesson(disease, tuple(cases))

    def teach(self, account: Account, lesson: Lesson, upon: int | None = None) -> int:
        """Make cases support, answer open cases anew, and write it down; return the support set's version.

        Raises
        ------
        MetaDxError
            ``not_allowed``, ``support_changed`` where the support set in force is not version ``upon``, or from the
            teacher.
        """
        if not account.may("teach"):
            raise MetaDxError("not_allowed", "You have no right to confirm cases.")
        cases, code = self.teacher.cases(lesson, account.name), lesson.disease.code
        reason = f"confirmed in review: {len(cases)} case(s) of {code}"

        # One transaction: no version without its lines, no line without its version, whenever the process dies.
        def work(session: Session, write: Write) -> int:
            made = SupportSets(self.records).add(cases, account.name, reason, session, upon).version
            for case in lesson.cases:
                details = {"code": code, "basis": case.basis}
                write(AuditLine(account.name, "teach", case.study, support_version=made, details=details))
            return made

        version = self.trail.write(work)
        self.teacher.answer()
        return version

    def identity(self, account: Account, study: str) -> dict[str, str]:
        """Return who a case belongs to; it is written down that somebody asked.

        Returns
        -------
        dict of str to str
            ``patient_id``, ``study_instance_uid``.

        Raises
        ------
        MetaDxError
            ``not_allowed`` or ``unknown_case``.
        """
        if not account.may("identity"):
            raise MetaDxError("not_allowed", "You have no right to see identities.")
        case = self.cases.get(study)
        self.trail.add(AuditLine(account.name, "show_identity", study))
        with closing(Vault.open(self.home)) as vault:
            patient = vault.originals("patient", [case.patient])
            original = vault.originals("study", [study])
        return {
            "patient_id": patient.get(case.patient, "unknown"),
            "study_instance_uid": original.get(study, "unknown"),
        }


def drawn(waiting: Sequence[str], doubt: Mapping[str, float], count: int, random: Random) -> list[str]:
    """Draw cases, those of the most uncertain quarter with three times the weight of the others.

    Whether a case is drawn changes the odds that it is among the most uncertain by a factor of at most 3 in either
    direction, as at most half are drawn: every case may be among them, and every case may be left out.

    Parameters
    ----------
    waiting : sequence of str
        Cases.
    doubt : mapping of str to float
        Entropy of the answer, by case; 0 where there is none.
    count : int
        How many.
    random : Random
        Where chance comes from.

    Returns
    -------
    list of str
    """
    mixed = random.sample(waiting, len(waiting))  # no order of equal ones
    ranked = sorted(mixed, key=lambda study: -doubt.get(study, 0.0))
    uncertain = set(ranked[: math.ceil(len(ranked) / _QUARTER)])
    # The first to ring of exponential clocks: a weighted draw without replacement.
    rings = {study: random.expovariate(_WEIGHT if study in uncertain else 1) for study in ranked}
    return sorted(rings, key=lambda study: rings[study])[: min(count, len(ranked) // 2)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
