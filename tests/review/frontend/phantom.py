"""Drawn pictures with known measures: a head in a CT scanner, a slice of an MR, a patch of skin. No patient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

SLICES = 28
THICK = 5.0
SPACING = 0.5


def _grid(size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    axis = (np.arange(size) - (size - 1) / 2) / (size / 2)
    return np.meshgrid(axis, axis)


def _ellipse(x: Any, y: Any, cx: float, cy: float, rx: float, ry: float) -> Any:
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


def head(index: int, bleed: float, seed: int = 0) -> npt.NDArray[np.uint16]:
    """Return slice ``index`` of a head CT, stored values (HU + 1024), with a bleeding of the given size."""
    rng = np.random.default_rng(1000 * seed + index)
    x, y = _grid(512)
    along = (index - (SLICES - 1) / 2) / (SLICES / 2)
    size = math.sqrt(max(0.05, 1 - (0.9 * along) ** 2))
    hu = np.full((512, 512), -1000.0)
    hu[_ellipse(x, y, 0, 0, 0.80 * size, 0.92 * size)] = 30
    hu[_ellipse(x, y, 0, 0, 0.76 * size, 0.88 * size)] = 900 + 120 * math.sin(index)
    inside = _ellipse(x, y, 0, 0, 0.69 * size, 0.81 * size)
    hu[inside] = 34
    folds = np.sin(38 * x + 5 * np.sin(9 * y + index)) * np.sin(33 * y + 4 * np.sin(8 * x))
    cortex = inside & ~_ellipse(x, y, 0, 0, 0.56 * size, 0.68 * size)
    hu[cortex] += 5 * folds[cortex]
    hu[inside & (np.abs(x + 0.01 * np.sin(9 * y)) < 0.008)] = 12
    wide = 0.10 * max(0.0, 1 - (along / 0.55) ** 2)
    for side in (-1, 1):
        hu[_ellipse(x, y, side * 0.13, -0.08 + 0.1 * abs(along), wide + 1e-6, 2.3 * wide + 1e-6)] = 6
    reach = bleed * max(0.0, 1 - ((along - 0.12) / 0.3) ** 2)
    if reach > 0:
        edge = reach * (1 + 0.15 * np.sin(5 * np.arctan2(y - 0.15, x - 0.33)))
        distance = np.hypot(x - 0.33, y - 0.15)
        hu[inside & (distance < 1.35 * edge)] = 22
        hu[inside & (distance < edge)] = 66
    table = (np.abs(y - 0.96) < 0.012) & (np.abs(x) < 0.7)
    hu[table] = 150
    # Two beads, 100.0 mm apart along a row: a length between them has a known answer.
    for column in (156, 356):
        hu[438:441, column - 1 : column + 2] = 2000
    hu += rng.normal(0, 5, hu.shape)
    return (np.clip(hu, -1024, 3071) + 1024).astype(np.uint16)


def magnetic(index: int) -> npt.NDArray[np.float32]:
    """Return a slice of an MR in arbitrary units, with one very bright spot."""
    rng = np.random.default_rng(index)
    x, y = _grid(256)
    out = np.zeros((256, 256))
    out[_ellipse(x, y, 0, 0, 0.7, 0.86)] = 0.35
    out[_ellipse(x, y, 0, 0, 0.6, 0.76)] = 0.6 + 0.05 * index / 12
    out[_ellipse(x, y, 0.12, -0.1, 0.07, 0.2)] = 0.15
    out[_ellipse(x, y, -0.12, -0.1, 0.07, 0.2)] = 0.15
    out[_ellipse(x, y, -0.28, 0.3, 0.1, 0.08)] = 0.95
    out[_ellipse(x, y, 0.6, 0.6, 0.01, 0.01)] = 40.0
    return (out + np.abs(rng.normal(0, 0.02, out.shape))).astype(np.float32)


def skin() -> npt.NDArray[np.uint8]:
    """Return a colour picture of a mole."""
    rng = np.random.default_rng(7)
    x, y = _grid(600)
    rgb = np.empty((600, 600, 3))
    rgb[:] = (224, 178, 158)
    rgb += (6 * np.sin(60 * x + 8 * np.sin(11 * y)))[..., None]
    radius = np.hypot(x * 1.1 - 0.05, y + 0.03) * (1 + 0.12 * np.sin(3 * np.arctan2(y, x) + 1))
    mole = 1 / (1 + np.exp((radius - 0.42) * 40))
    net = 0.75 + 0.25 * np.sin(45 * x) * np.sin(45 * y)
    rgb = rgb * (1 - mole[..., None]) + mole[..., None] * np.stack([118 * net, 72 * net, 50 * net], -1)
    rgb += rng.normal(0, 3, rgb.shape)
    return rgb.clip(0, 255).astype(np.uint8)


def film() -> npt.NDArray[np.uint8]:
    """Return a projection without a known pixel spacing."""
    x, y = _grid(700)
    lungs = _ellipse(x, y, -0.36, 0, 0.27, 0.62) | _ellipse(x, y, 0.36, 0, 0.27, 0.62)
    out = 150 - 95 * lungs + 40 * (np.abs(x) < 0.07) + 22 * lungs * (np.sin(26 * y - 6 * np.abs(x)) > 0.55)
    return out.clip(0, 255).astype(np.uint8)
