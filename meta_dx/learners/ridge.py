"""Ridge regression on the labels, without meta-training.

The closed-form base learner of Luca Bertinetto, João F. Henriques, Philip H. S. Torr, Andrea Vedaldi:
*Meta-learning with differentiable closed-form solvers*, ICLR 2019, https://arxiv.org/abs/1805.08136 (R2-D2,
section 3), here on fixed CL2N features with a fixed penalty and a fixed scale on the scores.

The one-hot labels are regressed on the features, W = (XᵀX + λI)⁻¹XᵀY (equation 5; with fewer rows than
features the authors solve the dual, equation 6). A query takes the class with the highest score. ONNX has no
linear solver, so both forms are replaced by conjugate gradients (Magnus R. Hestenes, Eduard Stiefel 1952),
which need products with X only and, like the dual, at most as many steps as the support has rows.

Beyond the paper: an intercept that is not penalised, and rows weighted so that every class counts the same.

Not reproduced on a benchmark of the paper. On the rare diseases of ``derm``, 5-way, with 95 % intervals
(``docs/results.md``): 1-shot 48.6 (44.9–52.4), 5-shot 65.4 (59.9–71.2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from meta_dx.learners.base import Capabilities, State, mask_absent_classes
from meta_dx.learners.baselines import Cl2n
from meta_dx.learners.softmax_regression import row_weights

#: Enough for 1e-5 in a score on 2000 support rows (tests/learners/test_ridge.py).
STEPS = 100
#: Of the residual's length r, in units of the penalty λ and of the right-hand side's length. XᵀX + λI is at
#: least λI, so W is within r / λ of the minimum: the first bounds W's error, in the features' own scale; the
#: second keeps digits where a large penalty makes W itself small.
_TOLERANCE = 1e-6
_CHECK_EVERY = 10
_TINY = 1e-30

#: W, residual and direction (E, D, N), and the residual's squared length (E, 1, N).
_Carry = tuple[Tensor, Tensor, Tensor, Tensor]


class Ridge(Cl2n):
    """Ridge regression on one-hot labels.

    Minimises ``sum_i w_i ||W x_i + b - y_i||² + penalty ||W||²`` on CL2N features.

    Parameters
    ----------
    embedding_size : int
        D.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases' studies; zero if absent.
    penalty : float
        λ, scikit-learn's ``alpha``, above zero.
    scale : float
        Factor on the scores, which lie around 0 … 1. It does not change the most probable class.
    balanced : bool
        Give every class the same total weight, w_i = S / (N K_i), so that the number of confirmed cases at
        hand does not become a prior on the disease.
    """

    capabilities = Capabilities()
    state_names = ("weight", "bias", "count")

    def __init__(
        self,
        embedding_size: int,
        base_mean: Tensor | None = None,
        penalty: float = 1.0,
        scale: float = 10.0,
        balanced: bool = True,
    ) -> None:
        super().__init__(embedding_size, base_mean)
        if penalty <= 0:
            raise ValueError(f"penalty is {penalty}: it must be above zero")
        self.penalty, self.scale, self.balanced = penalty, scale, balanced

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        """Fit the regression: ``weight`` (E, N, D), ``bias`` (E, N), ``count`` (E, N)."""
        weight, bias = fit_ridge(
            self.normalised(support_x), support_onehot, penalty=self.penalty, balanced=self.balanced
        )
        return {"weight": weight, "bias": bias, "count": support_onehot.sum(1)}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return scaled scores, shape (E, 1, Q, N)."""
        score = self.normalised(query_x) @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)
        return mask_absent_classes(self.scale * score.unsqueeze(1), state["count"])


def fit_ridge(
    x: Tensor, onehot: Tensor, *, penalty: float = 1.0, balanced: bool = True, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Minimise ``sum_i w_i ||W x_i + b - y_i||² + penalty ||W||²``.

    Parameters
    ----------
    x : Tensor, shape (E, S, D)
        Features of the support rows.
    onehot : Tensor, shape (E, S, N)
        Their labels; a row of zeros is padding, a class without rows has zero weight and bias.
    penalty : float
        Above zero.
    balanced : bool
        w_i = S / (N K_i) with K_i the rows of that row's class, S and N counted without padding; else w_i =
        1.
    steps : int
        Upper bound; exact number in an exported graph, where a column that has converged rests.

    Returns
    -------
    weight : Tensor, shape (E, N, D)
    bias : Tensor, shape (E, N)
    """
    weights, _ = row_weights(onehot, 1.0, balanced)  # (E, S, 1)
    total = weights.sum(1, keepdim=True).clamp_min(_TINY)  # (E, 1, 1)
    mean_x = (weights * x).sum(1, keepdim=True) / total  # (E, 1, D)
    mean_y = (weights * onehot).sum(1, keepdim=True) / total  # (E, 1, N)
    centred = x - mean_x  # (E, S, D): the intercept is gone, padded rows have no weight
    target = centred.transpose(1, 2) @ (weights * (onehot - mean_y))  # (E, D, N)
    length = target.square().sum(1, keepdim=True)  # (E, 1, N)
    enough = _TOLERANCE**2 * length.clamp_max(penalty**2)
    step = _step(centred, weights, penalty, enough)
    last: _Carry = (0.0 * target, target, target.clone(), length)
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan  # private: only where it is needed

        counter = torch.zeros(steps, dtype=x.dtype)
        last, _ = scan(lambda carry, tick: (step(carry), (tick.clone(),)), last, counter)
    else:
        for done in range(1, steps + 1):
            last = step(last)
            if done % _CHECK_EVERY == 0 and bool((last[-1] <= enough).all()):
                break
    weight = last[0].transpose(1, 2)  # (E, N, D)
    return weight, (mean_y - mean_x @ last[0]).squeeze(1)


def _step(centred: Tensor, weights: Tensor, penalty: float, enough: Tensor) -> Callable[[_Carry], _Carry]:
    """Return the function that makes one step of conjugate gradients, each column with its own lengths."""

    def step(carry: _Carry) -> _Carry:
        weight, residual, along, before = carry
        product = centred.transpose(1, 2) @ (weights * (centred @ along)) + penalty * along  # (E, D, N)
        resting = before <= enough
        length = before / (along * product).sum(1, keepdim=True).clamp_min(_TINY)  # (E, 1, N)
        length = torch.where(resting, 0.0 * length, length)
        residual = residual - length * product
        now = residual.square().sum(1, keepdim=True)
        turned = residual + now / before.clamp_min(_TINY) * along
        return weight + length * along, residual, torch.where(resting, along, turned), now

    return step
