"""From decoded slices to a volume: one array in physical units with its place in the patient.

:func:`volumes_of` does everything for data sets in memory; the image store of a home takes the geometry from the
catalog instead and calls :func:`assemble` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from meta_dx.dicom.frames import FRAME_FIELDS, MOST_FRAMES, frame_fields
from meta_dx.dicom.geometry import PHASES, Floats, Frames, LeftOut, Stack, arrange
from meta_dx.dicom.header import modality_of, text
from meta_dx.dicom.pixels import (
    GREY,
    Array,
    decode,
    frame_count,
    is_blank,
    photometric_of,
    rescale_of,
    to_physical,
)
from meta_dx.dicom.volume_reasons import VolumeReason

Voxels = npt.NDArray[np.float32]

_EXACT = float(1 << 24)  # whole numbers up to here are exact in float32


@dataclass(frozen=True)
class DecodedSlice:
    """One slice as the decoder gave it.

    Parameters
    ----------
    stored : ndarray, shape (R, C)
        Stored values.
    dataset : pydicom.dataset.Dataset
        The instance that it is from: rescale, padding.
    frame : int
        Which frame of it.
    bits : int
        Bits stored.
    """

    stored: Array
    dataset: Dataset
    frame: int
    bits: int


@dataclass(frozen=True)
class Volume:
    """Voxels in physical units, and where they lie.

    Parameters
    ----------
    voxels : ndarray of float32, shape (S, R, C)
        Slices, rows, columns; Hounsfield units in CT, otherwise the maker's units.
    affine : ndarray of float64, shape (4, 4)
        From indices (slice, row, column, 1) of voxel centres to LPS in mm. With nibabel's RAS, the first two
        rows have the other sign.
    """

    voxels: Voxels
    affine: Floats

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm of slices, rows and columns."""
        slices, rows, columns = (float(np.linalg.norm(self.affine[:3, axis])) for axis in range(3))
        return slices, rows, columns


def volumes_of(datasets: Sequence[Dataset], *, allow_tilt: bool = False) -> list[Volume | LeftOut]:
    """Make volumes of the instances of one series.

    Parameters
    ----------
    datasets : sequence of pydicom.dataset.Dataset
        The instances, in any order.
    allow_tilt : bool
        Resample slices that are shifted evenly (gantry tilt) instead of refusing them.

    Returns
    -------
    list of Volume and LeftOut
        ``LeftOut.rows`` counts frames: those of the first data set, then those of the second …

    Raises
    ------
    RefusedError
        The pixels of a slice cannot be decoded.
    """
    places = _places(datasets)
    found: list[Volume | LeftOut] = []
    for part in arrange(frames_of(datasets), allow_tilt=allow_tilt):
        if isinstance(part, LeftOut):
            found.append(part)
        else:
            found.append(assemble(part, decoded_slices(places[row] for row in part.rows)))
    return found


def _places(datasets: Sequence[Dataset]) -> list[tuple[Dataset, int]]:
    return [(dataset, frame) for dataset in datasets for frame in range(frame_count(dataset))]


def frames_of(datasets: Sequence[Dataset]) -> Frames:
    """Read the geometry of all frames of the instances of one series."""
    fields = np.concatenate([np.zeros((0, len(FRAME_FIELDS))), *map(frame_fields, datasets)])
    counts = [frame_count(dataset) for dataset in datasets]
    types = [text(dataset, "ImageType").upper() for dataset in datasets]
    grey = [photometric_of(dataset) in GREY for dataset in datasets]
    return frames_from_fields(
        fields,
        name=np.repeat([text(dataset, "SOPInstanceUID") for dataset in datasets], counts),
        size=np.repeat([[int(d.Rows), int(d.Columns)] for d in datasets], counts, axis=0).reshape(-1, 2),
        frame_of_reference=np.repeat([text(d, "FrameOfReferenceUID") for d in datasets], counts),
        image_type=np.repeat(types, counts),
        grey=np.repeat(grey, counts),
        unscaled=np.array(
            [unscaled_ct(modality_of(d), *rescale_of(d, k)) for d, k in _places(datasets)], dtype=bool
        ),
    )


