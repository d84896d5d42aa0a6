"""From pixels in physical units to the small 8-bit picture that a network sees.

Pure functions without state or torch: the same code prepares the archive for training and a new study for
prediction, and the options travel inside the bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_dx.errors import OptionChecks, refuse_values
from meta_dx.home import fingerprint_of

#: Raise when the same options give other pictures than before; part of every name under ``<home>/images``.
PREPROCESSING_VERSION = 1
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

_INTENSITIES = ("percentile", "window", "range", "dicom")

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageOptions:
    """Which images of a study count and how they are prepared; the section ``[images]`` of ``cohort.toml``.

    Parameters
    ----------
    size : int
        Height and width of the prepared picture, in pixels.
    dimensions : {2, 3}
        2: images are pictures; 3: images are volumes, made of the series whose geometry is sound
        (``docs/volumes.md``).
    depth : int
        Slices of the prepared volume; 0: as many as ``size``.
    tilt : {"refuse", "straighten"}
        What becomes of a series that was taken with a tilted gantry: it is left out, or its slices are moved back
        by interpolation.
    channels : int
        1 (grey; colour becomes luminance) or 3 (colour; grey is copied).
    fit : {"crop", "pad", "stretch"}
        How a picture that is not square becomes square: the middle is cut out, the longer side fits and the
        rest is black, or it is stretched. Volumes are measured in mm: only ``stretch`` leaves the voxels of the
        result of unequal sides.
    intensity : {"percentile", "window", "range", "dicom"}
        What is black and what is white: two percentiles of the picture, a fixed window in physical units, the
        picture's smallest and largest value, or the window or VOI LUT that the object itself names (percentiles
        where it names none; not for volumes).
    low : float
        Percentile that becomes black (``intensity = "percentile"``).
    high : float
        Percentile that becomes white.
    window_center : float or None
        Middle of the window, in physical units such as Hounsfield units (``intensity = "window"``).
    window_width : float or None
        Width of the window.
    modalities : tuple of str
        Only images of these modalities count; empty: all.
    views : tuple of str
        Only images with these view positions count; empty: all.
    body_parts : tuple of str
        Only images of these body parts count; empty: all.
    max_images : int
        At most this many images of a study count, spread evenly over its series and slices.
    """

    size: int = 64
    channels: int = 1
    fit: Literal["crop", "pad", "stretch"] = "crop"
    intensity: Literal["percentile", "window", "range", "dicom"] = "percentile"
    low: float = 0.5
    high: float = 99.5
    window_center: float | None = None
    window_width: float | None = None
    modalities: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    max_images: int = 4
    dimensions: Literal[2, 3] = 2
    depth: int = 0
    tilt: Literal["refuse", "straighten"] = "refuse"

    def __post_init__(self) -> None:
        windowed = self.window_center is not None and (self.window_width or 0) > 0
        checks: OptionChecks = [
            ("size", 8 <= self.size <= 2048, "a whole number from 8 to 2048"),
            ("channels", self.channels in (1, 3), "1 or 3"),
            ("dimensions", self.dimensions in (2, 3), "2 or 3"),
            ("depth", self.depth == 0 or 8 <= self.depth <= 2048, "0 or a whole number from 8 to 2048"),
            ("depth", self.depth == 0 or self.dimensions == 3, "0, unless dimensions is 3"),
            ("tilt", self.tilt in ("refuse", "straighten"), "refuse or straighten"),
            ("fit", self.fit in ("crop", "pad", "stretch"), "crop, pad or stretch"),
            ("intensity", self.intensity in _INTENSITIES, ", ".join(_INTENSITIES)),
            (
                "intensity",
                self.intensity != "dicom" or self.dimensions == 2,
                "not dicom when dimensions is 3",
            ),
            ("low", 0 <= self.low < self.high <= 100, "a percentile from 0 to 100 below high"),
            ("window_width", windowed or self.intensity != "window", "above 0, with a window_center"),
            ("window_width", self.window_width is None or self.window_width > 0, "above 0"),
            ("max_images", self.max_images >= 1, "a whole number from 1"),
        ]
        refuse_values(self, checks)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of a prepared picture, or (C, D, H, W) of a prepared volume."""
        deep = (self.depth or self.size,) if self.dimensions == 3 else ()
        return self.channels, *deep, self.size, self.size

    def picture_hash(self) -> str:
        """Name what decides how a single picture looks; which images count does not enter."""
        names = ("size", "channels", "fit", "intensity")
        ends = ("low", "high")
        used = {"percentile": ends, "dicom": ends, "window": ("window_center", "window_width"), "range": ()}
        deep = ("dimensions", "depth", "tilt") if self.dimensions == 3 else ()
        looks: dict[str, Any] = {name: getattr(self, name) for name in (*names, *used[self.intensity], *deep)}
        return fingerprint_of({"version": PREPROCESSING_VERSION, **looks})


