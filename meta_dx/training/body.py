"""Learners that adapt the whole network: MAML, ANIL, Proto-MAML, Reptile, on images.

Training draws one image of each study. To answer, the network adapts to one image of each support study and
averages its probabilities over all images of a query study. They are slow and serve from no bundle: they are
for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from meta_dx.backbones.encoder import build_encoder
from meta_dx.cohort.examples import Examples
from meta_dx.episodes.collate import collate, episode_images
from meta_dx.episodes.episode import Query, Support
from meta_dx.episodes.plan import EpisodePlan
from meta_dx.learners.base import Grads, Metrics
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.fine_tuning import FineTuning
from meta_dx.learners.maml import Maml
from meta_dx.learners.registry import build_body_learner
from meta_dx.learners.reptile import Reptile
from meta_dx.progress import Progress, silent
from meta_dx.training.augmentation import augment
from meta_dx.training.determinism import seeded
from meta_dx.training.embedding import Pictures
from meta_dx.training.episodic import episode_sampler, episodic_stage, shard_plans, what_fits
from meta_dx.training.feasibility import common_ways
from meta_dx.training.optimizing import unclipped
from meta_dx.training.shards import Shard
from meta_dx.training.stage import StageResult, finished, run_stage
from meta_dx.training.task import TrainingTask, open_fabric, step_seed
from meta_dx.training.validation import Checked, Floats, Hits, ValidationEpisodes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Learners that are trained here.
NETWORK_LEARNERS = ("maml", "anil", "proto_maml", "reptile", "fine_tuning")
_IMAGES_AT_ONCE = 128  # of queries that do not influence one another


def build_on_images(
    name: str, task: TrainingTask, weights: Mapping[str, Tensor] | None = None
) -> BodyLearner:
    """Make one of ``NETWORK_LEARNERS`` on the task's backbone, untrained, from these weights of the encoder."""
    encoder = build_encoder(replace(task.backbone, weights=""), task.channels, task.spatial_dims)
    if weights is not None:
        encoder.load_state_dict(weights)  # before the learner replaces batch-norm layers

    def changed(images: Tensor, generator: torch.Generator) -> Tensor:
        return augment(images, task.options, generator)

    ways = common_ways(task.validation, task.options, task.ancestors)
    return build_body_learner(name, encoder, encoder.embedding_size, ways, task.learner, changed)


def train_on_images(
    task: TrainingTask, name: str, start: StageResult, progress: Progress = silent
) -> StageResult:
    """Train a learner that adapts the network, from a trained encoder; a finished stage is only read.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    name : str
        One of ``NETWORK_LEARNERS``.
    start : StageResult
        Whose encoder it starts from.
    progress : Progress
        Called with steps done, steps in all, and loss, accuracy and time left.

    Returns
    -------
    StageResult
        ``best["learner"]`` are the learner's weights at the best validation.

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
    with seeded(step_seed(task.seed, f"{name} learner", 0)):
        learner = build_on_images(name, task, start.best["encoder"])
    learner = learner.to(fabric.device)
    sgd = getattr(learner, "optimizer", "adamw") == "sgd"
    stage = episodic_stage(
        task,
        name,
        key,
        _Tasks(task, learner, fabric),
        modules={"learner": learner},
        rates={"learner": getattr(learner, "learning_rate", options.episode_learning_rate)},
        weight_decay=learner.weight_decay,
        steps=0 if isinstance(learner, FineTuning) else options.episodes,  # it learns nothing between tasks
        optimizer="sgd" if sgd else "adamw",
        schedule="linear" if sgd else "cosine",
        clip=unclipped if sgd else getattr(learner, "clipped", None),
    )
    return run_stage(stage, fabric, progress)


class _Tasks:
    """The objective: the learner's meta-gradient on this step's episodes of images."""

    def __init__(self, task: TrainingTask, learner: BodyLearner, fabric: Fabric) -> None:
        self._task, self._learner, self._device = task, learner, fabric.device
        self._validation = ValidationEpisodes(task.validation, task.options, task.seed, task.ancestors)
        fixed = self._validation.ways if learner.capabilities.fixed_ways else None
        rows = learner.options.train_shots if isinstance(learner, Reptile) else None
        self._sampler = episode_sampler(task, fixed, rows)
        self._pictures = Pictures(task.images, fabric.device)
        self._parameters = {f"learner.{name}": p for name, p in learner.named_parameters()}

    def gradients(self, shard: Shard) -> tuple[Grads, Metrics]:
        """Draw a shard's images, one a study, and return the learner's gradients."""
        task, options = self._task, self._task.options
        plans = shard_plans(self._sampler, options.episodes_per_step, shard)
        batch = episode_images(plans, task.common, per_example=1, seed=task.seed)
        generator = torch.Generator(self._device).manual_seed(shard.seed(task.seed, "episode images"))
        images = augment(self._pictures.take(batch.images), options, generator)
        episode = collate(batch.plans, images)  # one image a study: nothing to pool
        learner = self._learner.train()
        if isinstance(learner, Maml):
            learner.annealing = shard.step / max(1, options.episodes)
        drawn = torch.Generator().manual_seed(shard.seed(task.seed, "inner batches"))
        found = learner.meta_gradients(episode, parameters=self._parameters, generator=drawn)
        if isinstance(learner, Maml):
            learner.update_statistics(episode)
        return found

    def validate(self) -> Checked:
        """Return the learner's accuracy on the first validation episodes."""
        found = image_hits(self._learner.eval(), self._validation, self._task, self._pictures)
        return Checked(self._validation.accuracy_of(found))


