"""Count how often the 95 % interval of the episodic accuracy holds the truth, and how often a plainer one would.

Draws many cohorts from one known population of Gaussian diseases (some close to others, some noisy),
evaluates nearest centroids on each, and counts how often the interval holds the accuracy over *all* cohorts.
Run: ``python benchmarks/interval_coverage.py [cohorts]``; the figures stand in ``docs/evaluation.md``.
"""

from __future__ import annotations

import sys

import numpy as np

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodeSampler
from meta_dx.evaluation.asking import Asked
from meta_dx.evaluation.figures import Tally
from meta_dx.metrics.intervals import two_level_bootstrap

WAYS, QUERIES, SIZE = 5, 10, 6


def cohort(random: np.random.Generator, diseases: int, shots: int) -> tuple[Examples, np.ndarray]:
    """Draw diseases and patients of one cohort."""
    centre = random.normal(size=(diseases, SIZE)) * random.uniform(0.3, 1.7, size=(diseases, 1))
    noise = random.uniform(0.6, 1.4, size=diseases)
    patients = random.integers(shots + 2, shots + 14, size=diseases)
    of = np.repeat(np.arange(diseases), patients)
    n = len(of)
    names = np.array([f"S{i:05d}" for i in range(n)])
    codes = np.array([f"D{d:02d}" for d in of])
    images = tuple(np.array([i]) for i in range(n))
    vectors = centre[of] + noise[of, None] * random.normal(size=(n, SIZE))
    return Examples(names, names, codes, images), vectors


def answered(
    examples: Examples, vectors: np.ndarray, shots: int, episodes: int, seed: int
) -> tuple[Asked, np.ndarray]:
    """Answer episodes by the nearest centroid; returns the queries and whether each was right."""
    plans = list(EpisodeSampler(examples, WAYS, shots, QUERIES, seed).plans(episodes))
    hits = []
    for plan in plans:
        centres = np.stack([vectors[rows].mean(0) for rows in plan.support])
        query = vectors[np.concatenate(plan.query)]
        label = np.repeat(np.arange(WAYS), [len(rows) for rows in plan.query])
        distance = ((query[:, None] - centres[None]) ** 2).sum(2)
        hits.append(distance.argmin(1) == label)
    return Asked.of(plans, examples), np.concatenate(hits).astype(float)


def main(cohorts: int) -> None:
    """Print the coverage for three protocols."""
    for diseases, shots in ((15, 5), (30, 5), (30, 1)):
        random = np.random.default_rng(diseases * 10 + shots)
        found = [answered(*cohort(random, 40, shots), shots, 25, i) for i in range(400)]
        truth = np.mean([Tally(asked, 0).mean(hits) for asked, hits in found])
        held, plain, width = 0, 0, []
        for i in range(cohorts):
            asked, hits = answered(*cohort(random, diseases, shots), shots, 400, i)
            tally = Tally(asked, i)
            low, high = tally.interval(hits)
            other = two_level_bootstrap(hits, asked.disease, asked.patient, seed=i)
            held += low <= truth <= high
            plain += other.low <= truth <= other.high
            width.append(high - low)
        sys.stdout.write(
            f"{diseases} diseases, {WAYS}-way {shots}-shot: truth {truth:.3f}, coverage {held / cohorts:.3f}, "
            f"without the effect on other classes {plain / cohorts:.3f}, mean width {np.mean(width):.3f}\n"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
