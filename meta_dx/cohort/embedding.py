"""A fixed embedding of pictures that needs no training: which pictures might be copies of one another.

The split is frozen before anything is trained, so no network may be asked. The embedding is a histogram of
gradient orientations on a 3 × 3 grid at two scales, whitened over the cohort. A mirrored or turned picture has
the same histograms in another order, so all eight variants of a picture cost no more than one. Input are the
grey pictures of :mod:`~meta_dx.cohort.copies`, output the nearest neighbours that it then aligns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: Mirrored or not, then quarter turns: the eight ways in which a square picture can lie.
VARIANTS = tuple((mirrored, turns) for mirrored in (False, True) for turns in range(4))

_BINS, _CELLS = 8, 3  # orientations of 45 degrees; cells a side
_SCALES = (16, 32)  # pixels a side at which gradients are taken
_SIZE = 64  # numbers of an embedding
_RIDGE = 0.1  # of the mean variance: keeps directions without variance from being blown up
_MIDDLE = 0.84  # of the side
_ROWS = 256  # pictures compared with all others at a time
_PICTURES = 2048  # pictures described at a time

Floats = npt.NDArray[np.floating[Any]]  # float32 throughout
Rows = npt.NDArray[np.int64]


class Candidates(NamedTuple):
    """Pairs to look at: picture ``first`` resembles variant ``variant`` of picture ``second`` (``first < second``)."""

    first: Rows
    second: Rows
    variant: Rows


class Embedded(NamedTuple):
    """Vectors of length 1: of the variants, shape (n, 8, d), and of the middles of the pictures, shape (n, d)."""

    variants: Floats
    middles: Floats


def lay(pictures: npt.NDArray[Any], variant: int) -> npt.NDArray[Any]:
    """Mirror and turn pictures as a variant says, shape (…, side, side)."""
    mirrored, turns = VARIANTS[variant]
    return np.rot90(pictures[..., ::-1] if mirrored else pictures, turns, axes=(-2, -1))


def inverse(variant: int) -> int:
    """Return the variant that undoes another: a mirrored one undoes itself, a turn is turned back."""
    mirrored, turns = VARIANTS[variant]
    return variant if mirrored else VARIANTS.index((False, -turns % 4))


def embed(pictures: npt.NDArray[np.uint8]) -> Embedded:
    """Describe pictures in all eight variants, and their middles.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (n, side, side)
        Grey pictures; the side is a multiple of 32.

    Returns
    -------
    Embedded
        Vectors of length 1, whose products are large where pictures resemble each other.
    """
    blocks = [pictures[start : start + _PICTURES] for start in range(0, len(pictures), _PICTURES)]
    wholes = _laid_histograms(np.concatenate([orientation_histograms(block) for block in blocks]))
    middles = np.concatenate([orientation_histograms(_middle(block)) for block in blocks])
    flat = wholes.reshape(-1, wholes.shape[-1])  # (n * 8, scales * bins * cells * cells)
    centre = flat.mean(axis=0)
    flat -= centre
    variance, axes = np.linalg.eigh(flat.T @ flat / len(flat))
    variance, axes = variance[: -_SIZE - 1 : -1], axes[:, : -_SIZE - 1 : -1]  # the largest first
    whiten = axes / np.sqrt(variance.clip(0) + _RIDGE * variance.mean() + 1e-12)
    return Embedded(
        _unit(flat @ whiten).reshape(len(pictures), len(VARIANTS), -1),
        _unit((middles.reshape(len(middles), -1) - centre) @ whiten),
    )


def orientation_histograms(pictures: npt.NDArray[Any]) -> Floats:
    """Return how much of each orientation the gradients of each cell have.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (n, side, side)
        Grey pictures.

    Returns
    -------
    ndarray of float32, shape (n, scales, 8, 3, 3)
        Each scale has length 1. A gradient counts with the root of its size, shared between the orientations
        within 90 degrees of its own by their cosine, and between neighbouring cells by its distance to them.
    """
    angles = 2 * np.pi / _BINS * np.arange(_BINS)
    found = np.empty((len(pictures), len(_SCALES), _BINS, _CELLS, _CELLS), dtype=np.float32)
    for scale, side in enumerate(_SCALES):
        small = shrunk(pictures, side)
        across, down = np.zeros_like(small), np.zeros_like(small)
        across[:, :, 1:-1] = small[:, :, 2:] - small[:, :, :-2]
        down[:, 1:-1] = small[:, 2:] - small[:, :-2]
        root = np.sqrt(np.hypot(across, down)) + 1e-3
        across, down = across / root, down / root
        share = _shares(side)  # (cells, side)
        for bin_, angle in enumerate(angles):
            along = np.maximum(across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle)), 0)
            found[:, scale, bin_] = share @ along @ share.T
    length = np.linalg.norm(found.reshape(*found.shape[:2], -1), axis=2)
    unit: Floats = found / np.maximum(length, 1e-6)[..., None, None, None]
    return unit


def nearest(embedded: Embedded, owner: Rows, count: int) -> Candidates:
    """Find the nearest pictures of other patients: of each picture and its middle, all variants of the others.

    Parameters
    ----------
    embedded : Embedded
        From :func:`embed`.
    owner : ndarray of int64, shape (n,)
        Whose they are.
    count : int
        How many neighbours of each picture.

    Returns
    -------
    Candidates
        Each pair and variant once. Memory grows with n, not with its square.
    """
    pairs: list[Rows] = []
    back = np.array([inverse(variant) for variant in range(len(VARIANTS))])
    for start in range(0, len(owner), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(owner)))
        best = np.full((len(rows), len(owner)), -np.inf, dtype=np.float32)
        how = np.zeros(best.shape, dtype=np.int8)
        for variant in range(len(VARIANTS)):
            others = embedded.variants[:, variant].T
            for looked_for in (embedded.variants[rows, 0], embedded.middles[rows]):
                alike = looked_for @ others
                how[alike > best] = variant
                np.maximum(best, alike, out=best)
        best[owner[rows, None] == owner[None]] = -np.inf
        top = np.argpartition(-best, min(count, best.shape[1]) - 1, axis=1)[:, :count]
        place = np.arange(len(rows))[:, None]
        row, other, variants = np.broadcast_arrays(rows[:, None], top, how[place, top])
        ordered = np.where(row < other, [row, other, variants], [other, row, back[variants]])
        pairs.append(ordered[:, np.isfinite(best[place, top])])
    first, second, variant_ = np.unique(np.concatenate([np.zeros((3, 0), np.int64), *pairs], 1), axis=1)
    return Candidates(first, second, variant_)


def shrunk(pictures: npt.NDArray[Any], side: int) -> Floats:
    """Return the means of equal squares, shape (n, side, side)."""
    step = pictures.shape[-1] // side
    total: Floats = np.zeros((len(pictures), side, side), dtype=np.float32)
    for down in range(step):  # much faster than a mean over two short axes
        for across in range(step):
            total += pictures[:, down::step, across::step]
    return total / np.float32(step**2)


def _laid_histograms(histograms: Floats) -> Floats:
    """Return the histograms of the eight variants, shape (n, 8, d), without looking at the pictures again."""
    # Mirrored, an angle a becomes 180° - a; turned by np.rot90, a - 90°.
    mirror = (_BINS // 2 - np.arange(_BINS)) % _BINS
    laid = []
    for variant, (mirrored, turns) in enumerate(VARIANTS):
        bins = histograms[:, :, mirror] if mirrored else histograms
        bins = np.roll(bins, -turns * _BINS // 4, axis=2)
        laid.append(lay(bins, variant).reshape(len(bins), -1))
    return np.stack(laid, axis=1)


def _middle(pictures: npt.NDArray[np.uint8]) -> Floats:
    """Cut 8 % on each side and enlarge what is left to the same size: what a copy that was cut shows."""
    side = pictures.shape[-1]
    at = (side - 1) / 2 + _MIDDLE * (np.arange(side) - (side - 1) / 2)
    taps = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side))).astype(np.float32)
    cut: Floats = taps @ pictures.astype(np.float32) @ taps.T
    return cut


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(length, 1e-6)).astype(np.float32)
    return unit


def _shares(side: int) -> Floats:
    """Return the part of each pixel that counts for each cell, shape (cells, side): linear between their centres."""
    place = (np.arange(side) + 0.5) / side * _CELLS - 0.5  # in cells
    share = np.maximum(0, 1 - np.abs(place[None] - np.arange(_CELLS)[:, None]))
    shares: Floats = (share / share.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
