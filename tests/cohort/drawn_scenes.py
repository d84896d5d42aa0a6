"""Pictures that are functions of the plane, so that any cut, zoom and shift of them can be drawn exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


class Scene:
    """A sum of waves, different for each seed; ``anatomy`` adds coarse waves that scenes can share."""

    def __init__(self, seed: int, anatomy: int | None = None, own: float = 1.0) -> None:
        parts = [_waves(seed, 2.0, 9.0, own)]
        if anatomy is not None:
            parts.append(_waves(anatomy, 0.5, 2.5, 1.0))
        self._parts = parts

    def draw(self, side: int = 64, *, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Picture:
        """Draw the part that lies ``zoom`` times as far from the middle as the whole, moved by a part of the side."""
        along = zoom * ((np.arange(side) + 0.5) / side - 0.5)
        y, x = np.meshgrid(along + shift[0], along + shift[1], indexing="ij")
        value = sum(
            size * np.cos(2 * np.pi * (down * y + across * x) + phase)
            for waves in self._parts
            for size, down, across, phase in waves
        )
        return (127 + 45 * value).clip(0, 255).astype(np.uint8)


def _waves(seed: int, low: float, high: float, strength: float) -> list[tuple[float, float, float, float]]:
    random = np.random.default_rng(seed)
    count = 16
    angle, phase = random.uniform(0, 2 * np.pi, (2, count))
    cycles = random.uniform(low, high, count)
    size = strength * np.sqrt(2 / count)
    return [(size, c * np.sin(a), c * np.cos(a), p) for a, c, p in zip(angle, cycles, phase, strict=True)]
