"""From reviewed cases to confirmed ones: which may become support, and what that would change.

A case becomes support only with evidence beside the model: pathology, follow-up, an adjudication, or a blind first
read that agrees. Otherwise a model would be taught by readers whom it has persuaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis, Opinion
from meta_dx.records.support_case import SupportCase

Basis = Literal["pathology", "follow-up", "adjudication", "blind read"]
BASES: tuple[Basis, ...] = get_args(Basis)
AFTER_REVEAL = "label first given after the model was shown"


@dataclass(frozen=True)
class ConfirmedCase:
    """A case that is to become support.

    Parameters
    ----------
    study : str
        Surrogate UID.
    basis : str
        On what grounds, as the support set keeps it.
    """

    study: str
    basis: str


@dataclass(frozen=True)
class Lesson:
    """Cases of one disease that are to become support.

    Parameters
    ----------
    disease : Diagnosis
        The disease; a new one needs a name.
    cases : tuple of ConfirmedCase
        One or more.
    """

    disease: Diagnosis
    cases: tuple[ConfirmedCase, ...]


@dataclass(frozen=True)
class Suspect:
    """A case of the disease that the others would call something else."""

    study: str
    called: str
    probability: float


@dataclass(frozen=True)
class Change:
    """A reviewed case whose most probable disease would change."""

    study: str
    before: str
    after: str


@dataclass(frozen=True)
class Preview:
    """What a lesson would do.

    Parameters
    ----------
    cases_before, cases_after : int
        Confirmed patients of the disease that answers rest on.
    used : int
        How many of the lesson's cases are among them: where a disease has more than answers can rest on, some are not.
    accuracy_before, accuracy_after : float, optional
        Leave-one-patient-out accuracy on the disease's own cases; None with fewer than two patients.
    suspects : tuple of Suspect
        Cases of the disease, all of the lesson's among them, that the other cases would call something else.
    near_duplicates : tuple of (str, str)
        Pairs of a new case and a confirmed one that share nearly the same picture or patient.
    changes : tuple of Change
        Reviewed cases whose answer would change.
    """

    cases_before: int
    cases_after: int
    used: int
    accuracy_before: float | None
    accuracy_after: float | None
    suspects: tuple[Suspect, ...]
    near_duplicates: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]


class Teacher(Protocol):
    """Knows what a lesson would change, and answers by it; no training."""

    def warm(self) -> None:
        """Do beforehand what takes long, and what a process that died has left undone, where there is a model."""

    def preview(self, lesson: Lesson, reviewed: Sequence[str]) -> Preview:
        """Tell what a lesson would do, and to which of the reviewed cases."""

    def cases(self, lesson: Lesson, by: str) -> list[SupportCase]:
        """Return the cases of a lesson, confirmed today by somebody, as the support set keeps them."""

    def answer(self) -> None:
        """Answer the open cases by the support set in force, unless that has been done, or the model is off."""


def confirmed(study: str, disease: Diagnosis, basis: str, opinions: Sequence[Opinion]) -> ConfirmedCase:
    """Check the grounds on which a case is said to show a disease.

    Parameters
    ----------
    study : str
        Surrogate UID.
    disease : Diagnosis
        What it is said to show.
    basis : str
        One of :data:`BASES`.
    opinions : sequence of Opinion
        Everything that was said about the case.

    Returns
    -------
    ConfirmedCase
        Its basis says so where nobody had named the disease without the model: neither in a blind read, nor in an
        adjudication by somebody who could not know its answer.

    Raises
    ------
    MetaDxError
        ``bad_basis`` or ``no_evidence``.
    """
    if basis not in BASES:
        raise MetaDxError("bad_basis", f"The grounds of a confirmed case are one of {', '.join(BASES)}.")
    last = {(said.account, said.kind): said.content for said in opinions}
    adjudicated = [
        c.outcome for (_, kind), c in last.items() if kind == "adjudication" and isinstance(c, Decision)
    ]
    decided = [c.outcome for (_, kind), c in last.items() if kind == "decision" and isinstance(c, Decision)]
    blind = [c.first for c in last.values() if isinstance(c, BlindOpinion)]
    held = {
        "adjudication": disease.code in adjudicated,
        "blind read": disease.code in blind and disease.code in (adjudicated or decided),
        "pathology": True,
        "follow-up": True,
    }
    if not held[basis]:
        raise MetaDxError(
            "no_evidence",
            f"Nothing that was said about this case confirms {disease.code} by {basis}: give pathology or follow-up, "
            "or have it adjudicated.",
        )
    unmoved = [
        said.content.outcome
        for said in opinions
        if said.kind == "adjudication" and said.run is None and isinstance(said.content, Decision)
    ]
    late = disease.code not in (*blind, *unmoved)
    return ConfirmedCase(study, f"{basis} ({AFTER_REVEAL})" if late and blind else basis)
