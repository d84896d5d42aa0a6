"""Can a probability be taken at its word: expected calibration error, Brier score, log loss.

In each figure every class weighs the same, whatever its number of queries: query i of class c weighs
``w_i = 1 / (C * n_c)``, with C classes that occur and n_c queries of c; the weights sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_dx.metrics.classification import Floats, hits

_SMALLEST = 1e-12  # a probability of zero for what happened costs 27.6 nats, not infinity


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, one entry a bin that holds queries.

    Parameters
    ----------
    confidence : ndarray, shape (b,)
        Weighted mean of the highest probability.
    accuracy : ndarray, shape (b,)
        Weighted share of right answers.
    weight : ndarray, shape (b,)
        Share of all weight; sums to 1.
    """

    confidence: Floats
    accuracy: Floats
    weight: Floats

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(np.sum(self.weight * np.abs(self.accuracy - self.confidence)))


def class_weights(labels: npt.ArrayLike) -> Floats:
    """Return weights that sum to 1 and give every class that occurs the same total, shape (n,).

    Parameters
    ----------
    labels : array_like, shape (n,)
        Class numbers or disease codes.
    """
    _, which, count = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / (len(count) * count[which])
    return weights


def reliability(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, balance: npt.ArrayLike | None = None, bins: int = 15
) -> Reliability:
    """Compare confidence and accuracy in bins of equal width.

    Bin b of ``bins`` holds the queries whose highest probability p satisfies ``(b-1)/bins < p <= b/bins``
    (Guo et al. 2017, "On calibration of modern neural networks", eq. 3, with the class weights of this
    module).

    Parameters
    ----------
    probabilities : array_like, shape (n, N)
        Class probabilities; queries of several episodes may be stacked.
    labels : array_like of int, shape (n,)
        The true column of each query.
    balance : array_like, shape (n,), optional
        What counts as a class when weighing (the disease code, where class numbers change from episode to
        episode); ``labels`` if not given.
    bins : int
        Number of bins.

    Returns
    -------
    Reliability
    """
    right = hits(probabilities, labels)
    confidence = np.asarray(probabilities, dtype=np.float64).max(1)
    weight = class_weights(labels if balance is None else balance)
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)

    def per_bin(figures: Floats) -> Floats:
        return np.asarray(np.bincount(which, figures, bins), dtype=np.float64)

    total = per_bin(weight)
    used = total > 0
    return Reliability(
        per_bin(weight * confidence)[used] / total[used],
        per_bin(weight * right)[used] / total[used],
        total[used],
    )


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, balance: npt.ArrayLike | None = None, bins: int = 15
) -> float:
    """Return the expected calibration error, ``sum_b W_b |accuracy_b - confidence_b|``, between 0 and 1.

    Parameters and bins are those of :func:`reliability`; W_b is the weight in bin b, every class weighing the
    same.
    """
    return reliability(probabilities, labels, balance, bins).error


def brier_score(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, balance: npt.ArrayLike | None = None
) -> float:
    """Return the mean squared distance of probabilities from truth, summed over classes: 0 best, 2 worst."""
    p = np.asarray(probabilities, dtype=np.float64)
    truth = np.zeros_like(p)
    truth[np.arange(len(p)), np.asarray(labels)] = 1.0
    return float(((p - truth) ** 2).sum(1) @ class_weights(labels if balance is None else balance))


def log_loss(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, balance: npt.ArrayLike | None = None
) -> float:
    """Return the mean negative log probability of the true class, in nats, of at least 1e-12 each."""
    p = np.asarray(probabilities, dtype=np.float64)
    own = p[np.arange(len(p)), np.asarray(labels)]
    return float(-np.log(np.maximum(own, _SMALLEST)) @ class_weights(labels if balance is None else balance))
