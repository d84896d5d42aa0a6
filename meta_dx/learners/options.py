"""Which meta-learner is trained, and what its paper leaves open: the section ``[learner]`` of ``cohort.toml``.

``[learner] name`` chooses; each learner's own options stand in ``[learner.<name>]``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from meta_dx.errors import MetaDxError

LearnerName = Literal[
    "prototypical", "anp", "leo", "maml", "anil", "proto_maml", "reptile", "mann", "meta_lstm"
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
class MannOptions:
    """Section ``[learner.mann]``; the sizes are the paper's.

    Parameters
    ----------
    ways : int
        Number of diseases in every episode: the network only answers that many.
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

    ways: int = 5
    controller: int = 200
    rows: int = 128
    width: int = 40
    heads: int = 4
    decay: float = 0.99
    write: Literal["key", "own"] = "key"
    objective: Literal["query", "sequence"] = "query"

    def __post_init__(self) -> None:
        checks: list[tuple[str, bool, str]] = [
            ("ways", self.ways >= 2, "a whole number from 2"),
            ("controller", self.controller >= 1, "a whole number from 1"),
            ("width", self.width >= 1, "a whole number from 1"),
            ("heads", self.heads >= 1, "a whole number from 1"),
            ("rows", self.rows >= self.heads, "a whole number from the number of heads"),
            ("decay", 0 <= self.decay < 1, "from 0 to below 1"),
            ("write", self.write in ("key", "own"), "key or own"),
            ("objective", self.objective in ("query", "sequence"), "query or sequence"),
        ]
        for name, fits, allowed in checks:
            if not fits:
                raise MetaDxError("bad_value", f"{name} is {getattr(self, name)!r}: allowed is {allowed}.")


@dataclass(frozen=True)
class LearnerOptions:
    """Section ``[learner]``.

    Parameters
    ----------
    name : {"prototypical", "anp", "leo", "maml", "anil", "proto_maml", "reptile", "mann", "meta_lstm"}
        The meta-learner.
    prototypical : PrototypicalOptions
        Prototypical Networks.
    mann : MannOptions
        Memory-augmented neural network.
    """

    name: LearnerName = "prototypical"
    prototypical: PrototypicalOptions = field(default_factory=PrototypicalOptions)
    mann: MannOptions = field(default_factory=MannOptions)

    def own(self) -> dict[str, Any]:
        """Return what decides the learner that is trained: its name and its own options, no others'."""
        own = getattr(self, self.name, None)
        return {"name": self.name, "options": {} if own is None else asdict(own)}
