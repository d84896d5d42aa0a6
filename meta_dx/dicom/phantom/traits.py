"""The trait families of the demo cohort, and diseases invented as combinations of their levels.

A disease is *built on* two or three families: all its patients have its level there. In the other families
every patient has a level of their own, so that a learner must find out from a few cases which traits belong
to the disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from meta_dx.errors import MetaDxError

#: Each family with its levels, in the order in which names are built.
FAMILIES: dict[str, tuple[str, ...]] = {
    "texture": ("smooth", "mottled", "striated", "reticular"),
    "contrast": ("dense", "lucent", "haloed", "shadowed"),
    "shape": ("round", "annular", "linear", "stellate"),
    "place": ("apical", "basal", "central", "lateral"),
    "number": ("solitary", "triple", "multiple"),
}
#: Coding scheme designator of the invented diagnoses; ``99`` marks a private scheme (PS3.16, section 8.2).
SCHEME = "99PHANTOM"
FEWEST, MOST = 5, 72

_LEVELS = [(family, level) for family, levels in FAMILIES.items() for level in levels]
_SIZES = [len(levels) for levels in FAMILIES.values()]
_NOUNS = {"solitary": "solitarium", "triple": "triplex", "multiple": "multiplex"}
_CHANCE = 1 / 12  # two diseases may look alike in at most this share of the patients of either
_TWO_FAMILIES = 0.0  # share of the diseases that are built on two families only
_ATTEMPTS, _ORDERS = 20, 200


@dataclass(frozen=True)
class Disease:
    """An invented disease.

    Parameters
    ----------
    code : str
        Code in the scheme ``99PHANTOM``; says nothing about the traits.
    meaning : str
        Readable name made of its levels, such as ``"Mottled annular multiplex"``.
    levels : dict of str to str
        Level of each family that the disease is built on.
    """

    code: str
    meaning: str
    levels: dict[str, str]


def invent_diseases(rng: np.random.Generator, count: int, common: int) -> list[Disease]:
    """Invent diseases of which any two can be told apart.

    Two diseases differ in a family that both are built on, or else a patient of one shows the levels of the
    other by chance in at most one case in twelve. Each level, and each pair of levels, is used about as often by
    the common diseases as by the others: what is learnt from the ones has to be of use for the others.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.
    count : int
        Diseases to invent, 5 to 72.
    common : int
        How many of them, the first ones, will have many patients.

    Returns
    -------
    list of Disease
        The common ones first, otherwise in random order.

    Raises
    ------
    MetaDxError
        ``diseases_out_of_range``.
    """
    if not FEWEST <= count <= MOST:
        raise MetaDxError(
            "diseases_out_of_range",
            f"The demo cohort has {FEWEST} to {MOST} diseases, not {count}: choose a number in that range.",
        )
    drawn = [_combinations(rng, count) for _ in range(_ATTEMPTS)]
    ordered = [_best_order(rng, combos, common) for combos in drawn if len(combos) == count]
    if not ordered:
        raise RuntimeError(f"no set of {count} distinguishable diseases in {_ATTEMPTS} attempts")
    combos = min(ordered, key=lambda pair: pair[0])[1]
    return [Disease(code_of(levels), name_of(levels), levels) for levels in combos]


def code_of(levels: dict[str, str]) -> str:
    """Return the code of a combination of traits, the same in every cohort whatever its seed.

    One digit a family, 0 where the disease is not built on it.
    """
    digits = [FAMILIES[family].index(levels[family]) + 1 if family in levels else 0 for family in FAMILIES]
    return "PX" + "".join(map(str, digits))


def name_of(levels: dict[str, str]) -> str:
    """Return the readable name of a combination of levels."""
    words = [levels[family] for family in FAMILIES if family in levels and family != "number"]
    noun = _NOUNS[levels["number"]] if "number" in levels else "phantosis"
    return " ".join([*words, noun]).capitalize()


def told_apart(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two combinations differ in a shared family, or coincide by chance seldom enough."""
    if any(other[family] != level for family, level in one.items() if family in other):
        return True
    return max(chance_of(one, other), chance_of(other, one)) <= _CHANCE + 1e-9


