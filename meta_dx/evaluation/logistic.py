"""Multinomial logistic regression for many small tasks at once, in numpy.

Minimises, for each episode, ``sum_i -log softmax(x_i W + b)[y_i] + l2/2 |W|^2`` (the intercept is not
penalised), the objective of scikit-learn's ``LogisticRegression(C=1/l2)``, by steps on Böhning's quadratic
bound (1992), accelerated as by Nesterov with adaptive restart (O'Donoghue and Candès 2015). The tests hold it
against scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def logistic_probabilities(
    support: npt.NDArray[np.floating],
    onehot: npt.NDArray[np.floating],
    query: npt.NDArray[np.floating],
    *,
    l2: float = 1.0,
    steps: int = 240,
) -> Floats:
    """Fit one classifier to each episode and return its probabilities for the queries.

    Parameters
    ----------
    support : ndarray, shape (E, S, d)
        Features, of about unit scale.
    onehot : ndarray, shape (E, S, N)
        Labels; rows of zeros are padding. A class without any row gets probability 0.
    query : ndarray, shape (E, Q, d)
        Features.
    l2 : float
        Weight of the penalty.
    steps : int
        Gradient steps: 240 bring probabilities within 1e-3 of scikit-learn's on twenty classes of three rows.

    Returns
    -------
    ndarray, shape (E, Q, N)
        Probabilities; rows sum to 1.
    """
    labels = np.asarray(onehot, dtype=np.float32)
    x = _with_intercept(support)  # (E, S, d+1)
    real = labels.sum(2, keepdims=True)  # (E, S, 1): 0 in padded rows
    absent = np.where(labels.sum(1, keepdims=True) > 0, 0.0, -np.inf).astype(np.float32)  # (E, 1, N)
    penalty = np.full((x.shape[2], 1), l2, dtype=np.float32)
    penalty[-1] = 0.0
    # Böhning (1992): the Hessian is at most (X'X/2 + penalty) for each class, so its inverse is a step that
    # never overshoots, and it takes the different scales of the features out of the problem.
    wide = x.astype(np.float64)
    curvature = 0.5 * (wide * real).transpose(0, 2, 1) @ wide + np.eye(x.shape[2]) * (penalty + 1e-9)
    rate = np.linalg.inv(curvature).astype(np.float32)  # (E, d+1, d+1)

    weights = np.zeros((len(x), x.shape[2], labels.shape[2]), dtype=np.float32)
    ahead, momentum = weights, np.ones((len(x), 1, 1), dtype=np.float32)
    for _ in range(steps):
        error = (_softmax(x @ ahead + absent) - labels) * real
        gradient = x.transpose(0, 2, 1) @ error + penalty * ahead
        stepped = ahead - rate @ gradient
        uphill = np.sum(gradient * (stepped - weights), axis=(1, 2), keepdims=True) > 0
        following = np.where(uphill, np.float32(1), 0.5 + np.sqrt(0.25 + momentum**2))
        push = np.where(uphill, np.float32(0), (momentum - 1) / following)
        ahead, weights, momentum = stepped + push * (stepped - weights), stepped, following
    return _softmax((_with_intercept(query) @ weights + absent).astype(np.float64))


def _with_intercept(x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=2).astype(np.float32)


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    powers = np.exp(logits - logits.max(2, keepdims=True))
    return np.asarray(powers / powers.sum(2, keepdims=True))
