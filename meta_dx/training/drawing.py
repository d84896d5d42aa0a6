"""Which studies and images a step of pre-training sees: a function of the seed and the step's number.

Long tails are drawn in a balanced way without leaving studies out by chance: over an epoch every study
comes as often as it should, rounded up or down (systematic sampling), in random order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.training.embedding import Rows
from meta_dx.training.task import step_seed


def class_shares(codes: npt.NDArray[np.str_], balance: float) -> npt.NDArray[np.float64]:
    """Return each study's share of the draws.

    Parameters
    ----------
    codes : ndarray of str, shape (n,)
        Disease of each study.
    balance : float
        0: every study alike; 1: every disease alike; a disease with n studies gets n^(1 - balance) in
        proportion.

    Returns
    -------
    ndarray of float64, shape (n,)
        Sums to one.
    """
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    weights = counts[inverse].astype(np.float64) ** -balance
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def epoch_order(shares: npt.NDArray[np.float64], draws: int, seed: int, epoch: int) -> Rows:
    """Return the studies of one epoch in order.

    Parameters
    ----------
    shares : ndarray of float64, shape (n,)
        Share of the draws of each study.
    draws : int
        Length of the epoch.
    seed, epoch : int
        Name the draw.

    Returns
    -------
    ndarray of int64, shape (draws,)
        Each study ``floor`` or ``ceil`` of ``draws * share`` times.
    """
    rng = np.random.default_rng(step_seed(seed, "epoch", epoch))
    shuffled = rng.permutation(len(shares))  # neighbours share rounding, so their order is drawn too
    ends = np.cumsum(shares[shuffled]) * draws
    ticks = np.arange(draws) + rng.random()
    found = shuffled[np.minimum(np.searchsorted(ends, ticks, side="right"), len(shares) - 1)]
    order: Rows = rng.permutation(found).astype(np.int64)
    return order


class Batches:
    """The batches of pre-training, by the number of the step.

    Parameters
    ----------
    examples : Examples
        The common diseases' studies.
    size : int
        Batch size.
    balance : float
        As in :func:`class_shares`.
    seed : int
        The one seed.
    """

    def __init__(self, examples: Examples, size: int, balance: float, seed: int) -> None:
        self._examples, self._size, self._seed = examples, size, seed
        self._shares = class_shares(examples.code, balance)
        self._order = lru_cache(maxsize=1)(self._epoch)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch: every one is full, so there are a few more draws than studies."""
        return -(-len(self._examples) // self._size)

    def draw(self, step: int) -> tuple[Rows, Rows]:
        """Return one step's studies (rows of the examples) and an image of each (rows of the store)."""
        epoch, place = divmod(step, self.per_epoch)
        studies = self._order(epoch)[place * self._size : (place + 1) * self._size]
        rng = np.random.default_rng(step_seed(self._seed, "image", step))
        images = [self._examples.images[study] for study in studies.tolist()]
        return studies, np.array([rows[rng.integers(len(rows))] for rows in images], dtype=np.int64)

    def _epoch(self, epoch: int) -> Rows:
        return epoch_order(self._shares, self.per_epoch * self._size, self._seed, epoch)
