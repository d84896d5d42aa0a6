"""Multinomial logistic regression for many small tasks at once, from operations that ONNX has.

ONNX has no linear solver, so Newton's method is out; plain or accelerated gradient descent needs many
hundred iterations on a hundred classes. What stands here is nonlinear conjugate gradients (Polak and
Ribière 1969, with the restart of Powell 1977: a negative coefficient becomes zero) and an almost exact line
search: logits are linear in the step, so a Newton step along the line costs a softmax and no product with
the features. One iteration costs two products of support rows by features by classes. Everything is batched
over the episodes E, and each episode has its own steps.

Three exact rewritings help. The features are centred by their weighted mean, which the unpenalised
intercept takes up. Training logits are updated, never recomputed. The intercept has its own scale (a
diagonal preconditioner).

Under ``torch.onnx.export`` the loop becomes one ONNX ``Scan`` node (an unrolled loop took ten times longer
to export); in eager mode it stops as soon as every episode has converged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Enough for 1e-4 in probability on 100 support rows and 1e-3 on 1800 (tests/learners/test_logistic.py).
ITERATIONS = 250
#: The penalty makes the objective 1-strongly convex in W, so a gradient this short bounds the error in W.
_TOLERANCE = 1e-5
_CHECK_EVERY = 10
_TINY = 1e-30
_FAR_BELOW = -1e9

#: W (E, N, D), b (E, 1, N), logits (E, S, N), direction in W and b, last gradient in W and b, its length²
#: (E, 1, 1).
_Carry = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def fit_softmax_regression(
    x: Tensor, onehot: Tensor, *, c: float = 1.0, balanced: bool = True, iterations: int = ITERATIONS
) -> tuple[Tensor, Tensor]:
    """Minimise ``c * sum_i w_i CE_i + 0.5 ||W||²``.

    Parameters
    ----------
    x : Tensor, shape (E, S, D)
        Features of the support rows.
    onehot : Tensor, shape (E, S, N)
        Their labels; a row of zeros is padding, a class without rows takes no part.
    c : float
        Weight of the data.
    balanced : bool
        w_i = S / (N K_i) with K_i the rows of that row's class, S and N counted without padding; else w_i =
        1.
    iterations : int
        Upper bound; exact number in an exported graph.

    Returns
    -------
    weight : Tensor, shape (E, N, D)
        Zero for absent classes.
    bias : Tensor, shape (E, N)
        Not penalised; sums to zero over the classes before the shift by the mean feature is undone.
    """
    weights, absent = row_weights(onehot, c, balanced)  # (E, S, 1), (E, 1, N)
    total = weights.sum(1, keepdim=True).clamp_min(_TINY)  # (E, 1, 1)
    mean = (weights * x).sum(1, keepdim=True) / total  # (E, 1, D)
    centred = (x - mean) * (weights > 0)  # (E, S, D)
    step = _iteration(centred, onehot, weights, total, absent)
    start = _start(centred, onehot, total)
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan  # private: only where it is needed

        counter = torch.zeros(iterations, dtype=x.dtype)
        last, _ = scan(lambda carry, tick: (step(carry), (tick.clone(),)), start, counter)
    else:
        last = start
        for done in range(1, iterations + 1):
            last = step(last)
            if done % _CHECK_EVERY == 0 and bool((last[-1] < _TOLERANCE**2).all()):
                break
    weight, bias = last[0], last[1]
    return weight, (bias - (weight @ mean.transpose(1, 2)).transpose(1, 2)).squeeze(1)


def row_weights(onehot: Tensor, c: float, balanced: bool) -> tuple[Tensor, Tensor]:
    """Return the weight of each row (E, S, 1), zero where padded, and what hides absent classes (E, 1, N)."""
    count = onehot.sum(1, keepdim=True)  # (E, 1, N)
    present = (count > 0).to(onehot.dtype)
    per_class = present
    if balanced:
        ways = present.sum(-1, keepdim=True).clamp_min(1)  # (E, 1, 1)
        per_class = present * count.sum(-1, keepdim=True) / (ways * count.clamp_min(1))
    return c * (onehot * per_class).sum(-1, keepdim=True), (1 - present) * _FAR_BELOW


def _start(centred: Tensor, onehot: Tensor, total: Tensor) -> _Carry:
    # Products with zero, not zeros(): an exported Scan wants the symbolic shapes of what it carries.
    weight = 0.0 * (onehot.transpose(1, 2) @ centred)  # (E, N, D)
    bias = 0.0 * onehot.sum(1, keepdim=True)  # (E, 1, N)
    length = 0.0 * total + 1.0
    return (
        weight,
        bias,
        0.0 * onehot,
        weight.clone(),
        bias.clone(),
        weight.clone(),
        bias.clone(),
        length,
    )


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)  # (E, 1, 1)


def _iteration(
    centred: Tensor, onehot: Tensor, weights: Tensor, total: Tensor, absent: Tensor
) -> Callable[[_Carry], _Carry]:
    """Return the function that makes one iteration of conjugate gradients."""
    curvature = (weights * centred.square()).mean(-1, keepdim=True).sum(1, keepdim=True) + 1  # (E, 1, 1)
    scale_b = curvature / total  # the intercept's scale beside the features' own

    def step(carry: _Carry) -> _Carry:
        weight, bias, logits, along_w, along_b, before_w, before_b, before = carry
        p = (logits + absent).softmax(-1)  # (E, S, N)
        residual = weights * (p - onehot)
        grad_w = residual.transpose(1, 2) @ centred + weight  # (E, N, D)
        grad_b = residual.sum(1, keepdim=True)  # (E, 1, N)
        now = _dot(grad_w, grad_w) + scale_b * _dot(grad_b, grad_b)
        change = now - _dot(grad_w, before_w) - scale_b * _dot(grad_b, before_b)
        beta = (change / before.clamp_min(_TINY)).clamp_min(0)  # (E, 1, 1)
        along_w, along_b = beta * along_w - grad_w, beta * along_b - scale_b * grad_b
        # An episode that has converged rests while others go on: beyond there, float32 divides noise by noise.
        resting = now < _TOLERANCE**2
        uphill = (_dot(along_w, grad_w) + _dot(along_b, grad_b) >= 0) | resting
        along_w = torch.where(uphill, -grad_w, along_w)
        along_b = torch.where(uphill, -scale_b * grad_b, along_b)
        ray = centred @ along_w.transpose(1, 2) + along_b  # (E, S, N)
        length = _line_search(p, logits + absent, onehot, weights, ray, weight, along_w)
        length = torch.where(resting, 0.0 * length.nan_to_num(), length)
        return (
            weight + length * along_w,
            bias + length * along_b,
            logits + length * ray,
            along_w,
            along_b,
            grad_w,
            grad_b,
            now,
        )

    return step


def _line_search(
    p: Tensor, logits: Tensor, onehot: Tensor, weights: Tensor, ray: Tensor, weight: Tensor, along: Tensor
) -> Tensor:
    """Return the step (E, 1, 1) along a ray of logits: two Newton steps, the second inside its bracket."""
    penalty = _dot(weight, along), _dot(along, along)

    def slopes(p: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        mean = (p * ray).sum(-1, keepdim=True)  # (E, S, 1)
        spread = (p * ray.square()).sum(-1, keepdim=True) - mean.square()
        first = _dot(weights * (p - onehot), ray) + penalty[0] + at * penalty[1]
        return first, (weights * spread).sum((1, 2), keepdim=True) + penalty[1]

    zero = torch.zeros_like(penalty[0])
    first, second = slopes(p, zero)
    once = -first / second.clamp_min(_TINY)
    first, second = slopes((logits + once * ray).softmax(-1), once)
    twice = once - first / second.clamp_min(_TINY)
    # The objective is convex along the ray: the best step is beyond `once` where it still falls, and
    # between 0 and `once` where it rises again.
    return torch.where((first > 0) & (twice <= 0), once / 2, twice)
