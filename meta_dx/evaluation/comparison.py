"""Compare methods on the same queries: paired differences, a row a disease, the pairs most confused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meta_dx.evaluation.asking import Asked
from meta_dx.evaluation.figures import Ends, Floats, MethodResult, Tally, method_result, outranked
from meta_dx.metrics import classification
from meta_dx.metrics.intervals import wilson


@dataclass(frozen=True)
class Difference:
    """``accuracy of method - accuracy of against``, paired: both answered the same queries."""

    method: str
    against: str
    estimate: float
    ci95: Ends

    @property
    def verdict(self) -> str:
        """``"better"`` or ``"worse"`` when the interval excludes zero, else ``"level"``."""
        low, high = self.ci95
        return "better" if low > 0 else "worse" if high < 0 else "level"


@dataclass(frozen=True)
class DiseaseRow:
    """One disease as the serving head sees it.

    Parameters
    ----------
    code : str
        Disease.
    patients : int
        Patients of the disease that were asked about.
    recall, ci95 : float, (float, float)
        Share of its queries that were recognised; Wilson interval with n = patients.
    auroc : float
        The disease against the others.
    episodes : int
        Episodes or draws in which it took part.
    """

    code: str
    patients: int
    recall: float
    ci95: Ends
    auroc: float
    episodes: int


@dataclass(frozen=True)
class ConfusedPair:
    """How often two diseases are taken for each other when both are possible answers.

    Parameters
    ----------
    one, other : str
        Disease codes; ``one`` is the one more often mistaken.
    one_as_other, other_as_one : float
        Share of the queries of the one that were answered with the other.
    episodes : int
        Episodes that held both.
    """

    one: str
    other: str
    one_as_other: float
    other_as_one: float
    episodes: int


@dataclass(frozen=True)
class Comparison:
    """Every method on the same queries.

    Parameters
    ----------
    serving : str
        The head that the bundle serves.
    best_baseline : str
        The other method with the highest accuracy.
    methods : dict of str to MethodResult
        The serving head first.
    differences : tuple of Difference
        Every other method against the best baseline, the serving head first.
    against_served : tuple of Difference
        Every other method against the serving head.
    per_disease : tuple of DiseaseRow
        Of the serving head, the least recognised first.
    confused : tuple of ConfusedPair
        Of the serving head, the most confused first.
    """

    serving: str
    best_baseline: str
    methods: dict[str, MethodResult]
    differences: tuple[Difference, ...]
    against_served: tuple[Difference, ...]
    per_disease: tuple[DiseaseRow, ...]
    confused: tuple[ConfusedPair, ...]

    @property
    def served(self) -> MethodResult:
        """Figures of the serving head."""
        return self.methods[self.serving]

    @property
    def against_best(self) -> Difference:
        """The serving head against the best baseline."""
        return self.differences[0]


def compare(asked: Asked, answers: Mapping[str, Floats], serving: str, seed: int) -> Comparison:
    """Compute every figure of every method.

    Parameters
    ----------
    asked : Asked
        The queries.
    answers : mapping of str to ndarray, shape (T, N)
        Probabilities of the serving head and of at least one other method.
    serving : str
        The method that the bundle serves.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Comparison
    """
    tally = Tally(asked, seed)
    ordered = [serving, *(name for name in answers if name != serving)]
    best, gaps = differences(tally, answers, serving)
    others = [name for name in answers if name != serving]
    return Comparison(
        serving=serving,
        best_baseline=best,
        methods={name: method_result(tally, answers[name]) for name in ordered},
        differences=tuple(gaps),
        against_served=tuple(paired(tally, answers, name, serving) for name in others),
        per_disease=tuple(disease_rows(tally, answers[serving])),
        confused=tuple(confused_pairs(asked, answers[serving])),
    )


def differences(tally: Tally, answers: Mapping[str, Floats], serving: str) -> tuple[str, list[Difference]]:
    """Compare every method with the best baseline, paired.

    Parameters
    ----------
    tally : Tally
        The queries.
    answers : mapping of str to ndarray, shape (T, N)
        Probabilities of every method.
    serving : str
        The method that the bundle serves; every other one is a baseline.

    Returns
    -------
    best : str
        The baseline with the highest accuracy.
    list of Difference
        One for every other method, the serving one first.
    """
    baselines = [name for name in answers if name != serving]
    label = tally.asked.label
    best = max(baselines, key=lambda name: tally.mean(classification.hits(answers[name], label)))
    return best, [paired(tally, answers, name, best) for name in [serving, *baselines] if name != best]


def paired(tally: Tally, answers: Mapping[str, Floats], method: str, against: str) -> Difference:
    """Return the accuracy of one method minus that of another, with its interval, on the same queries."""
    label = tally.asked.label
    gap = classification.hits(answers[method], label) - classification.hits(answers[against], label)
    return Difference(method, against, tally.mean(gap), tally.interval(gap))


def disease_rows(tally: Tally, probabilities: Floats) -> list[DiseaseRow]:
    """Return one row a disease, the least recognised first."""
    asked = tally.asked
    hit = classification.hits(probabilities, asked.label)
    ranked = outranked(asked, probabilities)
    rows = []
    for code in np.unique(asked.disease):
        own = asked.disease == code
        _, who = np.unique(asked.patient[own], return_inverse=True)
        recall = float((np.bincount(who, hit[own]) / np.bincount(who)).mean())
        patients = int(who.max()) + 1
        rows.append(
            DiseaseRow(
                str(code),
                patients,
                recall,
                wilson(recall, patients),
                float(ranked[own].mean()),
                len(np.unique(asked.episode[own])),
            )
        )
    return sorted(rows, key=lambda row: (row.recall, row.code))


def confused_pairs(asked: Asked, probabilities: Floats, most: int = 10, least: int = 5) -> list[ConfusedPair]:
    """Return the pairs of diseases most often taken for each other.

    Parameters
    ----------
    asked : Asked
        The queries.
    probabilities : ndarray, shape (T, N)
        Answers.
    most : int
        How many pairs.
    least : int
        Pairs that met in fewer episodes are not listed.
    """
    codes, of_class = np.unique(asked.classes, return_inverse=True)
    of_class = of_class.reshape(asked.classes.shape)
    n = len(codes)
    true = of_class[asked.episode, asked.label]
    named = of_class[asked.episode, probabilities.argmax(1)]
    errors = np.bincount(true * n + named, minlength=n * n).reshape(n, n)
    # Queries of each disease that could have been answered with each other one, and episodes that held both.
    possible, met = np.zeros((n, n)), np.zeros((n, n), dtype=np.int64)
    for classes, count in zip(of_class, asked.counts, strict=True):
        grid = np.ix_(classes, classes)
        possible[grid] += count[:, None]
        met[grid] += 1
    rate = errors / np.maximum(possible, 1)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if met[i, j] >= min(least, len(asked.classes))]
    pairs.sort(key=lambda ij: (-(rate[ij] + rate[ij[::-1]]), ij))
    found = []
    for i, j in pairs[:most]:
        one, other = (i, j) if rate[i, j] >= rate[j, i] else (j, i)
        if rate[one, other] > 0:
            found.append(
                ConfusedPair(
                    str(codes[one]),
                    str(codes[other]),
                    float(rate[one, other]),
                    float(rate[other, one]),
                    int(met[one, other]),
                )
            )
    return found
