"""What an answer rests on: the confirmed cases that carry it or look most like the query, and how unsure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_dx.inference.answers import Answer

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LENGTH_FLOOR = 1e-12  # a vector shorter than this has no direction, and is similar to nothing
_SHOWN = 0.999  # evidence is listed until it holds this share of the weight …
_FEWEST = 20  # confirmed cases, with fewer of which a share of them says little
_MOST = 100  # … or this many cases


@dataclass(frozen=True)
class EmbeddedStudies:
    """Studies and their pictures as embeddings.

    Parameters
    ----------
    x : ndarray of float32, shape (n, D)
        Each study: the mean of its pictures.
    pictures : ndarray of float32, shape (P, D)
        All pictures of the first study, then those of the next.
    study : ndarray of int64, shape (P,)
        Whose picture it is.
    name : ndarray of str, shape (P,)
        Identifier of the picture.
    """

    x: Vectors
    pictures: Vectors
    study: Ints
    name: npt.NDArray[np.str_]

    def take(self, studies: Sequence[int] | Ints) -> EmbeddedStudies:
        """Return these studies, in this order."""
        order = np.asarray(studies, dtype=np.int64)
        places = [np.flatnonzero(self.study == one) for one in order]
        kept = np.concatenate([np.zeros(0, dtype=np.int64), *places])
        study = np.repeat(np.arange(len(order)), [len(p) for p in places])
        return EmbeddedStudies(self.x[order], self.pictures[kept], study, self.name[kept])

    def joined(self, other: EmbeddedStudies) -> EmbeddedStudies:
        """Return these studies followed by the others."""
        return EmbeddedStudies(
            np.concatenate([self.x, other.x]),
            np.concatenate([self.pictures, other.pictures]),
            np.concatenate([self.study, other.study + len(self.x)]),
            np.concatenate([self.name, other.name]),
        )


@dataclass(frozen=True)
class Evidence:
    """A support case that an answer rests on.

    Parameters
    ----------
    case : int
        Row of the support.
    picture : str
        Identifier of its picture that is most similar to the query.
    weight : float
        Probability of the case's disease times the case's attention within it.
    """

    case: int
    picture: str
    weight: float


def evidence(
    answer: Answer,
    labels: npt.ArrayLike,
    query_x: npt.ArrayLike,
    support: EmbeddedStudies,
    mean: npt.ArrayLike,
) -> list[tuple[Evidence, ...]] | None:
    """Weigh the support cases of each answer and point to one picture of each.

    Parameters
    ----------
    answer : Answer
        To Q queries.
    labels : array_like of int, shape (S,)
        Class of each case.
    query_x : array_like, shape (Q, D)
        Embeddings of the queries.
    support : EmbeddedStudies
        The S cases; every one has a picture.
    mean : array_like, shape (D,)
        What is subtracted before pictures are compared: the mean embedding of the common diseases.

    Returns
    -------
    list of tuple of Evidence, or None
        None where the head does not attend to its cases. For each query the heaviest cases first (the earlier
        one where two weigh the same), until they hold 99.9 % of the weight, at most 100. All cases together
        weigh 1.
    """
    if answer.attention is None:
        return None
    weight = answer.probabilities[:, np.asarray(labels, dtype=np.int64)] * answer.attention  # (Q, S)
    centre = np.asarray(mean, dtype=np.float64)
    cosine = _unit(np.asarray(query_x) - centre) @ _unit(support.pictures - centre).T  # (Q, P)
    order = np.argsort(-weight, axis=1, kind="stable")
    of_case = [np.flatnonzero(support.study == case) for case in range(weight.shape[1])]
    found = []
    for q, cases in enumerate(order):
        heaviest = weight[q, cases]
        shown = cases[: min(_MOST, int((np.cumsum(heaviest) - heaviest < _SHOWN).sum()))]
        best = [of_case[case][np.argmax(cosine[q, of_case[case]])] for case in shown]
        found.append(
            tuple(
                Evidence(int(case), str(support.name[picture]), float(weight[q, case]))
                for case, picture in zip(shown, best, strict=True)
            )
        )
    return found


def entropy(probabilities: npt.ArrayLike) -> Floats:
    """Return the entropy of probabilities (…, N) in nats, shape (…)."""
    p = np.asarray(probabilities, dtype=np.float64)
    nats: Floats = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return nats


def nearest_support(support_x: npt.ArrayLike, query_x: npt.ArrayLike, k: int) -> tuple[Ints, Floats]:
    """Find the support cases that look most like each query.

    Parameters
    ----------
    support_x : array_like, shape (S, D)
        Embeddings of the confirmed cases, centred (:meth:`Predictor.centred`).
    query_x : array_like, shape (Q, D)
        Embeddings of the queries, centred.
    k : int
        How many; all of them where there are fewer.

    Returns
    -------
    indices : ndarray of int64, shape (Q, k)
        Rows of ``support_x``, the most similar first; the earlier row where two are equally similar.
    similarity : ndarray of float64, shape (Q, k)
        Cosine, -1 … 1.
    """
    cosine = _unit(query_x) @ _unit(support_x).T  # (Q, S)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, axis=1)


def remoteness(support_x: npt.ArrayLike, query_x: npt.ArrayLike) -> Floats | None:
    """Tell how far each query lies from every confirmed case, by how far those lie from one another.

    Parameters
    ----------
    support_x : array_like, shape (S, D)
        Embeddings of the confirmed cases, centred.
    query_x : array_like, shape (Q, D)
        Embeddings of the queries, centred.

    Returns
    -------
    ndarray of float64, shape (Q,), or None
        Share of the confirmed cases whose most similar other confirmed case is more similar to them than any is to the
        query: 1 where the query is farther away than each of them. None with fewer than 20 cases.
    """
    support = _unit(support_x)
    if len(support) < _FEWEST:
        return None
    among = support @ support.T  # (S, S)
    np.fill_diagonal(among, -np.inf)
    own = np.sort(among.max(axis=1))
    nearest = (_unit(query_x) @ support.T).max(axis=1)  # (Q,)
    farther: Floats = 1 - np.searchsorted(own, nearest, "right") / len(own)
    return farther


def _unit(x: npt.ArrayLike) -> Floats:
    vectors = np.asarray(x, dtype=np.float64)
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LENGTH_FLOOR)
    return unit
