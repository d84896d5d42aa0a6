"""What a training run is given, and the names that its results go by."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from meta_dx.backbones.options import BackboneOptions
from meta_dx.cohort.examples import Examples
from meta_dx.errors import MetaDxError
from meta_dx.home import fingerprint_of
from meta_dx.learners.options import LearnerOptions
from meta_dx.training.options import TrainingOptions, require_even_shards

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Raise when the same options and data give other weights than before.
TRAINING_VERSION = 1
#: Raise when the same stages would give another choice than before.
SELECTION_VERSION = 6
PRETRAIN = "pretrain"
_SAMPLED_IMAGES = 256

#: Longest side of the smallest images that may be trained on in bf16 on a CPU, other than by conv4.
LEAST_BF16_SIDE = 32


@dataclass(frozen=True)
class TrainingTask:
    """One training run: data, options and the folder that it fills.

    Parameters
    ----------
    common, validation : Examples
        Studies of the common diseases, which are learnt from, and of the validation diseases, which are
        chosen on.
    images : array-like, shape (n, C, *spatial), uint8
        The image store's images, which ``Examples.images`` index.
    folder : Path
        Gets ``pretrain/``, one folder a learner, and ``selected/``.
    backbone : BackboneOptions
        The network.
    learner : LearnerOptions
        The meta-learner.
    options : TrainingOptions
        How long and how.
    images_version : str
        Version of the image store, so that another store is another run; if empty, some images are hashed.
    seed : int
        The one seed.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    ancestors : mapping of str to collection of str
        Diseases above each code; an episode never holds a disease together with one of its ancestors.
    may_train : bool
        False: what is finished is read, and anything else is refused.
    """

    common: Examples
    validation: Examples
    images: Any
    folder: Path
    backbone: BackboneOptions = field(default_factory=BackboneOptions)
    learner: LearnerOptions = field(default_factory=LearnerOptions)
    options: TrainingOptions = field(default_factory=TrainingOptions)
    images_version: str = ""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ancestors: Mapping[str, Collection[str]] = field(default_factory=dict)
    may_train: bool = True

    def __post_init__(self) -> None:
        require_even_shards(self.learner.wanted, self.options)

    @property
    def channels(self) -> int:
        """C of the images."""
        return int(self.images.shape[1])

    @property
    def spatial_dims(self) -> int:
        """2 for pictures, 3 for volumes."""
        return int(self.images.ndim) - 2

    def key(self, **more: Any) -> str:
        """Hash of everything that decides the weights: data, options, seed, the user's own weights."""
        return fingerprint_of(
            {
                "version": TRAINING_VERSION,
                "data": [_digest(self.common), _digest(self.validation)],
                "images": self.images_version or _sampled(self.images),
                "shape": list(self.images.shape),
                "backbone": self.backbone.name,
                "weights": _file_digest(self.backbone.weights),
                "seed": self.seed,
                "ancestors": {code: sorted(above) for code, above in sorted(self.ancestors.items())},
                # With ancestors other episodes are drawn than before short draws were made again.
                **({"short_draws": "redrawn"} if self.ancestors else {}),
                **more,
            }
        )

    def deciding(self, names: str) -> dict[str, object]:
        """Return the options of these names, separated by spaces, and ``shards``, for a stage's key.

        One shard is left out: that is what every stage was trained with that is older than shards.
        """
        chosen = {name: getattr(self.options, name) for name in names.split()}
        return chosen if self.options.shards == 1 else {**chosen, "shards": self.options.shards}


def open_fabric(task: TrainingTask) -> Fabric:
    """Open the device and the arithmetic that a task asks for; each process of torchrun has a GPU of its own.

    Raises
    ------
    MetaDxError
        ``no_cuda`` when a GPU is asked for and there is none, ``too_few_gpus`` when there are fewer than
        processes.
    """
    import logging

    import torch
    from lightning_fabric import Fabric

    from meta_dx.training import processes

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its arithmetic each time

    gpu = torch.cuda.is_available()
    if task.device == "cuda" and not gpu:
        raise MetaDxError(
            "no_cuda",
            "device is 'cuda', but torch finds no CUDA device: set it to 'auto', or install torch for CUDA.",
        )
    use_gpu = gpu and task.device != "cpu"
    number = processes.device_number()
    if use_gpu and number >= torch.cuda.device_count():
        raise MetaDxError(
            "too_few_gpus",
            f"torchrun started a process for GPU {number + 1}, and torch finds {torch.cuda.device_count()} here: "
            "start fewer processes, or set device to 'cpu'.",
        )
    if task.options.threads:
        torch.set_num_threads(task.options.threads)
    bf16 = task.options.precision == "bf16" or (
        task.options.precision == "auto" and use_gpu and torch.cuda.is_bf16_supported()
    )
    return Fabric(
        accelerator="cuda" if use_gpu else "cpu",
        devices=[number] if use_gpu else 1,
        precision="bf16-mixed" if bf16 else "32-true",
    )


def require_right_gradients(task: TrainingTask, fabric: Fabric) -> None:
    """Refuse to train an encoder in arithmetic in which torch gets its gradients wrong.

    Raises
    ------
    MetaDxError
        ``bad_value`` for bf16 on a CPU with images that are too small.
    """
    if fabric.device.type != "cpu" or task.options.precision != "bf16":
        return
    # Of a convolution with stride 2 whose input is a single pixel, oneDNN 3.x computes the gradient of the weights in
    # bf16 from memory that nothing has written to (torch 2.13, CPU).
    side = max(task.images.shape[2:])  # a single pixel has shrunk along every side
    if task.backbone.name != "conv4" and side < LEAST_BF16_SIDE:
        raise MetaDxError(
            "bad_value",
            f"[training] precision = 'bf16' on a CPU needs images of at least {LEAST_BF16_SIDE} pixels along "
            f"their longest side, not {side}: a smaller one shrinks to a single pixel within '{task.backbone.name}', "
            "and torch gets the gradients of such layers wrong. Set precision to '32', or [images] size higher.",
        )


def step_seed(seed: int, stage: str, step: int) -> int:
    """Return the seed of one step of one stage: independent of every other, whatever was run before."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _digest(examples: Examples) -> str:
    digest = hashlib.sha256()
    columns = zip(examples.study, examples.patient, examples.code, examples.images, strict=True)
    for study, patient, code, rows in columns:
        digest.update(f"{study}\t{patient}\t{code}\t{rows.tolist()}\n".encode())
    return digest.hexdigest()[:16]


def _sampled(images: Any) -> str:
    """Hash some images, evenly spread: to read the whole of a large store would take minutes."""
    rows = np.unique(np.linspace(0, len(images) - 1, _SAMPLED_IMAGES).astype(np.int64))
    return hashlib.sha256(np.ascontiguousarray(images[rows]).tobytes()).hexdigest()[:16]


def _file_digest(path: str) -> str:
    """Hash a weights file; a missing one is refused later, with a sentence."""
    if not path or not Path(path).is_file():
        return path
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