def unscaled_ct(
    modality: str | npt.NDArray[Any], slope: float | npt.NDArray[Any], intercept: float | npt.NDArray[Any]
) -> Any:
    """Tell of an image, or of each of many, whether it is CT with slope 1 and intercept 0: its rescale may be lost.

    Hounsfield units may be stored as they are; beside slices that have a rescale it is the mark of a loss. The
    catalog does not know more of an absent rescale than these two numbers, and with them batches of any age can tell.
    """
    return (modality == "CT") & (slope == 1) & (intercept == 0)


def frames_from_fields(
    fields: Floats,
    *,
    name: npt.NDArray[np.str_],
    size: npt.NDArray[np.int64],
    frame_of_reference: npt.NDArray[np.str_],
    image_type: npt.NDArray[np.str_],
    grey: npt.NDArray[np.bool_],
    recorded: npt.NDArray[np.bool_] | None = None,
    unscaled: npt.NDArray[np.bool_] | None = None,
) -> Frames:
    """Turn rows of numbers (:data:`~meta_dx.dicom.frames.FRAME_FIELDS`) and what stands beside them into frames.

    Parameters
    ----------
    fields : ndarray of float64, shape (n, len(FRAME_FIELDS))
        The frames of one series; those of one instance stand together, in their order.
    name : ndarray of str, shape (n,)
        The instance of each.
    size : ndarray of int64, shape (n, 2)
        Rows and columns.
    frame_of_reference, image_type : ndarray of str, shape (n,)
        Empty where unknown; the parts of ImageType are joined by a backslash.
    grey : ndarray of bool, shape (n,)
        False: palette or colour.
    recorded : ndarray of bool, shape (n,), optional
        False: the catalog is older than its columns of geometry.
    unscaled : ndarray of bool, shape (n,), optional
        As :func:`unscaled_ct` says.

    Returns
    -------
    Frames
    """
    column = {field: fields[:, place] for place, field in enumerate(FRAME_FIELDS)}
    first = np.r_[True, name[1:] != name[:-1]] if len(name) else np.zeros(0, dtype=bool)
    number = np.arange(len(name)) - np.maximum.accumulate(np.where(first, np.arange(len(name)), 0))
    left_out = np.full(len(name), "", dtype=object)
    left_out[~grey.astype(bool)] = VolumeReason.COLOUR.value
    left_out[[_is_localiser(text) for text in image_type]] = VolumeReason.LOCALISER.value
    left_out[np.isin(name, name[number >= MOST_FRAMES])] = VolumeReason.TOO_MANY_FRAMES.value
    if recorded is not None:
        left_out[~recorded] = VolumeReason.NOT_RECORDED.value
    phases = {phase: column[phase] for phase in PHASES if phase in column}
    phases["image_type"] = np.unique(image_type, return_inverse=True)[1].astype(np.float64)
    return Frames(
        name=np.array([f"{one} {n:06d}" for one, n in zip(name, number, strict=True)], dtype=str),
        position=_vectors(column, "position"),
        across=_vectors(column, "across"),
        down=_vectors(column, "down"),
        spacing=np.stack([column["spacing_down"], column["spacing_across"]], axis=1),
        size=size,
        frame_of_reference=frame_of_reference,
        left_out=left_out.astype(str),
        phases=phases,
        unscaled=np.zeros(len(name), dtype=bool) if unscaled is None else unscaled,
    )


def decoded_slices(places: Iterable[tuple[Dataset, int]]) -> Iterator[DecodedSlice]:
    """Decode frames one by one; all frames of an instance at once where they follow one another."""
    last: Dataset | None = None
    frames: Array | None = None
    for dataset, frame in places:
        if dataset is not last or frames is None:
            last, frames = dataset, decode(dataset).frames
        yield DecodedSlice(frames[frame], dataset, frame, int(dataset.BitsStored))


