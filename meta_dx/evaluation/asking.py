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
#: The same, with the epistemic uncertainty (E, Q) of each answer, or None where the method has none.
DoubtingMethod = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]], tuple[Floats, Floats | None]
]

_BATCH_BYTES = 12_000_000  # embeddings of one batch of episodes: larger ones fall out of a CPU's cache
_BATCH_PAIRS = 2_000_000  # pairs of support rows in one batch: a head with self-attention weighs each


class EpisodePredictor(Protocol):
    """What the protocols need of :class:`~meta_dx.inference.predictor.Predictor`."""

    def adapt_episodes(
        self, support_x: npt.NDArray[np.float32], support_onehot: npt.NDArray[np.float32], head: str
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Adapt to supports (E, S, D) with labels (E, S, N), all zero where padded."""

    def doubt_episodes(
        self,
        state: Mapping[str, npt.NDArray[np.float32]],
        query_x: npt.NDArray[np.float32],
        head: str,
        prior: npt.ArrayLike | None = None,
    ) -> tuple[Floats, Floats | None]:
        """Return calibrated probabilities (E, Q, N) under a prior (E, N), and epistemic uncertainty (E, Q)."""


@dataclass(frozen=True)
class Answers:
    """What a method answered.

    Parameters
    ----------
    probabilities : ndarray, shape (T, N)
        In the order of :class:`Asked`.
    epistemic : ndarray, shape (T,), or None
        Nats; None where the method has none.
    outside_probabilities, outside_epistemic : ndarray, shapes (U, N) and (U,)
        The same for queries from outside the episodes, in the order of the episodes.
    """

    probabilities: Floats
    epistemic: Floats | None
    outside_probabilities: Floats
    outside_epistemic: Floats | None


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
    doubting = doubting_head(predictor, head)
    return lambda support, onehot, query: doubting(support, onehot, query)[0]


def doubting_head(
    predictor: EpisodePredictor, head: str, prior: npt.ArrayLike | None = None
) -> DoubtingMethod:
    """Return one head of a bundle as a method that also gives its epistemic uncertainty.

    Parameters
    ----------
    predictor : EpisodePredictor
        The bundle on ONNX Runtime.
    head : str
        Name of the head.
    prior : array_like, shape (N,), optional
        Frequency of each class up to a factor; alike if absent.
    """

    def method(
        support: npt.NDArray[np.float32], onehot: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
    ) -> tuple[Floats, Floats | None]:
        state = predictor.adapt_episodes(support, onehot, head)
        weights = None if prior is None else np.repeat(np.asarray(prior)[None], len(onehot), axis=0)  # (E, N)
        return predictor.doubt_episodes(state, query, head, weights)

    return method


def _without_doubt(method: Method, prior: npt.ArrayLike | None = None) -> DoubtingMethod:
    def asked(
        support: npt.NDArray[np.float32], onehot: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
    ) -> tuple[Floats, None]:
        p = method(support, onehot, query)
        if prior is None:
            return p, None
        weighted = p * np.asarray(prior, dtype=np.float64)
        return weighted / weighted.sum(2, keepdims=True), None

    return asked


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
    vectors, plans, progress
        As in :func:`ask_with_doubt`.

    Returns
    -------
    ndarray, shape (T, N)
        Probabilities in the order of :class:`Asked`.
    """
    return ask_with_doubt(_without_doubt(method), vectors, plans, progress=progress).probabilities


def ask_with_doubt(
    method: DoubtingMethod,
    vectors: npt.NDArray[np.floating],
    plans: Sequence[EpisodePlan],
    outside: Sequence[Ints] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Answers:
    """Put every query of every episode to one method, and queries from outside beside them.

    Parameters
    ----------
    method : DoubtingMethod
        For example from :func:`methods_of`.
    vectors : ndarray, shape (n, D)
        The representation of each example.
    plans : sequence of EpisodePlan
        The episodes; all with the same number of classes.
    outside : sequence of ndarray of int64, one an episode, optional
        Rows of further queries, whose disease is not among the classes; none if absent.
    progress : callable
        Told the number of episodes finished after each batch.

    Returns
    -------
    Answers
    """
    beyond = list(outside) or [np.zeros(0, dtype=np.int64)] * len(plans)
    inside = [sum(map(len, plan.query)) for plan in plans]
    rows = [np.concatenate([*plan.query, more]) for plan, more in zip(plans, beyond, strict=True)]
    answers: dict[int, tuple[Floats, Floats | None]] = {}
    for batch in _batches(plans, [len(r) for r in rows], vectors.shape[1]):
        support, onehot = _padded_support(vectors, [plans[i] for i in batch])
        probabilities, epistemic = method(support, onehot, _padded_query(vectors, [rows[i] for i in batch]))
        for at, i in enumerate(batch):
            real = slice(0, len(rows[i]))
            answers[i] = (probabilities[at, real], None if epistemic is None else epistemic[at, real])
        progress(len(answers))
    order = [(answers[i], inside[i]) for i in range(len(plans))]
    doubts = [(doubt, n) for (_, doubt), n in order if doubt is not None]
    return Answers(
        np.concatenate([p[:n] for (p, _), n in order]),
        np.concatenate([doubt[:n] for doubt, n in doubts]) if doubts else None,
        np.concatenate([p[n:] for (p, _), n in order]),
        np.concatenate([doubt[n:] for doubt, n in doubts]) if doubts else None,
    )


def _batches(plans: Sequence[EpisodePlan], asked: Sequence[int], size: int) -> Iterator[list[int]]:
    """Group episodes of equal shape, so that little is padded, in batches that fit in memory."""
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, plan in enumerate(plans):
        queries = asked[i]
        # Rounding up to eighths keeps the number of shapes small: ONNX Runtime plans memory anew for each.
        step = max(1, queries // 8)
        by_shape[sum(len(rows) for rows in plan.support), -(-queries // step) * step].append(i)
    for (support, queries), members in sorted(by_shape.items()):
        fitting = _BATCH_BYTES // (4 * size * (support + queries))
        most = max(1, min(fitting, _BATCH_PAIRS // support**2))
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
    vectors: npt.NDArray[np.floating], rows: Sequence[npt.NDArray[np.int64]]
) -> npt.NDArray[np.float32]:
    x = np.zeros((len(rows), max(map(len, rows)), vectors.shape[1]), dtype=np.float32)  # (E, Q, D)
    for e, r in enumerate(rows):
        x[e, : len(r)] = vectors[r]
    return x


def methods_of(
    predictor: EpisodePredictor,
    embeddings: npt.NDArray[np.floating],
    heads: Sequence[str],
    extra: Mapping[str, npt.NDArray[np.floating]],
    prior: npt.ArrayLike | None = None,
) -> dict[str, tuple[DoubtingMethod, npt.NDArray[np.floating]]]:
    """Return every method with what it looks at: heads at embeddings, extras at their own features.

    With a prior, shape (N,), the classes of every episode are weighed by it; heads and methods take all as alike.
    """
    found: dict[str, tuple[DoubtingMethod, npt.NDArray[np.floating]]] = {
        head: (doubting_head(predictor, head, prior), embeddings) for head in heads
    }
    for name, features in extra.items():
        if len(features) != len(embeddings):
            raise ValueError(f"{name} has {len(features)} rows, the embeddings {len(embeddings)}")
        found[name] = (_without_doubt(logistic_probabilities, prior), features)
    return found
