"""Learners on the embeddings of a frozen encoder: attentive neural process, LEO, MANN, Meta-LSTM.

Every study of the common and validation diseases is embedded once; episodes are gathered from these vectors,
so that a step takes milliseconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from meta_dx.backbones.encoder import Encoder, build_encoder
from meta_dx.episodes.collate import collate
from meta_dx.learners.base import Grads, Head, Metrics
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.registry import LEARNERS, build_body_learner, build_head, build_mann
from meta_dx.progress import Progress, silent
from meta_dx.training.determinism import seeded
from meta_dx.training.embedding import embed_studies
from meta_dx.training.episodic import episode_sampler, episodic_stage, shard_plans, what_fits
from meta_dx.training.feasibility import common_ways
from meta_dx.training.shards import Shard
from meta_dx.training.stage import StageResult, finished, run_stage
from meta_dx.training.task import TrainingTask, open_fabric, step_seed
from meta_dx.training.validation import Checked, ValidationEpisodes

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def build_on_embeddings(
    name: str, embedding_size: int, task: TrainingTask, *, base_mean: Tensor | None = None
) -> Head | BodyLearner:
    """Make one of ``FROZEN_LEARNERS``, untrained.

    Those for one number of ways are built for that of the validation episodes.
    """
    if name in LEARNERS:
        return build_head(name, embedding_size, base_mean=base_mean, options=task.learner)
    ways = common_ways(task.validation, task.options, task.ancestors)
    if name == "mann":
        return build_mann(embedding_size, ways, task.learner)
    return build_body_learner(name, nn.Identity(), embedding_size, ways, task.learner)


def train_on_embeddings(
    task: TrainingTask, name: str, start: StageResult, progress: Progress = silent
) -> StageResult:
    """Train a learner on the embeddings of an encoder that stays as it is; a finished stage is only read.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    name : str
        One of ``FROZEN_LEARNERS``.
    start : StageResult
        Whose encoder embeds.
    progress : Progress
        Called with steps done, steps in all, and loss, accuracy and time left.

    Returns
    -------
    StageResult
        ``best["head"]`` are the learner's weights at the best validation, ``best["encoder"]`` the encoder's.

    Raises
    ------
    MetaDxError
        ``no_cuda`` or ``too_few_diseases``.
    """
    options, folder = task.options, task.folder / name
    key = task.key(stage=task.learner.own(name), start=start.version, options=_deciding(task, name))
    if (done := finished(folder, key, task.may_train)) is not None:
        return done
    fabric = open_fabric(task)
    encoder = build_encoder(replace(task.backbone, weights=""), task.channels, task.spatial_dims).eval()
    encoder.load_state_dict(start.best["encoder"])
    learning = _Embedded(task, name, fabric, encoder)
    stage = episodic_stage(
        task,
        name,
        key,
        learning,
        modules={"encoder": encoder, "head": learning.learner},
        rates={"head": _own_rate(task, name) or options.head_learning_rate},
        weight_decay=learning.learner.weight_decay,
        steps=options.head_steps,
        clip=getattr(learning.learner, "clipped", None),
    )
    return run_stage(stage, fabric, progress)


class _Embedded:
    """The objective: the learner's loss on this step's episodes of embeddings."""

    def __init__(self, task: TrainingTask, name: str, fabric: Fabric, encoder: Encoder) -> None:
        self._task, self._device = task, fabric.device
        device = str(fabric.device)
        common = embed_studies(encoder, task.images, task.common, device=device)
        self._validation_vectors = embed_studies(encoder, task.images, task.validation, device=device)
        self._common = torch.from_numpy(common).to(fabric.device)
        with seeded(step_seed(task.seed, f"{name} head", 0)):
            learner = build_on_embeddings(
                name, encoder.embedding_size, task, base_mean=torch.from_numpy(common.mean(0))
            )
        self.learner = learner.to(fabric.device)
        self._validation = ValidationEpisodes(task.validation, task.options, task.seed, task.ancestors)
        fixed = self._validation.ways if learner.capabilities.fixed_ways else None
        self._sampler = episode_sampler(task, fixed)
        self._parameters = {f"head.{name}": p for name, p in self.learner.named_parameters()}

    def gradients(self, shard: Shard) -> tuple[Grads, Metrics]:
        """Gather a shard's episodes and return the learner's gradients."""
        plans = shard_plans(self._sampler, self._task.options.head_episodes_per_step, shard)
        episode = collate(plans, self._common)
        generator = torch.Generator().manual_seed(shard.seed(self._task.seed, "noise"))
        self.learner.train()
        return self.learner.meta_gradients(episode, parameters=self._parameters, generator=generator)

    def validate(self) -> Checked:
        """Measure the learner on the validation diseases; by its log loss too where it says how sure it is."""
        learner = self.learner.cpu().eval()
        if isinstance(learner, Head) and learner.noise_size:
            checked = self._validation.check(learner, self._validation_vectors)
        else:
            checked = Checked(self._validation.accuracy(learner, self._validation_vectors))
        self.learner.to(self._device)
        return checked


def _own_rate(task: TrainingTask, name: str) -> float | None:
    """Return the learning rate among a learner's own options, of which not every learner has one."""
    return getattr(getattr(task.learner, name), "learning_rate", None)


def _deciding(task: TrainingTask, name: str) -> dict[str, object]:
    names = (
        "ways shots queries head_steps head_episodes_per_step validate_every"
        " patience validation_ways validation_shots validation_queries validation_episodes"
    )
    if _own_rate(task, name) is None:
        names += " head_learning_rate"
    kept_by = {"kept_by": "log loss among few and many"} if name == "anp" else {}
    return {**task.deciding(names), **what_fits(task, name), **kept_by}
