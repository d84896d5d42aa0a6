"""Second stage: a meta-learner learns from episodes of the common diseases, from pre-trained weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from meta_dx.backbones.encoder import Encoder, build_encoder
from meta_dx.episodes.collate import episode_images
from meta_dx.episodes.plan import EpisodeSampler
from meta_dx.learners.base import Grads, Head, Metrics
from meta_dx.learners.registry import build_head
from meta_dx.progress import Progress, silent
from meta_dx.training.augmentation import augment
from meta_dx.training.embedding import Pictures, embed_studies, memory_format
from meta_dx.training.stage import Stage, StageResult, finished, run_stage, seeded
from meta_dx.training.task import TrainingTask, open_fabric, step_seed
from meta_dx.training.validation import ValidationEpisodes, feasible

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_HEAD_RATE = 10.0  # times the encoder's: a head has few weights of its own and starts untrained
_STEPS_PER_VALIDATION_UNIT = 10


def meta_train(task: TrainingTask, start: StageResult, progress: Progress = silent) -> StageResult:
    """Train the task's learner on episodes; a finished stage is only read.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    start : StageResult
        From :func:`~meta_dx.training.pretraining.pretrain`.
    progress : Progress
        Called with steps done, steps in all, and loss, accuracy and time left.

    Returns
    -------
    StageResult
        ``best["encoder"]`` and ``best["head"]`` are the weights at the best validation.

    Raises
    ------
    MetaDxError
        ``no_cuda`` or ``too_few_diseases``.
    """
    options, learner = task.options, task.learner
    folder = task.folder / learner.name
    key = task.key(stage=learner.own(), start=start.version, options=_deciding(task))
    if (done := finished(folder, key)) is not None:
        return done
    fabric = open_fabric(task)
    encoder = build_encoder(replace(task.backbone, weights=""), task.channels, task.spatial_dims)
    encoder.load_state_dict(start.best["encoder"])
    with seeded(step_seed(task.seed, f"{learner.name} head", 0)):
        head = build_head(learner.name, encoder.embedding_size, options=learner).to(fabric.device)
    encoder = encoder.to(fabric.device, memory_format=memory_format(encoder))  # type: ignore[call-overload]
    learning = _Episodes(task, fabric, encoder, head)
    stage = Stage(
        name=learner.name,
        key=key,
        folder=folder,
        modules={"encoder": encoder, "head": head},
        rates={
            "encoder": options.episode_learning_rate,
            "head": _HEAD_RATE * options.episode_learning_rate,
        },
        weight_decay=options.weight_decay,
        steps=options.episodes,
        gradients=learning.gradients,
        validate=learning.validate,
        validate_every=options.validate_every * _STEPS_PER_VALIDATION_UNIT,
        patience=options.patience,
        checkpoint_seconds=options.checkpoint_seconds,
        seed=task.seed,
    )
    return run_stage(stage, fabric, progress)


class _Episodes:
    """The objective of meta-training: the learner's loss on this step's episodes."""

    def __init__(self, task: TrainingTask, fabric: Fabric, encoder: Encoder, head: Head) -> None:
        self._task, self._fabric, self._encoder, self._head = task, fabric, encoder, head
        options = task.options
        ways, shots = feasible(task.common, options.ways[1], options.shots[1])
        self._sampler = EpisodeSampler(
            task.common,
            (min(options.ways[0], ways), ways),
            (min(options.shots[0], shots), shots),
            options.queries,
            step_seed(task.seed, "episodes", 0),
            ancestors=task.ancestors,
        )
        self._pictures = Pictures(task.images, fabric.device)
        self._parameters = {
            **{f"encoder.{name}": p for name, p in encoder.named_parameters()},
            **{f"head.{name}": p for name, p in head.named_parameters()},
        }
        self._validation = ValidationEpisodes(task.validation, options, task.seed, task.ancestors)

    def gradients(self, step: int) -> tuple[Grads, Metrics]:
        """Embed this step's episodes, one image a study, and return the learner's gradients."""
        task, options, device = self._task, self._task.options, self._fabric.device
        plans = list(self._sampler.plans(options.episodes_per_step, step * options.episodes_per_step))
        batch = episode_images(plans, task.common, per_example=1, seed=task.seed)
        generator = torch.Generator(device).manual_seed(step_seed(task.seed, "episode images", step))
        images = augment(self._pictures.take(batch.images), options, generator)
        self._encoder.train()
        self._head.train()
        with self._fabric.autocast():
            embeddings = self._encoder(images.contiguous(memory_format=memory_format(self._encoder)))
        episode = batch.episode(embeddings.float())
        return self._head.meta_gradients(episode, parameters=self._parameters, generator=generator)

    def validate(self) -> float:
        """Return the learner's accuracy on the validation diseases."""
        head = self._head.cpu().eval()
        accuracy = self._validation.accuracy(
            head, embed_studies(self._encoder, self._pictures, self._task.validation)
        )
        self._head.to(self._fabric.device)
        return accuracy


def _deciding(task: TrainingTask) -> dict[str, object]:
    """Return the options that decide what meta-training gives."""
    names = (
        "precision weight_decay flip rotate shift zoom gain cutout episodes episodes_per_step ways shots"
        " queries episode_learning_rate validate_every patience validation_ways validation_shots"
        " validation_queries validation_episodes"
    )
    return {name: getattr(task.options, name) for name in names.split()}
