"""Near-duplicate images of different patients: found by hash and by embedding, confirmed, joined to groups.

The same picture under two patient identifiers (a second registration, an export that was anonymised twice, a
teaching file) would let a learner recognise a test patient by heart. Patients who share a near-duplicate
picture are therefore one patient for every count, split and episode. Input are the pictures of
:class:`~meta_dx.cohort.images.ImageStore`. Two looks find copies:

* By *hash*: pairs with close perceptual hashes (63 signs of the low frequencies of a cosine transform),
  confirmed by the correlation of their 32 × 32 thumbnails where they fit best, up to two pixels apart: this
  tells a shifted copy, which then fits exactly, from another patient with the same anatomy, who does not. It
  compares all with all, so it also sees forms that many patients share.
* By *embedding* (:mod:`~meta_dx.cohort.copies`): nearest neighbours, aligned; also turned, mirrored and cut copies.

A picture that looks like those of many patients is a form, a test chart or an empty frame, and joins nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from threadpoolctl import threadpool_limits

from meta_dx.cohort.copies import AGREEMENT, NEIGHBOURS, find_copies, grey_pictures
from meta_dx.cohort.volume_duplicates import similar_volumes
from meta_dx.home import fingerprint_of

#: Raise when the same pictures give other groups than before and none of the figures below says so.
DUPLICATES_VERSION = 2
#: Bits of 63 in which two hashes may differ, and the correlation that confirms (measured: docs/splits.md).
HASH_DISTANCE = 12
CORRELATION = 0.965
#: Thumbnails with a smaller standard deviation (grey levels of 255) show nothing to compare.
FLAT = 4.0
#: A picture that looks like pictures of more patients than this is a form or a test chart.
MOST_PATIENTS = 8

_SIDE = 32
_SHIFT = 2  # pixels of the thumbnail
_HOPELESS = 0.85  # no shift lifts a smaller correlation over the threshold
_ROWS = 256  # pictures compared with all others at a time
_BLOCK = 256  # candidates confirmed at a time

Grey = npt.NDArray[np.uint8]
Pair = tuple[int, int, int, float, str]  # rows, bits that differ, correlation, reason


def near_duplicate_groups(images: Any, patients: Sequence[str]) -> tuple[dict[str, str], pd.DataFrame]:
    """Join patients who share a near-duplicate picture.

    Parameters
    ----------
    images : array-like of uint8, shape (n, C, H, W) or (n, C, D, H, W)
        Pictures, or volumes (:mod:`~meta_dx.cohort.volume_duplicates`).
    patients : sequence of str, length n
        Whose they are.

    Returns
    -------
    groups : dict of str to str
        Every patient → group, which is the smallest identifier among its members.
    pairs : DataFrame
        One row per pair that joins: rows ``first`` and ``second``, ``first_patient``, ``second_patient``,
        ``hash_distance``, ``correlation`` (by hash: of the thumbnails at the best shift; by embedding: the lower
        quartile of the correlations of the aligned parts), ``reason``, which names the look that found it.
    """
    names = np.asarray(patients, dtype=str)
    owner = np.unique(names, return_inverse=True)[1]
    kept = _pairs_of_volumes(images, owner) if images.ndim == 5 else _pairs_of_pictures(images, owner)
    pairs = pd.DataFrame(kept, columns=["first", "second", "hash_distance", "correlation", "reason"])
    pairs = pairs.astype({"first": int, "second": int, "hash_distance": int, "correlation": float})
    pairs.insert(2, "first_patient", names[pairs["first"]])
    pairs.insert(3, "second_patient", names[pairs["second"]])
    joined = zip(pairs["first_patient"].tolist(), pairs["second_patient"].tolist(), strict=True)
    return _joined(set(names.tolist()), joined), pairs


def _pairs_of_volumes(images: Any, owner: npt.NDArray[np.int64]) -> list[Pair]:
    found = similar_volumes(images, owner, MOST_PATIENTS)
    return [
        (one, other, 0, same, f"volume: local contrasts correlate with {same:.3f}")
        for one, other, same in found
    ]


def _pairs_of_pictures(images: Any, owner: npt.NDArray[np.int64]) -> list[Pair]:
    thumbnails = _thumbnails(images)
    hashes = perceptual_hashes(thumbnails)
    usable = np.flatnonzero(thumbnails.reshape(-1, _SIDE * _SIDE).std(axis=1) >= FLAT)
    found, forms = _by_hash(thumbnails, hashes, owner, usable)
    seen = {(row[0], row[1]) for row in found}
    # Many small products: on a busy machine, threads that wait for one another take longer than one alone.
    with threadpool_limits(1, "blas"):
        copies = _by_embedding(images, hashes, owner, usable)
    found += [row for row in copies if (row[0], row[1]) not in seen]
    forms |= _shared_by_many(found, owner)
    return sorted(row for row in found if row[0] not in forms and row[1] not in forms)


def rule_version() -> str:
    """Name the rule by which pictures are joined; groups that another rule found are found anew."""
    figures = [HASH_DISTANCE, CORRELATION, NEIGHBOURS, AGREEMENT, FLAT, MOST_PATIENTS]
    return fingerprint_of([DUPLICATES_VERSION, *figures])


def perceptual_hashes(thumbnails: Grey) -> npt.NDArray[np.uint64]:
    """Hash pictures so that similar ones differ in few bits.

    Parameters
    ----------
    thumbnails : ndarray of uint8, shape (n, 32, 32)
        Grey pictures.

    Returns
    -------
    ndarray of uint64, shape (n,)
        Whether each of the 63 lowest frequencies, the mean left out, is above their median.
    """
    waves = np.cos(np.pi / _SIDE * np.outer(np.arange(8), np.arange(_SIDE) + 0.5))  # of a cosine transform
    low = (waves @ thumbnails @ waves.T).reshape(len(thumbnails), 64)[:, 1:]  # without the mean
    signs = low > np.median(low, axis=1, keepdims=True)
    packed = np.packbits(np.pad(signs, ((0, 0), (0, 1))), axis=1)
    return packed.view(np.uint64)[:, 0]


def _thumbnails(images: Any) -> Grey:
    thumbnails = np.empty((len(images), _SIDE, _SIDE), dtype=np.uint8)
    for row, picture in enumerate(images):
        grey = Image.fromarray(picture.mean(axis=0).round().astype(np.uint8))
        thumbnails[row] = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX))
    return thumbnails


def _by_hash(
    thumbnails: Grey,
    hashes: npt.NDArray[np.uint64],
    owner: npt.NDArray[np.int64],
    usable: npt.NDArray[np.int64],
) -> tuple[list[Pair], set[int]]:
    """Return the confirmed pairs of different patients, and the forms and test charts."""
    flat = thumbnails.reshape(len(thumbnails), _SIDE * _SIDE)
    found: list[Pair] = []
    forms: set[int] = set()
    for start in range(0, len(usable), _ROWS):
        rows = usable[start : start + _ROWS]
        distance = np.bitwise_count(hashes[rows, None] ^ hashes[None, usable])  # (rows, usable)
        close = (distance <= HASH_DISTANCE) & (owner[rows, None] != owner[None, usable])
        for place in np.flatnonzero(close.any(axis=1)):
            row, candidates = int(rows[place]), usable[close[place]]
            partners = _confirmed(flat, row, candidates, owner)
            if partners is None:
                forms.add(row)
                continue
            bits = np.bitwise_count(hashes[row] ^ hashes[partners[0]])
            each = zip(partners[0].tolist(), bits.tolist(), partners[1].tolist(), strict=True)
            found += [
                (row, other, near, same, f"hash: {near} of 63 bits differ, correlation {same:.3f}")
                for other, near, same in each
                if row < other
            ]
    return found, forms


def _by_embedding(
    images: Any,
    hashes: npt.NDArray[np.uint64],
    owner: npt.NDArray[np.int64],
    usable: npt.NDArray[np.int64],
) -> list[Pair]:
    """Return the pairs of different patients that the embedding finds."""
    found: list[Pair] = []
    for copy in find_copies(grey_pictures(images)[usable], owner[usable]):
        first, second = int(usable[copy.first]), int(usable[copy.second])
        bits = int(np.bitwise_count(hashes[first] ^ hashes[second]))
        reason = f"embedding: {copy.how}, parts agree with {copy.agreement:.3f}"
        found.append((first, second, bits, copy.agreement, reason))
    return found


def _shared_by_many(pairs: list[Pair], owner: npt.NDArray[np.int64]) -> set[int]:
    """Return the pictures that resemble those of too many patients, and the pictures that resemble these.

    The second part because nobody is compared with all: of a form that was turned and cut differently for each
    patient, some pictures see fewer of the others.
    """
    partners: dict[int, set[int]] = {}
    for first, second, *_ in pairs:
        partners.setdefault(first, set()).add(int(owner[second]))
        partners.setdefault(second, set()).add(int(owner[first]))
    forms = {row for row, others in partners.items() if len(others) > MOST_PATIENTS}
    return forms.union(*({first, second} for first, second, *_ in pairs if first in forms or second in forms))


def _confirmed(
    flat: npt.NDArray[np.uint8], row: int, candidates: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
    """Return the candidates that correlate, and how much; None when they belong to too many patients."""
    others: list[npt.NDArray[np.int64]] = []
    values: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(candidates), _BLOCK):
        block = candidates[start : start + _BLOCK]
        block = block[_standardised(flat[block]) @ _standardised(flat[[row]])[0] >= _HOPELESS]
        correlation = _best_correlation(flat[row], flat[block])
        others.append(block[correlation >= CORRELATION])
        values.append(correlation[correlation >= CORRELATION])
        if len(np.unique(owner[np.concatenate(others)])) > MOST_PATIENTS:
            return None
    return np.concatenate(others), np.concatenate(values)


def _best_correlation(one: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the largest correlation of one thumbnail with each other one over small shifts, shape (k,)."""
    windows = [
        _standardised(_windows(rows).reshape(-1, (_SIDE - _SHIFT) ** 2)) for rows in (one[None], others)
    ]
    fits = windows[1] @ windows[0].T  # (k * 9, 9): every window of the others with every window of the one
    best: npt.NDArray[np.float32] = fits.reshape(len(others), (_SHIFT + 1) ** 4).max(axis=1)
    return best


def _windows(flat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the 9 windows of 30 × 30 pixels of each thumbnail, shape (k, 3, 3, 30, 30)."""
    size = _SIDE - _SHIFT
    square = flat.reshape(-1, _SIDE, _SIDE)
    return np.lib.stride_tricks.sliding_window_view(square, (size, size), axis=(1, 2))


def _standardised(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return rows of mean 0 and length 1, so that their products are correlations."""
    centred = rows.astype(np.float32) - rows.mean(axis=1, keepdims=True, dtype=np.float32)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = centred / np.maximum(length, 1e-6)  # a window may be of one single value
    return unit


def _joined(patients: set[str], pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    """Return patient → smallest patient that is reachable over the pairs (union-find)."""
    parent = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return {patient: root(patient) for patient in sorted(patients)}
