"""The shortcut baseline: how far one gets without looking at the disease.

It sees only the outer frame of the preprocessed picture (markers, collimation, background, skin beside the
lesion) and what the header says about the acquisition (device, matrix size, bit depth, …), never the middle
of the picture. What it scores above chance a model can score too, without having learnt anything about the
disease. Sex and age are not used: they are clinical facts that a reader may use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.examples import Examples

Floats = npt.NDArray[np.float64]

#: Columns of the instances table that describe the acquisition in words.
WORDS = (
    "modality",
    "body_part",
    "laterality",
    "view",
    "manufacturer",
    "model",
    "sop_class",
    "transfer_syntax",
    "photometric",
)
#: Columns that describe it in numbers.
NUMBERS = (
    "rows",
    "columns",
    "frames",
    "samples",
    "bits_stored",
    "rescale_slope",
    "rescale_intercept",
)
_FRAME = 0.08  # share of the side that counts as border
_SEGMENTS = 8  # pieces of each side
_MOST_LEVELS = 30  # rarer words of a column count as one
_MOST_DIMENSIONS = 32
_CHUNK = 512  # images held in memory


def shortcut_features(
    examples: Examples, images: Any, headers: pd.DataFrame | None = None
) -> npt.NDArray[np.float32]:
    """Describe each example by border and header alone.

    Parameters
    ----------
    examples : Examples
        The studies; ``images`` of each are rows of the two other arguments.
    images : array-like of uint8, shape (n, C, *spatial)
        Preprocessed pictures, memory-mapped or not; of volumes, the border of their mean slice is described.
    headers : DataFrame, n rows, optional
        Rows of the instances table, in the order of ``images``; columns that are missing are not used.

    Returns
    -------
    ndarray of float32, shape (examples, d), d <= 32
        Standardised, the leading principal components, at unit scale for
        :func:`~meta_dx.evaluation.logistic.logistic_probabilities`. No label is used.
    """
    used = np.unique(np.concatenate(examples.images))
    parts = [_border(images, used)]
    if headers is not None:
        if len(headers) != len(images):
            raise ValueError(f"headers have {len(headers)} rows, images {len(images)}")
        parts.append(_header(headers.iloc[used]))
    of_image = np.concatenate(parts, axis=1)  # (used, d)
    at = {int(row): i for i, row in enumerate(used)}
    of_study = np.stack([of_image[[at[int(row)] for row in rows]].mean(0) for rows in examples.images])
    return _reduced(of_study)


def _border(images: Any, rows: npt.NDArray[np.int64]) -> Floats:
    """Mean of each piece of the frame and contrast of each side, shape (rows, C * 4 * (pieces + 1))."""
    found = []
    for start in range(0, len(rows), _CHUNK):
        x = np.asarray(images[rows[start : start + _CHUNK]], dtype=np.float32) / 255.0
        x = x.mean(axis=2) if x.ndim == 5 else x  # (B, C, H, W)
        width = max(1, round(_FRAME * min(x.shape[2:])))
        sides = (
            x[:, :, :width].mean(2),
            x[:, :, -width:].mean(2),
            x[:, :, :, :width].mean(3),
            x[:, :, :, -width:].mean(3),
        )  # each (B, C, length of the side)
        pieces = [
            piece.mean(2)
            for side in sides
            for piece in np.array_split(side, min(_SEGMENTS, side.shape[2]), 2)
        ]
        found.append(np.concatenate([*pieces, *(side.std(2) for side in sides)], axis=1))
    return np.concatenate(found).astype(np.float64)


def _header(headers: pd.DataFrame) -> Floats:
    """Words as one-hot columns, numbers on a logarithmic scale; a missing entry is a level of its own."""
    columns: list[Floats] = []
    for name in [word for word in WORDS if word in headers]:
        words = headers[name].astype("object").where(headers[name].notna(), "").astype(str)
        levels = words.value_counts().sort_index(kind="stable").nlargest(_MOST_LEVELS).index
        columns.append((words.to_numpy()[:, None] == levels.to_numpy()[None]).astype(np.float64))
    for name in [number for number in NUMBERS if number in headers]:
        value = pd.to_numeric(headers[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        missing = ~np.isfinite(value)
        value = np.where(missing, 0.0, value)
        columns.append(np.stack([np.sign(value) * np.log1p(np.abs(value)), missing], axis=1))
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(headers), 0))


def _reduced(x: Floats) -> npt.NDArray[np.float32]:
    """Standardise, drop what never varies, and keep the leading principal components."""
    spread = x.std(0)
    varies = spread > 1e-9
    if not varies.any():
        return np.zeros((len(x), 1), dtype=np.float32)
    # A level that occurs once in a thousand would otherwise count thirty standard deviations.
    z = np.clip((x[:, varies] - x[:, varies].mean(0)) / spread[varies], -5.0, 5.0)
    _, vectors = np.linalg.eigh(z.T @ z / len(z))
    axes = vectors[:, ::-1][:, :_MOST_DIMENSIONS]
    # One common factor: directions keep their weight, and the mean square of a coordinate is 1.
    scores = z @ axes
    return np.asarray(scores / np.sqrt(np.mean(scores**2)), dtype=np.float32)
