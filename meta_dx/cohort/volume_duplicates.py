"""Volumes of different patients that show the same: the one of :mod:`~meta_dx.cohort.duplicates` for volumes.

What tells a copy from another patient with the same anatomy is the fine texture: the deviation of each voxel from its
neighbourhood, cut off so that the outline of the body does not outweigh everything else. Two volumes are near-
duplicates when these deviations correlate in all of the volume. A copy under another window, with noise or lossy
compression is found; one that was cut, turned or shifted is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pair = tuple[int, int, float]

#: The correlation that confirms (measured: docs/volumes.md).
AGREEMENT = 0.95
_SIDE = 24  # voxels a side at which volumes are compared, at most
_WIDE = 5  # voxels of the neighbourhood
_CUT = 12.0  # grey levels
_FLAT = 0.25  # grey levels: a volume whose deviations are smaller shows nothing to compare
_ROWS = 256  # volumes compared with all others at a time


def similar_volumes(volumes: Any, owner: npt.NDArray[np.int64], most: int) -> list[Pair]:
    """Find pairs of volumes of different owners that show the same.

    Parameters
    ----------
    volumes : array-like of uint8, shape (n, C, D, H, W)
        Prepared volumes.
    owner : ndarray of int64, shape (n,)
        Whose they are.
    most : int
        A volume that looks like those of more owners is a test object and has no pair.

    Returns
    -------
    list of (int, int, float)
        Rows, the smaller first, and their correlation.
    """
    texture = [_texture(volume) for volume in volumes]
    usable = np.array([row for row, one in enumerate(texture) if one is not None], dtype=np.int64)
    if len(usable) < 2:
        return []
    vectors = np.stack([one for one in texture if one is not None])
    found: list[Pair] = []
    for start in range(0, len(usable), _ROWS):
        alike = vectors[start : start + _ROWS] @ vectors.T
        close = (alike >= AGREEMENT) & (owner[usable[start : start + _ROWS], None] != owner[None, usable])
        for one, other in np.argwhere(close).tolist():
            first, second = int(usable[start + one]), int(usable[other])
            if first < second:
                found.append((first, second, float(alike[one, other])))
    crowded = _crowded(found, owner, most)
    return [pair for pair in found if pair[0] not in crowded and pair[1] not in crowded]


def _texture(volume: npt.NDArray[np.uint8]) -> Floats | None:
    """Return the deviations from the neighbourhood as a vector of length 1; None where there are none."""
    from scipy.ndimage import uniform_filter

    grey = volume.mean(axis=0, dtype=np.float32)
    for axis in range(3):
        step = -(-grey.shape[axis] // _SIDE)
        cut = grey.shape[axis] // step * step
        parts = np.moveaxis(grey, axis, 0)[:cut]
        grey = np.moveaxis(parts.reshape(-1, step, *parts.shape[1:]).mean(axis=1), 0, axis)
    apart = np.clip(grey - uniform_filter(grey, _WIDE), -_CUT, _CUT)
    apart -= apart.mean()
    length = float(np.linalg.norm(apart))
    if length < _FLAT * np.sqrt(apart.size):
        return None
    return (apart / np.float32(length)).ravel()


def _crowded(pairs: Sequence[Pair], owner: npt.NDArray[np.int64], most: int) -> set[int]:
    partners: dict[int, set[int]] = {}
    for first, second, _ in pairs:
        partners.setdefault(first, set()).add(int(owner[second]))
        partners.setdefault(second, set()).add(int(owner[first]))
    return {row for row, owners in partners.items() if len(owners) > most}
