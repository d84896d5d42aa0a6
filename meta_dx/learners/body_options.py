"""Options of the learners that adapt a network: sections ``[learner.maml]``, ``[learner.reptile]`` and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meta_dx.errors import OptionChecks, refuse_values


@dataclass(frozen=True)
class MamlOptions:
    """Section ``[learner.maml]``.

    Parameters
    ----------
    order : {"second", "first"}
        Differentiate through the inner gradients, or take them as constants (a third cheaper).
    inner_rate : float
        Step size of the inner loop; where rates are learned, their start.
    steps : int
        Inner steps in meta-training.
    test_steps : int
        Inner steps when adapting afterwards.
    batch_norm : {"support", "batch", "stored", "per_step"}
        What batch norm normalises with: the support set's statistics; those of whatever batch is put in, all
        queries together (transductive, as in the published figures); running statistics of pre-training; or
        running statistics, scale and shift of its own for each inner step, as in MAML++.
    learned_rates : bool
        Learn a rate for each layer and step (MAML++).
    multi_step_loss : bool
        Sum the query loss after every inner step, fading to the last one's (MAML++).
    """

    order: Literal["second", "first"] = "second"
    inner_rate: float = 0.1
    steps: int = 5
    test_steps: int = 10
    batch_norm: Literal["support", "batch", "stored", "per_step"] = "support"
    learned_rates: bool = False
    multi_step_loss: bool = False

    def __post_init__(self) -> None:
        modes = ("support", "batch", "stored", "per_step")
        checks: OptionChecks = [
            ("order", self.order in ("second", "first"), "second or first"),
            ("inner_rate", self.inner_rate > 0, "above 0"),
            ("steps", self.steps >= 0, "a whole number from 0"),
            ("test_steps", self.test_steps >= 0, "a whole number from 0"),
            ("batch_norm", self.batch_norm in modes, ", ".join(modes)),
            ("learned_rates", self.steps > 0 or not self.learned_rates, "off where steps is 0"),
            ("multi_step_loss", self.steps > 0 or not self.multi_step_loss, "off where steps is 0"),
        ]
        refuse_values(self, checks)


@dataclass(frozen=True)
class ProtoMamlOptions(MamlOptions):
    """Section ``[learner.proto_maml]``: the options of MAML and one more.

    Parameters
    ----------
    learned_scale : bool
        Learn a factor on the distance at which the last layer starts. Without it, as in the paper, squared
        distances of a trained encoder are so long that the start is sure of itself and hardly moves.
    """

    learned_scale: bool = True


@dataclass(frozen=True)
class AnilOptions(MamlOptions):
    """Section ``[learner.anil]``: as ``[learner.maml]``, but for batch norm.

    Parameters
    ----------
    batch_norm : {"support", "batch", "stored"}
        As for MAML; never per step, as the encoder is the same at each.
    """

    batch_norm: Literal["support", "batch", "stored"] = "support"

    def __post_init__(self) -> None:
        modes = ("support", "batch", "stored")
        refuse_values(self, [("batch_norm", self.batch_norm in modes, ", ".join(modes))])
        super().__post_init__()


@dataclass(frozen=True)
class MetaLstmOptions:
    """Section ``[learner.meta_lstm]``.

    Parameters
    ----------
    steps : int
        Steps of the learned update rule; the authors take 12 at one shot and 8 at five.
    units : int
        Size of the rule's first layer.
    keep_bias : float
        The gate on the weights at the start, before its sigmoid: large, so that they are kept.
    move_bias : float
        The gate on the gradient at the start, before its sigmoid: small steps.
    batch_norm : {"support", "batch", "stored"}
        What batch norm normalises with: the support set's statistics; those of whatever batch is put in, all
        queries together (transductive); or running statistics of pre-training.
    learning_rate : float
        Learning rate of meta-training (Adam).
    clip_norm : float
        Largest length of a meta-gradient over all parameters.
    """

    steps: int = 12
    units: int = 20
    keep_bias: float = 4.5
    move_bias: float = -4.5
    batch_norm: Literal["support", "batch", "stored"] = "support"
    learning_rate: float = 1e-3
    clip_norm: float = 0.25

    def __post_init__(self) -> None:
        modes = ("support", "batch", "stored")
        checks: OptionChecks = [
            ("steps", self.steps >= 1, "a whole number from 1"),
            ("units", self.units >= 1, "a whole number from 1"),
            ("batch_norm", self.batch_norm in modes, ", ".join(modes)),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("clip_norm", self.clip_norm > 0, "above 0"),
        ]
        refuse_values(self, checks)


@dataclass(frozen=True)
class ReptileOptions:
    """Section ``[learner.reptile]``; the defaults are the paper's for Omniglot, 5-way.

    Parameters
    ----------
    inner_rate : float
        Rate of the inner Adam.
    inner_batch : int
        Rows in an inner batch of meta-training.
    steps : int
        Inner steps in meta-training.
    train_shots : int
        Rows of each class in a training task, as many as there are patients for; the paper knows no queries in
        training, our tasks hold two rows at least.
    test_batch : int
        Rows in an inner batch when adapting afterwards.
    test_steps : int
        Inner steps when adapting afterwards.
    transductive : bool
        Batch norm sees all queries of a task together; else each query alone with the support set.
    """

    inner_rate: float = 1e-3
    inner_batch: int = 10
    steps: int = 5
    train_shots: int = 10
    test_batch: int = 5
    test_steps: int = 50
    transductive: bool = False

    def __post_init__(self) -> None:
        counts = ("inner_batch", "steps", "test_batch")
        checks: OptionChecks = [
            ("inner_rate", self.inner_rate > 0, "above 0"),
            *((name, getattr(self, name) >= 1, "a whole number from 1") for name in counts),
            ("train_shots", self.train_shots >= 2, "a whole number from 2"),
            ("test_steps", self.test_steps >= 0, "a whole number from 0"),
        ]
        refuse_values(self, checks)


@dataclass(frozen=True)
class FineTuningOptions:
    """Section ``[learner.fine_tuning]``: a baseline that is not meta-trained.

    Parameters
    ----------
    classifier_steps : int
        Steps of Adam on the new classifier alone.
    classifier_rate : float
        Their rate.
    network_steps : int
        Steps of Adam on the whole network that follow; 0: the encoder stays as it is.
    network_rate : float
        Their rate.
    views : int
        Versions of each support image on which the classifier is fitted: itself and augmented ones.
    batch_size : int
        Most images in a step on the whole network.
    batch_norm : {"stored", "support", "batch"}
        Statistics of batch norm: the pre-training's; those of the support set; those of whatever batch is put
        in, queries included (transductive).
    seed : int
        Of augmentation and batches, the same for every support set.
    """

    classifier_steps: int = 100
    classifier_rate: float = 0.01
    network_steps: int = 50
    network_rate: float = 1e-4
    views: int = 5
    batch_size: int = 32
    batch_norm: Literal["stored", "support", "batch"] = "stored"
    seed: int = 0

    def __post_init__(self) -> None:
        modes = ("stored", "support", "batch")
        checks: OptionChecks = [
            ("batch_norm", self.batch_norm in modes, ", ".join(modes)),
            *((name, getattr(self, name) >= 1, "a whole number from 1") for name in ("views", "batch_size")),
            *((name, getattr(self, name) >= 0, "0 or greater") for name in _FINE_TUNING_NOT_NEGATIVE),
        ]
        refuse_values(self, checks)


_FINE_TUNING_NOT_NEGATIVE = ("classifier_steps", "classifier_rate", "network_steps", "network_rate", "seed")
