"""From reviewed cases to confirmed ones: which may become support, and what that would change.

A case becomes support only with evidence beside the model: pathology, follow-up, an adjudication, or a blind first
read that agrees. Otherwise a model would be taught by readers whom it has persuaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import BlindOpinion, Diagnosis, Opinion
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


def confirmed(
    study: str, disease: Diagnosis, basis: str, opinions: Sequence[Opinion], shown_at: str | None
) -> ConfirmedCase:
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
    shown_at : str or None
        When a reader was first shown an answer of the model about it; None where nobody was.

    Returns
    -------
    ConfirmedCase
        Its basis says so where nobody had named the disease without the model: neither in a blind read, nor in a
        decision before anybody was shown an answer, nor in an adjudication by somebody who could not know it.

    Raises
    ------
    MetaDxError
        ``bad_basis`` or ``no_evidence``.
    """
    if basis not in BASES:
        raise MetaDxError("bad_basis", f"The grounds of a confirmed case are one of {', '.join(BASES)}.")

    def named(*found: Opinion) -> bool:
        return any(disease.same_as(one) for one in map(_first, found) if one is not None)

    last = {(said.account, said.kind): said for said in opinions}.values()
    adjudicated = [said for said in last if said.kind == "adjudication"]
    decided = adjudicated or [said for said in last if said.kind == "decision"]
    blind = [said for said in last if said.kind == "blind"]
    held = {
        "adjudication": named(*adjudicated),
        "blind read": named(*blind) and named(*decided),
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
        said
        for said in opinions
        if (said.kind == "adjudication" and said.run is None)
        or (said.kind == "decision" and (shown_at is None or said.created_at < shown_at))
    ]
    late = bool(blind) and not named(*blind, *unmoved)
    return ConfirmedCase(study, f"{basis} ({AFTER_REVEAL})" if late else basis)


def _first(said: Opinion) -> Diagnosis | None:
    """Return the disease that an opinion holds for the one that it is."""
    if isinstance(said.content, BlindOpinion):
        return said.content.ranked[0] if said.content.ranked else None
    return said.content.diagnosis
