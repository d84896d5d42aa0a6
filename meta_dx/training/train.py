"""The whole training in one call: pre-training, episodes, choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from meta_dx.progress import Progress
from meta_dx.training.episodic import meta_train
from meta_dx.training.pretraining import pretrain
from meta_dx.training.selection import TrainingResult, select
from meta_dx.training.task import TrainingTask

#: Called with stage, steps done, steps in all, message.
StagedProgress = Callable[[str, int, int, str], None]


def train(
    task: TrainingTask, *, features: Path | None = None, progress: StagedProgress | None = None
) -> TrainingResult:
    """Pre-train, meta-train and choose; what is finished in the task's folder is not done again.

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

    stages = [pretrain(task, of("pretrain"))]
    if task.options.episodes:
        stages.append(meta_train(task, stages[0], of(task.learner.name)))
    return select(task, stages, features=features, progress=of("select"))
