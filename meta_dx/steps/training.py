"""Steps of training: pre-training, one meta-learner, and the choice on the validation diseases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.progress import Progress, silent
from meta_dx.steps import Project
from meta_dx.steps.cohort import CohortData, assemble

if TYPE_CHECKING:
    from meta_dx.training.selection import TrainingResult
    from meta_dx.training.stage import StageResult
    from meta_dx.training.task import TrainingTask


def training_task(project: Project, data: CohortData) -> TrainingTask:
    """Describe the training run of a cohort; its folder is named by everything that decides the weights.

    Only images of common and validation diseases go in, so that new studies of other diseases, or without a
    diagnosis, do not make another run of it.
    """
    from meta_dx.training.task import TrainingTask

    settings = project.settings
    common, validation = data.by_role["common"], data.by_role["validation"]
    rows = np.unique(np.concatenate([*common.images, *validation.images]))
    task = TrainingTask(
        common=_renumbered(common, rows),
        validation=_renumbered(validation, rows),
        images=data.store.images.subset(rows),
        folder=project.home.checkpoints,
        backbone=settings.backbone,
        learner=settings.learner,
        options=settings.training,
        images_version=data.images_version(rows),
        seed=settings.cohort.seed,
        device=settings.cohort.device,
        ancestors=data.ancestors,
    )
    return replace(task, folder=project.home.checkpoints / task.key())


def _renumbered(examples: Examples, rows: npt.NDArray[np.int64]) -> Examples:
    return replace(examples, images=tuple(np.searchsorted(rows, images) for images in examples.images))


def pretrain(project: Project, progress: Progress = silent) -> StageResult:
    """Train the backbone as a classifier of the common diseases, or return the finished stage."""
    from meta_dx.training.pretraining import pretrain as run

    return run(training_task(project, assemble(project)), progress)


def meta_train(project: Project, learner: str, progress: Progress = silent) -> StageResult | None:
    """Train one meta-learner, or return the finished stage; None where the cohort does not ask for it."""
    from meta_dx.training.episodic import PROTOTYPICAL
    from meta_dx.training.episodic import meta_train as run
    from meta_dx.training.pretraining import pretrain as first
    from meta_dx.training.start import best_encoder, with_prior_head
    from meta_dx.training.train import train_learner

    settings = project.settings
    with_episodes = settings.training.episodes > 0
    if learner == PROTOTYPICAL and not with_episodes:
        return None
    if learner != PROTOTYPICAL and learner not in settings.learner.wanted:
        return None
    task = training_task(project, assemble(project))
    stages = [first(task)]
    if learner == PROTOTYPICAL:
        return run(task, stages[0], progress)
    if with_episodes:
        stages.append(run(task, stages[0]))
    start = best_encoder(task, stages, project.home.features)
    return train_learner(with_prior_head(task, start, project.home.features), learner, start, progress)


def select(project: Project, progress: Progress = silent) -> TrainingResult:
    """Choose checkpoint and serving head on the validation diseases, baselines included."""
    from meta_dx.training.train import train

    task = training_task(project, assemble(project))
    return train(
        task,
        features=project.home.features,
        progress=lambda _stage, done, total, message: progress(done, total, message),
    )
