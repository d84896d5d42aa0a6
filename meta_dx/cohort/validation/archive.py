"""Helper columns about what a real archive gets wrong in single headers: geometry, laterality, grey values.

Every column is missing where there is nothing to judge: batches that are older than the geometry columns, captures
and localisers, modalities of which nothing is expected.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from meta_dx.cohort.validation.columns import distinct, given, words

#: What each modality states about its images by the standard (type 1 and 2), as columns and what they are called.
_PLANE = {
    "position_x": "position",
    "across_x": "orientation",
    "spacing_down": "pixel spacing",
    "frame_of_reference": "frame of reference",
}
_VIEW = {"view": "view"}
EXPECTED: Mapping[str, Mapping[str, str]] = {
    "CT": _PLANE,
    "MR": _PLANE,
    "PT": _PLANE,
    "DX": _VIEW,
    "CR": _VIEW,
    "MG": _VIEW,
}
#: Distances of pixels in mm between which scanners of today lie, with room on both sides.
SPACINGS = {"CT": (0.05, 3.0), "MR": (0.05, 10.0), "PT": (0.5, 15.0), "NM": (0.5, 15.0)}
#: Thickest slice in mm; MR takes whole slabs, as of the biliary tract (MRCP).
THICKEST = {"CT": 25.0, "MR": 150.0, "PT": 25.0}
#: What is thinner is a lost unit or a placeholder.
THINNEST = 0.05
#: Parts of the body of which there are two.
PAIRED = frozenset(
    "BREAST SHOULDER CLAVICLE HUMERUS ELBOW FOREARM RADIUS ULNA WRIST HAND FINGER HIP FEMUR THIGH KNEE PATELLA LEG "
    "TIBIA FIBULA CALF ANKLE FOOT TOE CALCANEUS HEEL EYE ORBIT EAR KIDNEY SCAPULA ARM".split()
)
_SIDES = frozenset("RLUB")
_SIDE_IN_VIEW = r"^([LR])(?:CC|MLO|LM|ML|XCC|XCCL|XCCM)$"
_SIDE_IN_PART = r"\b(LEFT|RIGHT)\b|^([LR])\b"
#: A CT series that ends below this holds no tissue: its intercept was added twice.
LOWEST_TISSUE = 0
#: Beyond these, no scanner counts (the extended scale ends at 30,710 HU, padding at -10,000).
SCALE = (-10_240, 32_767)
_STACKED = ("CT", "MR", "PT")
_CAPTURE = r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.7(\.\d+)?$"


def image_columns(here: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the columns of the images of a batch."""
    return {
        "tags_of_modality": _expected(here),
        "pixel_spacing_place": _spacing(here),
        "slice_thickness_place": _thickness(here),
        **_lateralities(here),
    }


def series_columns(here: pd.DataFrame, series: pd.Series) -> dict[str, pd.Series]:
    """Return the columns of the series of a batch."""
    stacked = here[here["modality"].isin(_STACKED) & ~_localizer(here)]
    return {
        "frames_of_reference": distinct(stacked, "series", "frame_of_reference", series),
        "ct_range": series.map(_ct_ranges(here)).astype(object).where(lambda found: found.notna(), None),
    }


def falling_ages(everything: pd.DataFrame, studies: pd.DataFrame, steady: pd.Series) -> pd.Series:
    """Say of each study whether its patient was older at an earlier one.

    Parameters
    ----------
    everything : DataFrame
        Instances of all batches.
    studies : DataFrame
        Columns ``study`` and ``patient``.
    steady : Series of bool
        By patient: the ages do not contradict each other so far that another check says so.

    Returns
    -------
    Series of object
        ``"falling"`` or ``"growing"``; missing where there is nothing to compare.
    """
    seen = everything.loc[everything["age_years"].notna() & given(everything["study_date"]).notna()]
    visits = seen.groupby(["patient", "study"], as_index=False).agg(
        age=("age_years", "max"), day=("study_date", "min")
    )
    visits = visits.sort_values(["patient", "day", "age"], kind="stable")
    # Ages are whole years: at a later date nobody is younger, and two studies of one day do not count.
    by_day = visits.groupby(["patient", "day"], as_index=False)["age"].max()
    by_day["oldest_before"] = by_day.groupby("patient")["age"].transform(lambda ages: ages.cummax().shift())
    visits = visits.merge(by_day[["patient", "day", "oldest_before"]], on=["patient", "day"], how="left")
    visits = visits[visits["oldest_before"].notna() & visits["patient"].map(steady).eq(True)]
    state = pd.Series(
        np.where(visits["age"] < visits["oldest_before"] - 1e-6, "falling", "growing"), index=visits["study"]
    )
    found = studies["study"].map(state[~state.index.duplicated()])
    return found.astype(object).where(found.notna(), None)


