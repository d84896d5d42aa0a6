"""Prototypical networks against the formulas of the paper."""

from __future__ import annotations

import math

import pytest
import torch

from meta_dx.learners.prototypical import Prototypical
from tests.learners.episodes import random_episode

SHOTS = [[1, 4, 2], [3, 3, 1]]


def test_probabilities_are_the_softmax_of_squared_distances_to_class_means() -> None:
    episode = random_episode(0, shots=SHOTS)
    head = Prototypical(8, learned_scale=False).double()
    found = head.predict(head.adapt(episode.support), episode.query).probabilities()
    for e in range(2):
        means = [
            episode.support_x[e, episode.support_mask[e] & (episode.support_y[e] == n)].mean(0)
            for n in range(3)
        ]
        for q in range(12):
            weights = [math.exp(-float(((episode.query_x[e, q] - mean) ** 2).sum())) for mean in means]
            expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
            torch.testing.assert_close(found[e, q], expected, rtol=1e-10, atol=1e-12)


def test_cosine_ignores_the_length_of_queries_and_prototypes() -> None:
    episode = random_episode(1, shots=SHOTS)
    head = Prototypical(8, "cosine").double()
    state = head.adapt(episode.support)
    long = {**state, "prototypes": 7 * state["prototypes"]}
    torch.testing.assert_close(
        head.predict_tensors(long, 3 * episode.query_x), head.predict_tensors(state, episode.query_x)
    )
    similarity = torch.nn.functional.cosine_similarity(
        episode.query_x[:, :, None], state["prototypes"][:, None], dim=-1
    )
    torch.testing.assert_close(
        head.predict_tensors(state, episode.query_x)[:, 0], 10 * (similarity - 1), rtol=1e-6, atol=1e-6
    )


def test_the_learned_scale_starts_at_one_over_the_root_of_the_size_and_multiplies_the_distance() -> None:
    episode = random_episode(2, shots=SHOTS)
    scaled, plain = Prototypical(8).double(), Prototypical(8, learned_scale=False).double()
    logits = scaled.predict(scaled.adapt(episode.support), episode.query).logits
    expected = plain.predict(plain.adapt(episode.support), episode.query).logits / math.sqrt(8)
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)
    assert [name for name, _ in scaled.named_parameters()] == ["log_scale"]
    assert not list(plain.named_parameters())


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="manhattan"):
        Prototypical(8, "manhattan")  # type: ignore[arg-type]
