"""SimpleShot and the logistic head's features against numpy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from meta_dx.learners.baselines import Logistic, SimpleShot
from tests.learners.episodes import random_episode


def cl2n(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    moved = x - mean
    return moved / np.linalg.norm(moved, axis=-1, keepdims=True)


def test_simpleshot_takes_the_nearest_centroid_of_centred_unit_features() -> None:
    episode = random_episode(0, shots=[[2, 5, 3]])
    mean = torch.arange(8.0) / 8
    head = SimpleShot(8, mean, scale=4.0).double()
    logits = head.predict(head.adapt(episode.support), episode.query).logits[0, 0].numpy()
    support, query = (cl2n(x[0].numpy(), mean.numpy()) for x in (episode.support_x, episode.query_x))
    labels = episode.support_y[0].numpy()
    centroids = np.stack([support[labels == n].mean(0) for n in range(3)])
    expected = -4 * ((query[:, None] - centroids) ** 2).sum(-1)
    np.testing.assert_allclose(logits, expected, rtol=1e-8, atol=1e-10)


def test_an_embedding_equal_to_the_base_mean_gives_no_nan() -> None:
    for head in (SimpleShot(8), Logistic(8)):
        state = head.adapt_tensors(torch.zeros(1, 3, 8), torch.eye(3)[None])
        assert head.predict_tensors(state, torch.zeros(1, 2, 8)).isfinite().all()


def test_a_base_mean_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(7,\)"):
        SimpleShot(8, torch.zeros(7))


def test_learners_are_there_and_fit_without_torchs_private_scan() -> None:
    code = (
        "import sys, torch; sys.modules['torch._higher_order_ops.scan'] = None\n"
        "import meta_dx.learners.registry\n"
        "from meta_dx.learners.baselines import Logistic\n"
        "Logistic(4).adapt_tensors(torch.eye(4)[None], torch.eye(4)[None])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
