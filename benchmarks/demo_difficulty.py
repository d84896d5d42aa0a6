"""How hard the demo cohort is without learning: nearest centroid on raw pixels, and border and headers alone.

    python benchmarks/demo_difficulty.py COHORT.toml HOME

Reads a home in which the cohort has been ingested (``make run`` leaves one) and prints 5-way 5-shot accuracy on the
rare diseases over 1000 episodes. Figures: docs/demo-cohort.md.
"""

from __future__ import annotations

import sys

import numpy as np

from meta_dx.episodes.plan import EpisodeSampler
from meta_dx.evaluation.logistic import logistic_probabilities
from meta_dx.evaluation.shortcut import shortcut_features
from meta_dx.steps import open_project
from meta_dx.steps.cohort import assemble


def main(cohort: str, home: str) -> None:
    """Print both figures."""
    data = assemble(open_project(cohort, home))
    rare = data.by_role["rare"]
    pixels = np.stack([data.store.images[rows].reshape(len(rows), -1).mean(0) for rows in rare.images])
    pixels = (pixels - pixels.mean(1, keepdims=True)) / pixels.std(1, keepdims=True)
    headers = shortcut_features(rare, data.store.images, data.store.index)
    found: dict[str, list[float]] = {
        "raw pixels, nearest centroid": [],
        "border and headers, logistic regression": [],
    }
    for plan in EpisodeSampler(rare, 5, 5, 10, 0).plans(1000):
        labels = np.concatenate([np.full(len(rows), n) for n, rows in enumerate(plan.query)])
        support, query = np.concatenate(plan.support), np.concatenate(plan.query)
        onehot = np.repeat(np.eye(5), [len(rows) for rows in plan.support], axis=0)
        centroids = np.stack([pixels[rows].mean(0) for rows in plan.support])
        nearest = ((pixels[query][:, None] - centroids) ** 2).sum(-1).argmin(1)
        guessed = logistic_probabilities(headers[support][None], onehot[None], headers[query][None])[
            0
        ].argmax(1)
        for name, answer in zip(found, (nearest, guessed), strict=True):
            found[name].append(float(np.mean([(answer[labels == n] == n).mean() for n in range(5)])))
    for name, each in found.items():
        half = 1.96 * np.std(each) / np.sqrt(len(each))
        sys.stdout.write(f"{name}: {np.mean(each):.1%} (± {half:.1%} over episodes)\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
