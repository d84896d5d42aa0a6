"""Two groups of cases held against each other: how often the value of one is larger, and shares.

Values are compared within strata (modalities, say), so that a stratum that one group has more of does not look like a
difference of values. R. G. Newcombe's intervals, and P. van Elteren's test.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from meta_dx.metrics.intervals import effective_number
from meta_dx.review.dashboard import Share

Floats = npt.NDArray[np.float64]
Stratum = tuple[Floats, Floats]
"""The values of lately, shape (n,), and of before, shape (m,), in one stratum; neither is empty."""

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)


def superiority(strata: Sequence[Stratum], wider: float = 1.0) -> tuple[float, float, float]:
    """Return in how many of all pairs within a stratum the value of lately is the larger one, with its 95 % interval.

    A half where nothing has changed; ties count half. Strata weigh as in van Elteren's test. Interval: method 5 of
    R. G. Newcombe, Stat. Med. 25, 559 (2006), with the variances of the strata at one common share added up; it has a
    width also where the groups do not overlap.

    Parameters
    ----------
    strata : sequence of (ndarray, ndarray)
        At least one.
    wider : float
        How much farther the share strays than that of independent values (:func:`widening`).

    Returns
    -------
    (float, float, float)
        Share, and the ends of its interval.
    """
    from scipy.optimize import brentq

    sizes = [(len(x), len(y)) for x, y in strata]
    weights = np.array([_weight(n, m) for n, m in sizes])
    weights /= weights.sum()
    found = float(weights @ [_share_of_pairs(x, y) for x, y in strata])

    def miss(theta: float) -> float:
        a, b = (1 - theta) / (2 - theta), theta / (1 + theta)
        spreads = [(1 + ((n + m) / 2 - 1) * (a + b)) / (n * m) for n, m in sizes]
        return abs(theta - found) - wider * _Z * math.sqrt(theta * (1 - theta) * float(weights**2 @ spreads))

    tiny = 1e-12
    low = 0.0 if found <= tiny else float(brentq(miss, tiny, min(found, 1 - tiny)))
    high = 1.0 if found >= 1 - tiny else float(brentq(miss, max(found, tiny), 1 - tiny))
    return found, low, high


def chance(
    strata: Sequence[Stratum], sides: Literal["two-sided", "greater"] = "two-sided", wider: float = 1.0
) -> float:
    """Return how often chance alone makes values as different as these.

    P. van Elteren's stratified Wilcoxon test, corrected for ties: who is of lately is redrawn within each stratum. With
    one stratum it is the Mann-Whitney test.

    Parameters
    ----------
    strata : sequence of (ndarray, ndarray)
        At least one.
    sides : {"two-sided", "greater"}
        Whether smaller values of lately count too.
    wider : float
        As in :func:`superiority`.

    Returns
    -------
    float
        1 where all values of every stratum are the same.
    """
    beyond = variance = 0.0
    for x, y in strata:
        n, m = len(x), len(y)
        beyond += _weight(n, m) * (_share_of_pairs(x, y) - 0.5)
        tied = np.unique(np.concatenate([x, y]), return_counts=True)[1].astype(np.float64)
        variance += _weight(n, m) / 12 * (1 - float((tied**3 - tied).sum()) / ((n + m) ** 3 - (n + m)))
    if variance <= 1e-12:
        return 1.0
    z = beyond / (wider * math.sqrt(variance))
    return 2 * _NORMAL.cdf(-abs(z)) if sides == "two-sided" else _NORMAL.cdf(-z)


def difference(now: Share, earlier: Share) -> tuple[float, float, float]:
    """Return by how much a share has grown, with its 95 % interval: between −1 and 1.

    Method 10 of R. G. Newcombe, Stat. Med. 17, 873 (1998), which joins Wilson's intervals of both.

    Parameters
    ----------
    now, earlier : Share
        Neither of nothing.

    Returns
    -------
    (float, float, float)
        Difference, and the ends of its interval.
    """
    p, (low, high) = now.value or 0.0, now.interval or (0.0, 1.0)
    q, (least, most) = earlier.value or 0.0, earlier.interval or (0.0, 1.0)
    found = p - q
    return found, found - math.hypot(p - low, most - q), found + math.hypot(high - p, q - least)


def design_effect(names: Sequence[str], patients: Sequence[str]) -> float:
    """Return by how much the variance of shares exceeds that of as many independent names.

    The mean of the names' own design effects: J. N. K. Rao, A. J. Scott, J. Am. Stat. Assoc. 76, 221 (1981).

    Parameters
    ----------
    names, patients : sequence of str, length n
        What was said, and about whom; n > 0.

    Returns
    -------
    float
        At least 1; 1 where nobody has more than one.
    """
    n, counts = len(names), Counter(names)
    own = {name: n / effective_number([one == name for one in names], patients) for name in counts}
    if len(counts) == 1:
        return own[names[0]]
    return sum((1 - counts[name] / n) * effect for name, effect in own.items()) / (len(counts) - 1)


def widening(sizes: tuple[int, int], effects: tuple[float, float]) -> float:
    """Return how much farther a difference of two groups strays than that of independent cases.

    A patient in both groups makes it stray less; that is left out, so the difference is taken for less sure than it is.

    Parameters
    ----------
    sizes : (int, int)
        Cases of both groups.
    effects : (float, float)
        Their design effects.

    Returns
    -------
    float
        At least 1.
    """
    (n, m), (ours, theirs) = sizes, effects
    return math.sqrt((ours / n + theirs / m) / (1 / n + 1 / m))


def _share_of_pairs(x: Floats, y: Floats) -> float:
    ordered = np.sort(y)
    below = np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")
    return float(below.mean() / (2 * len(y)))


def _weight(n: int, m: int) -> float:
    return n * m / (n + m + 1)
