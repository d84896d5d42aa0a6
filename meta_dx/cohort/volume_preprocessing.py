"""From a volume in physical units to the small 8-bit volume that a network sees; a pure function, as for pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.preprocessing import ImageOptions, Picture, scaled_to_bytes
from meta_dx.dicom.volumes import Volume, canonical

_SAMPLE = 4_000_000  # voxels by which percentiles are found


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
