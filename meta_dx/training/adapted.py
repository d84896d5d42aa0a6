"""A trained learner that adapts a network, adapted once: what is left is one network from images to diseases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.collate import collate
from meta_dx.episodes.episode import Support
from meta_dx.episodes.plan import EpisodePlan
from meta_dx.errors import MetaDxError
from meta_dx.learners.body import BodyLearner
from meta_dx.training.body import NETWORK_LEARNERS, build_on_images, support_images
from meta_dx.training.determinism import deterministic
from meta_dx.training.embedding import Pictures, embed_studies
from meta_dx.training.frozen import build_on_embeddings
from meta_dx.training.stage import StageResult
from meta_dx.training.start import encoder_of
from meta_dx.training.task import TrainingTask


def adapted_network(task: TrainingTask, stage: StageResult, confirmed: Examples, images: Any) -> nn.Module:
    """Adapt a learner's best weights to confirmed studies, as it is adapted in the comparison.

    Parameters
    ----------
    task : TrainingTask
        The run that trained it.
    stage : StageResult
        The learner's finished stage.
    confirmed : Examples
        Studies with their diseases: class n is ``confirmed.diseases[n]``.
    images : array-like, shape (n, C, *spatial), uint8
        The images that ``confirmed.images`` index.

    Returns
    -------
    nn.Module
        Images (B, C, *spatial), uint8 or float in 0 … 255, to logits (B, N), in evaluation mode on the CPU; each
        image is answered by itself. The same input gives the same bits.

    Raises
    ------
    MetaDxError
        ``other_ways`` where the learner was trained for another number of diseases, ``transductive``.
    """
    plan = support_plan(confirmed)
    if stage.name in NETWORK_LEARNERS:
        learner = build_on_images(stage.name, task)
        learner.load_state_dict(stage.best["learner"])
        _refuse_other_ways(stage.name, learner, len(plan.classes))
        pictures = Pictures(images, torch.device("cpu"))
        return _settled(learner, support_images(plan, confirmed, pictures, task.seed))
    encoder = encoder_of(task, stage)
    on_embeddings = build_on_embeddings(stage.name, encoder.embedding_size, task)
    if not isinstance(on_embeddings, BodyLearner):
        raise ValueError(f"{stage.name} adapts no network")
    on_embeddings.load_state_dict(stage.best["head"])
    _refuse_other_ways(stage.name, on_embeddings, len(plan.classes))
    vectors = embed_studies(encoder, images, confirmed)
    last = _settled(on_embeddings, collate([plan], vectors).support)
    return nn.Sequential(encoder, last).requires_grad_(False).eval()


def pools_logits(name: str) -> bool:
    """Say whether a study is answered by the mean of its images' logits, or by that of their probabilities."""
    return name not in NETWORK_LEARNERS


def normalised_with(name: str, options: Mapping[str, Any]) -> str:
    """Return whose statistics stand fixed in the batch norm of an adapted network.

    Parameters
    ----------
    name : str
        The learner.
    options : mapping
        Its own options.

    Returns
    -------
    {"support", "stored", "per_step"}
        The confirmed pictures'; the running ones of pre-training; those of the last inner step.
    """
    if name not in NETWORK_LEARNERS:
        return "stored"  # the encoder in front is as pre-training left it
    return str(options.get("batch_norm", "support"))  # Reptile has one mode


def support_plan(confirmed: Examples) -> EpisodePlan:
    """Return the task of which all confirmed studies are the support, without queries."""
    classes = tuple(confirmed.diseases)
    rows = tuple(np.flatnonzero(confirmed.code == code) for code in classes)
    return EpisodePlan(0, classes, rows, tuple(np.zeros(0, dtype=np.int64) for _ in classes))


def _settled(learner: BodyLearner, support: Support) -> nn.Module:
    with deterministic():
        state = learner.eval().adapt(support)
    return learner.adapted_network({name: value[0] for name, value in state.items()})


def _refuse_other_ways(name: str, learner: BodyLearner, ways: int) -> None:
    if learner.capabilities.fixed_ways and learner.ways != ways:
        raise MetaDxError(
            "other_ways",
            f"'{name}' was trained for {learner.ways} diseases, and {ways} are confirmed: name {learner.ways} of them "
            "in the table of --support or in [serve] diseases, or take proto_maml or fine_tuning, which adapt to any "
            "number.",
        )
