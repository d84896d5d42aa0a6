"""What the review pages ask about the model beyond its answers; the steps know how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from meta_dx.inference.saliency import SaliencyMap
from meta_dx.records.opinions import Shown
from meta_dx.review.drift import Inputs


@dataclass(frozen=True)
class CaseSaliency:
    """A map of one picture of a case.

    Parameters
    ----------
    found : SaliencyMap
        The map.
    pictures : int
        How many pictures of the case the network looks at.
    """

    found: SaliencyMap
    pictures: int


class Insight(Protocol):
    """Looks into the model."""

    def inputs(self, recent: Sequence[str]) -> Inputs:
        """Put studies of lately, newest first, beside those that the model knows."""

    def saliency(self, study: str, shown: Shown, code: str, which: int) -> CaseSaliency:
        """Tell which part of a picture moved the probability of a disease, in the answer that was shown."""
