"""Rows of the instances table for tests of what is derived from them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from meta_dx.cohort.tables import frame_of
from meta_dx.dicom.frames import FRAME_FIELDS

_ROW: dict[str, Any] = {
    "batch": "b0001",
    "study": "2.25.1",
    "series": "2.25.11",
    "instance": "2.25.111",
    "patient": "PAAAAAAAAAAAAAAAA",
    "accession": None,
    "object": "0" * 64,
    "content": "1" * 64,
    "pixels": "2" * 64,
    "modality": "CR",
    "body_part": None,
    "laterality": None,
    "view": None,
    "manufacturer": None,
    "model": None,
    "sop_class": "1.2.840.10008.5.1.4.1.1.1",
    "transfer_syntax": "1.2.840.10008.1.2.1",
    "photometric": "MONOCHROME2",
    "rows": 4,
    "columns": 4,
    "frames": 1,
    "samples": 1,
    "bits_stored": 8,
    "rescale_slope": 1.0,
    "rescale_intercept": 0.0,
    "sex": None,
    "age_years": float("nan"),
    "study_date": None,
    "image_type": None,
    "instance_number": 1,
    "position": float("nan"),
    "pixel_min": 0.0,
    "pixel_max": 255.0,
    "pixel_std": 1.0,
    **dict.fromkeys(FRAME_FIELDS, float("nan")),
    "spacing_between_slices": float("nan"),
    "gantry_tilt": float("nan"),
    "geometry_version": 1.0,
    "frame_of_reference": None,
    "frame_geometry": None,
    "stored_min": 0.0,
    "stored_max": 255.0,
}


def instance_row(**values: Any) -> dict[str, Any]:
    """Make one row of the instances table; only what is named differs from row to row."""
    unknown = values.keys() - _ROW.keys()
    if unknown:
        raise KeyError(f"no such column: {unknown}")
    return {**_ROW, **values}


def instances_frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """Make the table of some rows."""
    return frame_of("instances", [instance_row(**row) for row in rows])
