"""What a head answers, and how far it can be trusted: from samples under noise to probabilities and intervals.

Noise belongs to a disease, not to its place in a list: the numbers of a class come from a generator seeded by
its code. A case that is asked about twice gets the same answer, and offering one more disease changes nothing
in what is drawn for the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from meta_dx.metrics.uncertainty import mutual_information, uncertainty

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_MANTISSA = 53  # bits of a float64


@dataclass(frozen=True)
class Answer:
    """Answers to Q queries; what the head cannot give is None.

    Parameters
    ----------
    probabilities : ndarray of float64, shape (Q, N)
        Calibrated; each row sums to 1.
    epistemic : ndarray of float64, shape (Q,), optional
        Mutual information of diagnosis and latent variable, nats: what more confirmed cases would remove.
    aleatoric : ndarray of float64, shape (Q,), optional
        Expected entropy under a known latent variable, nats: what they would not remove.
    interval : ndarray of float64, shape (Q, N, 2), optional
        Lower and upper end of the 95 % credible interval of each probability, which they contain.
    attention : ndarray of float64, shape (Q, S), optional
        Weight of each confirmed case among those of its class; sums to 1 over each class that has a case.
    """

    probabilities: Floats
    epistemic: Floats | None = None
    aleatoric: Floats | None = None
    interval: Floats | None = None
    attention: Floats | None = None

    def changed(self, change: Callable[[Floats], Floats]) -> Answer:
        """Apply one function to every part that is there."""
        rest = (self.epistemic, self.aleatoric, self.interval, self.attention)
        return Answer(change(self.probabilities), *(None if part is None else change(part) for part in rest))


def class_noise(codes: Sequence[str], samples: int, size: int) -> Vectors:
    """Draw standard normal noise for classes, each from its own code.

    Parameters
    ----------
    codes : sequence of str
        Disease code of each class.
    samples : int
        M.
    size : int
        L, numbers of a class and sample.

    Returns
    -------
    ndarray of float32, shape (M, N, L)
        From the bits of Philox keyed with the SHA-256 of the code, by the inverse of the normal distribution:
        the same numbers in every version of NumPy.
    """
    drawn = [_normal(code, samples * size).reshape(samples, size) for code in codes]
    return np.stack(drawn, axis=1).astype(np.float32)


def weighted(probabilities: npt.ArrayLike, prior: npt.ArrayLike | None) -> Floats:
    """Multiply probabilities (…, N) by how frequent each class is, and scale rows to sum to 1.

    Parameters
    ----------
    probabilities : array_like, shape (…, N)
        As if all classes were equally frequent.
    prior : array_like, broadcastable, optional
        Frequencies up to a factor.

    Returns
    -------
    ndarray of float64, shape (…, N)

    Raises
    ------
    ValueError
        When a row is left with nothing.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if prior is not None:
        p = p * np.asarray(prior, dtype=np.float64)
    total = p.sum(-1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("the prior is 0 for every class that has a case")
    shares: Floats = p / total
    return shares


def answer_of(
    probabilities: Vectors, samples: Vectors | None, attention: Vectors | None, prior: Floats | None
) -> Answer:
    """Turn what a graph gave into an answer.

    Parameters
    ----------
    probabilities : ndarray, shape (E, Q, N)
        Calibrated.
    samples : ndarray, shape (E, M, Q, N), optional
        Calibrated, under each noise sample; the prior then acts on each of them, and the answer is their mean.
    attention : ndarray, shape (E, Q, S), optional
        Weights within classes.
    prior : ndarray, shape (E, 1, N), optional
        Class frequencies up to a factor.

    Returns
    -------
    Answer
        Each part with a leading axis E.
    """
    weights = None if attention is None else attention.astype(np.float64)
    if samples is None:
        return Answer(weighted(probabilities, prior), attention=weights)
    found = uncertainty(_by_query(samples, prior))
    interval = np.stack([found.low, found.high], axis=-1)
    return Answer(found.probability, found.epistemic, found.aleatoric, interval, weights)


def doubt_of(
    probabilities: Vectors, samples: Vectors | None, _attention: Vectors | None, prior: Floats | None
) -> Answer:
    """Do as :func:`answer_of`, but with probabilities and epistemic uncertainty only, which is faster."""
    if samples is None:
        return Answer(weighted(probabilities, prior))
    p = _by_query(samples, prior)
    return Answer(p.mean(-2), mutual_information(p))


def first_queries(answer: Answer, count: int) -> Answer:
    """Keep the first queries of an answer with a leading axis E."""
    return answer.changed(lambda part: part[:, :count])


def joined(parts: Sequence[Answer], axis: int) -> Answer:
    """Concatenate answers along one axis."""
    rest: list[Floats | None] = []
    for name in ("epistemic", "aleatoric", "interval", "attention"):
        values = [getattr(part, name) for part in parts]
        rest.append(None if values[0] is None else np.concatenate(values, axis=axis))
    return Answer(np.concatenate([part.probabilities for part in parts], axis=axis), *rest)


def _by_query(samples: Vectors, prior: Floats | None) -> Floats:
    """Return samples (E, M, Q, N) as (E, Q, M, N), under a prior (E, 1, N)."""
    return weighted(samples.swapaxes(1, 2), None if prior is None else prior[:, None])


def _normal(code: str, count: int) -> Floats:
    key = int.from_bytes(hashlib.sha256(f"noise/{code}".encode()).digest()[:16], "big")
    raw = np.random.Philox(key=key).random_raw(count)
    share = ((raw >> np.uint64(64 - _MANTISSA)).astype(np.float64) + 0.5) / 2.0**_MANTISSA
    # The largest of them rounds to 1, where the normal distribution has no number.
    normal: Floats = ndtri(np.minimum(share, 1.0 - 2.0**-_MANTISSA))
    return normal
