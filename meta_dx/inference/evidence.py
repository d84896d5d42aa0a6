"""What an answer rests on: the confirmed cases that look most like a query, and how unsure the answer is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LENGTH_FLOOR = 1e-12  # a vector shorter than this has no direction, and is similar to nothing


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


def _unit(x: npt.ArrayLike) -> Floats:
    vectors = np.asarray(x, dtype=np.float64)
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LENGTH_FLOOR)
    return unit
