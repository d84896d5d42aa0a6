"""First stage: a plain classifier of the common diseases, whose features every learner starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from meta_dx.backbones.encoder import Encoder, build_encoder
from meta_dx.learners.base import Grads, Metrics
from meta_dx.learners.baselines import SimpleShot
from meta_dx.progress import Progress, silent
from meta_dx.training.augmentation import augment, mixed
from meta_dx.training.determinism import seeded
from meta_dx.training.drawing import Batches
from meta_dx.training.embedding import Pictures, embed_studies, memory_format
from meta_dx.training.feasibility import validation_fits
from meta_dx.training.shards import Shard
from meta_dx.training.stage import Stage, StageResult, finished, run_stage
from meta_dx.training.task import PRETRAIN, TrainingTask, open_fabric, require_right_gradients, step_seed
from meta_dx.training.validation import Checked, ValidationEpisodes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_STATISTICS_IMAGES = 2000  # images from which input mean and deviation are computed
_CENTRE_STUDIES = 256  # common studies that validation during training is centred by


def pretrain(task: TrainingTask, progress: Progress = silent) -> StageResult:
    """Train the encoder as a classifier of the common diseases; a finished stage is only read.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    progress : Progress
        Called with steps done, steps in all, and loss, accuracy and time left.

    Returns
    -------
    StageResult
        ``best["encoder"]`` are the encoder's weights at the best validation.

    Raises
    ------
    MetaDxError
        ``no_cuda``, ``too_few_diseases``, ``bad_value`` for bf16 on a CPU with images that are too small, and what
        loading the user's own weights may raise.
    """
    folder = task.folder / PRETRAIN
    key = task.key(stage=PRETRAIN, options=_deciding(task))
    if (done := finished(folder, key, task.may_train)) is not None:
        return done
    options = task.options
    fabric = open_fabric(task)
    require_right_gradients(task, fabric)
    with seeded(step_seed(task.seed, "initial weights", 0)):
        encoder = build_encoder(task.backbone, task.channels, task.spatial_dims)
        classifier = nn.Linear(encoder.embedding_size, len(task.common.diseases))
    encoder.set_normalisation(*_statistics(task))
    encoder = encoder.to(fabric.device, memory_format=memory_format(encoder))  # type: ignore[call-overload]
    classifier = classifier.to(fabric.device)
    learning = _Classification(task, fabric, encoder, classifier, Pictures(task.images, fabric.device))
    stage = Stage(
        name=PRETRAIN,
        key=key,
        folder=folder,
        modules={"encoder": encoder, "classifier": classifier},
        rates={"encoder": options.learning_rate, "classifier": options.learning_rate},
        weight_decay=options.weight_decay,
        steps=options.pretrain_epochs * learning.batches.per_epoch,
        gradients=learning.gradients,
        validate=learning.validate,
        validate_every=options.validate_every * learning.batches.per_epoch,
        patience=options.patience,
        checkpoint_seconds=options.checkpoint_seconds,
        seed=task.seed,
        shards=options.shards,
    )
    return run_stage(stage, fabric, progress)


class _Classification:
    """The objective of pre-training: one batch's cross-entropy, a function of the step's number."""

    def __init__(
        self, task: TrainingTask, fabric: Fabric, encoder: Encoder, classifier: nn.Linear, pictures: Pictures
    ) -> None:
        self._task, self._fabric = task, fabric
        self._encoder, self._classifier, self._pictures = encoder, classifier, pictures
        self.batches = Batches(task.common, task.options.batch_size, task.options.balance, task.seed)
        self._labels = np.searchsorted(task.common.diseases, task.common.code)
        self._parameters = {
            **{f"encoder.{name}": p for name, p in encoder.named_parameters()},
            **{f"classifier.{name}": p for name, p in classifier.named_parameters()},
        }
        self._validation = ValidationEpisodes(task.validation, task.options, task.seed, task.ancestors)
        every = max(1, len(task.common) // _CENTRE_STUDIES)
        self._centre = task.common.take(np.arange(0, len(task.common), every))

    def gradients(self, shard: Shard) -> tuple[Grads, Metrics]:
        """Return the gradients of the smoothed, mixed cross-entropy of a shard of its step's batch."""
        options, device = self._task.options, self._fabric.device
        studies, rows = self.batches.draw(shard.step)
        part = shard.part(options.batch_size)
        studies, rows = studies[part], rows[part]
        seed = shard.seed(self._task.seed, "augmentation")
        generator = torch.Generator(device).manual_seed(seed)
        images = augment(self._pictures.take(rows), options, generator)
        labels = torch.from_numpy(self._labels[studies]).to(device)
        share = 1.0
        partner = torch.arange(len(labels), device=device)
        if options.mixup:
            share = float(np.random.default_rng(seed).beta(options.mixup, options.mixup))
            share = max(share, 1 - share)  # the same mixtures, named by what prevails
            partner = torch.randperm(len(labels), generator=generator, device=device)
            images = mixed(images, partner, share)
        logits = self._logits(images)
        loss = share * self._loss(logits, labels) + (1 - share) * self._loss(logits, labels[partner])
        found = torch.autograd.grad(loss, list(self._parameters.values()))
        right = (logits.detach().argmax(-1) == labels).float().mean()
        return dict(zip(self._parameters, found, strict=True)), {"loss": loss.detach(), "accuracy": right}

    def validate(self) -> Checked:
        """Return the accuracy of SimpleShot on the validation diseases, which needs no trained head."""
        centre = embed_studies(self._encoder, self._pictures, self._centre).mean(0)
        head = SimpleShot(self._encoder.embedding_size, torch.from_numpy(centre)).eval()
        vectors = embed_studies(self._encoder, self._pictures, self._task.validation)
        return Checked(self._validation.accuracy(head, vectors))

    def _logits(self, images: Tensor) -> Tensor:
        self._encoder.train()
        with self._fabric.autocast():
            embeddings = self._encoder(images.contiguous(memory_format=memory_format(self._encoder)))
        logits: Tensor = self._classifier(embeddings.float())
        return logits

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self._task.options.label_smoothing
        return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def _statistics(task: TrainingTask) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (C,) of the common diseases' images, in units of 0 … 255."""
    rows = np.unique(np.concatenate(task.common.images))
    rows = rows[:: max(1, len(rows) // _STATISTICS_IMAGES)]
    images = np.asarray(task.images[rows], dtype=np.float32)
    axes = (0, *range(2, images.ndim))
    return torch.from_numpy(images.mean(axes)), torch.from_numpy(images.std(axes))


def _deciding(task: TrainingTask) -> dict[str, object]:
    """Return the options that decide what pre-training gives."""
    names = (
        "precision pretrain_epochs batch_size learning_rate weight_decay label_smoothing mixup balance flip"
        " rotate shift zoom gain cutout validate_every patience validation_ways validation_shots"
        " validation_queries validation_episodes"
    )
    return {**task.deciding(names), **validation_fits(task.validation, task.options, task.ancestors)}
