"""From where slices lie to stacks of parallel, evenly spaced slices, or to the reason why they are none.

Pure numpy on a few numbers a slice; pixels are never touched. Every slice given ends in exactly one
:class:`Stack` or one :class:`LeftOut`, and the order in which slices come changes nothing, not even a bit:
they are put into the order of their names first. ``docs/volumes.md`` explains rules and codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from meta_dx.dicom.volume_reasons import VolumeReason

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: Two slices lay no gap open that could be compared with another.
FEWEST_SLICES = 3
#: Largest difference of a direction cosine. Over half a slice of 500 mm this moves a pixel by a quarter of a
#: millimetre, less than a pixel; scanners write six digits and more, so rounding is far below it.
ORIENTATION_TOLERANCE = 1e-3
#: Largest relative difference of the pixel spacing: half a pixel over 512.
PIXEL_SPACING_TOLERANCE = 1e-3
#: Largest distance of a slice from its place on an even grid, in parts of the spacing: what linear interpolation
#: then mixes in wrongly of the neighbour is at most a twentieth.
SPACING_TOLERANCE = 0.05
#: Positions are often written with one digit. What rounding a slice and the ends of the stack can do (mm) is allowed
#: up to a fifth of the spacing.
ROUNDING = 0.101
#: Slices nearer than this (mm), and nearer than a tenth of the largest gap, lie at the same position.
SAME_POSITION = 0.01
#: Largest sideways distance from the line along the normal, in pixels: below it every pixel is where it seems.
SIDEWAYS_TOLERANCE = 0.5

#: What may tell apart slices that lie at the same position, in the order in which it is tried.
PHASES = (
    "stack",
    "acquisition_number",
    "temporal_position",
    "echo_number",
    "echo_time",
    "b_value",
    "trigger_time",
    "image_type",
)
#: Slices of one image may be excited in turns, several at a time: their trigger times alternate, and mean nothing.
_OF_ONE_IMAGE = "trigger_time"

#: Faults that may come from several acquisitions in one series.
_SEPARABLE = frozenset(
    {
        VolumeReason.DUPLICATE_POSITION,
        VolumeReason.SCATTERED_POSITIONS,
        VolumeReason.GAP,
        VolumeReason.IRREGULAR_SPACING,
        VolumeReason.MIXED_SIZE,
        VolumeReason.MIXED_ORIENTATION,
        VolumeReason.MIXED_PIXEL_SPACING,
        VolumeReason.MIXED_FRAME_OF_REFERENCE,
        VolumeReason.MIXED_RESCALE,
    }
)


@dataclass(frozen=True)
class Frames:
    """Where n frames of one series lie, LPS in mm; NaN where a file does not say.

    Parameters
    ----------
    name : ndarray of str, shape (n,)
        Tells the frames apart; decides nothing but the order of sums.
    position : ndarray of float64, shape (n, 3)
        Centre of the first pixel (ImagePositionPatient).
    across, down : ndarray of float64, shape (n, 3)
        Directions of a row, towards higher columns, and of a column, towards higher rows
        (ImageOrientationPatient).
    spacing : ndarray of float64, shape (n, 2)
        Distance of rows and of columns in mm (PixelSpacing).
    size : ndarray of int64, shape (n, 2)
        Rows and columns.
    frame_of_reference : ndarray of str, shape (n,)
        Empty where there is none.
    left_out : ndarray of str, shape (n,)
        A reason known beforehand (:class:`VolumeReason`: ``localiser``, ``colour``, ``not_recorded``), else empty.
    phases : mapping of str to ndarray of float64, shape (n,)
        Numbers by which acquisitions may be told apart; keys among :data:`PHASES`.
    unscaled : ndarray of bool, shape (n,)
        True: a CT slice whose stored values would be Hounsfield units as they are, for want of a rescale perhaps.
    """

    name: npt.NDArray[np.str_]
    position: Floats
    across: Floats
    down: Floats
    spacing: Floats
    size: Rows
    frame_of_reference: npt.NDArray[np.str_]
    left_out: npt.NDArray[np.str_]
    phases: Mapping[str, Floats]
    unscaled: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class Stack:
    """Parallel, evenly spaced slices.

    Parameters
    ----------
    rows : ndarray of int64, shape (S,)
        Which frames, in the order of their positions along the normal (across × down).
    affine : ndarray of float64, shape (4, 4)
        From indices (slice, row, column, 1) of voxel centres to LPS in mm.
    shape : tuple of int
        Slices, rows, columns.
    tilt : float
        Angle in degrees between the normal and the way from slice to slice; not 0 only where tilt was allowed.
        The affine is then sheared.
    phase : str
        What separated these slices from others at the same positions, such as ``"acquisition_number 2"``.
    """

    rows: Rows
    affine: Floats
    shape: tuple[int, int, int]
    tilt: float = 0.0
    phase: str = ""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm of slices (along the normal), of rows and of columns."""
        down, across = (float(np.linalg.norm(self.affine[:3, axis])) for axis in (1, 2))
        normal = np.cross(self.affine[:3, 2] / across, self.affine[:3, 1] / down)
        return float(self.affine[:3, 0] @ normal), down, across