def image_hits(
    learner: BodyLearner, episodes: ValidationEpisodes, task: TrainingTask, pictures: Pictures
) -> Hits:
    """Let a learner answer the first ``body_validation_episodes`` of each number of shots.

    Parameters
    ----------
    learner : BodyLearner
        In evaluation mode, on the device of the pictures.
    episodes : ValidationEpisodes
        The episodes.
    task : TrainingTask
        Whose validation examples they are of.
    pictures : Pictures
        The image store's images.

    Returns
    -------
    Hits
    """
    most = task.options.body_validation_episodes
    return {
        shots: np.concatenate(
            [
                (found.argmax(1) == n).astype(np.float64)
                for plan in plans[:most]
                for n, found in enumerate(study_answers(learner, plan, task.validation, pictures, task.seed))
            ]
        )
        for shots, plans in episodes.plans.items()
    }


def study_answers(
    learner: BodyLearner, plan: EpisodePlan, examples: Examples, pictures: Pictures, seed: int
) -> list[Floats]:
    """Adapt a learner to an episode's support studies and let it answer the query studies.

    Parameters
    ----------
    learner : BodyLearner
        In evaluation mode, on the device of the pictures.
    plan : EpisodePlan
        The episode.
    examples : Examples
        What its rows are of.
    pictures : Pictures
        The image store's images.
    seed : int
        Which image of a support study is taken.

    Returns
    -------
    list of ndarray of float64, shape (queries of the class, N)
        For each class the probabilities of its query studies, each the mean over the study's images.
    """
    state = learner.adapt(support_images(plan, examples, pictures, seed))
    images = [examples.images[row] for rows in plan.query for row in rows]
    # All classes together: what batch norm sees of the queries must not tell their class.
    shares = _probabilities(learner, state, pictures, np.concatenate(images))  # (images, N)
    studies = np.split(shares, np.cumsum([len(part) for part in images])[:-1])
    pooled = np.array([study.mean(0) for study in studies])
    return np.split(pooled, np.cumsum([len(rows) for rows in plan.query])[:-1])


def support_images(plan: EpisodePlan, examples: Examples, pictures: Pictures, seed: int) -> Support:
    """Return one image of each support study, shape (1, S, C, *spatial)."""
    batch = episode_images([plan], examples, per_example=1, seed=seed)
    return collate(batch.plans, pictures.take(batch.images).float()).support


def _probabilities(
    learner: BodyLearner, state: dict[str, Tensor], pictures: Pictures, rows: np.ndarray
) -> Floats:
    found = []
    # The rows lie in the order of the classes: a part of them would show batch norm which class it is of.
    step = len(rows) if learner.capabilities.transductive else _IMAGES_AT_ONCE
    for start in range(0, len(rows), step):
        x = pictures.take(rows[start : start + step]).float().unsqueeze(0)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        found.append(learner.predict(state, Query(x, mask)).probabilities()[0].double().cpu().numpy())
    return np.concatenate(found)


def _deciding(task: TrainingTask, name: str) -> dict[str, object]:
    names = (
        "flip rotate shift zoom gain cutout episodes episodes_per_step ways shots queries"
        " episode_learning_rate validate_every patience validation_ways validation_shots validation_queries"
        " validation_episodes body_validation_episodes"
    )
    own = getattr(task.learner, name)
    transductive = getattr(own, "batch_norm", "") == "batch" or getattr(own, "transductive", False)
    # Weights of transductive learners that were chosen from answers in parts are trained anew.
    together = {"queries_answered": "together"} if transductive else {}
    return {**task.deciding(names), **what_fits(task, name), **together}
