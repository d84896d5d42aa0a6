"""Invents the patients of the demo cohort: identifiers, names, sex and dates of birth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

_HEADS = (
    "Al",
    "Ber",
    "Cor",
    "Dan",
    "El",
    "Fen",
    "Gal",
    "Hol",
    "Im",
    "Jor",
    "Kal",
    "Lor",
    "Mar",
    "Nol",
    "Or",
    "Per",
)
_MIDS = ("ba", "de", "fi", "ga", "le", "mi", "no", "ra", "si", "to", "vu", "we")
_TAILS = ("dt", "ck", "li", "mann", "n", "nen", "r", "rez", "s", "sen", "ski", "tti")


@dataclass(frozen=True)
class Person:
    """A patient as the registration desk knows them; ``sex`` is ``"M"``, ``"F"``, ``"O"`` or ``""``."""

    id: str
    name: str
    sex: str
    birth: date


def invent_people(rng: np.random.Generator, count: int) -> list[Person]:
    """Invent distinct patients; nothing about them depends on their place in the list."""
    numbers = rng.choice(9 * 10**6, size=count, replace=False) + 10**6
    return [
        Person(
            id=f"{number:07d}",
            name=f"{_word(rng)}{_TAILS[rng.integers(len(_TAILS))]}^{_word(rng)}",
            sex=str(rng.choice(["F", "M", "O", ""], p=[0.5, 0.47, 0.01, 0.02])),
            birth=date(1935, 1, 1) + timedelta(days=int(rng.integers(80 * 365))),
        )
        for number in numbers.tolist()
    ]


def _word(rng: np.random.Generator) -> str:
    return _HEADS[rng.integers(len(_HEADS))] + _MIDS[rng.integers(len(_MIDS))]
