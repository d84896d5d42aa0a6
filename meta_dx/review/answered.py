"""Cases as the model answers them and as readers agree with it, by patient and week.

Several answers about one patient are no independent evidence: intervals go by how many independent ones they are worth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from meta_dx.metrics.intervals import effective_number
from meta_dx.review.dashboard import ReadCase, Share, week_of

FEWEST_TO_COMPARE = 20
"""Patients below which nothing is told of them: on each side of a comparison, and in a week."""
C = TypeVar("C", "AnsweredCase", "AgreedCase")


@dataclass(frozen=True)
class AnsweredCase:
    """A case as the model in force answers it.

    Parameters
    ----------
    week : str
        ISO week in which it came in.
    top : str
        Its most probable disease.
    epistemic, aleatoric : float, optional
        Nats.
    patient : str
        Whose it is; empty where that is not known.
    """

    week: str
    top: str
    epistemic: float | None = None
    aleatoric: float | None = None
    patient: str = ""


@dataclass(frozen=True)
class AgreedCase:
    """A case that was read blind: in which week, whether that names the model's first disease, and whose it is."""

    week: str
    same: bool
    patient: str = ""


@dataclass(frozen=True)
class Week:
    """What the model in force answers to the cases of one week; a mean with the ends of its 95 % interval."""

    name: str
    cases: int
    epistemic: tuple[float, float, float] | None
    aleatoric: tuple[float, float, float] | None
    top: str
    share: Share


def agreements(read: Sequence[ReadCase]) -> list[AgreedCase]:
    """Return the first blind read of each case.

    One read a case: what is hard for the first reader is so for the second, and both together count as one.

    Parameters
    ----------
    read : sequence of ReadCase
        In order of time. Reads that named nothing, or without an answer of the model, do not count.

    Returns
    -------
    list of AgreedCase
    """
    first: dict[str, ReadCase] = {}
    for case in read:
        if case.answer and case.blind is not None:
            first.setdefault(case.study, case)
    return [AgreedCase(week_of(case.day), case.blind == case.top, case.patient) for case in first.values()]


def newest_weeks(cases: Sequence[C]) -> tuple[list[C], list[C]]:
    """Part the newest weeks that hold enough patients together from the weeks before."""
    patients: dict[str, set[str]] = {}
    for one, whose in zip(cases, patients_of(cases), strict=True):
        patients.setdefault(one.week, set()).add(whose)
    newest, held = set[str](), set[str]()
    for week in sorted(patients, reverse=True):
        if len(held) >= FEWEST_TO_COMPARE:
            break
        newest.add(week)
        held |= patients[week]
    return [one for one in cases if one.week in newest], [one for one in cases if one.week not in newest]


def patients_of(cases: Sequence[AnsweredCase | AgreedCase]) -> list[str]:
    """Return whose each case is; a case of nobody known stands for somebody of its own."""
    return [one.patient or f"case {number}" for number, one in enumerate(cases)]


def weeks(answered: Sequence[AnsweredCase]) -> tuple[Week, ...]:
    """Return the weeks with enough patients, oldest first."""
    found = []
    for name in sorted({one.week for one in answered}):
        part = [one for one in answered if one.week == name]
        whose = patients_of(part)
        if len(set(whose)) < FEWEST_TO_COMPARE:
            continue
        top, count = min(Counter(one.top for one in part).items(), key=lambda pair: (-pair[1], pair[0]))
        share = Share(
            count, len(part), len(set(whose)), effective_number([one.top == top for one in part], whose)
        )
        found.append(Week(name, len(part), _mean(part, "epistemic"), _mean(part, "aleatoric"), top, share))
    return tuple(found)


def _mean(cases: Sequence[AnsweredCase], kind: str) -> tuple[float, float, float] | None:
    """Return a mean with Student's interval; None of fewer than two."""
    from scipy.stats import t

    held = [one for one in cases if getattr(one, kind) is not None]
    if len(held) < 2:
        return None
    values = np.array([getattr(one, kind) for one in held], np.float64)
    n = max(effective_number(values, patients_of(held)), 2.0)
    mean, half = float(values.mean()), float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return mean, max(mean - half, 0.0), mean + half
