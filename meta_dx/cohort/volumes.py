"""Which volumes the series of a home hold, and why the other frames belong to none.

Derived from the catalog's geometry columns alone: no object is opened. Every frame of every instance is counted in
exactly one row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.dicom.frames import FRAME_FIELDS
from meta_dx.dicom.geometry import Frames, LeftOut, Stack, arrange
from meta_dx.dicom.pixels import GREY
from meta_dx.dicom.volumes import frames_from_fields, unscaled_ct
from meta_dx.home import fingerprint_of

#: Raise when the same instances would make other volumes.
VOLUMES_VERSION = 2

_TEXTS = ["frame_of_reference", "image_type"]


@dataclass(frozen=True)
class SeriesPart:
    """A volume of a series, or frames of it that are none.

    Parameters
    ----------
    instances : DataFrame
        One row per frame, in the order of the slices: the catalog's columns of the instance, and ``frame``.
    part : Stack or LeftOut
        Where they lie, or the reason; its ``rows`` mean nothing any more.
    """

    instances: pd.DataFrame
    part: Stack | LeftOut

    @property
    def name(self) -> str:
        """A name for these slices in this order, as long as an object's."""
        slices = self.instances[["object", "frame"]].itertuples(index=False, name=None)
        return fingerprint_of([VOLUMES_VERSION, list(map(list, slices))], length=64)


def series_parts(instances: pd.DataFrame, *, allow_tilt: bool = False) -> list[SeriesPart]:
    """Sort the frames of all series into volumes and reasons.

    Parameters
    ----------
    instances : DataFrame
        Rows of the instances table.
    allow_tilt : bool
        Slices that are shifted evenly make a volume, which is to be straightened.

    Returns
    -------
    list of SeriesPart
        Sorted by series; within one, volumes first.
    """
    ordered = instances.sort_values(["series", "instance"], kind="stable")
    parts: list[SeriesPart] = []
    for _, series in ordered.groupby("series", sort=True):
        counts = series["frames"].fillna(1).clip(lower=1).to_numpy(np.int64)
        table = series.iloc[np.repeat(np.arange(len(series)), counts)].reset_index(drop=True)
        table["frame"] = np.concatenate([np.arange(count) for count in counts])
        found = arrange(_frames(series, table, counts), allow_tilt=allow_tilt)
        parts += [SeriesPart(table.iloc[part.rows].reset_index(drop=True), part) for part in found]
    return parts


def volumes_table(instances: pd.DataFrame, *, allow_tilt: bool = False) -> pd.DataFrame:
    """Say of every series which volumes it holds, and which of its frames are none and why.

    Parameters
    ----------
    instances : DataFrame
        Rows of the instances table.
    allow_tilt : bool
        As in :func:`series_parts`.

    Returns
    -------
    DataFrame
        One row for each volume and each reason of a series: ``study``, ``series``, ``patient``, ``modality``,
        ``volume`` (its name; None), ``reason`` (None for a volume), ``detail``, ``phase``, ``frames``, ``slices``,
        ``rows``, ``columns`` (0 where there is no volume), ``spacing_slices``, ``spacing_rows``,
        ``spacing_columns`` (mm), ``affine`` (16 numbers row by row, LPS in mm; None).
    """
    rows = [_row(one) for one in series_parts(instances, allow_tilt=allow_tilt)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def volume_counts(table: pd.DataFrame) -> dict[str, int]:
    """Count the volumes, and the frames that are in one or none, by reason.

    Returns
    -------
    dict of str to int
        ``volumes``, ``frames_in_volumes``, and the number of frames of every reason that occurs.
    """
    good = table["reason"].isna()
    counts: Counter[str] = Counter()
    for reason, frames in table.loc[~good, ["reason", "frames"]].itertuples(index=False, name=None):
        counts[reason] += frames
    return {
        "volumes": int(good.sum()),
        "frames_in_volumes": int(table.loc[good, "frames"].sum()),
        **dict(sorted(counts.items())),
    }


def _frames(series: pd.DataFrame, table: pd.DataFrame, counts: npt.NDArray[np.int64]) -> Frames:
    """Gather what the catalog knows of the frames of one series."""
    first = series[list(FRAME_FIELDS)].to_numpy(np.float64)
    fields = np.full((len(table), len(FRAME_FIELDS)), np.nan)
    starts = np.cumsum(counts) - counts
    fields[starts] = first
    for start, count, known in zip(starts, counts, series["frame_geometry"], strict=True):
        if known is not None and np.size(known) == count * len(FRAME_FIELDS):
            fields[start : start + count] = np.reshape(np.asarray(known, np.float64), (count, -1))
    reference, image_type = (table[name].fillna("").to_numpy(dtype=str) for name in _TEXTS)
    return frames_from_fields(
        fields,
        name=table["instance"].to_numpy(dtype=str),
        size=table[["rows", "columns"]].to_numpy(np.int64),
        frame_of_reference=reference,
        image_type=image_type,
        grey=table["photometric"].isin(GREY).to_numpy(),
        recorded=table["geometry_version"].notna().to_numpy(),
        unscaled=unscaled_ct(
            *(table[name].to_numpy() for name in ("modality", "rescale_slope", "rescale_intercept"))
        ),
    )


_COLUMNS = [
    "study",
    "series",
    "patient",
    "modality",
    "volume",
    "reason",
    "detail",
    "phase",
    "frames",
    "slices",
    "rows",
    "columns",
    "spacing_slices",
    "spacing_rows",
    "spacing_columns",
    "affine",
]


def _row(one: SeriesPart) -> dict[str, Any]:
    first, part = one.instances.iloc[0], one.part
    stack = part if isinstance(part, Stack) else None
    shape = stack.shape if stack else (0, 0, 0)
    spacing = stack.spacing if stack else (float("nan"),) * 3
    return {
        **{name: first[name] for name in ("study", "series", "patient", "modality")},
        "volume": one.name if stack else None,
        "reason": None if isinstance(part, Stack) else part.reason.value,
        "detail": "" if isinstance(part, Stack) else part.detail,
        "phase": part.phase,
        "frames": len(one.instances),
        **dict(zip(("slices", "rows", "columns"), shape, strict=True)),
        **dict(zip(("spacing_slices", "spacing_rows", "spacing_columns"), spacing, strict=True)),
        "affine": stack.affine.ravel().tolist() if stack else None,
    }
