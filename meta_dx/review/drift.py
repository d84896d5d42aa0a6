"""Whether what comes in, what the model answers, and how readers agree with it has changed.

Every comparison is of two groups of cases and has an interval. It is called drift only where both groups are large
enough, chance alone would hardly do it (:data:`CHANCE` for all comparisons of a look together, Bonferroni), and it is
large enough to matter (:data:`LARGE`). How often it is called so where nothing has changed is tested by simulation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from meta_dx.review.dashboard import ReadCase, Share, week_of
from meta_dx.review.two_groups import Floats, Stratum, chance, difference, superiority

Kind = Literal["inputs", "network", "answers", "outcome"]
Verdict = Literal["drift", "alike", "too few"]

FEWEST = 20
"""Cases on each side, below which nothing is called drift."""
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
    """

    week: str
    top: str
    epistemic: float | None = None
    aleatoric: float | None = None


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
        Cases of lately, and of before.
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
        """Whether there are enough cases on both sides."""
        return min(self.here, self.before) >= FEWEST

    @property
    def unit(self) -> str:
        """What a hundredth of the value is called: per cent of pairs, or points between two shares."""
        return "%" if self.rest else "points"


@dataclass(frozen=True)
class Week:
    """What the model in force answers to the cases of one week; a mean with the ends of its 95 % interval."""

    name: str
    cases: int
    epistemic: tuple[float, float, float] | None
    aleatoric: tuple[float, float, float] | None
    top: str
    share: Share


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


def drift(inputs: Inputs, answered: Sequence[AnsweredCase], agreed: Sequence[tuple[str, bool]]) -> Drift:
    """Compare.

    Parameters
    ----------
    inputs : Inputs
        What has come in.
    answered : sequence of AnsweredCase
        What the model answers.
    agreed : sequence of (week, agreement)
        From :func:`agreements`.

    Returns
    -------
    Drift
    """
    made = [*_inputs(inputs), *_answers(answered), *_outcome(agreed)]
    level = CHANCE / max(sum(one.enough for one in made), 1)
    judged = tuple((one, _verdict(one, level)) for one in made)
    return Drift(judged, _weeks(answered), _sentence(judged))


def agreements(read: Sequence[ReadCase]) -> list[tuple[str, bool]]:
    """Return of each case the week of its first blind read, and whether that names the model's first disease.

    One read a case: what is hard for the first reader is so for the second, and both together count as one.

    Parameters
    ----------
    read : sequence of ReadCase
        In order of time. Reads that named nothing, or without an answer of the model, do not count.

    Returns
    -------
    list of (str, bool)
    """
    first: dict[str, ReadCase] = {}
    for case in read:
        if case.answer and case.blind is not None:
            first.setdefault(case.study, case)
    return [(week_of(case.day), case.blind == case.top) for case in first.values()]


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
    filled = [(here, before) for here, before in strata if len(here) and len(before)]
    if not filled:
        n, m = (sum(len(stratum[side]) for stratum in strata) for side in (0, 1))
        return Comparison(what, kind, n, m, "", None, None, None, 0.5, 1.0)
    n, m = (sum(len(stratum[side]) for stratum in filled) for side in (0, 1))
    return Comparison(what, kind, n, m, said, *superiority(filled), 0.5, chance(filled, sides))


def _mix(what: str, kind: Kind, here: Mapping[str, int], before: Mapping[str, int]) -> Comparison:
    """Compare how often each name occurs; the one that changed most is told."""
    names = sorted({*here, *before})
    ours, theirs = (np.array([side.get(name, 0) for name in names]) for side in (here, before))
    n, m = int(ours.sum()), int(theirs.sum())
    if not n or not m:
        return Comparison(what, kind, n, m, "", None, None, None, 0.0, 1.0)
    change = ours / n - theirs / m
    most = int(np.abs(change).argmax())
    now, earlier = Share(int(ours[most]), n), Share(int(theirs[most]), m)
    by_chance = 1.0
    if min(n, m) >= FEWEST:
        # Who is of lately is drawn anew, the names of all stay: exact but for the number of draws.
        drawn = np.random.default_rng(0).multivariate_hypergeometric(ours + theirs, n, size=_REDRAWN)
        distance = np.abs(drawn / n - (ours + theirs - drawn) / m).sum(1)
        by_chance = float((1 + (distance >= np.abs(change).sum() - 1e-9).sum()) / (1 + _REDRAWN))
    said = f"{names[most]}: {100 * (now.value or 0):.0f} % now, {100 * (earlier.value or 0):.0f} % before"
    return Comparison(what, kind, n, m, said, *difference(now, earlier), 0.0, by_chance)


