"""Options of the evaluation on unseen diseases."""

from __future__ import annotations

from dataclasses import dataclass

from meta_dx.errors import MetaDxError

#: Raise when the same bundle on the same data would give other figures than before.
EVALUATION_VERSION = 6


@dataclass(frozen=True)
class EvaluationOptions:
    """Section ``[evaluation]``: how the rare diseases are tested, once per bundle.

    Parameters
    ----------
    ways : int
        N, diseases in an episode; at least 2.
    shots : tuple of int
        Each K, confirmed patients of a disease, that is tested.
    queries : int
        Q per class; where fewer patients remain, all that remain.
    episodes : int
        Number of seeded episodes for each K.
    repeats : int
        Support draws in the deployment view.
    """

    ways: int = 5
    shots: tuple[int, ...] = (1, 5)
    queries: int = 10
    episodes: int = 1000
    repeats: int = 20

    def __post_init__(self) -> None:
        if self.ways < 2:
            raise MetaDxError("bad_value", f"ways is {self.ways}: allowed is a whole number of at least 2.")
        for name in ("queries", "episodes", "repeats"):
            if getattr(self, name) < 1:
                raise MetaDxError("bad_value", f"{name} is {getattr(self, name)}: allowed is at least 1.")
        if not self.shots or min(self.shots) < 1:
            raise MetaDxError(
                "bad_value", f"shots is {list(self.shots)}: allowed is a list of numbers from 1 on."
            )
