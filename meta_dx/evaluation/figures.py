"""From the answers of a method to its figures, with intervals over other diseases and other patients."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from meta_dx.evaluation.asking import Asked
from meta_dx.metrics import calibration, classification
from meta_dx.metrics.intervals import effect_on_others, monte_carlo_half_width, two_level_bootstrap

Floats = npt.NDArray[np.float64]
#: Lower and upper end of a 95 % interval.
Ends = tuple[float, float]

_RESAMPLES = 2000
_CALIBRATION_RESAMPLES = 400
_BINS = 15


@dataclass(frozen=True)
class MethodResult:
    """Figures of one method; fractions.

    Parameters
    ----------
    accuracy, ci95, mc95 : float, (float, float), float
        Mean of class recalls averaged over episodes; interval by bootstrap over diseases, then patients;
        half-width of the 95 % Monte-Carlo error of the episodes (NaN for a single one).
    auroc, auroc_ci95 : float, (float, float)
        One against rest, macro, mean over episodes.
    ece, ece_ci95 : float, (float, float)
        Expected calibration error with 15 bins, every disease weighing the same.
    log_loss : float
        Nats, every disease weighing the same.
    top3, top3_ci95, top5, top5_ci95 : optional
        Share of queries whose disease is among the first three or five, as accuracy is averaged. None where
        there are not more classes than that.
    reliability : tuple of (confidence, accuracy, weight)
        The reliability curve, one entry a bin in use.
    """

    accuracy: float
    ci95: Ends
    mc95: float
    auroc: float
    auroc_ci95: Ends
    ece: float
    ece_ci95: Ends
    log_loss: float
    top3: float | None
    top3_ci95: Ends | None
    top5: float | None
    top5_ci95: Ends | None
    reliability: tuple[tuple[float, float, float], ...]


class Tally:
    """Averages over queries as the protocols define them, and their intervals.

    Parameters
    ----------
    asked : Asked
        The queries.
    seed : int
        Seed of the bootstrap.
    """

    def __init__(self, asked: Asked, seed: int) -> None:
        self.asked, self.seed = asked, seed
        ways = asked.classes.shape[1]
        # A cell is one class of one episode; every cell that holds queries weighs the same.
        self._cell = asked.episode * ways + asked.label
        self._used = np.unique(self._cell)
        self._cell_episode = self._used // ways
        _, self._cell_disease = np.unique(asked.classes.ravel()[self._used], return_inverse=True)
        # Numbers in the order of the names: to sort the names again for each figure would take longer.
        _, self._disease = np.unique(asked.disease, return_inverse=True)
        _, self._patient = np.unique(asked.patient, return_inverse=True)

    def by_cell(self, values: npt.NDArray[np.floating]) -> Floats:
        """Mean over the queries of each class of each episode, shape (cells,)."""
        count = np.bincount(self._cell)
        return np.asarray(np.bincount(self._cell, values)[self._used] / count[self._used])

    def by_episode(self, values: npt.NDArray[np.floating]) -> Floats:
        """Mean over the classes of each episode, shape (E,)."""
        cells = np.bincount(self._cell_episode)
        return np.asarray(np.bincount(self._cell_episode, self.by_cell(values)) / cells)

    def mean(self, values: npt.NDArray[np.floating]) -> float:
        """Mean of class means, averaged over episodes."""
        return float(self.by_episode(values).mean())

    @property
    def same_classes(self) -> bool:
        """Whether every episode holds the same diseases, as in the deployment view."""
        return bool((np.sort(self.asked.classes, axis=1) == np.sort(self.asked.classes[0])).all())

    def interval(self, values: npt.NDArray[np.floating], beside: Floats | float = 0.0) -> Ends:
        """95 % interval of :meth:`mean` by bootstrap over diseases, then patients.

        To each query is added what the presence of its disease does to the *other* classes of its episodes. A
        disease that looks like others is missed itself and makes others be missed, so resampling its own
        recall alone gives intervals that are too narrow (``docs/evaluation.md`` has the measured coverage).
        ``beside``, shape (T,), is what else depends on a query than its own value: its part in the mean moves with it.
        """
        if not np.isfinite(values).all():  # an AUROC with queries of one disease only
            return (float("nan"), float("nan"))
        effect = effect_on_others(self.by_cell(values), self._cell_episode, self._cell_disease)
        carried = values + beside + effect[self._disease]
        found = two_level_bootstrap(
            carried, self._disease, self._patient, resamples=_RESAMPLES, seed=self.seed
        )
        # The bootstrap weighs diseases alike, the episodes weigh them by how often they were drawn.
        shift = self.mean(values) - found.estimate
        return (found.low + shift, found.high + shift)


def method_result(tally: Tally, probabilities: Floats) -> MethodResult:
    """Compute all figures of one method.

    Parameters
    ----------
    tally : Tally
        The queries.
    probabilities : ndarray, shape (T, N)
        The method's answers, row for row.

    Returns
    -------
    MethodResult
    """
    asked, label = tally.asked, tally.asked.label
    hit = classification.hits(probabilities, label)
    ranked = outranked(asked, probabilities)
    # Where episodes hold different diseases, what one does to others shows from episode to episode.
    negative: Floats | float = as_negatives(asked, probabilities) if tally.same_classes else 0.0
    curve = calibration.reliability(probabilities, label, asked.disease, _BINS)
    top: dict[int, tuple[float | None, Ends | None]] = {3: (None, None), 5: (None, None)}
    for k in top:
        if probabilities.shape[1] > k:
            among = classification.hits(probabilities, label, k)
            top[k] = (tally.mean(among), _fractions(tally.interval(among)))
    return MethodResult(
        accuracy=tally.mean(hit),
        ci95=_fractions(tally.interval(hit)),
        mc95=monte_carlo_half_width(tally.by_episode(hit)),
        auroc=tally.mean(ranked),
        auroc_ci95=_fractions(tally.interval(ranked, negative)),
        ece=curve.error,
        ece_ci95=_calibration_interval(asked, probabilities, curve.error, tally.seed),
        log_loss=calibration.log_loss(probabilities, label, asked.disease),
        top3=top[3][0],
        top3_ci95=top[3][1],
        top5=top[5][0],
        top5_ci95=top[5][1],
        reliability=tuple(
            (float(c), float(a), float(w))
            for c, a, w in zip(curve.confidence, curve.accuracy, curve.weight, strict=True)
        ),
    )


def outranked(asked: Asked, probabilities: Floats) -> Floats:
    """Return each query's share of the AUROC of its class within its own episode, shape (T,)."""
    starts = np.searchsorted(asked.episode, np.arange(len(asked.classes) + 1))
    share = np.empty(len(asked.label))
    for low, high in pairwise(starts):
        share[low:high] = classification.auroc_of_each(probabilities[low:high], asked.label[low:high])
    return share


