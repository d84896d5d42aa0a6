"""Second stage: encoder and prototypes learn together from episodes of the common diseases.

From the pre-trained weights. What comes out is a learner by itself and the encoder that the other learners
start from (:mod:`meta_dx.training.frozen`, :mod:`meta_dx.training.body`).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from meta_dx.backbones.encoder import Encoder, build_encoder
from meta_dx.episodes.collate import episode_images
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler
from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Grads, Head, Metrics
from meta_dx.learners.registry import build_head
from meta_dx.progress import Progress, silent
from meta_dx.training.augmentation import augment
from meta_dx.training.determinism import seeded
from meta_dx.training.embedding import Pictures, embed_studies, memory_format
from meta_dx.training.feasibility import common_ways, feasible, formerly_feasible, validation_fits
from meta_dx.training.shards import Shard
from meta_dx.training.stage import Stage, StageResult, finished, run_stage
from meta_dx.training.task import TrainingTask, open_fabric, require_right_gradients, step_seed
from meta_dx.training.validation import Checked, ValidationEpisodes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

_HEAD_RATE = 10.0  # times the encoder's: a head has few weights of its own and starts untrained
PROTOTYPICAL = "prototypical"
#: Learners that are built for one number of diseases, that of the validation episodes.
FIXED_WAYS = ("maml", "anil", "reptile", "mann", "meta_lstm")
#: ``validate_every`` counts epochs of pre-training; of episodes it counts so many steps.
STEPS_PER_VALIDATION_UNIT = 10


def meta_train(task: TrainingTask, start: StageResult, progress: Progress = silent) -> StageResult:
    """Train encoder and head of Prototypical Networks on episodes; a finished stage is only read.

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
        ``no_cuda``, ``too_few_diseases``, or ``bad_value`` for bf16 on a CPU with images that are too small.
    """
    options, name = task.options, PROTOTYPICAL
    folder = task.folder / name
    key = task.key(stage=task.learner.own(name), start=start.version, options=_deciding(task))
    if (done := finished(folder, key, task.may_train)) is not None:
        return done
    fabric = open_fabric(task)
    require_right_gradients(task, fabric)
    encoder = build_encoder(replace(task.backbone, weights=""), task.channels, task.spatial_dims)
    encoder.load_state_dict(start.best["encoder"])
    with seeded(step_seed(task.seed, f"{name} head", 0)):
        head = build_head(name, encoder.embedding_size, options=task.learner).to(fabric.device)
    encoder = encoder.to(fabric.device, memory_format=memory_format(encoder))  # type: ignore[call-overload]
    stage = episodic_stage(
        task,
        name,
        key,
        _Episodes(task, fabric, encoder, head),
        modules={"encoder": encoder, "head": head},
        rates={
            "encoder": options.episode_learning_rate,
            "head": _HEAD_RATE * options.episode_learning_rate,
        },
        weight_decay=options.weight_decay,
        steps=options.episodes,
    )
    return run_stage(stage, fabric, progress)


class Objective(Protocol):
    """What a stage lowers, and how well it does."""

    def gradients(self, shard: Shard) -> tuple[Grads, Metrics]:
        """Return the gradients of a shard of one step, by ``module.parameter``, and its metrics."""

    def validate(self) -> Checked:
        """Measure the weights on the validation diseases."""


def episodic_stage(task: TrainingTask, name: str, key: str, learning: Objective, **more: Any) -> Stage:
    """Return the stage of a learner that is trained on episodes; ``more`` are the fields that differ."""
    options = task.options
    return Stage(
        name=name,
        key=key,
        folder=task.folder / name,
        gradients=learning.gradients,
        validate=learning.validate,
        validate_every=options.validate_every * STEPS_PER_VALIDATION_UNIT,
        patience=options.patience,
        checkpoint_seconds=options.checkpoint_seconds,
        seed=task.seed,
        shards=options.shards,
        **more,
    )


def episode_sampler(task: TrainingTask, ways: int | None = None, rows: int | None = None) -> EpisodeSampler:
    """Return the sampler of training episodes, as far as the common diseases permit.

    Parameters
    ----------
    task : TrainingTask
        Data and options.
    ways : int, optional
        Exactly so many diseases, for learners that need one number.
    rows : int, optional
        So many studies of each disease in all, for a learner that tells support and query not apart.

    Raises
    ------
    MetaDxError
        ``too_few_diseases``.
    """
    options = task.options
    fewest = ways or options.ways[0]
    most, wanted = _wanted(task, ways, rows)
    possible, shots = feasible(task.common, most, wanted, task.ancestors)
    named = "[learner.reptile] train_shots" if rows else "[training] shots"
    if ways and possible < ways:
        raise MetaDxError(
            "too_few_diseases",
            f"Training episodes of {ways} diseases need more: {possible} common diseases have the 3 patients that one "
            f"shot takes, whatever {named} is; lower [training] validation_ways, or the thresholds of [split].",
        )
    if (possible, shots) != (most, wanted):
        sentence = "Training episodes have up to %d ways, %d shots: too few patients for %d ([training] ways), %d (%s)"
        log.warning(sentence, possible, shots, most, wanted, named)
    return EpisodeSampler(
        task.common,
        (min(fewest, possible), possible),
        (shots if rows else min(options.shots[0], shots), shots),
        rows - shots if rows else options.queries,
        step_seed(task.seed, "episodes", 0),
        ancestors=task.ancestors,
    )


def what_fits(task: TrainingTask, name: str) -> dict[str, object]:
    """Return the ways and shots of a learner's episodes, for its key; nothing where they are what they always were."""
    fixed = common_ways(task.validation, task.options, task.ancestors) if name in FIXED_WAYS else None
    wanted = _wanted(task, fixed, task.learner.reptile.train_shots if name == "reptile" else None)
    found = feasible(task.common, *wanted, task.ancestors)
    same = found == formerly_feasible(task.common, *wanted, task.ancestors)
    training = {} if same else {"training_fits": found}
    return {**training, **validation_fits(task.validation, task.options, task.ancestors)}