def preprocess(pixels: npt.NDArray[np.float32], options: ImageOptions, *, shown: bool = False) -> Picture:
    """Prepare one picture.

    **Processing**, always in this order:

    * *Intensity*: black and white as ``options.intensity`` says, values between them linearly, values beyond
      them cut off; colour channels share one scale. Values that are not finite become black, and so does a
      picture whose black and white are the same value.
    * *Size*: made square as ``options.fit`` says, then resampled with a triangle filter that widens with the
      reduction, so that fine texture does not alias.
    * *Channels*: colour becomes luminance, or grey is copied.

    Parameters
    ----------
    pixels : ndarray of float32, shape (H, W) or (H, W, 3)
        Physical units, bright where the picture is bright
        (:func:`~meta_dx.dicom.pixels.physical_pixels`).
    options : ImageOptions
        How.
    shown : bool
        The pixels run from black 0 to white 255 already (:func:`~meta_dx.dicom.display.displayed_pixels`).

    Returns
    -------
    ndarray of uint8, shape (C, size, size)
    """
    scaled = pixels if shown else scaled_to_bytes(pixels.astype(np.float32, copy=False), options)
    if scaled.ndim == 3 and options.channels == 1:
        scaled = scaled @ _LUMINANCE
    planes = [scaled] if scaled.ndim == 2 else [scaled[..., channel] for channel in range(3)]
    resized = np.stack([_fitted(plane, options) for plane in planes])  # (1 or 3, size, size)
    bytes_ = np.rint(resized).clip(0, 255).astype(np.uint8)
    return np.repeat(bytes_, options.channels // len(bytes_), axis=0)


def scaled_to_bytes(
    pixels: npt.NDArray[np.float32], options: ImageOptions, sample: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Map black to 0 and white to 255, not yet rounded; ``sample`` are the values by which both are found."""
    finite = np.isfinite(pixels)
    all_finite = bool(finite.all())
    values = (pixels if all_finite else pixels[finite]) if sample is None else sample[np.isfinite(sample)]
    if options.intensity == "window":
        center, width = float(options.window_center or 0), float(options.window_width or 1)
        black, white = center - width / 2, center + width / 2
    elif not values.size:
        black = white = 0.0
    elif options.intensity in ("percentile", "dicom"):
        black, white = (float(v) for v in np.percentile(values, [options.low, options.high]))
    else:
        black, white = float(values.min()), float(values.max())
    if not white > black:
        return np.zeros_like(pixels)
    known = pixels if all_finite else np.where(finite, pixels, np.float32(black))
    return ((known - np.float32(black)) * np.float32(255 / (white - black))).clip(0, 255)


def _fitted(plane: npt.NDArray[np.float32], options: ImageOptions) -> npt.NDArray[np.float32]:
    """Return one plane as (size, size)."""
    height, width = plane.shape
    size = options.size
    if options.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _resized(plane[top : top + side, left : left + side], size, size)
    if options.fit == "stretch":
        return _resized(plane, size, size)
    longer = max(height, width)
    small = _resized(plane, max(1, round(height * size / longer)), max(1, round(width * size / longer)))
    padded = np.zeros((size, size), dtype=np.float32)
    top, left = (size - small.shape[0]) // 2, (size - small.shape[1]) // 2
    padded[top : top + small.shape[0], left : left + small.shape[1]] = small
    return padded


def _resized(plane: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(np.ascontiguousarray(plane))  # mode F: no rounding before the end
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
