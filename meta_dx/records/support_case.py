"""What a support set is made of: confirmed cases and versions, as plain values without a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from meta_dx.errors import MetaDxError

Origin = Literal["table", "person"]


@dataclass(frozen=True)
class SupportCase:
    """One confirmed case: this study shows this disease.

    Parameters
    ----------
    code : str
        The disease.
    scheme : str
        Coding scheme of the code (``"SCT"``); may be empty.
    meaning : str
        Name of the disease for people; may be empty.
    study : str
        Surrogate UID of the study.
    patient : str
        Surrogate of the patient.
    confirmed_by : str, optional
        Who confirmed the diagnosis.
    confirmed_on : str, optional
        When, as an ISO date.
    basis : str, optional
        On what grounds (histology, follow-up, report, reader).
    origin : {"person", "table"}
        Whose word it is; set by the method of :class:`SupportSets` that brings it in.
    """

    code: str
    scheme: str
    meaning: str
    study: str
    patient: str
    confirmed_by: str | None = None
    confirmed_on: str | None = None
    basis: str | None = None
    origin: Origin = "person"


@dataclass(frozen=True)
class SupportSetSummary:
    """One version of the support set without its cases.

    Parameters
    ----------
    version : int
        1, 2, 3 …
    created_at : str
        ISO 8601, UTC.
    author, reason : str
        Who made it and why.
    fingerprint : str
        Hash of all cases: equal content, equal fingerprint.
    disease_count, case_count : int
        How much it holds.
    """

    version: int
    created_at: str
    author: str
    reason: str
    fingerprint: str
    disease_count: int
    case_count: int


@dataclass(frozen=True)
class SupportSetVersion:
    """One immutable version of the support set.

    Parameters
    ----------
    version : int
        1, 2, 3 …
    created_at : str
        ISO 8601, UTC.
    author, reason : str
        Who made it and why.
    fingerprint : str
        Hash of all cases: equal content, equal fingerprint.
    cases : tuple of SupportCase
        Sorted by code, then study; a study occurs once.
    """

    version: int
    created_at: str
    author: str
    reason: str
    fingerprint: str
    cases: tuple[SupportCase, ...]

    @property
    def diseases(self) -> dict[str, str]:
        """Meaning of each disease, by sorted code; where the cases disagree, the wording most of them use."""
        meanings: dict[str, Counter[str]] = {}
        for case in self.cases:
            meanings.setdefault(case.code, Counter())[case.meaning] += 1
        return {code: min(found, key=lambda word: (-found[word], word)) for code, found in meanings.items()}

    def cases_of(self, code: str) -> tuple[SupportCase, ...]:
        """Return the cases of one disease, sorted by study; empty when the set does not hold it."""
        return tuple(case for case in self.cases if case.code == code)


def checked(cases: Iterable[SupportCase], origin: Origin) -> list[SupportCase]:
    """Refuse incomplete cases and studies with two diseases; of equal rows the first one counts."""
    first: dict[str, SupportCase] = {}
    for case in cases:
        check(case)
        refuse_second_disease(case, first.get(case.study))
        first.setdefault(case.study, replace(case, origin=origin))
    return list(first.values())


def check(case: SupportCase) -> None:
    """Refuse a case without a disease, a study or a patient."""
    missing = [name for name in ("code", "study", "patient") if not getattr(case, name)]
    if missing:
        raise MetaDxError(
            "support_case_incomplete",
            f"The support case of study '{case.study}' and disease '{case.code}' has no "
            f"{' and no '.join(missing)}: give it.",
        )


def refuse_second_disease(case: SupportCase, other: SupportCase | None) -> None:
    """Refuse a case whose study stands for another disease already."""
    if other is not None and other.code != case.code:
        raise MetaDxError(
            "study_in_two_diseases",
            f"A study stands for disease {other.code} already and cannot stand for {case.code} in the same support "
            f"set (its surrogate is {case.study}): correct its disease, or remove it first.",
        )
