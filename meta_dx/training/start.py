"""Where the learners beside Prototypical Networks start from: the better encoder, and its strongest plain head.

Both are found on the validation diseases, by the episodes that stages validate on; the choice of what serves has
episodes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from meta_dx.backbones.encoder import Encoder, build_encoder
from meta_dx.learners.baselines import SimpleShot
from meta_dx.learners.options import BEST
from meta_dx.learners.registry import BASELINES, build_head
from meta_dx.training import processes
from meta_dx.training.embedding import Vectors, embed_studies
from meta_dx.training.features import cached_features, study_features
from meta_dx.training.stage import StageResult
from meta_dx.training.task import TrainingTask, open_fabric
from meta_dx.training.validation import ValidationEpisodes


def best_encoder(
    task: TrainingTask, stages: Sequence[StageResult], features: Path | None = None
) -> StageResult:
    """Return the stage whose encoder is best by SimpleShot, which needs no training."""
    episodes = ValidationEpisodes(task.validation, task.options, task.seed, task.ancestors)

    def accuracy(stage: StageResult) -> float:
        encoder = encoder_of(task, stage)
        common, validation = embedded(task, encoder, features)
        head = SimpleShot(encoder.embedding_size, torch.from_numpy(common.mean(0))).eval()
        return episodes.accuracy(head, validation)

    return stages[0] if len(stages) == 1 else processes.alone(lambda: max(stages, key=accuracy))


def with_prior_head(task: TrainingTask, start: StageResult, features: Path | None = None) -> TrainingTask:
    """Name and scale the plain head that the neural process adds to, where the options leave it open.

    Parameters
    ----------
    task : TrainingTask
        ``learner.anp.prior_head`` may be ``"best"``, ``prior_scale`` 0.
    start : StageResult
        Whose encoder embeds.
    features : Path, optional
        Folder of the feature cache.

    Returns
    -------
    TrainingTask
        With the baseline that is right most often on the validation diseases, and the factor on its logits that
        has the lowest log loss there.
    """
    anp = task.learner.anp
    if "anp" not in task.learner.wanted or (anp.prior_head != BEST and anp.prior_scale):
        return task
    episodes = ValidationEpisodes(task.validation, task.options, task.seed, task.ancestors)
    encoder = encoder_of(task, start)
    common, validation = embedded(task, encoder, features)
    mean, size = torch.from_numpy(common.mean(0)), encoder.embedding_size
    names = list(BASELINES) if anp.prior_head == BEST else [anp.prior_head]
    heads = {name: build_head(name, size, base_mean=mean, options=task.learner).eval() for name in names}
    best = max(names, key=lambda name: episodes.accuracy(heads[name], validation)) if names[1:] else names[0]
    scale = anp.prior_scale or episodes.best_scale(heads[best], validation)
    named = replace(anp, prior_head=best, prior_scale=scale)  # type: ignore[arg-type] # a head's name
    return replace(task, learner=replace(task.learner, anp=named))


def encoder_of(task: TrainingTask, stage: StageResult) -> Encoder:
    """Return the encoder that a stage left, in evaluation mode."""
    encoder = build_encoder(replace(task.backbone, weights=""), task.channels, task.spatial_dims).eval()
    encoder.load_state_dict(stage.best["encoder"])
    return encoder


def embedded(task: TrainingTask, encoder: Encoder, features: Path | None) -> tuple[Vectors, Vectors]:
    """Return the study embeddings of the common and of the validation diseases."""
    device = str(open_fabric(task).device)
    if features is not None and task.images_version:
        cached = cached_features(features, encoder, task.images, task.images_version, device=device)
        found = study_features(cached, task.common), study_features(cached, task.validation)
    else:
        found = (
            embed_studies(encoder, task.images, task.common, device=device),
            embed_studies(encoder, task.images, task.validation, device=device),
        )
    encoder.cpu()
    return found