def as_negatives(asked: Asked, probabilities: Floats) -> Floats:
    """Return what each query does to the AUROC of the other classes of its episode, shape (T,).

    With n queries in the episode, n_c of them of class c, query j of class k adds ``n_k sum_c (s_c(j) - AUROC_c) /
    (n - n_c)`` over the classes c that are not its own, s_c(j) being the share of c's queries that score higher for c
    than j does: in units of the value that :func:`outranked` gives it, of which it is the influence function.
    """
    starts = np.searchsorted(asked.episode, np.arange(len(asked.classes) + 1))
    found = np.zeros(len(asked.label))
    for low, high in pairwise(starts):
        p, label = probabilities[low:high], asked.label[low:high]
        count = np.bincount(label, minlength=p.shape[1])
        for c in np.flatnonzero((count > 0) & (count < len(label))):
            positive, others = np.sort(p[label == c, c]), label != c
            scores = p[others, c]
            beaten = np.searchsorted(positive, scores, "left") + np.searchsorted(positive, scores, "right")
            share = 1 - beaten / (2 * count[c])
            part = (share - share.mean()) / (len(label) - count[c])
            found[low:high][others] += count[label[others]] * part
    return found


def _fractions(ends: Ends) -> Ends:
    return (float(np.clip(ends[0], 0.0, 1.0)), float(np.clip(ends[1], 0.0, 1.0)))


def _calibration_interval(asked: Asked, probabilities: Floats, error: float, seed: int) -> Ends:
    """Bootstrap the expected calibration error over diseases, then patients.

    An absolute value grows when noise is added, so every resample's error is too large on average; the
    percentiles are moved by that much.
    """
    hit = classification.hits(probabilities, asked.label)
    confidence = probabilities.max(1)
    which = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    _, disease = np.unique(asked.disease, return_inverse=True)
    _, patient = np.unique(asked.patient, return_inverse=True)
    units, unit = np.unique(disease * (patient.max() + 1) + patient, return_inverse=True)
    gaps = np.zeros((len(units), _BINS + 1))  # of a patient: accuracy - confidence in each bin, queries
    np.add.at(gaps, (unit, which), hit - confidence)
    gaps[:, _BINS] = np.bincount(unit)
    sizes = np.bincount(units // (patient.max() + 1))  # patients of each disease
    firsts = np.cumsum(sizes) - sizes
    generator = np.random.default_rng(seed)
    drawn = np.empty(_CALIBRATION_RESAMPLES)
    for b in range(_CALIBRATION_RESAMPLES):
        d = generator.integers(len(sizes), size=len(sizes))
        rows = np.repeat(firsts[d], sizes[d]) + generator.integers(np.repeat(sizes[d], sizes[d]))
        summed = np.add.reduceat(gaps[rows], np.cumsum(sizes[d]) - sizes[d])  # (diseases, bins + 1)
        drawn[b] = np.abs((summed[:, :_BINS] / summed[:, _BINS:]).mean(0)).sum()
    low, high = np.quantile(drawn, [0.025, 0.975]) - drawn.mean() + error
    return _fractions((float(low), float(high)))