def chance_of(levels: dict[str, str], given: dict[str, str]) -> float:
    """Return the chance that a patient of the disease ``given`` happens to show ``levels`` as well."""
    chance = 1.0
    for family, level in levels.items():
        chance *= float(given[family] == level) if family in given else 1 / len(FAMILIES[family])
    return chance


def _combinations(rng: np.random.Generator, count: int) -> list[dict[str, str]]:
    """Choose combinations one by one; may fall short of ``count``.

    Each choice leaves as many others open as possible and prefers levels that were used least.
    """
    pool, agree = _pool()
    shows = np.array([[levels.get(f) == level for f, level in _LEVELS] for levels in pool], dtype=np.float64)
    sizes = np.array([len(FAMILIES[family]) for family, _ in _LEVELS], dtype=np.float64)
    pairs = np.array([len(levels) == 2 for levels in pool])
    free, used, chosen = np.ones(len(pool), dtype=bool), np.zeros(len(sizes)), []
    for i in range(count):
        open_to = np.flatnonzero(free & (pairs == (i < round(count * _TWO_FAMILIES))))
        if not len(open_to):
            break
        load = shows[open_to] @ (used * sizes) / shows[open_to].sum(axis=1) / (1 + used.sum())
        left = agree[open_to][:, free].sum(axis=1)
        pick = int(open_to[np.argmin(10 * load - 0.1 * left + rng.random(len(open_to)))])
        chosen.append(pool[pick])
        free &= agree[pick]
        used += shows[pick]
    return chosen


def _best_order(
    rng: np.random.Generator, combos: list[dict[str, str]], common: int
) -> tuple[float, list[dict[str, str]]]:
    """Return the order, of many random ones, whose first ``common`` combinations use the levels most evenly."""
    shows = np.array(
        [[levels.get(f) == level for f, level in _LEVELS] for levels in combos], dtype=np.float64
    )
    pairs = (shows[:, :, None] * shows[:, None, :]).reshape(len(combos), -1)
    best: tuple[float, list[int]] = (np.inf, [])
    for _ in range(_ORDERS):
        order = rng.permutation(len(combos))
        chosen = pairs[order[:common]]
        singles = shows[order[:common]].sum(axis=0)
        uneven = sum(
            float(np.var(part)) for part in np.split(singles, np.cumsum(_SIZES)[:-1].tolist())
        )  # levels of one family among the common diseases
        split = float(((chosen.mean(axis=0) - pairs.mean(axis=0)) ** 2).sum()) * common
        if uneven + split < best[0]:
            best = (uneven + split, order.tolist())
    return best[0], [combos[i] for i in best[1]]


@cache
def _pool() -> tuple[list[dict[str, str]], npt.NDArray[np.bool_]]:
    """Return all combinations of two or three families, and which of them can be told apart."""
    pool = [
        dict(zip(families, levels, strict=True))
        for size in (2, 3)
        for families in combinations(FAMILIES, size)
        for levels in product(*(FAMILIES[family] for family in families))
    ]
    same = np.array([[levels.get(f) == level for f, level in _LEVELS] for levels in pool], dtype=np.float64)
    built = np.array([[f in levels for f in FAMILIES] for levels in pool], dtype=np.float64)
    shared, equal = built @ built.T, same @ same.T  # families of both, and levels that are the same
    log_size = np.log([len(levels) for levels in FAMILIES.values()])
    own = (built * log_size) @ (1 - built).T  # log of how many combinations the other's patients choose from
    chance = np.exp(-np.minimum(own, own.T))
    return pool, (equal < shared) | (chance <= _CHANCE + 1e-9)
