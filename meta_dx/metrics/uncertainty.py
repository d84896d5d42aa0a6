"""Uncertainty of a prediction from the probabilities of M samples of a latent variable.

With z the latent variable that is not known well enough, and y the label, the entropy of the mean probability
splits into two parts (Stefan Depeweg, José Miguel Hernández-Lobato, Finale Doshi-Velez, Steffen Udluft:
*Decomposition of Uncertainty in Bayesian Deep Learning for Efficient and Risk-sensitive Learning*, ICML 2018,
https://arxiv.org/abs/1710.07283): the expected entropy under known z, which more cases of the same diseases
would not remove (aleatoric), and the mutual information of y and z, which they would (epistemic). All in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from meta_dx.metrics.classification import Floats

_SUM_TOLERANCE = 1e-4  # of probabilities that come from float32


@dataclass(frozen=True)
class Uncertainty:
    """What M samples say about each prediction; float64.

    Parameters
    ----------
    probability : ndarray, shape (…, N)
        Mean over the samples.
    aleatoric, epistemic : ndarray, shape (…,)
        Expected entropy, and mutual information of label and latent variable, in nats; they sum to the
        entropy of ``probability``. Never negative.
    low, high : ndarray, shape (…, N)
        Ends of the credible interval of each class's probability; they contain ``probability``.
    """

    probability: Floats
    aleatoric: Floats
    epistemic: Floats
    low: Floats
    high: Floats


def uncertainty(probabilities: npt.ArrayLike, *, level: float = 0.95) -> Uncertainty:
    """Split the uncertainty of predictions and give each class's probability an interval.

    Parameters
    ----------
    probabilities : array_like, shape (…, M, N)
        Probabilities under each of M samples; each row sums to one, absent classes have 0.
    level : float
        Share of the samples inside the interval, between 0 and 1.

    Returns
    -------
    Uncertainty
        With a single sample the epistemic part is 0 and the interval is the probability itself.

    Raises
    ------
    ValueError
        When the rows are not probabilities.
    """
    p = _checked(probabilities)
    low, high = credible_interval(p, level=level)
    return Uncertainty(p.mean(-2), expected_entropy(p), mutual_information(p), low, high)


def expected_entropy(probabilities: npt.ArrayLike) -> Floats:
    """Return the aleatoric part: mean over M of the entropy of each sample, nats, (…, M, N) → (…)."""
    entropies: Floats = entr(_checked(probabilities)).sum(-1).mean(-1)
    return entropies


def mutual_information(probabilities: npt.ArrayLike) -> Floats:
    """Return the epistemic part: entropy of the mean less the expected entropy, nats, (…, M, N) → (…).

    Rounding may take the difference of two equal entropies below zero; zero is returned then.
    """
    p = _checked(probabilities)
    difference: Floats = np.maximum(entr(p.mean(-2)).sum(-1) - entr(p).sum(-1).mean(-1), 0.0)
    return difference


def credible_interval(probabilities: npt.ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the central interval of each class's probability over the samples, containing their mean.

    Parameters
    ----------
    probabilities : array_like, shape (…, M, N)
        Probabilities under each of M samples.
    level : float
        Share of the samples inside; the ends are the quantiles (1 - level) / 2 and (1 + level) / 2, linear
        between samples. The mean of skewed samples can lie outside them: the interval is widened to it.

    Returns
    -------
    low, high : ndarray, shape (…, N)
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: want a number between 0 and 1")
    p = _checked(probabilities)
    mean = p.mean(-2)
    low, high = np.quantile(p, [(1 - level) / 2, (1 + level) / 2], axis=-2)
    return np.minimum(low, mean), np.maximum(high, mean)


def _checked(probabilities: npt.ArrayLike) -> Floats:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim < 2 or not p.shape[-2]:
        raise ValueError(f"probabilities have shape {p.shape}: want (…, M, N) with at least one sample")
    if not ((p >= 0).all() and (np.abs(p.sum(-1) - 1) < _SUM_TOLERANCE).all()):
        raise ValueError("probabilities are negative, or do not sum to one over the classes")
    return p
