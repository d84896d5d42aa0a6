"""The second look for near-duplicates: by embedding, then by alignment. Finds turned, mirrored, cut, shifted copies.

Each picture's nearest neighbours among the other patients' (:mod:`~meta_dx.cohort.embedding`, in all eight ways
in which a picture can be mirrored and turned) are zoomed and shifted until they fit
(:mod:`~meta_dx.cohort.alignment`), coarsely first; a pair that then agrees everywhere is a copy. Input are the
pictures of :class:`~meta_dx.cohort.images.ImageStore`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_dx.cohort.alignment import SIDE, agreement, local_contrast, refined, rough_fits
from meta_dx.cohort.embedding import VARIANTS, Candidates, Floats, Rows, embed, inverse, lay, nearest, shrunk

#: Neighbours of each picture that are looked at, and the agreement that confirms (measured: docs/splits.md).
NEIGHBOURS = 16
AGREEMENT = 0.9

_COARSE = 32
_HOPELESS, _DOUBTFUL = 0.72, 0.6  # fits at 32 × 32, before and after refinement, that no copy has
_MARGIN = 0.02  # of what a picture shows, that is cut with the padding on each side
_BLOCK = 64  # pairs aligned at a time

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Copy:
    """Two pictures that show the same.

    Parameters
    ----------
    first, second : int
        Rows, ``first < second``.
    agreement : float
        The lower quartile of the correlations of their parts.
    how : str
        How the second picture has to be laid to fit the first: ``as it is``, ``mirrored``, ``turned by 90°``, …
    """

    first: int
    second: int
    agreement: float
    how: str


def find_copies(pictures: Grey, owner: Rows, *, least: float = AGREEMENT) -> list[Copy]:
    """Find pictures of different owners that show the same.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (n, 64, 64)
        Grey pictures that show something, from :func:`grey_pictures`.
    owner : ndarray of int64, shape (n,)
        Whose they are.
    least : float
        The agreement that makes a pair.

    Returns
    -------
    list of Copy
        Each pair once. The order of the pictures changes nothing but the rows.
    """
    if len(np.unique(owner)) < 2:
        return []
    order = _fixed_order(pictures, owner)
    pictures, owner = pictures[order], owner[order]
    candidates = nearest(embed(pictures), owner, NEIGHBOURS)
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for block in _promising(pictures, candidates):
        for first, second, variant, value in _agreeing(pictures, *block):
            if value < least:
                continue
            one, other = int(order[first]), int(order[second])
            rows, how = ((one, other), variant) if one < other else ((other, one), inverse(variant))
            best[rows] = max(best.get(rows, (-1.0, 0)), (value, how))
    return [Copy(*rows, value, _named(variant)) for rows, (value, variant) in sorted(best.items())]


def grey_pictures(images: Any, side: int = SIDE) -> Grey:
    """Make pictures of any size and colour small and grey.

    Parameters
    ----------
    images : array-like of uint8, shape (n, C, H, W)
        Pictures.
    side : int
        Height and width of the result.

    Returns
    -------
    ndarray of uint8, shape (n, side, side)
    """
    small = np.empty((len(images), side, side), dtype=np.uint8)
    for row, picture in enumerate(images):
        grey = picture.mean(axis=0).round().astype(np.uint8)
        top, bottom = _shown(grey)
        left, right = _shown(grey.T)
        box = (left, top, right, bottom)
        small[row] = np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR, box))
    return small


def _shown(grey: Grey) -> tuple[float, float]:
    """Return between which rows the picture shows something: padding, also with a short text in it, is outside.

    These are the middle 96 % of all deviations from the median of the own row; at least half of the picture.
    """
    deviation = np.abs(grey - np.median(grey, axis=1, keepdims=True)).sum(axis=1)
    reached = np.concatenate([[0.0], np.cumsum(deviation)])
    if reached[-1] == 0:
        return 0.0, float(len(grey))
    first, last = np.interp(np.array([_MARGIN, 1 - _MARGIN]) * reached[-1], reached, np.arange(len(reached)))
    return (float(first), float(last)) if last - first >= len(grey) / 2 else (0.0, float(len(grey)))


def _fixed_order(pictures: Grey, owner: Rows) -> Rows:
    """Return an order that does not depend on the one given, so that sums are rounded alike in all."""
    digests = [hashlib.blake2b(picture.tobytes(), digest_size=16).hexdigest() for picture in pictures]
    return np.lexsort((owner, np.array(digests)))


def _promising(pictures: Grey, candidates: Candidates) -> Iterator[tuple[Rows, Rows, Rows, Floats]]:
    """Yield blocks of the candidates whose local contrast fits at 32 × 32: first, second, variant, place."""
    kept: list[tuple[int, int, int, Floats]] = []
    starts = np.flatnonzero(np.diff(candidates.first, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(candidates.first)], strict=True):
        first = int(candidates.first[start])
        seconds, variants = candidates.second[start:stop], candidates.variant[start:stop]
        contrast = local_contrast(shrunk(pictures[[first, *seconds]], _COARSE))
        fit, place = rough_fits(contrast[0], _laid(contrast[1:], variants))
        kept += [
            (first, int(seconds[n]), int(variants[n]), place[n]) for n in np.flatnonzero(fit >= _HOPELESS)
        ]
        while len(kept) >= _BLOCK:
            yield _stacked(kept[:_BLOCK])
            kept = kept[_BLOCK:]
    if kept:
        yield _stacked(kept)


def _stacked(pairs: list[tuple[int, int, int, Floats]]) -> tuple[Rows, Rows, Rows, Floats]:
    first, second, variant = (np.array([pair[part] for pair in pairs]) for part in range(3))
    return first, second, variant, np.stack([pair[3] for pair in pairs])


def _agreeing(
    pictures: Grey, first: Rows, second: Rows, variant: Rows, place: Floats
) -> list[tuple[int, int, int, float]]:
    """Align a block of candidates and return the likely ones: first, second, variant, agreement."""
    ones, others = pictures[first], _laid(pictures[second], variant)
    small = local_contrast(shrunk(ones, _COARSE)), local_contrast(shrunk(others, _COARSE))
    place = refined(*small, place)
    likely = agreement(*small, place) >= _DOUBTFUL
    if not likely.any():
        return []
    full = local_contrast(ones[likely]), local_contrast(others[likely])
    value = agreement(*full, refined(*full, place[likely]))
    parts = (first[likely].tolist(), second[likely].tolist(), variant[likely].tolist(), value.tolist())
    return list(zip(*parts, strict=True))


def _laid(pictures: npt.NDArray[Any], variants: Rows) -> npt.NDArray[Any]:
    """Lay each picture as its variant says."""
    return np.stack(
        [lay(picture, variant) for picture, variant in zip(pictures, variants.tolist(), strict=True)]
    )


def _named(variant: int) -> str:
    mirrored, turns = VARIANTS[variant]
    words = ["mirrored"] * mirrored + [f"turned by {90 * turns}°"] * (turns > 0)
    return " and ".join(words) or "as it is"
