"""Put the same few-shot tasks to every method: batched through ONNX Runtime, or to the shortcut baseline.

Episodes of one shape go through the predictor together, padded where they are ragged: a support row whose
one-hot label is all zero does not count, and the answers to padded queries are thrown away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodePlan
from meta_dx.evaluation.logistic import logistic_probabilities

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: From support (E, S, D), one-hot labels (E, S, N) and queries (E, Q, D) to probabilities (E, Q, N).
Method = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]], Floats]

_BATCH_BYTES = 48_000_000  # embeddings of one batch of episodes


class EpisodePredictor(Protocol):
    """What the protocols need of :class:`~meta_dx.inference.predictor.Predictor`."""

    def adapt_episodes(
        self, support_x: npt.NDArray[np.float32], support_onehot: npt.NDArray[np.float32], head: str
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Adapt to supports (E, S, D) with labels (E, S, N), all zero where padded."""

    def predict_episodes(
        self, state: Mapping[str, npt.NDArray[np.float32]], query_x: npt.NDArray[np.float32], head: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return logits and calibrated probabilities, both (E, Q, N)."""


@dataclass(frozen=True)
class Asked:
    """Every query of every episode, one row each, in the order of the episodes and their classes.

    Parameters
    ----------
    episode : ndarray of int64, shape (T,)
        Position of the episode.
    label : ndarray of int64, shape (T,)
        Class of the query in its episode, 0 … N-1.
    disease, patient : ndarray of str, shape (T,)
        Disease code and patient group.
    classes : ndarray of str, shape (E, N)
        Disease code of each class of each episode.
    """

    episode: Ints
    label: Ints
    disease: npt.NDArray[np.str_]
    patient: npt.NDArray[np.str_]
    classes: npt.NDArray[np.str_]

    @classmethod
    def of(cls, plans: Sequence[EpisodePlan], examples: Examples) -> Asked:
        """List the queries of these episodes."""
        rows = np.concatenate([row for plan in plans for row in plan.query])
        counts = np.array([[len(row) for row in plan.query] for plan in plans])  # (E, N)
        episodes, ways = counts.shape
        return cls(
            np.repeat(np.arange(episodes), counts.sum(1)),
            np.repeat(np.tile(np.arange(ways), episodes), counts.ravel()),
            examples.code[rows],
            examples.patient[rows],
            np.array([plan.classes for plan in plans]),
        )

    @property
    def counts(self) -> Ints:
        """Queries of each class of each episode, shape (E, N)."""
        found = np.zeros(self.classes.shape, dtype=np.int64)
        np.add.at(found, (self.episode, self.label), 1)
        return found


def from_head(predictor: EpisodePredictor, head: str) -> Method:
    """Return one head of a bundle as a method."""

    def method(
        support: npt.NDArray[np.float32], onehot: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
    ) -> Floats:
        state = predictor.adapt_episodes(support, onehot, head)
        return np.asarray(predictor.predict_episodes(state, query, head)[1], dtype=np.float64)

    return method


def ask(
    method: Method,
    vectors: npt.NDArray[np.floating],
    plans: Sequence[EpisodePlan],
    progress: Callable[[int], None] = lambda _: None,
) -> Floats:
    """Put every query of every episode to one method.

    Parameters
    ----------
    method : Method
        :func:`from_head` or :func:`~meta_dx.evaluation.logistic.logistic_probabilities`.
    vectors : ndarray, shape (n, D)
        The representation of each example.
    plans : sequence of EpisodePlan
        The episodes; all with the same number of classes.
    progress : callable
        Told the number of episodes finished after each batch.

    Returns
    -------
    ndarray, shape (T, N)
        Probabilities in the order of :class:`Asked`.
    """
    answers: dict[int, Floats] = {}
    for batch in _batches(plans, vectors.shape[1]):
        chosen = [plans[i] for i in batch]
        support, onehot = _padded_support(vectors, chosen)
        query, sizes = _padded_query(vectors, chosen)
        probabilities = method(support, onehot, query)
        answers.update({i: probabilities[at, : sizes[at]] for at, i in enumerate(batch)})
        progress(len(answers))
    return np.concatenate([answers[i] for i in range(len(plans))])


def _batches(plans: Sequence[EpisodePlan], size: int) -> Iterator[list[int]]:
    """Group episodes of equal shape, so that little is padded, in batches that fit in memory."""
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, plan in enumerate(plans):
        queries = sum(len(rows) for rows in plan.query)
        # Rounding up to eighths keeps the number of shapes small: ONNX Runtime plans memory anew for each.
        step = max(1, queries // 8)
        by_shape[sum(len(rows) for rows in plan.support), -(-queries // step) * step].append(i)
    for (support, queries), members in sorted(by_shape.items()):
        most = max(1, _BATCH_BYTES // (4 * size * (support + queries)))
        for start in range(0, len(members), most):
            yield members[start : start + most]


def _padded_support(
    vectors: npt.NDArray[np.floating], plans: Sequence[EpisodePlan]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    most = max(sum(len(rows) for rows in plan.support) for plan in plans)
    x = np.zeros((len(plans), most, vectors.shape[1]), dtype=np.float32)  # (E, S, D)
    onehot = np.zeros((len(plans), most, len(plans[0].classes)), dtype=np.float32)  # (E, S, N)
    for e, plan in enumerate(plans):
        rows = np.concatenate(plan.support)
        labels = np.repeat(np.arange(len(plan.classes)), [len(r) for r in plan.support])
        x[e, : len(rows)] = vectors[rows]
        onehot[e, np.arange(len(rows)), labels] = 1.0
    return x, onehot


def _padded_query(
    vectors: npt.NDArray[np.floating], plans: Sequence[EpisodePlan]
) -> tuple[npt.NDArray[np.float32], list[int]]:
    rows = [np.concatenate(plan.query) for plan in plans]
    sizes = [len(r) for r in rows]
    x = np.zeros((len(plans), max(sizes), vectors.shape[1]), dtype=np.float32)  # (E, Q, D)
    for e, r in enumerate(rows):
        x[e, : len(r)] = vectors[r]
    return x, sizes


def methods_of(
    predictor: EpisodePredictor,
    embeddings: npt.NDArray[np.floating],
    heads: Sequence[str],
    extra: Mapping[str, npt.NDArray[np.floating]],
) -> dict[str, tuple[Method, npt.NDArray[np.floating]]]:
    """Return every method with what it looks at: heads at embeddings, extras at their own features."""
    found: dict[str, tuple[Method, npt.NDArray[np.floating]]] = {
        head: (from_head(predictor, head), embeddings) for head in heads
    }
    for name, features in extra.items():
        if len(features) != len(embeddings):
            raise ValueError(f"{name} has {len(features)} rows, the embeddings {len(embeddings)}")
        found[name] = (logistic_probabilities, features)
    return found
