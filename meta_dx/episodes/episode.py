"""An episode: E few-shot tasks as padded, masked tensors.

Letters (used everywhere): E episodes in a batch, N ways, K shots, S support examples, Q queries, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Support:
    """The confirmed cases that a learner adapts to.

    Parameters
    ----------
    x : Tensor, shape (E, S, C, *spatial) or (E, S, D), float32
        Images or embeddings; rows that are padding are zero.
    y : Tensor, shape (E, S), int64
        Class 0 … N-1 of each row; 0 where padded.
    mask : Tensor, shape (E, S), bool
        True where the row is real.
    class_mask : Tensor, shape (E, N), bool
        True where the class takes part in the episode.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    class_mask: Tensor

    def onehot(self) -> Tensor:
        """Return labels as (E, S, N) float of ``x``'s dtype, all zero in padded rows."""
        ways = self.class_mask.shape[1]
        hot = torch.nn.functional.one_hot(self.y, ways).to(self.x.dtype)  # (E, S, N)
        return hot * self.mask.unsqueeze(-1)


@dataclass(frozen=True)
class Query:
    """The examples to be diagnosed: ``x`` (E, Q, …) and ``mask`` (E, Q)."""

    x: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Episode:
    """Support and query of E tasks, ragged in life and therefore padded and masked.

    Parameters
    ----------
    support_x, query_x : Tensor, shape (E, S, …) and (E, Q, …)
        Images or embeddings.
    support_y, query_y : Tensor, shape (E, S) and (E, Q), int64
        Classes 0 … N-1.
    support_mask, query_mask : Tensor, bool
        True where the row is real.
    class_mask : Tensor, shape (E, N), bool
        True where the class takes part.
    """

    support_x: Tensor
    support_y: Tensor
    support_mask: Tensor
    query_x: Tensor
    query_y: Tensor
    query_mask: Tensor
    class_mask: Tensor

    @property
    def support(self) -> Support:
        """The support part, as ``adapt`` takes it."""
        return Support(self.support_x, self.support_y, self.support_mask, self.class_mask)

    @property
    def query(self) -> Query:
        """The query part without its labels, as ``predict`` takes it."""
        return Query(self.query_x, self.query_mask)

    def to(self, device: torch.device | str) -> Episode:
        """Return the episode on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})

    def with_x(self, support_x: Tensor, query_x: Tensor) -> Episode:
        """Return the same tasks over other representations (images become embeddings)."""
        return replace(self, support_x=support_x, query_x=query_x)
