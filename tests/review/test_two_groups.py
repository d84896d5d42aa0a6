"""Two groups held against each other: the textbook's figures, and intervals that hold what they promise."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from meta_dx.review.dashboard import Share
from meta_dx.review.two_groups import chance, difference, superiority

Rng = np.random.Generator


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(7)


def test_with_one_stratum_share_and_chance_are_mann_and_whitneys(rng: Rng) -> None:
    x, y = rng.integers(0, 6, 30).astype(float), rng.integers(1, 7, 47).astype(float)
    plain = {"method": "asymptotic", "use_continuity": False}
    assert superiority([(x, y)])[0] == pytest.approx(mannwhitneyu(x, y).statistic / (30 * 47))
    assert chance([(x, y)]) == pytest.approx(mannwhitneyu(x, y, **plain).pvalue)
    greater = mannwhitneyu(x, y, alternative="greater", **plain).pvalue
    assert chance([(x, y)], "greater") == pytest.approx(greater)


def test_the_chance_is_what_redrawing_within_strata_gives(rng: Rng) -> None:
    """Strata of their own level and size, with ties: who is of lately is redrawn in each of them."""
    strata = [
        (rng.integers(0, 9, 40).astype(float), rng.integers(0, 8, 12).astype(float)),
        (rng.integers(50, 56, 8).astype(float), rng.integers(50, 56, 70).astype(float)),
    ]

    def redrawn(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = rng.permutation(np.concatenate([x, y]))
        return both[: len(x)], both[len(x) :]

    def apart(given: list[tuple[np.ndarray, np.ndarray]]) -> float:
        pairs = [np.sign(x[:, None] - y[None]).sum() / (len(x) + len(y) + 1) for x, y in given]
        return abs(float(sum(pairs)))

    seen = apart(strata)
    drawn = np.array([apart([redrawn(x, y) for x, y in strata]) for _ in range(5000)])
    assert chance(strata) == pytest.approx(float((drawn >= seen - 1e-9).mean()), abs=0.02)
    assert 0.001 < chance(strata) < 0.5, "a chance that the draws can tell"


def test_values_that_are_all_the_same_show_nothing() -> None:
    assert chance([(np.zeros(30), np.zeros(40)), (np.ones(3), np.ones(40))]) == 1.0


@pytest.mark.parametrize("distance", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("sizes", [[(25, 40)], [(60, 20), (8, 90)]])
def test_the_interval_of_pairs_covers_the_truth(
    rng: Rng, distance: float, sizes: list[tuple[int, int]]
) -> None:
    truth = NormalDist().cdf(distance / 2**0.5)
    held = 0
    for _ in range(300):
        strata = [
            (rng.normal(10 * k + distance, 1, n), rng.normal(10 * k, 1, m)) for k, (n, m) in enumerate(sizes)
        ]
        _, low, high = superiority(strata)
        held += low <= truth <= high
    assert 0.92 < held / 300


def test_the_interval_of_pairs_has_a_width_also_where_groups_do_not_overlap() -> None:
    value, low, high = superiority([(np.full(25, 9.0), np.zeros(40))])
    assert (value, high) == (1.0, 1.0)
    assert 0.8 < low < 0.99


def test_the_difference_of_two_shares_is_newcombes() -> None:
    """Table II (a) of his paper: 56 of 70 beside 48 of 80, 0.0524 to 0.3339."""
    assert difference(Share(56, 70), Share(48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert difference(Share(48, 80), Share(56, 70)) == pytest.approx((-0.2, -0.3339, -0.0524), abs=1e-4)
