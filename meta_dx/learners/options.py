"""Which meta-learner is trained, and what its paper leaves open: the section ``[learner]`` of ``cohort.toml``.

``[learner] name`` chooses; each learner's own options stand in ``[learner.<name>]``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

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
class LearnerOptions:
    """Section ``[learner]``.

    Parameters
    ----------
    name : {"prototypical", "anp", "leo", "maml", "anil", "proto_maml", "reptile", "mann", "meta_lstm"}
        The meta-learner.
    prototypical : PrototypicalOptions
        Prototypical Networks.
    """

    name: LearnerName = "prototypical"
    prototypical: PrototypicalOptions = field(default_factory=PrototypicalOptions)

    def own(self) -> dict[str, Any]:
        """Return what decides the learner that is trained: its name and its own options, no others'."""
        own = getattr(self, self.name, None)
        return {"name": self.name, "options": {} if own is None else asdict(own)}
