"""Whether what comes in, what the model answers, and how readers agree with it has changed.

Every comparison is of two groups of cases and has an interval. It is called drift only where both groups are large
enough, chance alone would hardly do it (:data:`CHANCE` for all comparisons of a look together, Bonferroni), and it is
large enough to matter (:data:`LARGE`). How often it is called so where nothing has changed is tested by simulation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from meta_dx.metrics.intervals import effective_number
from meta_dx.review.answered import (
    FEWEST_TO_COMPARE,
    AgreedCase,
    AnsweredCase,
    Week,
    newest_weeks,
    patients_of,
    weeks,
)
from meta_dx.review.dashboard import Share
from meta_dx.review.two_groups import (
    Floats,
    Stratum,
    chance,
    design_effect,
    difference,
    superiority,
    widening,
)

Kind = Literal["inputs", "network", "answers", "outcome"]
Verdict = Literal["drift", "alike", "too few"]

CHANCE = 0.01
"""How often a look at all comparisons may call something drift where nothing has changed."""
LARGE = 0.1
"""Least difference that matters: of a share, or of the share of pairs from a half."""
_REDRAWN = 20_000


@dataclass(frozen=True)
class Inputs:
    """What has come in lately, beside what the model knows.

    Parameters
    ----------
    measures : mapping of str to sequence of (ndarray, ndarray)
        By what is measured: in each modality the values of lately and of before, one a patient.
    kinds : mapping of str to (mapping, mapping)
        By what is named (manufacturer …): how many cases of each name, lately and before.
    distances : (ndarray, ndarray), optional
        From each case to the nearest study that the model was trained on, as the network sees them: of what has come in
        lately, and of confirmed cases of the diseases that answers choose between.
    outside : mapping of str to Share
        By what is measured: how many of lately lie outside of the middle nine tenths in the fingerprint of the cohort.
    """

    measures: Mapping[str, Sequence[Stratum]] = field(default_factory=dict)
    kinds: Mapping[str, tuple[Mapping[str, int], Mapping[str, int]]] = field(default_factory=dict)
    distances: tuple[Floats, Floats] | None = None
    outside: Mapping[str, Share] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Two groups of cases held against each other.

    Parameters
    ----------
    what : str
        What was compared.
    kind : {"inputs", "network", "answers", "outcome"}
        Where in the flow.
    here, before : int
        Patients of lately, and of before.
    said : str
        The difference in words.
    value, low, high : float, optional
        Its size with its 95 % interval; None of nothing. A share of pairs, or the difference of two shares.
    rest : float
        The value if nothing has changed: a half of the pairs, or no difference.
    chance : float
        How often chance alone does as much.
    """

    what: str
    kind: Kind
    here: int
    before: int
    said: str
    value: float | None
    low: float | None
    high: float | None
    rest: float
    chance: float

    @property
    def enough(self) -> bool:
        """Whether there are enough patients on both sides."""
        return min(self.here, self.before) >= FEWEST_TO_COMPARE

    @property
    def unit(self) -> str:
        """What a hundredth of the value is called: per cent of pairs, or points between two shares."""
        return "%" if self.rest else "points"


@dataclass(frozen=True)
class Drift:
    """What has changed.

    Parameters
    ----------
    comparisons : tuple of (Comparison, {"drift", "alike", "too few"})
        Everything that was compared.
    weeks : tuple of Week
        The answers over time, oldest first.
    sentence : str
        What it means, and what to do.
    """

    comparisons: tuple[tuple[Comparison, Verdict], ...]
    weeks: tuple[Week, ...]
    sentence: str

    @property
    def changed(self) -> bool:
        """Whether anything is called drift."""
        return any(verdict == "drift" for _, verdict in self.comparisons)


