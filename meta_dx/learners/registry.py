"""Learners by name: what ``[learner] name`` in ``cohort.toml`` may say, and the heads a bundle may serve.

A *learner* is meta-trained on episodes. A *head* answers from embeddings; the baselines are heads that need
no meta-training, and whichever head does best on the validation diseases serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Head
from meta_dx.learners.baselines import Logistic, SimpleShot
from meta_dx.learners.options import LearnerOptions
from meta_dx.learners.prototypical import Prototypical


def _prototypical(options: LearnerOptions, size: int, _mean: Tensor | None) -> Head:
    return Prototypical(size, options.prototypical.distance, options.prototypical.learned_scale)


def _simpleshot(_options: LearnerOptions, size: int, mean: Tensor | None) -> Head:
    return SimpleShot(size, mean)


def _logistic(_options: LearnerOptions, size: int, mean: Tensor | None) -> Head:
    return Logistic(size, mean)


_Builder = Callable[[LearnerOptions, int, Tensor | None], Head]
#: Meta-trained learners.
LEARNERS: Mapping[str, _Builder] = {"prototypical": _prototypical}
#: Heads that need only an embedding and its mean over the common diseases.
BASELINES: Mapping[str, _Builder] = {"simpleshot": _simpleshot, "logistic": _logistic}
#: Everything that can answer from embeddings, simplest meta-trained one first.
HEADS: Mapping[str, _Builder] = {**LEARNERS, **BASELINES}


def build_head(
    name: str, embedding_size: int, *, base_mean: Tensor | None = None, options: LearnerOptions | None = None
) -> Head:
    """Make a head by name, untrained.

    Parameters
    ----------
    name : str
        A key of ``HEADS``.
    embedding_size : int
        D.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases; the baselines centre by it.
    options : LearnerOptions, optional
        What the learner's paper leaves open.

    Returns
    -------
    Head

    Raises
    ------
    MetaDxError
        ``unknown_learner``.
    """
    if name not in HEADS:
        raise MetaDxError(
            "unknown_learner", f"There is no learner named '{name}': choose one of {', '.join(HEADS)}."
        )
    return HEADS[name](options or LearnerOptions(), embedding_size, base_mean)


def head_payload(name: str, head: Head, embedding_size: int, options: LearnerOptions | None = None) -> Any:
    """Return what :func:`head_from_payload` rebuilds a head from: plain values and tensors."""
    state = {key: value.detach().cpu() for key, value in head.state_dict().items()}
    own = getattr(options or LearnerOptions(), name, None)
    plain = {} if own is None else asdict(own)
    return {"name": name, "embedding_size": embedding_size, "options": plain, "state": state}


def head_from_payload(payload: Mapping[str, Any]) -> Head:
    """Rebuild a head, in evaluation mode."""
    options = LearnerOptions()
    if (default := getattr(options, payload["name"], None)) is not None:
        options = replace(options, **{payload["name"]: type(default)(**payload["options"])})
    head = build_head(payload["name"], payload["embedding_size"], options=options)
    head.load_state_dict(payload["state"])
    return head.eval()
