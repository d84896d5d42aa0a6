"""How hard the demo cohort is: nearest centroid on raw pixels, border and headers alone, and shuffled labels.

    python benchmarks/demo_difficulty.py COHORT.toml HOME

Reads a home in which the whole pipeline has run (``make run`` leaves one) and prints 5-way 5-shot accuracy on the
rare diseases over 1000 episodes: what needs no learning at all, with its interval over diseases and patients, and the
trained network with its served head when the diagnoses are dealt out anew among the patients, 100 times, 10 episodes
each. Figures: docs/demo-cohort.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler
from meta_dx.evaluation.asking import Asked, Floats, Method, ask, from_head
from meta_dx.evaluation.figures import Tally
from meta_dx.evaluation.logistic import logistic_probabilities
from meta_dx.evaluation.shortcut import shortcut_features
from meta_dx.inference.bundle import latest_bundle
from meta_dx.inference.predictor import Predictor
from meta_dx.metrics.classification import hits
from meta_dx.steps import open_project
from meta_dx.steps.cohort import CohortData, assemble

WAYS, SHOTS, QUERIES, EPISODES, SHUFFLES = 5, 5, 10, 1000, 100
Array = npt.NDArray[np.float32]


def main(cohort: str, home: str) -> None:
    """Print all figures."""
    project = open_project(cohort, home)
    data = assemble(project)
    rare = data.by_role["rare"]
    plans = list(EpisodeSampler(rare, WAYS, SHOTS, QUERIES, 0).plans(EPISODES))
    for name, method, features in without_learning(data):
        share, (low, high) = scored(method, features, plans, rare)
        sys.stdout.write(f"{name}: {share:.1%} ({low:.1%} – {high:.1%})\n")
    each = shuffled(data, Predictor(latest_bundle(project.home)))
    half = 1.96 * np.std(each) / np.sqrt(len(each))
    sys.stdout.write(f"trained network, shuffled labels: {np.mean(each):.1%} (± {half:.1%} over shuffles)\n")


def without_learning(data: CohortData) -> Iterator[tuple[str, Method, Array]]:
    """Yield each method that learns nothing beforehand with what it looks at."""
    rare, images, headers = data.by_role["rare"], data.store.images, data.store.index
    pixels = np.stack([images[rows].reshape(len(rows), -1).mean(0) for rows in rare.images])
    pixels = (pixels - pixels.mean(1, keepdims=True)) / pixels.std(1, keepdims=True)
    yield "raw pixels, nearest centroid", nearest_centroid, pixels.astype(np.float32)
    black = np.zeros_like(images)  # a border that never varies is no feature
    yield "headers, logistic regression", logistic_probabilities, shortcut_features(rare, black, headers)
    yield "border, logistic regression", logistic_probabilities, shortcut_features(rare, images)
    both = shortcut_features(rare, images, headers)
    yield "border and headers, logistic regression", logistic_probabilities, both


def nearest_centroid(support: Array, onehot: Array, query: Array) -> Floats:
    """Score each class (E, Q, N) by how near its centroid is."""
    count = onehot.sum(1)[:, :, None]
    centroids = onehot.transpose(0, 2, 1) @ support / count  # (E, N, D)
    distance = ((query[:, :, None] - centroids[:, None]) ** 2).sum(-1)
    return np.asarray(-distance, dtype=np.float64)


def scored(
    method: Method, features: Array, plans: list[EpisodePlan], examples: Examples
) -> tuple[float, tuple[float, float]]:
    """Return accuracy over the episodes and its interval over diseases and patients."""
    asked = Asked.of(plans, examples)
    tally, right = Tally(asked, 0), hits(ask(method, features, plans), asked.label)
    return tally.mean(right), tally.interval(right)


def shuffled(data: CohortData, predictor: Predictor) -> list[float]:
    """Return what the trained network reaches when the diagnoses are dealt out anew, shuffle by shuffle."""
    rare = data.by_role["rare"]
    vectors = predictor.embed_studies(data.store.images, rare.images)
    method = from_head(predictor, predictor.bundle.serving_head)
    each = []
    for seed in range(SHUFFLES):
        dealt = dealt_anew(rare, np.random.default_rng(seed))
        plans = list(EpisodeSampler(dealt, WAYS, SHOTS, QUERIES, seed).plans(EPISODES // SHUFFLES))
        each.append(scored(method, vectors, plans, dealt)[0])
    return each


def dealt_anew(examples: Examples, rng: np.random.Generator) -> Examples:
    """Deal the diseases out anew among the patients: each disease keeps its number of patients."""
    patients, first, of = np.unique(examples.patient, return_index=True, return_inverse=True)
    return replace(examples, code=examples.code[first][rng.permutation(len(patients))][of])


if __name__ == "__main__":
    main(*sys.argv[1:])
