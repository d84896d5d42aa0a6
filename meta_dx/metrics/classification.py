"""Did the right class win: class-recall mean accuracy, top-k, and AUROC one against rest.

Pure functions on the answers to n queries. Ties are resolved as if broken at random, in expectation, so that
no figure depends on the order in which classes happen to be numbered.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def hits(probabilities: npt.ArrayLike, labels: npt.ArrayLike, k: int = 1) -> Floats:
    """Say for each query whether its class is among the k most probable ones.

    Parameters
    ----------
    probabilities : array_like, shape (n, N)
        Class scores; only their order within a row matters.
    labels : array_like of int, shape (n,)
        The true class of each query.
    k : int
        How many classes count as named; at least 1.

    Returns
    -------
    ndarray, shape (n,)
        1 for a hit, 0 for a miss; a fraction where the true class ties at the edge: the chance of being named
        when equal classes are ordered at random.
    """
    scores, truth = _checked(probabilities, labels)
    if k < 1:
        raise ValueError(f"k is {k}, must be at least 1")
    own = scores[np.arange(len(truth)), truth][:, None]
    above = (scores > own).sum(1)
    equal = (scores == own).sum(1)  # counts the true class itself
    share: Floats = np.clip((k - above) / equal, 0.0, 1.0)
    return share


def class_mean(values: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Average per class first, then over the classes that occur: every class weighs the same.

    Parameters
    ----------
    values : array_like, shape (n,)
        One figure a query (a hit, a loss, …).
    labels : array_like, shape (n,)
        Class of each query: numbers or disease codes.

    Returns
    -------
    float
    """
    figures = np.asarray(values, dtype=np.float64)
    _, which = np.unique(np.asarray(labels), return_inverse=True)
    if figures.ndim != 1 or figures.shape != which.shape or not len(figures):
        raise ValueError(
            f"values {figures.shape} and labels {which.shape} must be equally long and not empty"
        )
    return float((np.bincount(which, figures) / np.bincount(which)).mean())


def class_mean_accuracy(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean of the class recalls (balanced accuracy) over the classes that occur."""
    return top_k_accuracy(probabilities, labels, 1)


def top_k_accuracy(probabilities: npt.ArrayLike, labels: npt.ArrayLike, k: int) -> float:
    """Return the class mean of :func:`hits` among the k most probable classes."""
    return class_mean(hits(probabilities, labels, k), labels)


def auroc_of_each(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Give each query its share of the AUROC of its own class.

    The AUROC of class c is the chance that a query of c gets a higher probability of c than a query of
    another
    class (Mann-Whitney; a tie counts one half). For one query of c that is the share of the others which it
    outranks, and the mean over the queries of c is the AUROC of c. So these figures have a unit, the patient,
    over which a bootstrap can resample.

    Parameters
    ----------
    probabilities : array_like, shape (n, N)
        Class probabilities.
    labels : array_like of int, shape (n,)
        The true class of each query.

    Returns
    -------
    ndarray, shape (n,)
        Between 0 and 1; NaN where all queries are of one class.
    """
    scores, truth = _checked(probabilities, labels)
    share = np.full(len(truth), np.nan)
    for c in np.unique(truth):
        own = truth == c
        others = np.sort(scores[~own, c])
        if not len(others):
            continue
        mine = scores[own, c]
        below = np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")
        share[own] = below / (2.0 * len(others))
    return share


def auroc_per_class(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Return the AUROC of each class against the rest, shape (N,); NaN where one side is empty."""
    scores, truth = _checked(probabilities, labels)
    share = auroc_of_each(scores, truth)
    found = np.full(scores.shape[1], np.nan)
    for c in np.unique(truth):
        found[c] = share[truth == c].mean()
    return found


def auroc(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the AUROC one against rest, macro: the mean over the classes that occur.

    NaN when the queries are all of one class.
    """
    return class_mean(auroc_of_each(probabilities, labels), labels)


def separation(scores: npt.ArrayLike, high: npt.ArrayLike, low: npt.ArrayLike) -> float | None:
    """Return the chance that what should score high does score higher than what should score low.

    Parameters
    ----------
    scores : array_like, shape (n,)
        One a query.
    high, low : array_like, shape (n,)
        Weight of each query on either side, at least 0; a query may stand on both.

    Returns
    -------
    float or None
        Weighted AUROC (Mann-Whitney; a tie counts one half); None when a side has no weight.
    """
    score = np.asarray(scores, dtype=np.float64)
    above, below = np.asarray(high, dtype=np.float64), np.asarray(low, dtype=np.float64)
    if not above.sum() > 0 or not below.sum() > 0:
        return None
    levels, at = np.unique(score, return_inverse=True)
    up, down = np.bincount(at, above, len(levels)), np.bincount(at, below, len(levels))
    beaten = np.cumsum(down) - down / 2
    return float(up @ beaten / (up.sum() * down.sum()))


def _checked(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    scores = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or not len(truth):
        raise ValueError(
            f"probabilities {scores.shape} and labels {truth.shape} must be (n, N) and (n,), n > 0"
        )
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise ValueError(
            f"labels run from {truth.min()} to {truth.max()}, classes from 0 to {scores.shape[1] - 1}"
        )
    if np.isnan(scores).any():
        raise ValueError("probabilities hold NaN")
    return scores, truth
