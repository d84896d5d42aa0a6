"""Baselines without meta-training: they read one fixed embedding, and often win.

**SimpleShot.** Yan Wang, Wei-Lun Chao, Kilian Q. Weinberger, Laurens van der Maaten: *SimpleShot:
Revisiting Nearest-Neighbor Classification for Few-Shot Learning*, 2019, https://arxiv.org/abs/1911.04623.
The paper's two feature transformations, centring by the mean of the base classes' features and L2
normalisation, together "CL2N"; a query takes the class of the nearest centroid in Euclidean distance.

**Logistic regression** on CL2N features, the linear probe of Yonglong Tian, Yue Wang, Dilip Krishnan,
Joshua B. Tenenbaum, Phillip Isola: *Rethinking Few-Shot Image Classification: a Good Embedding Is All You
Need?*, ECCV 2020, https://arxiv.org/abs/2003.11539. Same objective as scikit-learn's
``LogisticRegression``, solved by :mod:`meta_dx.learners.softmax_regression`.

Neither is reproduced on a benchmark of its paper. On the rare diseases of ``derm``, 5-way, with 95 % intervals
(``docs/results.md``): SimpleShot 49.2 (45.6–53.2) at 1 shot and 65.1 (59.7–70.6) at 5, logistic regression 49.2
(45.5–53.0) and 65.5 (59.9–71.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from meta_dx.learners.base import Capabilities, Head, State, mask_absent_classes
from meta_dx.learners.prototypical import class_means, squared_distances, unit_length
from meta_dx.learners.softmax_regression import ITERATIONS, fit_softmax_regression


class Cl2n(Head):
    """A head on CL2N features: embeddings minus the base mean, scaled to length one.

    Parameters
    ----------
    embedding_size : int
        D.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases' studies; zero if absent.

    Raises
    ------
    ValueError
        For a base mean of another size.
    """

    base_mean: Tensor

    def __init__(self, embedding_size: int, base_mean: Tensor | None = None) -> None:
        super().__init__()
        mean = torch.zeros(embedding_size) if base_mean is None else base_mean.detach().clone().float()
        if mean.shape != (embedding_size,):
            raise ValueError(f"base_mean has shape {tuple(mean.shape)}, not ({embedding_size},)")
        self.register_buffer("base_mean", mean)

    def normalised(self, x: Tensor) -> Tensor:
        """Return CL2N features of embeddings (E, S, D)."""
        return unit_length(x - self.base_mean)


class SimpleShot(Cl2n):
    """Nearest centroid on CL2N features.

    Parameters
    ----------
    embedding_size : int
        D.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases' studies; zero if absent.
    scale : float
        Factor on the squared distance. It does not change the nearest class, only the probabilities.
    """

    capabilities = Capabilities()
    state_names = ("centroids", "count")

    def __init__(self, embedding_size: int, base_mean: Tensor | None = None, scale: float = 10.0) -> None:
        super().__init__(embedding_size, base_mean)
        self.scale = scale

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        """Average each class's CL2N features: ``centroids`` (E, N, D) and ``count`` (E, N)."""
        return class_means(self.normalised(support_x), support_onehot, ("centroids", "count"))

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Score queries by squared distance to the centroids, shape (E, 1, Q, N)."""
        logits = -self.scale * squared_distances(self.normalised(query_x), state["centroids"])
        return mask_absent_classes(logits.unsqueeze(1), state["count"])


class Logistic(Cl2n):
    """Multinomial logistic regression on scaled CL2N features.

    Minimises ``c * sum_i w_i CE_i + 0.5 ||W||²`` with an intercept that is not penalised, which is what
    scikit-learn minimises for three classes and more. For two classes scikit-learn fits one vector in the
    place of two; its answer at ``C = 2 c`` is ours at ``c``.

    Parameters
    ----------
    embedding_size : int
        D.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases' studies; zero if absent.
    c : float
        Weight of the data against the penalty, scikit-learn's ``C``.
    scale : float
        Length of the features. Only ``c * scale²`` matters for the answer.
    balanced : bool
        Give every class the same total weight, so that the number of confirmed cases at hand does not
        become a prior on the disease.
    iterations : int
        Iterations of the solver.
    """

    capabilities = Capabilities()
    state_names = ("weight", "bias", "count")

    def __init__(
        self,
        embedding_size: int,
        base_mean: Tensor | None = None,
        c: float = 1.0,
        scale: float = 3.0,
        balanced: bool = True,
        iterations: int = ITERATIONS,
    ) -> None:
        super().__init__(embedding_size, base_mean)
        self.c, self.scale, self.balanced, self.iterations = c, scale, balanced, iterations

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        """Fit the regression: ``weight`` (E, N, D), ``bias`` (E, N), ``count`` (E, N)."""
        weight, bias = fit_softmax_regression(
            self.scale * self.normalised(support_x),
            support_onehot,
            c=self.c,
            balanced=self.balanced,
            iterations=self.iterations,
        )
        return {"weight": weight, "bias": bias, "count": support_onehot.sum(1)}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return linear scores, shape (E, 1, Q, N)."""
        features = self.scale * self.normalised(query_x)  # (E, Q, D)
        logits = features @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)
        return mask_absent_classes(logits.unsqueeze(1), state["count"])
