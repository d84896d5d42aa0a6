"""What a header says about where each frame lies, classic or enhanced, as numbers for the catalog.

One frame is one row of :data:`FRAME_FIELDS`. The catalog keeps the first frame's numbers as columns of the
instance, and those of all frames of a multi-frame object in one list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from meta_dx.dicom.identity import clean
from meta_dx.dicom.pixels import frame_count

Floats = npt.NDArray[np.float64]

#: Column ``geometry_version``: NaN in batches that are older than these columns. Raise when other numbers are read.
GEOMETRY_VERSION = 1
#: Frames of an object up to which the numbers of each are kept: a file of a few hundred bytes may name millions.
#: Enhanced series of time or diffusion have some thousands.
MOST_FRAMES = 4096
#: Numbers of a frame, in this order; LPS, mm, ms, s/mm². ``across`` is the direction of a row, ``down`` that of a
#: column; ``spacing_down`` is the distance of rows. NaN where the file does not say.
FRAME_FIELDS = (
    "position_x",
    "position_y",
    "position_z",
    "across_x",
    "across_y",
    "across_z",
    "down_x",
    "down_y",
    "down_z",
    "spacing_down",
    "spacing_across",
    "slice_thickness",
    "acquisition_number",
    "temporal_position",
    "echo_number",
    "echo_time",
    "b_value",
    "trigger_time",
    "stack",
)

_PLACES = (("PlanePositionSequence", "ImagePositionPatient", 3),)
_AXES = (("PlaneOrientationSequence", "ImageOrientationPatient", 6),)
_SPACING = (("PixelMeasuresSequence", "PixelSpacing", 2),)
#: Where each number stands: (sequence of the functional groups, keyword), the first that is there counts.
_NUMBERS: dict[str, tuple[tuple[str, str], ...]] = {
    "slice_thickness": (("PixelMeasuresSequence", "SliceThickness"),),
    "acquisition_number": (
        ("FrameContentSequence", "FrameAcquisitionNumber"),
        ("FrameContentSequence", "AcquisitionNumber"),
    ),
    "temporal_position": (
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("FrameContentSequence", "TemporalPositionIdentifier"),
    ),
    "echo_number": (("MREchoSequence", "EchoNumbers"),),
    "echo_time": (("MREchoSequence", "EffectiveEchoTime"), ("MREchoSequence", "EchoTime")),
    "b_value": (("MRDiffusionSequence", "DiffusionBValue"),),
    "trigger_time": (
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        ("CardiacSynchronizationSequence", "TriggerTime"),
    ),
}


def frame_fields(dataset: Dataset) -> Floats:
    """Read the numbers of every frame.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        An instance, classic or with functional groups.

    Returns
    -------
    ndarray of float64, shape (frames, len(FRAME_FIELDS))
        A number that is absent, empty, no number or infinite is NaN. An object with many frames and one position
        for all has that position in its first frame only: the others are not known to lie anywhere. The same
        holds for an object of more than :data:`MOST_FRAMES` frames.
    """
    fields = np.full((frame_count(dataset), len(FRAME_FIELDS)), np.nan)
    kept = _kept_fields(dataset)
    fields[: len(kept)] = kept
    return fields


def _kept_fields(dataset: Dataset) -> Floats:
    """Return the numbers of all frames, or of the first one where there are too many."""
    count = frame_count(dataset)
    count = count if count <= MOST_FRAMES else 1
    fields = np.full((count, len(FRAME_FIELDS)), np.nan)
    stacks: dict[str, int] = {}
    for frame in range(count):
        groups = _functional_groups(dataset, frame)
        own = frame == 0 or bool(groups)  # what stands at the top belongs to a frame only if there is one
        place = [dataset] if own else []
        vectors = [_vector(groups, place, *one) for one in (*_PLACES, *_AXES, *_SPACING)]
        numbers = [_number(groups, place, options) for options in _NUMBERS.values()]
        fields[frame] = [*np.concatenate(vectors), *numbers, _stack(groups, stacks)]
    return fields


def geometry_columns(dataset: Dataset) -> dict[str, Any]:
    """Return the columns of the instances table that say where an instance lies.

    Returns
    -------
    dict
        :data:`FRAME_FIELDS` of the first frame, ``frame_geometry`` (the fields of all frames, row after row, for
        objects with several frames, up to :data:`MOST_FRAMES`, of which a later one lies somewhere; else None),
        ``frame_of_reference`` (a UID, to be replaced by its surrogate; None where there is none),
        ``spacing_between_slices`` and ``gantry_tilt`` (NaN where unknown).
    """
    fields = _kept_fields(dataset)
    placed = bool(np.isfinite(fields[1:, : len("xyz")]).all(axis=1).any())
    groups = _functional_groups(dataset, 0)
    between = (("PixelMeasuresSequence", "SpacingBetweenSlices"),)
    tilt = (("CTAcquisitionDetailsSequence", "GantryDetectorTilt"),)
    return {
        **dict(zip(FRAME_FIELDS, fields[0].tolist(), strict=True)),
        "frame_geometry": fields.ravel().tolist() if placed else None,
        "geometry_version": float(GEOMETRY_VERSION),
        "frame_of_reference": clean(str(dataset.get("FrameOfReferenceUID") or "")) or None,
        "spacing_between_slices": _number(groups, [dataset], between),
        "gantry_tilt": _number(groups, [dataset], tilt),
    }


def _functional_groups(dataset: Dataset, frame: int) -> list[Dataset]:
    """Return the groups of a frame, its own before the shared ones."""
    groups = []
    for keyword, place in (
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        items = dataset.get(keyword)
        if items and place < len(items):
            groups.append(items[place])
    return groups


def _items(groups: list[Dataset], sequence: str) -> Iterator[Dataset]:
    for group in groups:
        items = group.get(sequence)
        if items:
            yield items[0]


def _vector(groups: list[Dataset], top: list[Dataset], sequence: str, keyword: str, length: int) -> Floats:
    for place in [*_items(groups, sequence), *top]:
        try:
            values = np.array([float(value) for value in place.get(keyword) or ()])
        except (TypeError, ValueError):
            continue
        if len(values) == length and np.isfinite(values).all():
            return values
    return np.full(length, np.nan)


def _number(groups: list[Dataset], top: list[Dataset], options: tuple[tuple[str, str], ...]) -> float:
    for sequence, keyword in options:
        for place in [*_items(groups, sequence), *top]:
            try:
                found = place.get(keyword)
                if found is None:
                    continue
                value = float(found)
            except Exception:  # noqa: S112 - empty, text, several values: each raises something else
                continue
            if np.isfinite(value):
                return value
    return float("nan")


def _stack(groups: list[Dataset], known: dict[str, int]) -> float:
    for item in _items(groups, "FrameContentSequence"):
        name = clean(str(item.get("StackID") or ""))
        if name:
            return float(known.setdefault(name, len(known)))
    return float("nan")
