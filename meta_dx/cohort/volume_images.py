"""Volumes of the image store: which there are, and how one becomes the small 8-bit volume that a network sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydicom.dataset import Dataset

from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.preprocessing import ImageOptions, Picture, scaled_to_bytes
from meta_dx.cohort.volumes import SeriesPart, series_parts
from meta_dx.dicom.geometry import Stack
from meta_dx.dicom.rejections import RefusedError
from meta_dx.dicom.volumes import Volume, assemble, canonical, decoded_slices
from meta_dx.home import Home

_SAMPLE = 4_000_000  # voxels by which percentiles are found


def candidate_volumes(
    instances: pd.DataFrame, options: ImageOptions
) -> tuple[pd.DataFrame, dict[str, SeriesPart], dict[str, int]]:
    """Return one row per volume that could count.

    Parameters
    ----------
    instances : DataFrame
        Rows of the instances table.
    options : ImageOptions
        What becomes of tilted series.

    Returns
    -------
    rows : DataFrame
        The catalog's columns of each volume's middle slice and its ``frame``; ``object`` is the name of the volume,
        ``batch`` the batch that completed it.
    parts : dict of str to SeriesPart
        The slices of each, by its name.
    left_out : dict of str to int
        Series, or parts of one, that are no volume, by reason (:class:`~meta_dx.dicom.volume_reasons.VolumeReason`).
    """
    rows, parts, left_out = [], {}, Counter[str]()
    for one in series_parts(instances, allow_tilt=options.tilt == "straighten"):
        if not isinstance(one.part, Stack):
            left_out[one.part.reason.value] += 1
            continue
        middle = one.instances.iloc[len(one.instances) // 2].copy()
        middle["object"], middle["batch"] = one.name, one.instances["batch"].max()
        parts[one.name] = one
        rows.append(middle)
    empty = instances.iloc[:0].assign(frame=np.zeros(0, dtype=np.int64))
    table = pd.DataFrame(rows).reset_index(drop=True).astype(empty.dtypes) if rows else empty
    return table, parts, dict(left_out)


def render_volumes(home: Home, parts: Sequence[SeriesPart], options: ImageOptions) -> list[Picture | None]:
    """Prepare some volumes; None where the pixels of a slice cannot be read."""
    pictures: list[Picture | None] = []
    for one in parts:
        try:
            pictures.append(preprocess_volume(_assembled(ObjectStore(home), one), options))
        except (RefusedError, IndexError):
            pictures.append(None)
    return pictures


def _assembled(objects: ObjectStore, one: SeriesPart) -> Volume:
    if not isinstance(one.part, Stack):
        raise TypeError("only a stack becomes a volume")
    opened: Mapping[str, Dataset] = _Opened(objects)
    slices = one.instances[["object", "frame"]].itertuples(index=False, name=None)
    return assemble(one.part, decoded_slices((opened[name], int(frame)) for name, frame in slices))


class _Opened(dict[str, Dataset]):
    """The object that was read last: the frames of one follow one another."""

    def __init__(self, objects: ObjectStore) -> None:
        super().__init__()
        self._objects = objects

    def __missing__(self, name: str) -> Dataset:
        self.clear()
        self[name] = self._objects.read(name)
        return self[name]


def preprocess_volume(volume: Volume, options: ImageOptions) -> Picture:
    """Prepare one volume.

    **Processing**, always in this order:

    * *Orientation*: axes are exchanged and turned round until they run towards head, back and left, so that one
      patient looks the same however the slices were laid. Oblique volumes stay as oblique as they are.
    * *Intensity*: as for pictures (:func:`~meta_dx.cohort.preprocessing.preprocess`); percentiles are those of an
      even grid of at most four million voxels.
    * *Size*: in mm. ``crop`` cuts the largest box of the result's proportions out of the middle, ``pad`` surrounds
      the volume with black, both with cubic voxels; ``stretch`` fits each axis by itself. Resampled with a triangle
      filter that widens with the reduction, one axis after the other.

    Parameters
    ----------
    volume : Volume
        Physical units.
    options : ImageOptions
        How.

    Returns
    -------
    ndarray of uint8, shape (C, D, H, W)
    """
    laid = canonical(volume)
    step = max(1, int(np.ceil((laid.voxels.size / _SAMPLE) ** (1 / 3))))
    scaled = scaled_to_bytes(laid.voxels, options, laid.voxels[::step, ::step, ::step])
    target = np.array(options.shape[1:])
    extent = np.array(scaled.shape) * laid.spacing  # mm
    if options.fit == "stretch":
        side = extent / target
    else:
        side = np.full(3, (extent / target).min() if options.fit == "crop" else (extent / target).max())
    first = (extent - side * target) / 2  # where the result begins, mm from the edge of the volume
    for axis in np.argsort(target / np.array(scaled.shape), kind="stable"):  # the strongest reduction first
        spacing = laid.spacing[axis]
        weights = _weights(scaled.shape[axis], int(target[axis]), first[axis] / spacing, side[axis] / spacing)
        scaled = np.moveaxis(np.tensordot(weights, scaled, axes=(1, axis)), 0, axis)
    bytes_ = np.rint(scaled).clip(0, 255).astype(np.uint8)
    return np.repeat(bytes_[None], options.channels, axis=0)


def _weights(source: int, target: int, first: float, side: float) -> npt.NDArray[np.float32]:
    """Return what resamples a line, shape (target, source); rows whose middle lies outside are 0 (black).

    ``first`` and ``side`` are the beginning of the result and the side of one of its voxels, in source voxels.
    """
    middles = first + side * (np.arange(target) + 0.5)
    away = np.abs(np.arange(source) + 0.5 - middles[:, None])
    weights = np.maximum(0, 1 - away / max(side, 1.0))
    total = weights.sum(axis=1, keepdims=True)
    inside = ((middles >= 0) & (middles < source))[:, None]
    return np.where(inside, weights / np.where(total > 0, total, 1), 0).astype(np.float32)
