"""Everything that the review pages work with: records, pictures, the names of diseases, and what the model has said."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from meta_dx.cohort.catalog import Catalog
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.accounts import Account, Accounts
from meta_dx.records.audit import AuditLine, AuditTrail, Write
from meta_dx.records.cases import Cases, Shown
from meta_dx.records.database import Records
from meta_dx.records.opinions import Diagnosis
from meta_dx.records.predictions import PredictedStudy, prediction_of
from meta_dx.records.schema import ReviewStateRow
from meta_dx.records.support import SupportSets
from meta_dx.records.support_case import SupportCase
from meta_dx.records.vault import Vault
from meta_dx.records.worklist import Worklist
from meta_dx.review.images import CaseImages
from meta_dx.review.options import ReviewOptions

ModelMode = Literal["on", "shadow", "off"]
MODES: tuple[ModelMode, ...] = ("on", "shadow", "off")
_SWITCH = "model"


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
    """

    def __init__(self, home: Home, options: ReviewOptions | None = None) -> None:
        self.home, self.options = home, options or ReviewOptions()
        self.records = Records.open(home)
        self.trail = AuditTrail(self.records, home)
        self.accounts = Accounts(self.records, self.trail)
        self.cases = Cases(self.records, self.trail, self.options.readers)
        self.worklist = Worklist(self.records)
        self.images = CaseImages(home, self.options.cache_mb << 20)

    @property
    def mode(self) -> ModelMode:
        """Whether the model's answers are shown (on), made and kept from everybody (shadow), or not asked (off)."""
        with self.records.reading() as session:
            row = session.get(ReviewStateRow, _SWITCH)
        return row.value if row is not None and row.value in MODES else "on"

    def switch(self, account: Account, mode: str) -> None:
        """Show the model's answers, keep them from everybody, or ask it nothing.

        Raises
        ------
        MetaDxError
            ``not_allowed`` or ``bad_mode``.
        """
        if not account.may("lead"):
            raise MetaDxError("not_allowed", "Only a lead may switch the model.")
        if mode not in MODES:
            raise MetaDxError("bad_mode", f"The model is one of {', '.join(MODES)}.")

        def work(session: Session, write: Write) -> None:
            session.merge(ReviewStateRow(name=_SWITCH, value=mode))
            write(AuditLine(account.name, "switch_model", details={"mode": mode}))

        self.trail.write(work)

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

    def diseases(self) -> list[Diagnosis]:
        """Return the diseases that readers may choose from, sorted by name: those of the table and the support set.

        They do not depend on any prediction.
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
        return sorted(found.values(), key=lambda disease: (disease.meaning or disease.code, disease.code))

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


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
