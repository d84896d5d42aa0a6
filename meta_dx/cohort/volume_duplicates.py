"""Volumes of different patients that show the same: the one of :mod:`~meta_dx.cohort.duplicates` for volumes.

What tells a copy from another patient with the same anatomy is the local contrast: the deviation of each voxel from
its neighbourhood, in units of the neighbourhood's own contrast, so that the outline of the body does not outweigh
everything else. Two volumes are near-duplicates when it correlates over the whole volume, and in three quarters of its
parts by themselves. A copy under another window, with noise or lossy compression is found; one that was cut, turned or
shifted is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pair = tuple[int, int, float]

#: The correlation over the whole volume, and the lower quartile of that of the parts (measured: docs/volumes.md).
AGREEMENT, AGREEMENT_OF_PARTS = 0.935, 0.75
_SIDE = 24  # voxels a side at which volumes are compared, at most
_WIDE = 5  # voxels of the neighbourhood
_NOISE = 8.0  # grey levels: contrast below it is not amplified
_FLAT = 0.05  # a volume with less local contrast shows nothing to compare
_PARTS = 4  # an axis
_CONTRAST = 0.3  # of a part's local contrast, below which it shows nothing
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
    contrast = [_local_contrast(volume) for volume in volumes]
    lengths = np.array([float(np.linalg.norm(one)) for one in contrast])
    usable = np.flatnonzero(
        [one.size and n >= _FLAT * np.sqrt(one.size) for one, n in zip(contrast, lengths, strict=True)]
    )
    if len(usable) < 2:
        return []
    vectors = np.stack([contrast[row].ravel() / np.float32(lengths[row]) for row in usable])
    found: list[Pair] = []
    for start in range(0, len(usable), _ROWS):
        alike = vectors[start : start + _ROWS] @ vectors.T
        close = (alike >= AGREEMENT) & (owner[usable[start : start + _ROWS], None] != owner[None, usable])
        for one, other in np.argwhere(close).tolist():
            first, second = int(usable[start + one]), int(usable[other])
            if first < second and _quartile(contrast[first], contrast[second]) >= AGREEMENT_OF_PARTS:
                found.append((first, second, float(alike[one, other])))
    crowded = _crowded(found, owner, most)
    return [pair for pair in found if pair[0] not in crowded and pair[1] not in crowded]


def _local_contrast(volume: npt.NDArray[np.uint8]) -> Floats:
    """Return the deviations from the neighbourhood in units of its own contrast, at most 24 voxels a side."""
    from scipy.ndimage import uniform_filter

    grey = volume.mean(axis=0, dtype=np.float32)
    for axis in range(3):
        step = -(-grey.shape[axis] // _SIDE)
        cut = grey.shape[axis] // step * step
        parts = np.moveaxis(grey, axis, 0)[:cut]
        grey = np.moveaxis(parts.reshape(-1, step, *parts.shape[1:]).mean(axis=1), 0, axis)
    apart = grey - uniform_filter(grey, _WIDE)
    contrast: Floats = apart / np.sqrt(uniform_filter(apart * apart, _WIDE) + np.float32(_NOISE**2))
    return contrast


def _quartile(one: Floats, other: Floats) -> float:
    """Return the lower quartile of the correlations of 4 x 4 x 4 parts, of those that show something."""
    first, second = (_parts(volume) for volume in (one, other))
    sizes = np.stack([(first**2).sum(axis=1), (second**2).sum(axis=1)])
    shown = sizes.max(axis=0) > _CONTRAST**2 * first.shape[1]
    if not shown.any():
        return 1.0  # only the outline, which has been compared
    correlations = (first * second).sum(axis=1) / np.sqrt(sizes.prod(axis=0) + 1e-6)
    return float(np.percentile(correlations[shown], 25))


def _parts(volume: Floats) -> Floats:
    """Cut a volume into parts and take each one's mean off, shape (parts, voxels)."""
    sides = [length // _PARTS for length in volume.shape]
    cut = volume[tuple(slice(side * _PARTS) for side in sides)]
    shape = [n for side in sides for n in (_PARTS, side)]
    parts = cut.reshape(shape).transpose(0, 2, 4, 1, 3, 5).reshape(_PARTS**3, -1)
    centred: Floats = parts - parts.mean(axis=1, keepdims=True)
    return centred


def _crowded(pairs: Sequence[Pair], owner: npt.NDArray[np.int64], most: int) -> set[int]:
    partners: dict[int, set[int]] = {}
    for first, second, _ in pairs:
        partners.setdefault(first, set()).add(int(owner[second]))
        partners.setdefault(second, set()).add(int(owner[first]))
    return {row for row, owners in partners.items() if len(owners) > most}
