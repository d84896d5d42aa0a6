"""One temperature for every number of shots and ways, fitted on validation diseases.

A head's logits are too sure or too shy by a factor that depends on how many confirmed cases a class has and
on how many classes compete. The temperature is therefore

    log T = a + b·log(shots) + c·log(ways) + d·log(1 + 1/shots)

few numbers, so that the few validation diseases can bear them, and one T for all classes, so that their order
never changes. ``shots`` is the mean number of support cases of the classes that take part, ``ways`` their
number. A head with a latent variable answers with M samples; T divides the logits of each, and the probability
is the mean of their softmax. The last term fades as shots grow, as the noise of a class mean does: without it
the calibration error of prototypes reached 0.15 for some sizes of simulated tasks, with it 0.08.

Guo et al. 2017, "On calibration of modern neural networks", section 4.2, made to depend on the task's size. Where
all answers are right the log loss is lowest at T = 0, as if no answer could ever be wrong. So the targets are smoothed
as in Platt 1999, "Probabilistic outputs for support vector machines", section 2.2: one query more is made up, of which
every class is as likely.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meta_dx.errors import MetaDxError
from meta_dx.metrics.calibration import class_weights, expected_calibration_error, log_loss

if TYPE_CHECKING:
    import torch

    from meta_dx.episodes.episode import Episode
    from meta_dx.learners.base import Head

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_RIDGE = 1e-4  # keeps the slopes near 0 where the episodes hardly vary; a is free
_BOUNDS = [(-6.0, 6.0), (-3.0, 3.0), (-3.0, 3.0), (-6.0, 6.0)]
_STOP = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500}
_DIGITS = 6  # so that the last bits of an optimiser do not change a bundle's hash
_ABSENT = -1e30  # a logit whose weight is 0 at any temperature, and 0 times which is 0
_SAMPLES = 16  # of the latent variable, for heads that have one
_SAMPLED_QUERIES = 400  # of such a head, for each batch of episodes: enough for four numbers, and bounded
_SAMPLED_TASKS = 4  # episodes at once through such a head: its attention is quadratic in their cases


@dataclass(frozen=True)
class Calibration:
    """The fitted temperature and what it did on the validation diseases.

    Parameters
    ----------
    a, b, c, d : float
        ``log T = a + b·log(shots) + c·log(ways) + d·log(1 + 1/shots)``; all zero leaves the logits as they
        are.
    queries : int
        Answers that it was fitted on; 0 when it was not fitted.
    shots, ways : tuple of float
        Smallest and largest that occurred in fitting; outside of them T is an extrapolation.
    ece_before, ece_after : float
        Expected calibration error (15 bins) with T = 1 and with the fitted T, on the answers of the fit.
    log_loss_before, log_loss_after : float
        Log loss in nats, likewise.
    at_bound : bool
        Whether a number of the law stands at an end of its range: the answers do not tell how sure to be.
    """

    a: float = 0.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    queries: int = 0
    shots: tuple[float, float] = (0.0, 0.0)
    ways: tuple[float, float] = (0.0, 0.0)
    ece_before: float = 0.0
    ece_after: float = 0.0
    log_loss_before: float = 0.0
    log_loss_after: float = 0.0
    at_bound: bool = False

    def temperature(self, shots: npt.ArrayLike, ways: npt.ArrayLike) -> Floats:
        """Return T for these numbers of shots and ways."""
        slopes = _slopes(np.asarray(shots, dtype=np.float64), np.asarray(ways, dtype=np.float64))
        return np.asarray(np.exp(self.a + slopes @ [self.b, self.c, self.d]), dtype=np.float64)


def fit_temperature(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    shots: npt.ArrayLike,
    ways: npt.ArrayLike,
    balance: npt.ArrayLike | None = None,
) -> Calibration:
    """Fit the temperature by minimising the log loss, with smoothed targets.

    Parameters
    ----------
    logits : array_like, shape (n, N) or (n, M, N)
        Answers to the queries of validation episodes, under each of M samples of a head's latent variable
        where it has one; -inf where a class does not take part.
    labels : array_like of int, shape (n,)
        The true class of each query.
    shots : array_like, shape (n,)
        Mean support cases a class in the query's episode.
    ways : array_like, shape (n,)
        Classes in the query's episode.
    balance : array_like, shape (n,), optional
        Group of each query: every group weighs the same, in the fit and in the reported errors; ``labels`` if
        absent. :func:`calibrate` takes the size of the task, so that many-way episodes, which have the most
        queries, do not decide alone.

    Returns
    -------
    Calibration
        ``b`` (or ``c``) is 0 where all episodes have the same shots (ways), and ``d`` where they have fewer
        than three different shots: nothing can be learnt about them.
    """
    from scipy.optimize import minimize

    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim == 2:
        scores = scores[:, None, :]  # (n, 1, N): one sample
    truth = np.asarray(labels, dtype=np.int64)
    size = np.stack([np.asarray(shots, float), np.asarray(ways, float)], axis=1)  # (n, 2)
    _check(scores, truth, size)
    different = [len(np.unique(size[:, i].round(6))) for i in (0, 1)]
    varies = np.array([different[0] > 1, different[1] > 1, different[0] > 2])
    slopes = _slopes(size[:, 0], size[:, 1])
    centre = slopes.mean(0)
    design = np.hstack([np.ones((len(scores), 1)), (slopes - centre) * varies])  # (n, 4)
    groups = truth if balance is None else np.asarray(balance)
    task = (_prepared(scores), truth, design, class_weights(groups))
    # The loss is not convex in log T: start from the best single temperature of a coarse grid.
    starts = [np.array([a, 0.0, 0.0, 0.0]) for a in sorted(np.linspace(*_BOUNDS[0], 25), key=abs)]
    start = min(starts, key=lambda parameters: _smoothed(parameters, *task)[0])
    found = minimize(_smoothed, start, args=task, jac=True, method="L-BFGS-B", bounds=_BOUNDS, options=_STOP)
    slope = found.x[1:] * varies
    a, b, c, d = (round(float(x), _DIGITS) for x in (found.x[0] - centre @ slope, *slope))
    at_bound = bool(np.isclose(np.abs(found.x), np.array(_BOUNDS)[:, 1])[[True, *varies]].any())
    return _report(Calibration(a, b, c, d, at_bound=at_bound), scores, truth, size, groups)


def calibrate(head: Head, episodes: Iterable[Episode]) -> Calibration:
    """Fit the temperature of a head on validation episodes over embeddings.

    Parameters
    ----------
    head : Head
        The head, in torch. One with a latent variable answers under 16 samples from a fixed seed, and up to
        400 evenly spaced queries of each batch of episodes.
    episodes : iterable of Episode
        Episodes on validation diseases; of several shots and ways, so that the slopes can be fitted. Each
        combination of shots and ways weighs the same.

    Returns
    -------
    Calibration

    Raises
    ------
    MetaDxError
        ``too_few_diseases`` without episodes.
    """
    import torch

    answers: list[tuple[Floats, Ints, Floats]] = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for episode in episodes:
            chosen = _fewer_queries(episode) if head.noise_size else episode
            logits = _answers(head, chosen, generator).transpose(1, 2)  # (E, Q, M, N)
            count = chosen.support.onehot().sum(1)  # (E, N)
            ways = (count > 0).sum(1)
            size = torch.stack([count.sum(1) / ways, ways.to(count.dtype)], dim=1)  # (E, 2)
            real = chosen.query_mask.cpu().numpy()
            size_of_each = size[:, None, :].expand(-1, real.shape[1], -1)  # (E, Q, 2)
            answers.append(
                (
                    logits.cpu().numpy().astype(np.float64)[real],
                    chosen.query_y.cpu().numpy()[real],
                    size_of_each.cpu().numpy().astype(np.float64)[real],
                )
            )
    if not answers:
        raise MetaDxError(
            "too_few_diseases",
            "No episode of validation diseases can be drawn to calibrate on: it takes two with at least 3 patients, "
            "none an ancestor of the other; add cases, or lower the thresholds of [split].",
        )
    widest = max(scores.shape[2] for scores, _, _ in answers)
    padded = [
        np.pad(scores, ((0, 0), (0, 0), (0, widest - scores.shape[2])), constant_values=-np.inf)
        for scores, _, _ in answers
    ]
    sizes = np.concatenate([size for _, _, size in answers])
    truth = np.concatenate([labels for _, labels, _ in answers])
    _, task = np.unique(sizes.round(3), axis=0, return_inverse=True)
    return fit_temperature(np.concatenate(padded), truth, sizes[:, 0], sizes[:, 1], task)


def _answers(head: Head, episode: Episode, generator: torch.Generator) -> torch.Tensor:
    """Return logits (E, M, Q, N); noise comes from the generator where the head needs any."""
    import torch

    noise = head.draw_noise(episode, _SAMPLES, generator)
    if noise is None:
        return head.predict(head.adapt(episode.support), episode.query).logits
    parts = []
    for start in range(0, len(noise), _SAMPLED_TASKS):
        some = slice(start, start + _SAMPLED_TASKS)
        part = replace(episode, **{name: tensor[some] for name, tensor in vars(episode).items()})
        parts.append(head.predict(head.adapt(part.support), part.query, noise=noise[some]).logits)
    return torch.cat(parts)


def _fewer_queries(episode: Episode) -> Episode:
    """Keep at most 400 queries over all tasks, evenly spaced so that every class has its share."""
    import torch

    tasks, queries = episode.query_mask.shape
    kept = min(queries, -(-_SAMPLED_QUERIES // tasks))
    at = torch.linspace(0, queries - 1, kept).round().long().to(episode.query_y.device)
    names = ("query_x", "query_y", "query_mask")
    return replace(episode, **{name: getattr(episode, name)[:, at] for name in names})


def _slopes(shots: Floats, ways: Floats) -> Floats:
    """Return what b, c and d are multiplied with, shape (…, 3)."""
    return np.stack([np.log(shots), np.log(ways), np.log1p(1 / shots)], axis=-1)


def _prepared(scores: Floats) -> Floats:
    """Take the largest logit of each row away, and make -inf a number that weighs nothing."""
    centred: Floats = np.maximum(scores - scores.max(-1, keepdims=True), _ABSENT)
    return centred


def _smoothed(
    parameters: Floats, centred: Floats, truth: Ints, design: Floats, share: Floats
) -> tuple[float, Floats]:
    """Return the loss that is minimised, and its gradient: of n queries, and of one that may be of any class."""
    value, slope = _loss(parameters, centred, truth, design, share)
    sharpness = np.exp(-(design @ parameters))[:, None]  # (n, 1)
    weight = np.exp(centred * sharpness[:, :, None])  # (n, M, N)
    total = weight.sum(-1)
    present = centred > _ABSENT
    even = np.where(present, centred, 0.0).sum(-1) / present.sum(-1)  # (n, M), mean logit
    expected = (weight * centred).sum(-1) / total
    made_up = float(share @ (np.log(total) - even * sharpness).mean(1))
    slope_made_up = (share * sharpness[:, 0] * (even - expected).mean(1)) @ design
    part = 1 / (len(truth) + 1)
    return (1 - part) * value + part * made_up, (1 - part) * slope + part * slope_made_up


def _loss(
    parameters: Floats, centred: Floats, truth: Ints, design: Floats, share: Floats
) -> tuple[float, Floats]:
    """Return the weighted log loss of the mean over M samples, and its gradient.

    With z the logits (n, M, N) and s = 1/T, the loss of a query is -log mean_m p_m[y], and in log T its
    gradient is s · sum_m w_m (z_m[y] - E_p_m[z_m]), w_m = p_m[y] / sum_m p_m[y].
    """
    sharpness = np.exp(-(design @ parameters))[:, None]  # (n, 1), 1 / T
    weight = np.exp(centred * sharpness[:, :, None])  # (n, M, N)
    total = weight.sum(-1)  # (n, M)
    own = centred[np.arange(len(truth)), :, truth]  # (n, M)
    expected = (weight * centred).sum(-1) / total
    log_p = own * sharpness - np.log(total)
    best = log_p.max(1, keepdims=True)
    likely = np.exp(log_p - best)  # (n, M), 1 where M = 1
    mean = likely.mean(1)
    blame = likely / likely.sum(1, keepdims=True)
    slope = (share * sharpness[:, 0] * (blame * (own - expected)).sum(1)) @ design
    penalty = _RIDGE * np.array([0.0, *parameters[1:]])
    value = float(share @ -(best[:, 0] + np.log(mean)) + 0.5 * penalty @ parameters)
    return value, slope + penalty


def _report(
    fitted: Calibration,
    scores: Floats,
    truth: Ints,
    size: Floats,
    balance: npt.NDArray[Any],
) -> Calibration:
    before = _softmax(scores).mean(1)  # (n, N)
    after = _softmax(scores / fitted.temperature(size[:, 0], size[:, 1])[:, None, None]).mean(1)
    (least_shots, least_ways), (most_shots, most_ways) = size.min(0), size.max(0)
    return Calibration(
        fitted.a,
        fitted.b,
        fitted.c,
        fitted.d,
        queries=len(truth),
        shots=(float(least_shots), float(most_shots)),
        ways=(float(least_ways), float(most_ways)),
        ece_before=round(expected_calibration_error(before, truth, balance), _DIGITS),
        ece_after=round(expected_calibration_error(after, truth, balance), _DIGITS),
        log_loss_before=round(log_loss(before, truth, balance), _DIGITS),
        log_loss_after=round(log_loss(after, truth, balance), _DIGITS),
        at_bound=fitted.at_bound,
    )


def _softmax(scores: Floats) -> Floats:
    weight = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Floats = weight / weight.sum(-1, keepdims=True)
    return shares


def _check(scores: Floats, truth: Ints, size: Floats) -> None:
    if scores.ndim != 3 or not len(scores) == len(truth) == len(size) or not len(truth):
        raise ValueError(f"logits {scores.shape}, labels {truth.shape}, sizes {size.shape}: want n each")
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError("logits hold NaN or +inf")
    if not np.isfinite(scores[np.arange(len(truth)), :, truth]).all():
        raise ValueError("a query's own class does not take part in its episode")
    if size.min() < 1:
        raise ValueError(f"shots and ways are at least 1, found {size.min()}")
