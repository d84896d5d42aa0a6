"""The batched logistic regression against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from meta_dx.evaluation.logistic import logistic_probabilities


@pytest.mark.parametrize(("shots", "ways", "size"), [(1, 5, 32), (5, 5, 32), (5, 2, 3), (3, 20, 16)])
def test_agrees_with_scikit_learn(shots: int, ways: int, size: int) -> None:
    random = np.random.default_rng()
    y = np.tile(np.repeat(np.arange(ways), shots), (4, 1))
    x = random.normal(size=(4, ways, size))[np.arange(4)[:, None], y] + random.normal(size=(*y.shape, size))
    query = random.normal(size=(4, 30, size)) * 1.5
    found = logistic_probabilities(x, np.eye(ways)[y], query)
    for e in range(4):
        reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000)
        if (
            ways == 2
        ):  # scikit-learn's binary form has one weight vector: twice the penalty of the softmax form
            reference.set_params(C=2.0)
        expected = reference.fit(x[e], y[e]).predict_proba(query[e])
        np.testing.assert_allclose(found[e], expected, atol=1e-3)


def test_padding_and_absent_classes_change_nothing() -> None:
    random = np.random.default_rng()
    x, query = random.normal(size=(3, 10, 6)), random.normal(size=(3, 7, 6))
    onehot = np.eye(5)[np.tile(np.arange(5), 2)][None].repeat(3, 0)
    plain = logistic_probabilities(x, onehot, query)
    padded_x = np.concatenate([x, random.normal(size=(3, 4, 6))], axis=1)
    padded_onehot = np.pad(onehot, ((0, 0), (0, 4), (0, 2)))
    padded = logistic_probabilities(padded_x, padded_onehot, query)
    np.testing.assert_allclose(padded[..., :5], plain, atol=1e-6)
    assert (padded[..., 5:] == 0).all()