def _judged(here: pd.DataFrame) -> pd.Series:
    return here["geometry_version"].notna() & ~_captured(here)


def _captured(here: pd.DataFrame) -> pd.Series:
    return here["sop_class"].astype(str).str.match(_CAPTURE)


def _localizer(here: pd.DataFrame) -> pd.Series:
    return here["image_type"].astype(str).str.contains("LOCALIZER")


def _expected(here: pd.DataFrame) -> pd.Series:
    found = pd.Series([None] * len(here), index=here.index, dtype=object)
    judged = _judged(here)
    for modality, columns in EXPECTED.items():
        rows = judged & (here["modality"] == modality)
        if not rows.any():
            continue
        missing = pd.Series([""] * int(rows.sum()), index=here.index[rows], dtype=object)
        for column, name in columns.items():
            empty = given(here.loc[rows, column]).isna()
            missing = missing.where(~empty, missing + f", no {name}")
        found[rows] = missing.str.removeprefix(", ").replace("", "complete")
    return found


def _spacing(here: pd.DataFrame) -> pd.Series:
    limits = here["modality"].map(SPACINGS)
    low = limits.map(lambda pair: pair[0], na_action="ignore").astype(float)
    high = limits.map(lambda pair: pair[1], na_action="ignore").astype(float)
    sides = here[["spacing_down", "spacing_across"]].astype(float)
    known = sides.notna().all(axis=1) & low.notna() & _judged(here)
    outside = (sides.min(axis=1) < low) | (sides.max(axis=1) > high)
    return words(outside, "impossible", "plausible", here.index).where(known, None)


def _thickness(here: pd.DataFrame) -> pd.Series:
    thickness = here["slice_thickness"].astype(float)
    known = thickness.notna() & here["modality"].isin(_STACKED) & ~_localizer(here) & _judged(here)
    # What is derived may be a projection of the whole volume, and says so with its thickness.
    derived = here["image_type"].astype(str).str.startswith("DERIVED")
    thick = (thickness > here["modality"].map(THICKEST).astype(float)) & ~derived
    outside = (thickness < THINNEST) | thick
    return words(outside, "impossible", "plausible", here.index).where(known, None)


def _lateralities(here: pd.DataFrame) -> dict[str, pd.Series]:
    part, side, view = (given(here[column]) for column in ("body_part", "laterality", "view"))
    named = part.astype(str).str.extract(_SIDE_IN_PART)
    told_by_part = named[0].fillna(named[1]).str[:1]
    told_by_view = view.astype(str).str.extract(_SIDE_IN_VIEW)[0]
    paired = part.map(lambda name: bool(PAIRED & set(str(name).split())), na_action="ignore").eq(True)
    paired |= here["modality"] == "MG"
    stated = side.notna()
    expected = paired & told_by_part.isna() & told_by_view.isna() & _judged(here)
    other = pd.Series(False, index=here.index)
    for told in (told_by_part, told_by_view):
        other |= told.notna() & side.isin(["L", "R"]) & (told != side)
    state = np.select([~side.isin(_SIDES), other], ["no side", "contradicts body part or view"], "plausible")
    return {
        "laterality_state": words(~stated, "missing", "given", here.index).where(expected, None),
        "laterality_place": pd.Series(state, index=here.index, dtype=object).where(stated, None),
    }


def _ct_ranges(here: pd.DataFrame) -> pd.Series:
    values = here[(here["modality"] == "CT") & ~_captured(here)].groupby("series")
    lowest, highest = values["pixel_min"].min(), values["pixel_max"].max()
    state = np.select(
        [lowest == highest, (lowest < SCALE[0]) | (highest > SCALE[1]), highest < LOWEST_TISSUE],
        ["blank", "beyond the scale", "no tissue"],
        "plausible",
    )
    # A blank picture has a check of its own.
    return pd.Series(state, index=lowest.index, dtype=object).where(state != "blank", None)