def drift(inputs: Inputs, answered: Sequence[AnsweredCase], agreed: Sequence[AgreedCase]) -> Drift:
    """Compare.

    Parameters
    ----------
    inputs : Inputs
        What has come in.
    answered : sequence of AnsweredCase
        What the model answers.
    agreed : sequence of AgreedCase
        From :func:`~meta_dx.review.answered.agreements`.

    Returns
    -------
    Drift
    """
    made = [*_inputs(inputs), *_answers(answered), *_outcome(agreed)]
    level = CHANCE / max(sum(one.enough for one in made), 1)
    judged = tuple((one, _verdict(one, level)) for one in made)
    return Drift(judged, weeks(answered), _sentence(judged))


def _verdict(one: Comparison, level: float) -> Verdict:
    if not one.enough or one.value is None:
        return "too few"
    return "drift" if one.chance < level and abs(one.value - one.rest) >= LARGE else "alike"


def _larger(
    what: str,
    kind: Kind,
    strata: Sequence[Stratum],
    said: str,
    sides: Literal["two-sided", "greater"] = "two-sided",
) -> Comparison:
    """Compare values of one a patient, within strata."""
    filled = [(here, before) for here, before in strata if len(here) and len(before)]
    if not filled:
        n, m = (sum(len(stratum[side]) for stratum in strata) for side in (0, 1))
        return Comparison(what, kind, n, m, "", None, None, None, 0.5, 1.0)
    n, m = (sum(len(stratum[side]) for stratum in filled) for side in (0, 1))
    return Comparison(what, kind, n, m, said, *superiority(filled), 0.5, chance(filled, sides))


def _mix(
    what: str,
    kind: Kind,
    counts: tuple[Mapping[str, int], Mapping[str, int]],
    patients: tuple[int, int] | None = None,
    effects: tuple[float, float] = (1.0, 1.0),
) -> Comparison:
    """Compare how often each name occurs; the one that changed most is told.

    Several names of a patient tell less than as many of others: by the design effects of both sides.
    """
    here, before = counts
    names = sorted({*here, *before})
    ours, theirs = (np.array([side.get(name, 0) for name in names]) for side in counts)
    n, m = int(ours.sum()), int(theirs.sum())
    of = patients or (n, m)
    if not n or not m:
        return Comparison(what, kind, *of, "", None, None, None, 0.0, 1.0)
    change = ours / n - theirs / m
    most = int(np.abs(change).argmax())
    now = Share(int(ours[most]), n, independent=n / effects[0])
    earlier = Share(int(theirs[most]), m, independent=m / effects[1])
    by_chance = 1.0
    if min(of) >= FEWEST_TO_COMPARE:
        # Who is of lately is drawn anew, the names of all stay: exact but for the number of draws, with one a patient.
        drawn = np.random.default_rng(0).multivariate_hypergeometric(ours + theirs, n, size=_REDRAWN)
        distance = np.abs(drawn / n - (ours + theirs - drawn) / m).sum(1) * widening((n, m), effects)
        by_chance = float((1 + (distance >= np.abs(change).sum() - 1e-9).sum()) / (1 + _REDRAWN))
    said = f"{names[most]}: {100 * (now.value or 0):.0f} % now, {100 * (earlier.value or 0):.0f} % before"
    return Comparison(what, kind, *of, said, *difference(now, earlier), 0.0, by_chance)


def _inputs(inputs: Inputs) -> list[Comparison]:
    found = []
    for what, strata in inputs.measures.items():
        said = "pairs in which the new case has the larger one"
        if what in inputs.outside:
            beyond = inputs.outside[what]
            said += f"; {beyond.right} of {beyond.of} beyond the middle nine tenths of the fingerprint"
        found.append(_larger(what, "inputs", strata, said))
    found += [_mix(what, "inputs", counts) for what, counts in inputs.kinds.items()]
    if inputs.distances is not None:
        said = "pairs in which the new case lies farther from what the network was trained on than a confirmed one"
        what = "Pictures as the network sees them"
        found.append(_larger(what, "network", [inputs.distances], said, "greater"))
    return found


