"""A fake predictor and worlds of Gaussian diseases, in which the right answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meta_dx.cohort.examples import Examples
from meta_dx.evaluation.logistic import logistic_probabilities


class FakePredictor:
    """Nearest centroid in numpy (``prototypical``, ``simpleshot``) and logistic regression (``logistic``)."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.batches: list[tuple[int, ...]] = []

    def adapt_episodes(
        self, support_x: np.ndarray, support_onehot: np.ndarray, head: str
    ) -> dict[str, np.ndarray]:
        assert head in ("prototypical", "simpleshot", "logistic")
        assert support_x.dtype == support_onehot.dtype == np.float32
        self.batches.append(support_x.shape)
        return {"x": support_x, "onehot": support_onehot}

    def predict_episodes(
        self, state: Mapping[str, np.ndarray], query_x: np.ndarray, head: str
    ) -> tuple[np.ndarray, np.ndarray]:
        x, hot = state["x"], state["onehot"]
        if head == "logistic":
            p = logistic_probabilities(x, hot, query_x)
            return np.log(np.maximum(p, 1e-30)), p
        if head == "simpleshot":
            x, query_x = (
                v / np.maximum(np.linalg.norm(v, axis=2, keepdims=True), 1e-9) for v in (x, query_x)
            )
        centres = np.einsum("esn,esd->end", hot, x) / np.maximum(hot.sum(1), 1)[..., None]
        logits = -0.5 / self.temperature * ((query_x[:, :, None] - centres[:, None]) ** 2).sum(3)
        logits = np.where(hot.sum(1)[:, None] > 0, logits, -np.inf)
        p = np.exp(logits - logits.max(2, keepdims=True))
        return logits, p / p.sum(2, keepdims=True)

    def doubt_episodes(
        self,
        state: Mapping[str, np.ndarray],
        query_x: np.ndarray,
        head: str,
        prior: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Answer; ``prototypical`` doubts what lies far from every centre, the others cannot tell."""
        p = self.predict_episodes(state, query_x, head)[1].astype(np.float64)
        if prior is not None:
            p = p * np.asarray(prior)[:, None]
            p = p / p.sum(2, keepdims=True)
        if head != "prototypical":
            return p, None
        centres = np.einsum("esn,esd->end", state["onehot"], state["x"])
        centres = centres / np.maximum(state["onehot"].sum(1), 1)[..., None]
        return p, ((query_x[:, :, None] - centres[:, None]) ** 2).sum(3).min(2)


@dataclass(frozen=True)
class World:
    examples: Examples
    vectors: np.ndarray


def gaussian_world(
    patients: Sequence[int], *, seed: int, distance: float, size: int = 0, noise: float = 1.0
) -> World:
    """Diseases at the corners of a simplex, all ``distance`` apart; a patient is a corner plus unit noise."""
    random = np.random.default_rng(seed)
    dimensions = max(size, len(patients))
    code = np.repeat([f"D{i:02d}" for i in range(len(patients))], patients)
    centre = np.repeat(np.eye(len(patients), dimensions) * distance / np.sqrt(2), patients, axis=0)
    vectors = centre + noise * random.normal(size=centre.shape)
    n = len(code)
    examples = Examples(
        np.array([f"S{i:05d}" for i in range(n)]),
        np.array([f"P{i:05d}" for i in range(n)]),
        code,
        tuple(np.array([i]) for i in range(n)),
    )
    return World(examples, vectors.astype(np.float32))


def shuffled(world: World, seed: int) -> World:
    """The same studies with diagnoses dealt out at random."""
    code = np.random.default_rng(seed).permutation(world.examples.code)
    old = world.examples
    return World(Examples(old.study, old.patient, code, old.images), world.vectors)


def reordered(world: World, seed: int) -> World:
    """The same studies in another order."""
    order = np.random.default_rng(seed).permutation(len(world.examples))
    return World(world.examples.take(order), world.vectors[order])
