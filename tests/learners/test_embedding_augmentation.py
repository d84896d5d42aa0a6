"""Episodes turned and made harder: what must stay, and by how much the rest moves."""

from __future__ import annotations

import torch

from meta_dx.learners.embedding_augmentation import classes_pulled_together, rotated
from tests.learners.episodes import random_episode

UNEVEN = [[1, 4, 2], [3, 3]]


def test_a_rotation_keeps_distances_and_the_centre_and_mixes_all_directions() -> None:
    episode = random_episode(0, shots=UNEVEN)
    centre = torch.arange(8.0).double()
    moved = rotated(episode, centre, torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.cdist(moved.query_x, moved.support_x), torch.cdist(episode.query_x, episode.support_x)
    )
    torch.testing.assert_close((moved.query_x - centre).norm(dim=-1), (episode.query_x - centre).norm(dim=-1))
    one = episode.with_x(torch.eye(8).double()[None] + centre, episode.query_x)
    turn = rotated(one, centre, torch.Generator().manual_seed(1)).support_x[0] - centre
    torch.testing.assert_close(turn @ turn.mT, torch.eye(8).double())
    assert (turn.abs() > 1e-3).all()


def test_rotations_are_uniform_over_directions() -> None:
    one = random_episode(0, shots=[[1]], queries=1, size=3)
    one = one.with_x(torch.tensor([[[1.0, 0, 0]]]).double(), one.query_x)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack(
        [rotated(one, torch.zeros(3).double(), generator).support_x[0, 0] for _ in range(4000)]
    )
    assert drawn.mean(0).abs().max() < 0.04  # 4 standard errors of 0.58 / sqrt(4000)
    torch.testing.assert_close(drawn.mT @ drawn / 4000, torch.eye(3).double() / 3, atol=0.02, rtol=0)


def test_classes_move_towards_their_common_mean_and_stay_as_wide_as_they_were() -> None:
    episode = random_episode(1, shots=UNEVEN)
    moved = classes_pulled_together(episode, 0.8, torch.Generator().manual_seed(2))
    shares = 0.8 * torch.rand(2, 1, 1, generator=torch.Generator().manual_seed(2)).flatten().double()
    for e, counts in enumerate(UNEVEN):

        def rows(of: object, n: int, e: int = e) -> torch.Tensor:
            support = of.support_x[e, episode.support_mask[e] & (episode.support_y[e] == n)]  # type: ignore[attr-defined]
            return torch.cat([support, of.query_x[e, episode.query_mask[e] & (episode.query_y[e] == n)]])  # type: ignore[attr-defined]

        means = torch.stack([rows(episode, n).mean(0) for n in range(len(counts))])
        for n in range(len(counts)):
            expected = rows(episode, n) - shares[e] * (means[n] - means.mean(0))
            torch.testing.assert_close(rows(moved, n), expected)


def test_pulled_by_nothing_an_episode_is_what_it_was() -> None:
    episode = random_episode(3, shots=UNEVEN)
    moved = classes_pulled_together(episode, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.support_x, episode.support_x)
    torch.testing.assert_close(moved.query_x, episode.query_x)