def _inputs(inputs: Inputs) -> list[Comparison]:
    found = []
    for what, strata in inputs.measures.items():
        said = "pairs in which the new case has the larger one"
        if what in inputs.outside:
            beyond = inputs.outside[what]
            said += f"; {beyond.right} of {beyond.of} beyond the middle nine tenths of the fingerprint"
        found.append(_larger(what, "inputs", strata, said))
    found += [_mix(what, "inputs", here, before) for what, (here, before) in inputs.kinds.items()]
    if inputs.distances is not None:
        said = "pairs in which the new case lies farther from what the network was trained on than a confirmed one"
        what = "Pictures as the network sees them"
        found.append(_larger(what, "network", [inputs.distances], said, "greater"))
    return found


def _newest(weeks: Sequence[str]) -> set[str]:
    """Return the newest weeks that hold enough cases together."""
    counts, chosen, held = Counter(weeks), set[str](), 0
    for week in sorted(counts, reverse=True):
        if held >= FEWEST:
            break
        chosen.add(week)
        held += counts[week]
    return chosen


def _answers(answered: Sequence[AnsweredCase]) -> list[Comparison]:
    if not answered:
        return []
    newest = _newest([one.week for one in answered])
    now, earlier = ([one for one in answered if (one.week in newest) is side] for side in (True, False))
    if min(len(now), len(earlier)) < FEWEST:  # fewer would tell what the model says about single cases
        return []
    found = []
    for name, what in (
        ("epistemic", "Doubt from few or distant cases"),
        ("aleatoric", "Doubt in the pictures"),
    ):
        sides = [
            np.array([value for one in part if (value := getattr(one, name)) is not None], np.float64)
            for part in (now, earlier)
        ]
        if min(map(len, sides)) >= FEWEST:
            said = "pairs in which the answer to the newer case is in more doubt"
            found.append(_larger(what, "answers", [(sides[0], sides[1])], said))
    tops = [Counter(one.top for one in part) for part in (now, earlier)]
    return [*found, _mix("Diseases that come first", "answers", tops[0], tops[1])]


def _outcome(agreed: Sequence[tuple[str, bool]]) -> list[Comparison]:
    if not agreed:
        return []
    newest = _newest([week for week, _ in agreed])
    sides = [
        Counter("agree" if same else "differ" for week, same in agreed if (week in newest) is side)
        for side in (True, False)
    ]
    return [_mix("Blind reads that agree with the model", "outcome", sides[0], sides[1])]


def _weeks(answered: Sequence[AnsweredCase]) -> tuple[Week, ...]:
    found = []
    for name in sorted({one.week for one in answered}):
        part = [one for one in answered if one.week == name]
        if len(part) < FEWEST:
            continue
        top, count = min(Counter(one.top for one in part).items(), key=lambda pair: (-pair[1], pair[0]))
        doubts = [
            _mean([value for one in part if (value := getattr(one, kind)) is not None])
            for kind in ("epistemic", "aleatoric")
        ]
        found.append(Week(name, len(part), doubts[0], doubts[1], top, Share(count, len(part))))
    return tuple(found)


def _mean(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Return a mean with Student's interval; None of fewer than two."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    mean, half = float(np.mean(values)), float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1))
    half /= math.sqrt(len(values))
    return mean, max(mean - half, 0.0), mean + half


def _sentence(judged: Sequence[tuple[Comparison, Verdict]]) -> str:
    changed = {one.kind for one, verdict in judged if verdict == "drift"}
    compared = [one for one, verdict in judged if verdict != "too few"]
    if not compared:
        return f"Too few cases to tell: a comparison takes {FEWEST} on each side."
    if not changed:
        return f"Nothing has changed beyond chance in {len(compared)} comparison(s): nothing to do."
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
