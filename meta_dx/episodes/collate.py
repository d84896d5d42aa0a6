"""From plans to tensors: pads and masks ragged episodes, says which images to embed and how to pool them.

Input are the plans of :mod:`meta_dx.episodes.plan`, and either one vector for each example (evaluation, and
heads on cached embeddings), or the image rows of each example (training, where the network runs in the loop).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.episode import Episode
from meta_dx.episodes.plan import EpisodePlan, Rows, ordering


def collate(plans: Sequence[EpisodePlan], vectors: Tensor | npt.NDArray[Any]) -> Episode:
    """Gather the vectors of some episodes and pad them to one shape.

    Parameters
    ----------
    plans : sequence of EpisodePlan, length E
        The episodes; they may differ in ways, shots and queries.
    vectors : Tensor or ndarray, shape (n, D) or (n, C, *spatial)
        One embedding, or one image, for each example that the plans index; gradients and device are kept.

    Returns
    -------
    Episode
        ``support_x`` (E, S, D), ``query_x`` (E, Q, D): rows class by class, zeros up to the longest episode.
    """
    source = vectors if isinstance(vectors, Tensor) else torch.from_numpy(np.ascontiguousarray(vectors))
    support, support_y, support_mask = _padded([plan.support for plan in plans])  # (E, S)
    query, query_y, query_mask = _padded([plan.query for plan in plans])  # (E, Q)
    ways = torch.tensor([len(plan.classes) for plan in plans])
    class_mask = torch.arange(int(ways.max())) < ways[:, None]  # (E, N)
    to = source.device
    return Episode(
        _gathered(source, support, support_mask),
        support_y.to(to),
        support_mask.to(to),
        _gathered(source, query, query_mask),
        query_y.to(to),
        query_mask.to(to),
        class_mask.to(to),
    )


@dataclass(frozen=True)
class EpisodeImages:
    """The images that a batch of episodes needs, each example once, and the way back to an :class:`Episode`.

    Embed ``images`` in one go and hand the embeddings to :meth:`episode`.

    Parameters
    ----------
    images : ndarray of int64, shape (I,)
        Rows of the image store, example by example.
    examples : ndarray of int64, shape (R,)
        Rows of the examples that occur in the episodes, sorted.
    slots : Tensor of int64, shape (R, M)
        Position in ``images`` of each of up to M images of an example; 0 where padded.
    slot_mask : Tensor of bool, shape (R, M)
        True where the slot is real.
    plans : tuple of EpisodePlan
        The episodes, with rows that index ``examples``.
    """

    images: Rows
    examples: Rows
    slots: Tensor
    slot_mask: Tensor
    plans: tuple[EpisodePlan, ...]

    def pool(self, embeddings: Tensor) -> Tensor:
        """Average the embeddings of each example's images.

        Parameters
        ----------
        embeddings : Tensor, shape (I, D)
            Embeddings of ``images``, in that order.

        Returns
        -------
        Tensor, shape (R, D)
        """
        if self.slots.shape[1] == 1:  # the mean of one image, in every step of training
            return embeddings[self.slots[:, 0].to(embeddings.device)]
        mask = self.slot_mask.to(embeddings.device).unsqueeze(-1)  # (R, M, 1)
        each = embeddings[self.slots.to(embeddings.device)]  # (R, M, D)
        return torch.where(mask, each, 0.0).sum(1) / mask.sum(1)

    def episode(self, embeddings: Tensor) -> Episode:
        """Return the episodes over pooled embeddings, shapes (E, S, D) and (E, Q, D)."""
        return collate(self.plans, self.pool(embeddings))


def episode_images(
    plans: Sequence[EpisodePlan], examples: Examples, *, per_example: int | None = None, seed: int = 0
) -> EpisodeImages:
    """List the images that a batch of episodes needs; an example that occurs in several episodes comes once.

    Parameters
    ----------
    plans : sequence of EpisodePlan
        The episodes.
    examples : Examples
        What the plans index.
    per_example : int, optional
        Use at most this many images of each example, drawn by hash of the seed, the first episode's number,
        the study and the image (training); all of them when None (evaluation).
    seed : int
        Seed of that draw.

    Returns
    -------
    EpisodeImages
    """
    needed = np.unique(np.concatenate([plan.rows for plan in plans]))
    key = ordering(seed, plans[0].index, "image")
    studies = zip(needed.tolist(), examples.study[needed].tolist(), strict=True)
    chosen = [_drawn(examples.images[row], name, per_example, key) for row, name in studies]
    lengths = np.array([len(rows) for rows in chosen])
    slot_mask = np.arange(lengths.max()) < lengths[:, None]  # (R, M)
    slots = np.zeros(slot_mask.shape, dtype=np.int64)
    slots[slot_mask] = np.arange(lengths.sum())
    moved = tuple(
        EpisodePlan(
            plan.index,
            plan.classes,
            tuple(np.searchsorted(needed, rows) for rows in plan.support),
            tuple(np.searchsorted(needed, rows) for rows in plan.query),
        )
        for plan in plans
    )
    return EpisodeImages(
        np.concatenate(chosen), needed, torch.from_numpy(slots), torch.from_numpy(slot_mask), moved
    )


def collate_images(
    plans: Sequence[EpisodePlan], examples: Examples, images: Any, *, seed: int = 0
) -> Episode:
    """Return episodes of images, one drawn for each example, for learners that adapt the whole network.

    Parameters
    ----------
    plans : sequence of EpisodePlan, length E
        The episodes.
    examples : Examples
        What the plans index.
    images : array-like, shape (n, C, *spatial), uint8
        The image store's images; indexed with an array of rows.
    seed : int
        Seed of the draw; another seed, another image of the same study.

    Returns
    -------
    Episode
        ``support_x`` (E, S, C, *spatial) and ``query_x`` (E, Q, C, *spatial), float32, 0 … 255.
    """
    batch = episode_images(plans, examples, per_example=1, seed=seed)
    pictures = torch.from_numpy(np.ascontiguousarray(images[batch.images])).to(
        torch.float32
    )  # (R, C, *spatial)
    return collate(batch.plans, pictures)


def _drawn(rows: Rows, study: str, most: int | None, key: Callable[[str], bytes]) -> Rows:
    """Return the image rows of a study: all, or ``most`` drawn by hash, in their order in the study."""
    if most is None or len(rows) <= most:
        return rows
    keys = [key(f"{study}/{place}") for place in range(len(rows))]
    if most == 1:  # every step of training: there it takes more than a percent of the time
        return rows[(first := keys.index(min(keys))) : first + 1]
    return rows[sorted(sorted(range(len(rows)), key=keys.__getitem__)[:most])]


def _padded(classes: Sequence[tuple[Rows, ...]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, labels and mask, each (E, longest), from the rows of each class of each episode."""
    lengths = np.array([sum(map(len, rows)) for rows in classes])
    mask = np.arange(lengths.max()) < lengths[:, None]  # (E, S)
    rows, labels = np.zeros(mask.shape, dtype=np.int64), np.zeros(mask.shape, dtype=np.int64)
    rows[mask] = np.concatenate([part for parts in classes for part in parts])
    labels[mask] = np.concatenate(
        [np.full(len(part), n) for parts in classes for n, part in enumerate(parts)]
    )
    return torch.from_numpy(rows), torch.from_numpy(labels), torch.from_numpy(mask)


def _gathered(source: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Return ``source[rows]`` with zeros where the mask is false, shape (E, S, …)."""
    each = source[rows.to(source.device)]
    if bool(mask.all()):  # one episode, or all of one shape
        return each
    shaped = mask.to(source.device).reshape(mask.shape + (1,) * (source.dim() - 1))
    return torch.where(shaped, each, torch.zeros((), dtype=source.dtype, device=source.device))