def _wanted(task: TrainingTask, ways: int | None, rows: int | None) -> tuple[int, int]:
    """Return the most ways and shots that training episodes are to have; parameters as of ``episode_sampler``."""
    return ways or task.options.ways[1], max(1, rows // 2) if rows else task.options.shots[1]


def shard_plans(sampler: EpisodeSampler, per_step: int, shard: Shard) -> list[EpisodePlan]:
    """Return the plans of a shard's episodes, where a step has ``per_step`` of them."""
    part = shard.part(per_step)
    return list(sampler.plans(len(part), shard.step * per_step + part.start))


class _Episodes:
    """The objective of meta-training: the learner's loss on this step's episodes."""

    def __init__(self, task: TrainingTask, fabric: Fabric, encoder: Encoder, head: Head) -> None:
        self._task, self._fabric, self._encoder, self._head = task, fabric, encoder, head
        options = task.options
        self._sampler = episode_sampler(task)
        self._pictures = Pictures(task.images, fabric.device)
        self._parameters = {
            **{f"encoder.{name}": p for name, p in encoder.named_parameters()},
            **{f"head.{name}": p for name, p in head.named_parameters()},
        }
        self._validation = ValidationEpisodes(task.validation, options, task.seed, task.ancestors)

    def gradients(self, shard: Shard) -> tuple[Grads, Metrics]:
        """Embed a shard's episodes, one image a study, and return the learner's gradients."""
        task, options, device = self._task, self._task.options, self._fabric.device
        plans = shard_plans(self._sampler, options.episodes_per_step, shard)
        batch = episode_images(plans, task.common, per_example=1, seed=task.seed)
        generator = torch.Generator(device).manual_seed(shard.seed(task.seed, "episode images"))
        images = augment(self._pictures.take(batch.images), options, generator)
        self._encoder.train()
        self._head.train()
        with self._fabric.autocast():
            embeddings = self._encoder(images.contiguous(memory_format=memory_format(self._encoder)))
        episode = batch.episode(embeddings.float())
        return self._head.meta_gradients(episode, parameters=self._parameters, generator=generator)

    def validate(self) -> Checked:
        """Return the learner's accuracy on the validation diseases."""
        head = self._head.cpu().eval()
        vectors = embed_studies(self._encoder, self._pictures, self._task.validation)
        accuracy = self._validation.accuracy(head, vectors)
        self._head.to(self._fabric.device)
        return Checked(accuracy)


def _deciding(task: TrainingTask) -> dict[str, object]:
    """Return the options that decide what meta-training gives."""
    names = (
        "precision weight_decay flip rotate shift zoom gain cutout episodes episodes_per_step ways shots"
        " queries episode_learning_rate validate_every patience validation_ways validation_shots"
        " validation_queries validation_episodes"
    )
    return {**task.deciding(names), **what_fits(task, PROTOTYPICAL)}
