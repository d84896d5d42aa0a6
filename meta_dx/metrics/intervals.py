"""How sure is a figure: bootstrap over diseases, then patients, the Monte-Carlo error of the episodes, and shares.

The first two answer different questions. The bootstrap says how the figure would change with *other diseases and
other patients*; the Monte-Carlo half-width says only how it would change with *other episodes of the same
ones*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_dx.metrics.classification import Floats, separation

_DRAWS_AT_ONCE = 4_000_000  # patient draws held in memory: 32 MB
_LEVELS = 1000  # of scores in a bootstrap of their order: finer ones move its spread by less than 0.001


@dataclass(frozen=True)
class Interval:
    """A figure and its interval.

    Parameters
    ----------
    estimate : float
        Mean over diseases of the mean over patients.
    low, high : float
        Ends of the percentile interval.
    """

    estimate: float
    low: float
    high: float


def two_level_bootstrap(
    values: npt.ArrayLike,
    disease: npt.ArrayLike,
    patient: npt.ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """Interval of a class-averaged figure over other diseases and other patients.

    Rows of one patient with one disease are averaged first: the unit is the (disease, patient) pair. A
    resample draws as many diseases as there are, with replacement, then within each drawn disease as many
    patients as it has, with replacement; its figure is the mean over diseases of the mean over patients. The
    interval is taken from the percentiles. With fewer than about ten diseases it is too narrow, as any
    bootstrap over so few is.

    Parameters
    ----------
    values : array_like, shape (n,)
        One figure a row: a hit, a loss, :func:`~meta_dx.metrics.classification.auroc_of_each`, …
    disease, patient : array_like, shape (n,)
        Disease and patient of each row. With a single disease only patients are resampled.
    resamples : int
        Number of bootstrap resamples.
    level : float
        Coverage, between 0 and 1.
    seed : int or numpy.random.Generator
        The same seed gives the same interval.

    Returns
    -------
    Interval
    """
    units = _units(values, disease, patient)
    estimate = float(np.mean([unit.mean() for unit in units]))
    drawn = _resample(units, resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def paired_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    disease: npt.ArrayLike,
    patient: npt.ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """Interval of ``first - second``, two methods that answered the same queries.

    Both methods are resampled together, so what is hard for both cancels: two methods can differ surely
    although their own intervals overlap.

    Parameters
    ----------
    first, second : array_like, shape (n,)
        Figures of the two methods; row i is the same query in both.
    disease, patient, resamples, level, seed
        As in :func:`two_level_bootstrap`.

    Returns
    -------
    Interval
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"the methods answered {a.shape} and {b.shape} queries: a paired difference needs the same"
        )
    return two_level_bootstrap(a - b, disease, patient, resamples=resamples, level=level, seed=seed)


def effect_on_others(
    recall: Floats, episode: npt.NDArray[np.int64], disease: npt.NDArray[np.int64]
) -> Floats:
    """Return what each disease does to the other classes of its episodes; zero where all episodes hold all.

    Parameters
    ----------
    recall : ndarray, shape (cells,)
        Mean figure of each class of each episode.
    episode, disease : ndarray of int64, shape (cells,)
        Numbers from 0, without gaps.

    Returns
    -------
    ndarray, shape (diseases,)
        Mean change of the others' sum in the episodes that hold the disease.
    """
    held = np.bincount(disease)
    usual = np.bincount(disease, recall) / held
    beyond = recall - usual[disease]
    others = np.bincount(episode, beyond)[episode] - beyond
    effect = np.bincount(disease, others) / held
    return np.asarray(effect - (effect * held).sum() / held.sum())


