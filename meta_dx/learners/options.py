"""Which meta-learner is trained, and what its paper leaves open: the section ``[learner]`` of ``cohort.toml``.

``[learner] name`` chooses; each learner's own options stand in ``[learner.<name>]``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from meta_dx.errors import OptionChecks, refuse_values
from meta_dx.learners.body_options import (
    AnilOptions,
    FineTuningOptions,
    MamlOptions,
    MetaLstmOptions,
    ProtoMamlOptions,
    ReptileOptions,
)

LearnerName = Literal[
    "prototypical",
    "anp",
    "leo",
    "maml",
    "anil",
    "proto_maml",
    "reptile",
    "mann",
    "meta_lstm",
    "fine_tuning",
]


@dataclass(frozen=True)
class PrototypicalOptions:
    """Section ``[learner.prototypical]``.

    Parameters
    ----------
    distance : {"euclidean", "cosine"}
        Distance of the prototypes: squared Euclidean, as in the paper, or cosine.
    learned_scale : bool
        Learn a factor on the distance. Without it, photographs did not train from scratch.
    """

    distance: Literal["euclidean", "cosine"] = "euclidean"
    learned_scale: bool = True


@dataclass(frozen=True)
class NeuralProcessOptions:
    """Section ``[learner.anp]``.

    The papers' form is ``aggregation = "mean"``, their objective ``kl_weight = 1``, ``free_nats = 0``,
    ``predictive_weight = 0``, ``pull = 0``, ``rotate = false``.

    Parameters
    ----------
    prior_head : {"best", "logistic", "simpleshot", "ridge", "cosine", "prototypical"}
        The plain head whose logits the neural process starts from; ``best``: the baseline that is right most
        often on the validation diseases. ``prototypical`` has the distance and scale of ``[learner.prototypical]``.
    prior_scale : float
        Factor on its logits at the start, learned from there; 0: that of the lowest log loss on the validation
        diseases.
    latent : bool
        Latent path; without it there is no epistemic uncertainty.
    aggregation : {"bayesian", "mean"}
        How the cases of a class make its latent variable: as independent pieces of evidence, so that it becomes
        surer with each, or by their mean, as in the papers.
    attention : bool
        Self-attention and cross-attention; without it both paths take the mean of each class. Without both,
        what is left is a conditional neural process.
    hidden : int
        Size of the representations, a multiple of ``heads``.
    heads : int
        Heads of each attention.
    latent_size : int
        Numbers in the latent variable of a class.
    blocks : int
        Self-attention blocks in each path.
    decoder : int
        Width of the decoder, which holds one such vector for each sample, query and class.
    samples : int
        Samples of the latent variable in a training step.
    kl_weight : float
        Weight of the divergence of the posterior from the prior.
    free_nats : float
        Divergence of a class below which it costs nothing; at 0 a residual on a strong plain head leaves the
        latent variable unused.
    predictive_weight : float
        Weight of the error of predictions from the prior, as they are made in use, beside the bound.
    pull : float
        In training, the classes of an episode are moved towards their common mean by up to this share of the
        way: the common diseases' embeddings are easier to tell apart than a new disease's.
    rotate : bool
        In training, turn all embeddings by one random rotation a step, so that no direction is learnt by
        heart.
    """

    prior_head: Literal["best", "logistic", "simpleshot", "ridge", "cosine", "prototypical"] = "best"
    prior_scale: float = 0.0
    latent: bool = True
    aggregation: Literal["bayesian", "mean"] = "bayesian"
    attention: bool = True
    hidden: int = 128
    heads: int = 8
    latent_size: int = 32
    blocks: int = 1
    decoder: int = 64
    samples: int = 4
    kl_weight: float = 1.0
    free_nats: float = 2.0
    predictive_weight: float = 1.0
    pull: float = 0.5
    rotate: bool = True

    def __post_init__(self) -> None:
        sizes = ("hidden", "heads", "latent_size", "blocks", "decoder", "samples")
        weights = ("prior_scale", "kl_weight", "free_nats", "predictive_weight")
        checks: OptionChecks = [
            ("prior_head", self.prior_head in _PRIOR_HEADS, ", ".join(_PRIOR_HEADS)),
            ("aggregation", self.aggregation in ("bayesian", "mean"), "bayesian or mean"),
            *((name, getattr(self, name) >= 1, "a whole number from 1") for name in sizes),
            *((name, getattr(self, name) >= 0, "0 or greater") for name in weights),
            ("pull", 0 <= self.pull < 1, "from 0 to below 1"),
            ("hidden", self.hidden % max(self.heads, 1) == 0, f"a multiple of heads ({self.heads})"),
        ]
        refuse_values(self, checks)


#: The plain head is named by training.
BEST = "best"
_PRIOR_HEADS = (BEST, "logistic", "simpleshot", "ridge", "cosine", "prototypical")


@dataclass(frozen=True)
class LeoOptions:
    """Section ``[learner.leo]``; penalties and dropout as the authors tuned them for five shots, rounded.

    Parameters
    ----------
    latent_size : int
        Numbers in the code of a class.
    latent_steps : int
        Steps of the inner loop in latent space.
    finetuning_steps : int
        Steps on the decoded weights that follow.
    latent_rate : float
        Step size in latent space at the start of meta-training, which learns it.
    finetuning_rate : float
        Step size on the weights at the start of meta-training, which learns it.
    dropout : float
        Share of the features that is hidden in training.
    kl_weight : float
        Weight of the divergence of the codes from a standard normal.
    encoder_penalty : float
        Weight of the distance between codes before and after the inner loop.
    l2_penalty : float
        Weight of the squared weights of all layers.
    orthogonality_penalty : float
        Weight of the correlations between the decoder's rows.
    clip_value : float
        Largest number in a meta-gradient.
    clip_norm : float
        Largest length of a parameter's meta-gradient, after that.
    learning_rate : float
        Highest learning rate of meta-training; the authors tuned it to between 3e-4 and 9e-4.
    """

    latent_size: int = 64
    latent_steps: int = 5
    finetuning_steps: int = 5
    latent_rate: float = 1.0
    finetuning_rate: float = 1e-3
    dropout: float = 0.3
    kl_weight: float = 0.5
    encoder_penalty: float = 3e-7
    l2_penalty: float = 9e-9
    orthogonality_penalty: float = 1.5e-3
    clip_value: float = 0.1
    clip_norm: float = 0.1
    learning_rate: float = 4e-4

    def __post_init__(self) -> None:
        positive = ("clip_value", "clip_norm", "learning_rate")
        checks: OptionChecks = [
            ("latent_size", self.latent_size >= 1, "a whole number from 1"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            *((name, getattr(self, name) > 0, "greater than 0") for name in positive),
            *((name, getattr(self, name) >= 0, "0 or greater") for name in _LEO_NOT_NEGATIVE),
        ]
        refuse_values(self, checks)


_LEO_NOT_NEGATIVE = (
    "latent_steps",
    "finetuning_steps",
    "latent_rate",
    "finetuning_rate",
    "kl_weight",
    "encoder_penalty",
    "l2_penalty",
    "orthogonality_penalty",
)


@dataclass(frozen=True)
class MannOptions:
    """Section ``[learner.mann]``; the sizes are the paper's.

    Parameters
    ----------
    controller : int
        Size of the LSTM.
    rows : int
        Rows of the memory.
    width : int
        Numbers in a row of the memory.
    heads : int
        Read heads; as many of the least used rows are written in a step.
    decay : float
        Share of a row's usage that is left after a step.
    write : {"key", "own"}
        What is written: the vector that is looked for, as in the paper, or one of its own.
    objective : {"query", "sequence"}
        What training lowers: the error of the queries, or of every step of a sequence, as in the paper.
    """

    controller: int = 200
    rows: int = 128
    width: int = 40
    heads: int = 4
    decay: float = 0.99
    write: Literal["key", "own"] = "key"
    objective: Literal["query", "sequence"] = "query"

    def __post_init__(self) -> None:
        checks: OptionChecks = [
            ("controller", self.controller >= 1, "a whole number from 1"),
            ("width", self.width >= 1, "a whole number from 1"),
            ("heads", self.heads >= 1, "a whole number from 1"),
            ("rows", self.rows >= self.heads, "a whole number from the number of heads"),
            ("decay", 0 <= self.decay < 1, "from 0 to below 1"),
            ("write", self.write in ("key", "own"), "key or own"),
            ("objective", self.objective in ("query", "sequence"), "query or sequence"),
        ]
        refuse_values(self, checks)


@dataclass(frozen=True)
class LearnerOptions:
    """Section ``[learner]``.

    Parameters
    ----------
    name : str
        ``prototypical``, ``anp``, ``leo``, ``maml``, ``anil``, ``proto_maml``, ``reptile``, ``mann``, ``meta_lstm``
        or ``fine_tuning`` (which is a baseline). Those other than ``prototypical`` start from the encoder that
        Prototypical Networks leave, or from the pre-trained one where that is better on the validation
        diseases. What serves is chosen there too, among all that were trained.
    compare : tuple of str
        Other learners to train and to set beside it.
    prototypical : PrototypicalOptions
        Prototypical Networks.
    anp : NeuralProcessOptions
        Attentive Neural Process.
    maml : MamlOptions
        Model-agnostic meta-learning.
    anil : AnilOptions
        The same of the last layer only.
    proto_maml : ProtoMamlOptions
        The same from a last layer of prototypes.
    reptile : ReptileOptions
        Reptile.
    leo : LeoOptions
        Latent Embedding Optimization.
    fine_tuning : FineTuningOptions
        Fine-tuning, a baseline.
    mann : MannOptions
        Memory-augmented neural network.
    meta_lstm : MetaLstmOptions
        A recurrent network as the optimiser.
    """

    name: LearnerName = "prototypical"
    compare: tuple[LearnerName, ...] = ()
    prototypical: PrototypicalOptions = field(default_factory=PrototypicalOptions)
    anp: NeuralProcessOptions = field(default_factory=NeuralProcessOptions)
    maml: MamlOptions = field(default_factory=MamlOptions)
    anil: AnilOptions = field(default_factory=AnilOptions)
    proto_maml: ProtoMamlOptions = field(default_factory=ProtoMamlOptions)
    reptile: ReptileOptions = field(default_factory=ReptileOptions)
    leo: LeoOptions = field(default_factory=LeoOptions)
    fine_tuning: FineTuningOptions = field(default_factory=FineTuningOptions)
    mann: MannOptions = field(default_factory=MannOptions)
    meta_lstm: MetaLstmOptions = field(default_factory=MetaLstmOptions)

    @property
    def wanted(self) -> tuple[LearnerName, ...]:
        """The learners to train beside Prototypical Networks, each once."""
        return tuple(dict.fromkeys(name for name in (self.name, *self.compare) if name != "prototypical"))

    def own(self, name: str) -> dict[str, Any]:
        """Return what decides one learner: its name and its own options, if it has any.

        Of others' only those of Prototypical Networks, where the neural process adds to them and they are not the
        usual.
        """
        own = getattr(self, name, None)
        found: dict[str, Any] = {"name": name} if own is None else {"name": name, **asdict(own)}
        beside = name == "anp" and self.anp.prior_head == "prototypical"
        if beside and self.prototypical != PrototypicalOptions():
            found["prototypical"] = asdict(self.prototypical)
        return found
