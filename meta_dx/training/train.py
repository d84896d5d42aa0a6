"""The whole training in one call: pre-training, episodes, choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from meta_dx.progress import Progress, silent
from meta_dx.training import processes
from meta_dx.training.body import train_on_images
from meta_dx.training.episodic import PROTOTYPICAL, meta_train
from meta_dx.training.frozen import train_on_embeddings
from meta_dx.training.options import FROZEN_LEARNERS, require_steps
from meta_dx.training.pretraining import pretrain
from meta_dx.training.selection import TrainingResult, select
from meta_dx.training.stage import StageResult
from meta_dx.training.start import best_encoder, with_prior_head
from meta_dx.training.task import TrainingTask

#: Called with stage, steps done, steps in all, message.
StagedProgress = Callable[[str, int, int, str], None]


def train(
    task: TrainingTask, *, features: Path | None = None, progress: StagedProgress | None = None
) -> TrainingResult:
    """Pre-train, meta-train and choose; what is finished in the task's folder is not done again.

    Under ``torchrun`` every process calls this with the same task, and all get the same result.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    features : Path, optional
        Folder of the feature cache.
    progress : callable, optional
        Called with stage, steps done, steps in all, and a message with loss, accuracy and time left.

    Returns
    -------
    TrainingResult

    Raises
    ------
    MetaDxError
        ``no_cuda``, ``too_few_diseases``, a storage fault, or faults of the user's own weights.
    """

    def of(stage: str) -> Progress:
        def report(done: int, total: int, message: str = "") -> None:
            if progress is not None:
                progress(stage, done, total, message)

        return report

    stages, task = train_stages(task, of, features)
    return processes.alone(lambda: select(task, stages, features=features, progress=of("select")))


def train_stages(
    task: TrainingTask, of: Callable[[str], Progress], features: Path | None = None
) -> tuple[list[StageResult], TrainingTask]:
    """Train every stage that a task asks for; finished ones are only read.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    of : callable
        From a stage's name to its progress.
    features : Path, optional
        Folder of the feature cache.

    Returns
    -------
    stages : list of StageResult
        Pre-training, Prototypical Networks (where ``[training] episodes`` is not 0), then the learners of
        ``[learner]``, from the better encoder of those two.
    task : TrainingTask
        With everything named that was left open.
    """
    stages = [pretrain(task, of("pretrain"))]
    if task.options.episodes:
        stages.append(meta_train(task, stages[0], of(PROTOTYPICAL)))
    if task.learner.wanted:
        start = best_encoder(task, stages, features)
        task = with_prior_head(task, start, features)
        stages += [train_learner(task, name, start, of(name)) for name in task.learner.wanted]
    return stages, task


def trained_learner(task: TrainingTask, name: str, features: Path | None = None) -> StageResult:
    """Return the finished stage of a learner other than Prototypical Networks; nothing is trained.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    name : str
        The learner.
    features : Path, optional
        Folder of the feature cache.

    Raises
    ------
    MetaDxError
        ``not_trained`` where it, or what it starts from, is not finished.
    """
    task = replace(task, may_train=False)
    stages = [pretrain(task)]
    if task.options.episodes:
        stages.append(meta_train(task, stages[0]))
    return train_learner(task, name, best_encoder(task, stages, features), silent)


def train_learner(task: TrainingTask, name: str, start: StageResult, progress: Progress) -> StageResult:
    """Train one learner other than Prototypical Networks from a trained encoder.

    Raises
    ------
    MetaDxError
        ``bad_value`` where its steps are 0: an untrained learner would be taken for a trained one.
    """
    require_steps([name], task.options)
    train_it = train_on_embeddings if name in FROZEN_LEARNERS else train_on_images
    return train_it(task, name, start, progress)
