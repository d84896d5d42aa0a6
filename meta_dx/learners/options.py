"""Which meta-learner is trained, and the options that its paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LearnerOptions:
    """Section ``[learner]``.

    Parameters
    ----------
    name : {"prototypical"}
        The meta-learner.
    distance : {"euclidean", "cosine"}
        Distance of the prototypes: squared Euclidean, as in the paper, or cosine.
    learned_scale : bool
        Learn a factor on the distance. Without it, photographs did not train from scratch.
    """

    name: Literal["prototypical"] = "prototypical"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    learned_scale: bool = True
