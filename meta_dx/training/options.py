"""How long and how the network is trained: the section ``[training]`` of ``cohort.toml``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from meta_dx.errors import MetaDxError, OptionChecks, refuse_values

#: Learners on the embeddings of a frozen encoder: ``head_steps`` counts their steps, others' ``episodes``.
FROZEN_LEARNERS = ("anp", "leo", "mann", "meta_lstm")


@dataclass(frozen=True)
class TrainingOptions:
    """Section ``[training]``: first a classifier of the common diseases, then episodes.

    Parameters
    ----------
    precision : {"auto", "32", "bf16"}
        Arithmetic of the network: ``auto`` is bf16 mixed precision on a GPU that has it, else 32 bit.
    threads : int
        CPU threads; 0: as many as torch chooses. Another number may give other weights in the last bits.
    pretrain_epochs : int
        Passes over the common diseases' studies; 0: start the episodes from the backbone as it is.
    batch_size : int
        Images in a step of pre-training.
    learning_rate : float
        Highest learning rate of pre-training (AdamW, warm-up, cosine to zero).
    weight_decay : float
        Weight decay of both stages.
    label_smoothing : float
        Share of the target that is spread over all diseases in pre-training.
    mixup : float
        Parameter of the beta distribution that mixes pairs of images in pre-training; 0: off.
    balance : float
        How often rare classes are drawn in pre-training: 0 as often as they occur, 1 as often as any other;
        in between, a class with n studies is drawn in proportion to n to the power 1 - balance.
    flip : {"none", "horizontal", "vertical", "both"}
        Mirror images at random in training; only where the side of a finding means nothing.
    rotate : float
        Largest random rotation in training, degrees.
    shift : float
        Largest random shift, as a share of the picture.
    zoom : float
        Largest random change of size, as a share.
    gain : float
        Largest random change of contrast and of brightness, as a share.
    cutout : float
        Side of a random square that is hidden, as a share of the picture; 0: off.
    episodes : int
        Steps of episodic training; 0: no episodic training.
    episodes_per_step : int
        Episodes whose gradients make one step.
    ways : (int, int)
        Fewest and most diseases in a training episode.
    shots : (int, int)
        Fewest and most support studies a disease.
    queries : int
        Query studies a disease at most.
    episode_learning_rate : float
        Highest learning rate of the network in episodic training; the head's own weights use ten times it.
    head_steps : int
        Steps of meta-training for learners on the embeddings of a frozen encoder (``anp``, ``leo``, ``mann``,
        ``meta_lstm``), which are quick.
    head_episodes_per_step : int
        Episodes whose gradients make one such step.
    head_learning_rate : float
        Highest learning rate of ``anp`` and ``mann``; ``leo`` and ``meta_lstm`` have one of their own
        (``[learner.leo]``, ``[learner.meta_lstm]``).
    validate_every : int
        Validate after this many epochs of pre-training, and this many times ten steps of episodes.
    patience : int
        Stop a stage after this many validations in a row without a new best; 0: never.
    validation_ways : int
        Diseases in a validation episode.
    validation_shots : tuple of int
        Shots at which candidates are compared; fewer where the validation diseases have too few patients.
    validation_queries : int
        Query studies a disease at most in validation.
    validation_episodes : int
        Validation episodes for each number of shots; always the same ones.
    body_validation_episodes : int
        The same for learners that adapt the whole network, for which an episode takes seconds.
    checkpoint_seconds : float
        Save the state of a stage this often, so that a killed run loses no more than that.
    shards : int
        Into how many equal parts the images or episodes of each step are cut. Each part goes through the network
        by itself, and their gradients are averaged: one after another to save memory, or in as many processes
        of ``torchrun`` as divide it. Another number gives other weights; another number of processes does not.
    """

    precision: Literal["auto", "32", "bf16"] = "auto"
    threads: int = 0
    pretrain_epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.3
    balance: float = 0.5
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    rotate: float = 15.0
    shift: float = 0.05
    zoom: float = 0.15
    gain: float = 0.3
    cutout: float = 0.0
    episodes: int = 200
    episodes_per_step: int = 1
    ways: tuple[int, int] = (5, 10)
    shots: tuple[int, int] = (1, 5)
    queries: int = 5
    episode_learning_rate: float = 3e-4
    head_steps: int = 1000
    head_episodes_per_step: int = 4
    head_learning_rate: float = 1e-3
    validate_every: int = 5
    patience: int = 0
    validation_ways: int = 5
    validation_shots: tuple[int, ...] = (1, 5)
    validation_queries: int = 10
    validation_episodes: int = 400
    body_validation_episodes: int = 40
    checkpoint_seconds: float = 20.0
    shards: int = 1

    def __post_init__(self) -> None:
        checks: OptionChecks = [
            ("precision", self.precision in ("auto", "32", "bf16"), "auto, 32 or bf16"),
            ("batch_size", self.batch_size >= 2, "a whole number from 2"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1"),
            ("balance", 0 <= self.balance <= 1, "from 0 to 1"),
            ("flip", self.flip in _FLIPS, ", ".join(_FLIPS)),
            ("zoom", 0 <= self.zoom < 1, "from 0 to below 1"),
            ("gain", 0 <= self.gain < 1, "from 0 to below 1"),
            ("cutout", 0 <= self.cutout < 1, "from 0 to below 1"),
            ("ways", 2 <= self.ways[0] <= self.ways[1], "two whole numbers from 2, the smaller first"),
            ("shots", 1 <= self.shots[0] <= self.shots[1], "two whole numbers from 1, the smaller first"),
            ("validation_ways", self.validation_ways >= 2, "a whole number from 2"),
            (
                "validation_shots",
                min(self.validation_shots, default=0) >= 1,
                "whole numbers from 1",
            ),
            *((name, getattr(self, name) > 0, "greater than 0") for name in _POSITIVE),
            *((name, getattr(self, name) >= 0, "0 or greater") for name in _NOT_NEGATIVE),
        ]
        refuse_values(self, checks)


_FLIPS = ("none", "horizontal", "vertical", "both")
_POSITIVE = (
    "learning_rate",
    "episode_learning_rate",
    "episodes_per_step",
    "head_episodes_per_step",
    "head_learning_rate",
    "queries",
    "validate_every",
    "validation_queries",
    "validation_episodes",
    "body_validation_episodes",
    "shards",
)
_NOT_NEGATIVE = (
    "threads",
    "pretrain_epochs",
    "weight_decay",
    "mixup",
    "rotate",
    "shift",
    "episodes",
    "head_steps",
    "patience",
    "checkpoint_seconds",
)


def require_steps(learners: Iterable[str], options: TrainingOptions) -> None:
    """Refuse learners without a step of training: an untrained one would be taken for a trained one.

    Parameters
    ----------
    learners : iterable of str
        Learners other than Prototypical Networks; ``fine_tuning`` needs no steps.
    options : TrainingOptions
        How long.

    Raises
    ------
    MetaDxError
        ``bad_value``.
    """
    for name in learners:
        option = "head_steps" if name in FROZEN_LEARNERS else "episodes"
        if name != "fine_tuning" and not getattr(options, option):
            raise MetaDxError(
                "bad_value",
                f"[training] {option} is 0, and [learner] asks for '{name}', which needs some: raise it.",
            )


def require_even_shards(learners: Iterable[str], options: TrainingOptions) -> None:
    """Refuse steps that cannot be cut into equal shards.

    Parameters
    ----------
    learners : iterable of str
        Learners other than Prototypical Networks that are trained.
    options : TrainingOptions
        How much goes into a step of each kind; kinds that no stage makes do not matter.

    Raises
    ------
    MetaDxError
        ``bad_value``.
    """
    shards = options.shards
    frozen = not set(FROZEN_LEARNERS).isdisjoint(learners)
    made = (
        ("batch_size", options.pretrain_epochs > 0, 2),  # batch statistics of one image say nothing
        ("episodes_per_step", options.episodes > 0, 1),
        ("head_episodes_per_step", frozen, 1),
    )
    for name, used, fewest in made:
        each, rest = divmod(getattr(options, name), shards)
        if used and (rest or each < fewest):
            raise MetaDxError(
                "bad_value",
                f"[training] {name} is {getattr(options, name)}, and [training] shards cuts it into {shards} equal "
                f"parts: set {name} to a multiple of {shards}, {fewest * shards} at least.",
            )