def separation_interval(
    scores: npt.ArrayLike,
    high: npt.ArrayLike,
    low: npt.ArrayLike,
    disease: npt.ArrayLike,
    patient: npt.ArrayLike,
    *,
    resamples: int = 400,
    level: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> tuple[float, float] | None:
    """Interval of :func:`~meta_dx.metrics.classification.separation` over other diseases and other patients.

    A resample is drawn as in :func:`two_level_bootstrap`; what a (disease, patient) pair stands for counts as
    often as the pair was drawn, on whichever side its queries are. Percentiles, moved so that their mean is the
    measured value.

    Parameters
    ----------
    scores, high, low : array_like, shape (n,)
        As in :func:`~meta_dx.metrics.classification.separation`.
    disease, patient : array_like, shape (n,)
        Of each query.
    resamples, level, seed
        As in :func:`two_level_bootstrap`.

    Returns
    -------
    (float, float) or None
        Within 0 … 1. None when a side has no weight.
    """
    estimate = separation(scores, high, low)
    if estimate is None:
        return None
    _, d = np.unique(np.asarray(disease), return_inverse=True)
    _, p = np.unique(np.asarray(patient), return_inverse=True)
    pairs, unit = np.unique(d * (p.max() + 1) + p, return_inverse=True)
    sizes = np.bincount(pairs // (p.max() + 1))  # patients of each disease
    times = _times_drawn(sizes, resamples, np.random.default_rng(seed))  # (resamples, units)
    _, at = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    levels = min(int(at.max()) + 1, _LEVELS)
    at = at * levels // (int(at.max()) + 1)
    cell = unit * levels + at
    up, down = (
        times @ np.bincount(cell, np.asarray(side, dtype=np.float64), len(pairs) * levels).reshape(-1, levels)
        for side in (high, low)
    )  # (resamples, levels)
    weight = up.sum(1) * down.sum(1)
    beaten = np.cumsum(down, axis=1) - down / 2
    drawn = ((up * beaten).sum(1) / np.where(weight > 0, weight, 1.0))[weight > 0]
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - drawn.mean() + estimate
    low_end, high_end = np.clip(ends, 0.0, 1.0)
    return float(low_end), float(high_end)


def monte_carlo_half_width(values: npt.ArrayLike) -> float:
    """Return ``1.96 · sd / sqrt(E)`` of E episode figures (sample deviation; NaN for a single episode)."""
    figures = np.asarray(values, dtype=np.float64)
    if len(figures) < 2:
        return float("nan")
    return float(1.96 * figures.std(ddof=1) / np.sqrt(len(figures)))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share of n; never empty, also at 0 and 1.

    E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927).

    Parameters
    ----------
    share : float
        Between 0 and 1.
    n : float
        How many, above 0; of answers that depend on each other :func:`effective_number`.

    Returns
    -------
    (float, float)
    """
    z2 = 1.96**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding may put an end a hair inside of the share itself.
    return (float(max(0.0, min(share, middle - half))), float(min(1.0, max(share, middle + half))))


def effective_number(values: npt.ArrayLike, cluster: npt.ArrayLike) -> float:
    """Return how many independent answers are worth as much as these, of which some are about the same patient.

    ``n / (1 + (m - 1) * rho)``, with n answers, the mean m of the size of an answer's own cluster, and the intraclass
    correlation rho, estimated by analysis of variance and kept within 0 … 1. Where all answers are alike nothing tells
    their correlation, and it counts as 1. With Wilson's interval as K. K. Saha, D. Miller, S. Wang, Int. J. Biostat. 12
    (2016) propose; a bootstrap over clusters is too narrow with a dozen of them.

    Parameters
    ----------
    values : array_like, shape (n,)
        The answers: whether each is right, or a figure; n > 0.
    cluster : array_like, shape (n,)
        Whom each is about.

    Returns
    -------
    float
        From 1 to n; n where nobody has more than one.
    """
    answers = np.asarray(values, dtype=np.float64)
    _, which = np.unique(np.asarray(cluster), return_inverse=True)
    size = np.bincount(which).astype(np.float64)
    n, clusters = len(answers), len(size)
    own = float((size**2).sum() / n)  # mean size of an answer's own cluster
    if clusters in (1, n):
        return n / own
    mean = np.bincount(which, answers) / size
    between = float((size * (mean - answers.mean()) ** 2).sum() / (clusters - 1))
    within = float(((answers - mean[which]) ** 2).sum() / (n - clusters))
    usual = (n - own) / (clusters - 1)
    spread = between + (usual - 1) * within
    rho = min(max((between - within) / spread, 0.0), 1.0) if spread > 0 else 1.0
    return n / (1 + (own - 1) * rho)


def _units(values: npt.ArrayLike, disease: npt.ArrayLike, patient: npt.ArrayLike) -> list[Floats]:
    """Return for each disease the mean figure of each of its patients."""
    figures = np.asarray(values, dtype=np.float64)
    _, d = np.unique(np.asarray(disease), return_inverse=True)
    _, p = np.unique(np.asarray(patient), return_inverse=True)
    if not (figures.shape == d.shape == p.shape) or figures.ndim != 1 or not len(figures):
        raise ValueError(
            f"values {figures.shape}, disease {d.shape}, patient {p.shape}: want equal lengths, not 0"
        )
    if not np.isfinite(figures).all():
        raise ValueError("values hold NaN or infinity: leave out those queries and say how many")
    pairs, unit = np.unique(d * (p.max() + 1) + p, return_inverse=True)
    means = np.bincount(unit, figures) / np.bincount(unit)
    first_of = np.searchsorted(pairs // (p.max() + 1), np.arange(d.max() + 1))
    return list(np.split(means, first_of[1:]))


def _resample(units: list[Floats], resamples: int, generator: np.random.Generator) -> Floats:
    """Return the figure of each resample, shape (resamples,)."""
    diseases = len(units)
    drawn = generator.integers(
        diseases, size=resamples * diseases
    )  # a disease for each slot of each resample
    by_disease = np.argsort(drawn, kind="stable")
    slots = np.split(by_disease, np.cumsum(np.bincount(drawn, minlength=diseases))[:-1])
    figure = np.empty(resamples * diseases)
    for unit, slot in zip(units, slots, strict=True):
        step = max(1, _DRAWS_AT_ONCE // len(unit))
        for start in range(0, len(slot), step):
            part = slot[start : start + step]
            figure[part] = unit[generator.integers(len(unit), size=(len(part), len(unit)))].mean(1)
    means: Floats = figure.reshape(resamples, diseases).mean(1)
    return means


def _times_drawn(sizes: npt.NDArray[np.int64], resamples: int, generator: np.random.Generator) -> Floats:
    """Return how often each pair is drawn, (resamples, units): diseases first, then their patients."""
    diseases = len(sizes)
    copies = generator.multinomial(diseases, np.full(diseases, 1 / diseases), size=resamples)
    parts = [
        generator.multinomial(copies[:, d] * size, np.full(size, 1 / size)) for d, size in enumerate(sizes)
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)
