"""Volumes of the image store: which there are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.cohort.volumes import SeriesPart, series_parts
from meta_dx.dicom.geometry import Stack


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