def assemble(stack: Stack, slices: Iterable[DecodedSlice]) -> Volume:
    """Put decoded slices into one array, each under its own rescale.

    Parameters
    ----------
    stack : Stack
        Where they lie.
    slices : iterable of DecodedSlice
        In the order of ``stack.rows``; one is held at a time.

    Returns
    -------
    Volume
        The same values, bit for bit, as :func:`meta_dx.dicom.pixels.physical_pixels` gives for each slice; a
        slice of padding alone becomes the smallest value of the others. Of a tilted stack the slices have been
        moved back by linear interpolation.
    """
    voxels = np.empty(stack.shape, dtype=np.float32)
    blank = np.zeros(len(voxels), dtype=bool)
    for number, (place, one) in enumerate(zip(voxels, slices, strict=True)):
        _fill(place, one)
        blank[number] = is_blank(one.stored, one.dataset)
    if blank.any() and not blank.all():
        voxels[blank] = min(float(slice_.min()) for slice_ in voxels[~blank])
    volume = Volume(voxels, stack.affine)
    return _straightened(volume) if stack.tilt else volume


def canonical(volume: Volume) -> Volume:
    """Turn a volume so that its axes run towards head, back and left (S, P, L), without interpolation.

    Returns
    -------
    Volume
        Views of the same voxels: however the slices were laid, one patient looks the same.
    """
    order, reverse = nearest_axes(volume.affine)
    turned = volume.voxels.transpose(order)
    affine = volume.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, list(order)]
    for axis, back in enumerate(reverse):
        if back:
            turned = np.flip(turned, axis)
            affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(turned, affine)


def nearest_axes(affine: npt.NDArray[Any]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return how to lay an array so that its axes run towards head, back and left of the patient (S, P, L).

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        From indices to LPS in mm.

    Returns
    -------
    order : tuple of int
        Which axis of the array becomes the first, second and third.
    reverse : tuple of bool
        Whether it then has to be turned round.
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)  # rows: L, P, S; columns: array axes
    left = np.abs(cosines)
    order = [0, 0, 0]
    for _ in range(3):  # the clearest pair first, so that no axis is taken twice
        world, axis = np.unravel_index(int(np.argmax(left)), (3, 3))
        order[2 - int(world)] = int(axis)
        left[world, :] = left[:, axis] = -1
    reverse = tuple(bool(cosines[2 - place, axis] < 0) for place, axis in enumerate(order))
    return (order[0], order[1], order[2]), (reverse[0], reverse[1], reverse[2])


def _vectors(column: dict[str, Floats], name: str) -> Floats:
    return np.stack([column[f"{name}_{axis}"] for axis in "xyz"], axis=1)


def _is_localiser(image_type: str) -> bool:
    return "LOCALIZER" in str(image_type).upper().split("\\")


def _fill(place: Voxels, one: DecodedSlice) -> None:
    """Write one slice in physical units; in one pass where float32 holds the result exactly."""
    dataset = one.dataset
    slope, intercept = rescale_of(dataset, one.frame)
    plain = (
        one.stored.dtype.itemsize <= 2
        and slope == int(slope)
        and intercept == int(intercept)
        and abs(slope) * (1 << 16) + abs(intercept) < _EXACT
        and photometric_of(dataset) == "MONOCHROME2"
        and not dataset.get("ModalityLUTSequence")
        and dataset.get("PixelPaddingValue") is None
    )
    if not plain:
        place[...] = to_physical(one.stored, dataset, one.frame, one.bits)
    elif slope == 1.0:
        np.add(one.stored, np.float32(intercept), out=place, dtype=np.float32)
    else:
        np.multiply(one.stored, np.float32(slope), out=place, dtype=np.float32)
        place += np.float32(intercept)


def _straightened(volume: Volume) -> Volume:
    """Move the slices of a tilted stack sideways, so that they lie one behind another; outside is the minimum."""
    from scipy.ndimage import shift

    affine = volume.affine.copy()
    down, across = affine[:3, 1], affine[:3, 2]
    pixels = np.array(
        [affine[:3, 0] @ axis / (axis @ axis) for axis in (down, across)]
    )  # each slice, down, across
    affine[:3, 0] -= pixels[0] * down + pixels[1] * across
    outside = float(volume.voxels.min())
    moved = np.empty_like(volume.voxels)
    for number, (target, source) in enumerate(zip(moved, volume.voxels, strict=True)):
        shift(source, pixels * number, output=target, order=1, mode="constant", cval=outside)
    return replace(volume, voxels=moved, affine=affine)
