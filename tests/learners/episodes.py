"""Random episodes over embeddings, for the tests of learners."""

from __future__ import annotations

import torch
from torch import Tensor

from meta_dx.episodes.episode import Episode


def random_episode(
    seed: int, *, shots: list[list[int]], queries: int = 4, size: int = 8, dtype: torch.dtype = torch.float64
) -> Episode:
    """Episodes with these support counts (one list of K a class for each episode), padded to one shape."""
    generator = torch.Generator().manual_seed(seed)
    tasks, ways = len(shots), max(map(len, shots))
    rows = max(map(sum, shots))
    asked = [queries * len(counts) for counts in shots]
    support_x, support_y, support_mask = _blank(tasks, rows, size, dtype)
    query_x, query_y, query_mask = _blank(tasks, max(asked), size, dtype)
    class_mask = torch.zeros(tasks, ways, dtype=torch.bool)
    for e, counts in enumerate(shots):
        centres = 2 * torch.randn(len(counts), size, generator=generator, dtype=dtype)
        labels = torch.cat([torch.full((k,), n) for n, k in enumerate(counts)])
        support_x[e, : len(labels)] = centres[labels] + torch.randn(
            len(labels), size, generator=generator, dtype=dtype
        )
        support_y[e, : len(labels)], support_mask[e, : len(labels)] = labels, True
        labels = torch.arange(len(counts)).repeat_interleave(queries)
        query_x[e, : len(labels)] = centres[labels] + torch.randn(
            len(labels), size, generator=generator, dtype=dtype
        )
        query_y[e, : len(labels)], query_mask[e, : len(labels)] = labels, True
        class_mask[e, : len(counts)] = True
    return Episode(support_x, support_y, support_mask, query_x, query_y, query_mask, class_mask)


def only(episode: Episode, e: int) -> Episode:
    """Episode e alone, without its padding."""
    support, query = episode.support_mask[e], episode.query_mask[e]
    return Episode(
        episode.support_x[e, support][None],
        episode.support_y[e, support][None],
        episode.support_mask[e, support][None],
        episode.query_x[e, query][None],
        episode.query_y[e, query][None],
        episode.query_mask[e, query][None],
        episode.class_mask[e, episode.class_mask[e]][None],
    )


def _blank(tasks: int, rows: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.zeros(tasks, rows, size, dtype=dtype),
        torch.zeros(tasks, rows, dtype=torch.int64),
        torch.zeros(tasks, rows, dtype=torch.bool),
    )
