"""Known diagnoses that are hidden on purpose, so that a demonstration can score its predictions.

Input are the labelled examples of the diseases that are offered. The hidden studies are predicted like any
study without a diagnosis; their patients take no part in training, support or evaluation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from meta_dx.cohort.examples import Examples
from meta_dx.errors import MetaDxError


@dataclass(frozen=True)
class InboxOptions:
    """Section ``[inbox]``.

    Parameters
    ----------
    holdout : int
        Hide this many known diagnoses of offered diseases, so that predictions can be scored; 0 hides none.
    """

    holdout: int = 0

    def __post_init__(self) -> None:
        if self.holdout < 0:
            raise MetaDxError("bad_value", f"holdout is {self.holdout}: allowed is a whole number from 0 on.")


def choose_holdout(examples: Examples, count: int, seed: int = 0, *, keep: int = 7) -> frozenset[str]:
    """Choose studies whose diagnosis is hidden, spread over the diseases, whole patient groups at a time.

    The diseases take turns in the order of a hash; each gives the first of its patient groups, in the order
    of a hash, that is not too large and leaves every disease concerned with ``keep`` groups.

    Parameters
    ----------
    examples : Examples
        Labelled examples of the offered diseases.
    count : int
        Studies to hide at most.
    seed : int
        Another seed, another choice; the order of the examples does not matter.
    keep : int
        Patient groups that each disease keeps: shots + 2 keeps it usable.

    Returns
    -------
    frozenset of str
        The hidden studies; fewer than ``count`` when no more can be spared.
    """
    studies: dict[str, list[tuple[str, str]]] = {}  # group → its studies and their codes
    rows = zip(examples.study.tolist(), examples.patient.tolist(), examples.code.tolist(), strict=True)
    for study, patient, code in rows:
        if code:
            studies.setdefault(patient, []).append((study, code))
    left = examples.patients_per_disease()
    waiting = {
        code: _ordered(
            {patient for patient, known in studies.items() if any(c == code for _, c in known)}, seed
        )
        for code in _ordered(set(left), seed)
    }
    hidden: set[str] = set()
    while len(hidden) < count and any(waiting.values()):
        for queue in waiting.values():
            patient = _first_to_spare(queue, studies, left, keep, count - len(hidden))
            if patient is not None:
                known = studies.pop(patient)
                hidden.update(study for study, _ in known)
                for code in {code for _, code in known}:
                    left[code] -= 1
    return frozenset(hidden)


def _ordered(names: set[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/holdout/{name}".encode()).hexdigest())


def _first_to_spare(
    queue: list[str], studies: dict[str, list[tuple[str, str]]], left: dict[str, int], keep: int, room: int
) -> str | None:
    """Take the first patient group that can be hidden off the queue, and drop those before it for good."""
    while queue:
        patient = queue.pop(0)
        known = studies.get(patient, [])
        if 0 < len(known) <= room and all(left[code] > keep for _, code in known):
            return patient
    return None