@dataclass(frozen=True)
class LeftOut:
    """Frames that are no volume.

    Parameters
    ----------
    rows : ndarray of int64
        Which.
    reason : VolumeReason
        Why.
    detail : str
        Which fault, and where in mm along the normal.
    phase : str
        As in :class:`Stack`.
    """

    rows: Rows
    reason: VolumeReason
    detail: str = ""
    phase: str = ""


class _FaultError(Exception):
    def __init__(self, reason: VolumeReason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def arrange(frames: Frames, *, allow_tilt: bool = False) -> tuple[Stack | LeftOut, ...]:
    """Sort the frames of one series into stacks, and name the fault of the others.

    Parameters
    ----------
    frames : Frames
        All frames of the series, in any order.
    allow_tilt : bool
        Make a stack with a sheared affine of slices that are shifted evenly; else their reason is
        ``gantry_tilt``.

    Returns
    -------
    tuple of Stack and LeftOut
        Every frame is in exactly one of them. Stacks first, in the order of their phase.
    """
    order = np.argsort(frames.name, kind="stable")
    known = np.array([_known_reason(frames, row) for row in order], dtype=object)
    found: list[Stack | LeftOut] = [
        LeftOut(order[known == reason], VolumeReason(reason)) for reason in sorted({*known} - {""})
    ]
    rows = order[known == ""]
    if len(rows):
        found += _arranged(frames, rows, allow_tilt)
    return tuple(sorted(found, key=lambda one: isinstance(one, LeftOut)))


def _known_reason(frames: Frames, row: int) -> str:
    """Return why a frame belongs to no volume whatever the others are."""
    if frames.left_out[row]:
        return str(frames.left_out[row])
    place = (frames.position[row], frames.across[row], frames.down[row])
    if not all(np.isfinite(part).all() for part in place):
        return VolumeReason.NO_GEOMETRY
    if not (np.isfinite(frames.spacing[row]).all() and (frames.spacing[row] > 0).all()):
        return VolumeReason.NO_PIXEL_SPACING
    axes = np.stack(place[1:])
    if np.abs(axes @ axes.T - np.eye(2)).max() > ORIENTATION_TOLERANCE:
        return VolumeReason.IMPOSSIBLE_ORIENTATION
    return ""


def _arranged(frames: Frames, rows: Rows, allow_tilt: bool) -> list[Stack | LeftOut]:
    whole = _stack_or_reason(frames, rows, allow_tilt)
    if isinstance(whole, Stack):
        return _disentangled(frames, whole, allow_tilt)
    if whole.reason not in _SEPARABLE:
        return [whole]
    best: list[Stack | LeftOut] = []
    for parts in _separations(frames, rows, allow_tilt):
        if all(_is_stack(part) for part in parts):
            return parts
        stacked = sum(len(part.rows) for part in parts if _is_stack(part))
        if not best and whole.reason == VolumeReason.DUPLICATE_POSITION and 2 * stacked > len(rows):
            best = parts  # an acquisition that was broken off shall not take the complete ones with it
    return best or [whole]


def _disentangled(frames: Frames, whole: Stack, allow_tilt: bool) -> list[Stack | LeftOut]:
    """Separate acquisitions whose slices lie evenly between one another: they look like one stack and are none."""
    for parts in _separations(frames, np.sort(whole.rows), allow_tilt, at_most=1):
        apart = [np.flatnonzero(np.isin(whole.rows, part.rows)) for part in parts]
        mixed = any(np.ptp(places) >= len(places) for places in apart)
        if mixed and all(isinstance(part, Stack) for part in parts) and _OF_ONE_IMAGE not in parts[0].phase:
            return parts
    return [whole]


def _is_stack(part: Stack | LeftOut) -> bool:
    """Tell whether a part is one acquisition: also a tilted one is."""
    return isinstance(part, Stack) or part.reason == VolumeReason.GANTRY_TILT


def _separations(
    frames: Frames, rows: Rows, allow_tilt: bool, at_most: int = 2
) -> Iterator[list[Stack | LeftOut]]:
    """Yield the ways to separate frames by one attribute, then by two, if no position is left taken twice."""
    values = {
        name: np.nan_to_num(frames.phases[name][rows], nan=-1.0) for name in PHASES if name in frames.phases
    }
    differing = [name for name, value in values.items() if len(np.unique(value)) > 1]
    for names in (names for size in range(1, at_most + 1) for names in combinations(differing, size)):
        keys, group = np.unique(
            np.stack([values[name] for name in names], axis=1), axis=0, return_inverse=True
        )
        if FEWEST_SLICES * len(keys) > 2 * len(rows):  # then not even half of the slices can be in stacks
            continue
        parts = []
        for number, key in enumerate(keys):
            phase = ", ".join(f"{name} {value:g}" for name, value in zip(names, key, strict=True))
            part = _stack_or_reason(frames, rows[group.ravel() == number], allow_tilt)
            parts.append(replace(part, phase=phase))
        taken_twice = VolumeReason.DUPLICATE_POSITION
        if not any(isinstance(part, LeftOut) and part.reason == taken_twice for part in parts):
            yield parts


def _stack_or_reason(frames: Frames, rows: Rows, allow_tilt: bool) -> Stack | LeftOut:
    try:
        return _checked_stack(frames, rows, allow_tilt)
    except _FaultError as fault:
        return LeftOut(rows, fault.reason, fault.detail)


def _checked_stack(frames: Frames, rows: Rows, allow_tilt: bool) -> Stack:
    _require_likeness(frames, rows)
    across, down = _axes(frames, rows)
    normal = np.cross(across, down)
    along = frames.position[rows] @ normal
    order = np.argsort(along, kind="stable")
    rows, along = rows[order], along[order]
    _require_distinct(along)
    step = (frames.position[rows[-1]] - frames.position[rows[0]]) / (len(rows) - 1)
    tilt = _tilt(frames, rows, along, np.stack([down, across]))
    spaced = _spacing_fault(along)
    if tilt and not allow_tilt:
        also = f"; also: {spaced.detail}" if spaced else ""
        raise _FaultError(VolumeReason.GANTRY_TILT, f"{tilt:.1f} degrees{also}")
    if spaced:
        raise spaced
    bare = int(frames.unscaled[rows].sum())
    if 0 < bare < len(rows):
        raise _FaultError(VolumeReason.MIXED_RESCALE, f"{bare} of {len(rows)} slices have none")
    affine = np.eye(4)
    spacing = frames.spacing[rows[0]]
    affine[:3] = np.stack([step, down * spacing[0], across * spacing[1], frames.position[rows[0]]], axis=1)
    height, width = (int(side) for side in frames.size[rows[0]])
    return Stack(rows, affine, (len(rows), height, width), tilt)


def _require_likeness(frames: Frames, rows: Rows) -> None:
    """Refuse slices too few or too different to be stacked, whatever their positions."""
    if len(rows) < FEWEST_SLICES:
        raise _FaultError(VolumeReason.TOO_FEW_SLICES, f"{len(rows)}")
    worlds = len(np.unique(frames.frame_of_reference[rows]))
    if worlds > 1:
        raise _FaultError(VolumeReason.MIXED_FRAME_OF_REFERENCE, f"{worlds} of them")
    sizes, counts = np.unique(frames.size[rows], axis=0, return_counts=True)
    if len(sizes) > 1:
        parts = (f"{n} of {h} x {w}" for (h, w), n in zip(sizes.tolist(), counts.tolist(), strict=True))
        raise _FaultError(VolumeReason.MIXED_SIZE, ", ".join(parts))
    axes = np.concatenate([frames.across[rows], frames.down[rows]], axis=1)
    apart = np.abs(axes - axes[0]).max(axis=1)
    if apart.max() > ORIENTATION_TOLERANCE:
        turned = int((apart > ORIENTATION_TOLERANCE).sum())
        fewer = min(turned, len(rows) - turned)
        raise _FaultError(VolumeReason.MIXED_ORIENTATION, f"{fewer} of {len(rows)} slices lie otherwise")
    spacing = frames.spacing[rows]
    if (np.abs(spacing / spacing[0] - 1) > PIXEL_SPACING_TOLERANCE).any():
        low, high = spacing.min(), spacing.max()
        raise _FaultError(VolumeReason.MIXED_PIXEL_SPACING, f"from {low:.4g} to {high:.4g} mm")


def _axes(frames: Frames, rows: Rows) -> tuple[Floats, Floats]:
    """Return the directions of a row and of a column, exactly at right angles and of length 1."""
    across = frames.across[rows[0]] / np.linalg.norm(frames.across[rows[0]])
    down = frames.down[rows[0]] - (frames.down[rows[0]] @ across) * across
    return across, down / np.linalg.norm(down)


def _require_distinct(along: Floats) -> None:
    gaps = np.diff(along)
    same = gaps <= min(SAME_POSITION, 0.1 * gaps.max()) if gaps.max() > 0 else np.ones(len(gaps), dtype=bool)
    if same.any():
        first = along[np.flatnonzero(same)[0]]
        raise _FaultError(
            VolumeReason.DUPLICATE_POSITION, f"{int(same.sum())} slices too many, the first at {first:.2f} mm"
        )


def _tilt(frames: Frames, rows: Rows, along: Floats, plane: Floats) -> float:
    """Return the angle of an even sideways shift in degrees, 0 where there is none to speak of.

    Raises
    ------
    _FaultError
        ``scattered_positions`` when the shift is not even.
    """
    sideways = (frames.position[rows] - frames.position[rows[0]]) @ plane.T  # (S, 2): down, across
    pixels = frames.spacing[rows[0]]
    if (np.abs(sideways / pixels) <= SIDEWAYS_TOLERANCE).all():
        return 0.0
    slope = (sideways[-1] - sideways[0]) / (along[-1] - along[0])
    rest = sideways - np.outer(along - along[0], slope)
    if (np.abs(rest / pixels) > SIDEWAYS_TOLERANCE).any():
        raise _FaultError(
            VolumeReason.SCATTERED_POSITIONS, f"up to {np.abs(rest).max():.2f} mm beside the line"
        )
    return float(np.degrees(np.arctan(np.linalg.norm(slope))))


def _spacing_fault(along: Floats) -> _FaultError | None:
    """Return what is wrong with the distances of slices, and where."""
    even = (along[-1] - along[0]) / (len(along) - 1)
    allowed = max(SPACING_TOLERANCE * even, min(ROUNDING, 0.2 * even))
    if np.abs(along - (along[0] + even * np.arange(len(along)))).max() <= allowed:
        return None
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    times = np.rint(gaps / usual)
    allowed = max(SPACING_TOLERANCE * usual, min(ROUNDING, 0.2 * usual))
    if (np.abs(gaps - times * usual) <= 2 * allowed).all() and (times >= 1).all() and times.max() >= 2:
        place = int(np.argmax(times >= 2))
        detail = (
            f"{int((times - 1).sum())} missing, the first after {along[place]:.2f} mm, "
            f"where {gaps[place]:.2f} mm follow instead of {usual:.2f}"
        )
        return _FaultError(VolumeReason.GAP, detail)
    place = int(np.argmax(np.abs(gaps - usual)))
    detail = (
        f"from {gaps.min():.2f} to {gaps.max():.2f} mm, usually {usual:.2f}; "
        f"most unusual after {along[place]:.2f} mm"
    )
    return _FaultError(VolumeReason.IRREGULAR_SPACING, detail)
