"""Multi-head attention within the classes of an episode, through one-hot labels and matrix products.

A support row may only be weighed against the rows of its own class. A softmax for each class wants the
largest logit of each class, which takes a tensor over queries, rows and classes at once; cosine attention
with a bounded temperature does without: logits lie in -20 … 20, where ``exp`` neither overflows nor vanishes in
float32, and sums over a class are products with the one-hot labels. Nothing here depends on how many rows a
class has, and every operation exists in ONNX.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from meta_dx.learners.prototypical import unit_length

#: Largest temperature: exp(±20) is 5e8 and 2e-9, far from float32's ends.
_SHARPEST = 20.0
_FIRST = 5.0
_TINY = 1e-30


class ClassAttention(nn.Module):
    """Multi-head cosine attention (Kim 2019, appendix A, with cosines in the place of scaled products).

    Parameters
    ----------
    size : int
        H, size of queries, keys and values; a multiple of ``heads``.
    heads : int
        Number of heads, each of size H / heads.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        if size % heads:
            raise ValueError(f"size {size} is not a multiple of {heads} heads")
        self.heads = heads
        start = _FIRST / _SHARPEST
        self.sharpness = nn.Parameter(torch.full((heads,), math.log(start / (1 - start))))

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """Return each head's weights before normalisation, exp(τ cos).

        Parameters
        ----------
        query, key : Tensor, shape (E, Q, H) and (E, S, H)
            What asks and what is asked.

        Returns
        -------
        Tensor, shape (E, heads, Q, S)
            Between exp(-20) and exp(20).
        """
        temperature = (_SHARPEST * self.sharpness.sigmoid())[:, None, None]
        return ((temperature * unit_length(self._apart(query))) @ unit_length(self._apart(key)).mT).exp()

    def forward(self, query: Tensor, key: Tensor, value: Tensor, onehot: Tensor) -> Tensor:
        """Attend from each query to each class apart.

        Parameters
        ----------
        query : Tensor, shape (E, Q, H)
        key, value : Tensor, shape (E, S, H)
        onehot : Tensor, shape (E, S, N)
            Labels; zero rows are padding.

        Returns
        -------
        Tensor, shape (E, Q, N, H)
            Weighted mean of the values of each class; zero for absent classes.
        """
        hot = onehot.unsqueeze(1)  # (E, 1, S, N)
        w = self.weights(query, key)  # (E, heads, Q, S)
        by_class = hot.unsqueeze(-1) * self._apart(value).unsqueeze(3)  # (E, heads, S, N, d)
        total = w @ by_class.flatten(3)  # (E, heads, Q, N·d)
        norm = (w @ hot).clamp_min(_TINY).unsqueeze(-1)  # (E, heads, Q, N, 1)
        found = total.reshape(*norm.shape[:-1], by_class.shape[-1]) / norm  # (E, heads, Q, N, d)
        return found.permute(0, 2, 3, 1, 4).flatten(3)

    def within(self, query: Tensor, key: Tensor, value: Tensor, onehot: Tensor) -> Tensor:
        """Attend from each row to the rows of its own class, shapes (E, S, H); zero for padded rows."""
        own = self.weights(query, key) * (onehot @ onehot.mT).unsqueeze(1)  # (E, heads, S, S)
        found = (own @ self._apart(value)) / own.sum(-1, keepdim=True).clamp_min(_TINY)
        return found.transpose(1, 2).flatten(2)

    def evidence(self, query: Tensor, key: Tensor, onehot: Tensor) -> Tensor:
        """Return the weight of each row among those of its class, mean over heads.

        Parameters
        ----------
        query, key : Tensor, shape (E, Q, H) and (E, S, H)
        onehot : Tensor, shape (E, S, N)

        Returns
        -------
        Tensor, shape (E, Q, S)
            Sums to one over the rows of each class present; zero in padded rows.
        """
        hot = onehot.unsqueeze(1)  # (E, 1, S, N)
        w = self.weights(query, key)  # (E, heads, Q, S)
        of_class = (w @ hot @ hot.mT).clamp_min(_TINY)  # (E, heads, Q, S): the sum over the row's class
        return (w * hot.sum(-1).unsqueeze(2) / of_class).mean(1)

    def _apart(self, x: Tensor) -> Tensor:
        """Cut (E, S, H) into heads (E, heads, S, d)."""
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class ClassBlock(nn.Module):
    """Transformer block (layer normalisation first) in which a row sees only the rows of its class.

    Parameters
    ----------
    size : int
        H.
    heads : int
        Heads of the attention; 0: none, and the block is a residual network row by row.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.attention = ClassAttention(size, heads) if heads else None
        if heads:
            self.before = nn.LayerNorm(size)
            self.project = nn.Linear(size, 3 * size)
            self.output = nn.Linear(size, size)
        self.between = nn.LayerNorm(size)
        self.feedforward = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self, x: Tensor, onehot: Tensor) -> Tensor:
        """Map rows (E, S, H) with labels (E, S, N) to rows (E, S, H)."""
        if self.attention is not None:
            query, key, value = self.project(self.before(x)).chunk(3, -1)
            x = x + self.output(self.attention.within(query, key, value, onehot))
        moved: Tensor = x + self.feedforward(self.between(x))
        return moved
