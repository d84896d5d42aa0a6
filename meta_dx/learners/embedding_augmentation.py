"""Episodes over frozen embeddings made to resemble those of diseases that the encoder has not seen.

The encoder was trained on the common diseases, so their embeddings are easier to tell apart than those of
any new disease, and there are only tens of them. A learner that is meta-trained on them as they are learns
that a few cases settle everything, and learns the directions of these diseases by heart. Neither function
is taken from a paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from meta_dx.episodes.episode import Episode


def rotated(episode: Episode, centre: Tensor, generator: torch.Generator) -> Episode:
    """Turn all embeddings about a point by one random rotation (or reflection), uniform over all of them.

    Distances and angles stay; no direction keeps a meaning from one step to the next.

    Parameters
    ----------
    episode : Episode
        Over embeddings (E, S, D).
    centre : Tensor, shape (D,)
        The point that stays.
    generator : torch.Generator
        Of the CPU.

    Returns
    -------
    Episode
    """
    size = centre.shape[0]
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    turn = (q * r.diagonal().sign()).to(episode.query_x.device, episode.query_x.dtype)
    return episode.with_x(
        (episode.support_x - centre) @ turn + centre, (episode.query_x - centre) @ turn + centre
    )


def classes_pulled_together(episode: Episode, most: float, generator: torch.Generator) -> Episode:
    """Move the classes of each episode towards their common mean; what varies within a class stays.

    A class whose real rows, support and queries, have the mean m is moved by -h (m - c), c being the mean of
    the class means and h uniform in 0 … ``most``, one h for each episode.

    Parameters
    ----------
    episode : Episode
        Over embeddings (E, S, D).
    most : float
        Largest h, from 0 to 1; at 1 nothing would tell the classes apart.
    generator : torch.Generator
        Of the CPU.

    Returns
    -------
    Episode
    """
    x = torch.cat([episode.support_x, episode.query_x], 1)  # (E, S + Q, D)
    real = torch.cat([episode.support_mask, episode.query_mask], 1).unsqueeze(-1)
    labels = torch.cat([episode.support_y, episode.query_y], 1)
    onehot = torch.nn.functional.one_hot(labels, episode.class_mask.shape[1]).to(x.dtype) * real
    count = onehot.sum(1).unsqueeze(-1)  # (E, N, 1)
    means = onehot.transpose(1, 2) @ x / count.clamp_min(1)  # (E, N, D)
    present = (count > 0).to(x.dtype)
    centre = (means * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)  # (E, 1, D)
    h = most * torch.rand(x.shape[0], 1, 1, generator=generator).to(x.device, x.dtype)
    moved = x - h * (onehot @ (means - centre))
    support = episode.support_x.shape[1]
    return episode.with_x(moved[:, :support], moved[:, support:])