def _answers(answered: Sequence[AnsweredCase]) -> list[Comparison]:
    now, before = newest_weeks(answered)
    if min(len(set(patients_of(now))), len(set(patients_of(before)))) < FEWEST_TO_COMPARE:
        return []  # fewer would tell what the model says about single cases
    doubts = (
        _doubt("Doubt that more confirmed cases could settle", now, before, "epistemic"),
        _doubt("Doubt in the pictures", now, before, "aleatoric"),
    )
    tops = [one.top for one in now], [one.top for one in before]
    mix = _mix_of_cases("Diseases that come first", "answers", tops, (patients_of(now), patients_of(before)))
    return [*(one for one in doubts if one is not None), mix]


def _doubt(
    what: str, now: Sequence[AnsweredCase], before: Sequence[AnsweredCase], name: str
) -> Comparison | None:
    """Compare a part of the doubt; None where too few heads told it."""
    sides = [[one for one in side if getattr(one, name) is not None] for side in (now, before)]
    here, there = (patients_of(side) for side in sides)
    if min(len(set(here)), len(set(there))) < FEWEST_TO_COMPARE:
        return None
    x, y = (np.array([getattr(one, name) for one in side], np.float64) for side in sides)
    ordered = np.sort(np.concatenate([x, y]))
    rank_x, rank_y = (
        np.searchsorted(ordered, z, "left") + np.searchsorted(ordered, z, "right") for z in (x, y)
    )
    effects = len(x) / effective_number(rank_x, here), len(y) / effective_number(rank_y, there)
    wider = widening((len(x), len(y)), effects)
    said = "pairs in which the answer to the newer case is in more doubt"
    value = superiority([(x, y)], wider)
    patients = len(set(here)), len(set(there))
    return Comparison(what, "answers", *patients, said, *value, 0.5, chance([(x, y)], wider=wider))


def _outcome(agreed: Sequence[AgreedCase]) -> list[Comparison]:
    if not agreed:
        return []
    now, before = newest_weeks(agreed)
    said = [["agree" if one.same else "differ" for one in side] for side in (now, before)]
    what = "Blind reads that agree with the model"
    return [_mix_of_cases(what, "outcome", (said[0], said[1]), (patients_of(now), patients_of(before)))]


def _mix_of_cases(
    what: str,
    kind: Kind,
    names: tuple[Sequence[str], Sequence[str]],
    patients: tuple[Sequence[str], Sequence[str]],
) -> Comparison:
    """Compare how often each name occurs among cases of which several may be of one patient."""
    (now, before), (here, there) = names, patients
    effects = (design_effect(now, here), design_effect(before, there)) if now and before else (1.0, 1.0)
    return _mix(what, kind, (Counter(now), Counter(before)), (len(set(here)), len(set(there))), effects)


def _sentence(judged: Sequence[tuple[Comparison, Verdict]]) -> str:
    changed = {one.kind for one, verdict in judged if verdict == "drift"}
    compared = [one for one, verdict in judged if verdict != "too few"]
    if not compared:
        return f"Too few patients to tell: a comparison takes {FEWEST_TO_COMPARE} on each side."
    if not changed:
        looks = "one comparison" if len(compared) == 1 else f"{len(compared)} comparisons"
        return f"Nothing has changed beyond chance in {looks}: nothing to do."
    if "inputs" in changed:
        return (
            "The pictures come in otherwise than those that the model was made for, and its answers may not hold: see "
            "what has changed at the scanner or in the export, look at some of them, and set the model to shadow until "
            "you know."
        )
    if "network" in changed:
        return (
            "To the network the new cases look unlike what it was trained on, though nothing is wrong with their grey "
            "values: look for a new kind of case or finding among the most uncertain ones, and confirm some of them."
        )
    if "outcome" in changed:
        return (
            "Readers and model agree otherwise than before, on pictures that look the same: have cases in which they "
            "differ adjudicated, and see who is right."
        )
    return (
        "The model answers otherwise than in the weeks before, to pictures that look the same: see whether other "
        "patients are sent, or whether the last lessons have changed the support set."
    )
