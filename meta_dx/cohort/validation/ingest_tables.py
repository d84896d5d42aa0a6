"""What the suite ``ingest`` runs on: the catalog of one batch with a helper column for each check."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from meta_dx.cohort.validation.archive import falling_ages, image_columns, series_columns
from meta_dx.cohort.validation.checks import CheckTable, Unit
from meta_dx.cohort.validation.columns import date_place, days, distinct, given, words
from meta_dx.cohort.validation.drift import modality_table
from meta_dx.cohort.validation.ingest import (
    BIRTH_TOLERANCE,
    DAMAGED_AT_LEAST,
    NO_DECODER,
    OLDEST_AGE,
    PLACEHOLDER_STUDIES,
)
from meta_dx.dicom.quarantine import QUARANTINED

#: Files that are complete and hold no picture: leaving them out loses nothing.
_NO_LOSS = ("media_directory", "not_a_picture", "no_pixel_data")
#: Refusals that have a check of their own; every other one means that the file is damaged.
_OWN_CHECK = (
    *NO_DECODER,
    "conflicting_instance",
    "study_of_two_patients",
    "series_of_two_studies",
    "missing_patient",
    "missing_modality",
    *map(str, QUARANTINED),
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
#: Modalities whose images state the body part by custom; photographs and scopes do not.
_WITH_BODY_PART = ("CR", "CT", "DX", "MG", "MR", "NM", "PT", "RF", "US", "XA")
_STACKED = ("CT", "MR", "PT")


def ingest_tables(
    batch: str,
    instances: pd.DataFrame,
    rejections: pd.DataFrame,
    studies: pd.DataFrame,
    series: pd.DataFrame,
    *,
    others: pd.DataFrame | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    today: date | None = None,
) -> dict[Unit, CheckTable]:
    """Add the helper columns of the suite to the tables of one batch.

    Parameters
    ----------
    batch : str
        The batch.
    instances, rejections, studies, series : DataFrame
        Its catalog tables.
    others : DataFrame, optional
        Instances of other batches, so that contradictions between batches are seen; rows of ``batch`` itself
        are ignored.
    fingerprint : mapping, optional
        Of the cohort, so that drift is seen.
    today : date, optional
        Dates after it lie in the future; default is the day of the run.

    Returns
    -------
    dict of str to CheckTable
        One table for each unit; rows of ``batch`` only.
    """
    here = instances.reset_index(drop=True)
    everything = here
    if others is not None:
        everything = pd.concat([here, others[others["batch"] != batch]], ignore_index=True)
    tables: dict[Unit, pd.DataFrame] = {
        "file": _files(here, rejections, everything),
        "image": _images(here, everything),
        "series": _series(here, series),
        "study": _studies(here, studies, everything, today or date.today()),
        "patient": _patients(here, everything),
    }
    keys: dict[Unit, str] = {"file": "file", "image": "instance"}
    made = {
        unit: CheckTable(unit, frame.assign(batch=batch).reset_index(drop=True), keys.get(unit, unit))
        for unit, frame in tables.items()
    }
    return {**made, "modality": modality_table(batch, here, fingerprint)}


def _picture(instances: pd.DataFrame) -> pd.Series:
    """Say whether each picture is ``"blank"`` or ``"varied"`` (``None`` where it is not known)."""
    low, high = instances["pixel_min"].astype(float), instances["pixel_max"].astype(float)
    return words(low == high, "blank", "varied", instances.index).where(low.notna() & high.notna(), None)


def _files(here: pd.DataFrame, rejections: pd.DataFrame, everything: pd.DataFrame) -> pd.DataFrame:
    """One row per file that was taken or refused, or is a copy; other files do not count."""
    taken = pd.DataFrame(
        {
            "file": here["instance"],
            "condition": "taken",
            "refused_for": "nothing",
            # Ingest compares with what it has seen; two batches ingested side by side may not have seen each
            # other.
            "patients_of_study": distinct(everything, "study", "patient", here["study"]),
            "studies_of_series": distinct(everything, "series", "study", here["series"]),
            "contents_of_uid": distinct(everything, "instance", "content", here["instance"]),
        }
    )
    refused = rejections[rejections["outcome"] == "rejected"]
    code = refused["code"]
    damaged = ~code.isin([*_NO_LOSS, *_OWN_CHECK])
    condition = words(damaged & (damaged.sum() >= DAMAGED_AT_LEAST), "damaged", "refused", refused.index)
    left_out = pd.DataFrame(
        {
            "file": refused["file"],
            "condition": condition.where(~code.isin(_NO_LOSS), None),
            "refused_for": code,
            "patients_of_study": np.where(code == "study_of_two_patients", 2.0, np.nan),
            "studies_of_series": np.where(code == "series_of_two_studies", 2.0, np.nan),
            "contents_of_uid": np.where(code == "conflicting_instance", 2.0, np.nan),
        }
    )
    # A copy of what the home already holds arrived whole: a batch that is sent again is not a damaged one.
    copies = rejections[rejections["outcome"] == "duplicate"]
    whole = pd.DataFrame({"file": copies["file"], "condition": "taken", "refused_for": "nothing"})
    return pd.concat([left_out, taken, whole], ignore_index=True)


def _images(here: pd.DataFrame, everything: pd.DataFrame) -> pd.DataFrame:
    picture = _picture(here)
    # Blank pictures are all alike; that is a fault of its own.
    content = here["pixels"].where(picture == "varied", None)
    own = everything.assign(place=everything["patient"] + " " + everything["pixels"])
    radiology = here["modality"].isin(_WITH_BODY_PART)
    return pd.DataFrame(
        {
            "instance": here["instance"],
            "study": here["study"],
            "body_part_state": words(given(here["body_part"]).isna(), "missing", "given", here.index).where(
                radiology, None
            ),
            "picture": picture,
            "shorter_side": here[["rows", "columns"]].min(axis=1),
            "origin": _origin(here),
            "pixel_range": _pixel_range(here),
            **image_columns(here),
            "patients_of_picture": distinct(everything, "pixels", "patient", content),
            "copies_of_picture": distinct(own, "place", "instance", here["patient"] + " " + content),
        }
    )


def _origin(here: pd.DataFrame) -> pd.Series:
    """Tell screenshots among acquired images from cohorts that were made of captures as a whole."""
    captured = here["sop_class"].astype(str).str.match(rf"{re.escape(_SECONDARY_CAPTURE)}(\.\d+)?$")
    acquired_beside = here["study"].isin(here.loc[~captured, "study"])
    return words(captured & acquired_beside, "screenshot", "acquired or converted", here.index)


def _pixel_range(here: pd.DataFrame) -> pd.Series:
    """Compare the stored values with what signed or unsigned numbers of so many bits can be."""
    lowest, highest = here["stored_min"].astype(float), here["stored_max"].astype(float)
    span = np.exp2(here["bits_stored"].astype(float))
    outside = (lowest < -span / 2) | (highest > span - 1)
    return words(outside, "outside the stored bits", "inside", here.index).where(
        lowest.notna() & highest.notna(), None
    )


def _series(here: pd.DataFrame, series: pd.DataFrame) -> pd.DataFrame:
    rows = series.drop_duplicates("series")
    ct = here[(here["modality"] == "CT") & ~here["sop_class"].astype(str).str.startswith(_SECONDARY_CAPTURE)]
    return pd.DataFrame(
        {
            "series": rows["series"],
            "modalities_of_series": distinct(here, "series", "modality", rows["series"]),
            "gaps_in_stack": rows["series"].map(_gaps(here)).astype(float),
            **series_columns(here, rows["series"]),
            "lowest_ct_value": rows["series"].map(ct.groupby("series")["pixel_min"].min()).astype(float),
        }
    )


def _gaps(here: pd.DataFrame) -> pd.Series:
    """Count the isolated holes in each stack of at least five slices.

    A stack may have two spacings (thin through the skull base, thick above): only steps that are rare in
    their stack, and wider than 1.8 times its usual one, are holes.
    """
    localizer = here["image_type"].astype(str).str.contains("LOCALIZER")
    stacked = here[here["modality"].isin(_STACKED) & ~localizer & here["position"].notna()]
    slices = stacked[["series", "position"]].astype({"position": float}).round(2).drop_duplicates()
    slices = slices.sort_values(["series", "position"])
    steps = slices.assign(step=slices.groupby("series")["position"].diff()).dropna(subset="step")
    usual = steps.groupby("series")["step"].transform("median")
    wide = (steps["step"] > 1.8 * usual).groupby(steps["series"]).sum()
    total = steps.groupby("series").size()
    isolated = wide.where(wide <= np.maximum(1, 0.1 * total), 0)
    return isolated[total >= 4]


def _studies(
    here: pd.DataFrame, studies: pd.DataFrame, everything: pd.DataFrame, today: date
) -> pd.DataFrame:
    rows = studies.drop_duplicates("study")
    # A study that another batch holds under another patient is a mix-up, not a study in pieces.
    own = everything.assign(visit=everything["study"] + " " + everything["patient"])
    ages = here.assign(age=here["age_years"].astype(float)).groupby("study")["age"]
    lowest, highest = ages.min(), ages.max()
    return pd.DataFrame(
        {
            "study": rows["study"],
            "batches_of_study": distinct(own, "visit", "batch", rows["study"] + " " + rows["patient"]),
            "patients_of_accession": distinct(everything, "accession", "patient", rows["accession"]),
            "age_course": falling_ages(everything, rows, ~(_birth_date_spread(everything) > BIRTH_TOLERANCE)),
            "age_years": rows["study"].map(lowest.where(lowest < 0, highest)).astype(float),
            "study_date_place": date_place(rows["study_date"], today),
        }
    )


def _patients(here: pd.DataFrame, everything: pd.DataFrame) -> pd.DataFrame:
    rows = here[["patient"]].dropna().drop_duplicates()
    sexes = everything[everything["sex"].isin(["M", "F"])]
    visits = here[["patient", "study"]].drop_duplicates()
    share = visits.groupby("patient").size() / max(1, len(visits))
    return pd.DataFrame(
        {
            "patient": rows["patient"],
            "sexes_of_patient": distinct(sexes, "patient", "sex", rows["patient"]),
            "birth_date_spread": rows["patient"].map(_birth_date_spread(everything)).astype(float),
            "share_of_studies": rows["patient"].map(share) if len(visits) >= PLACEHOLDER_STUDIES else np.nan,
        }
    )


def _birth_date_spread(everything: pd.DataFrame) -> pd.Series:
    """Years between the earliest and the latest birth date that a patient's ages imply."""
    seen = everything[["patient", "age_years", "study_date"]].drop_duplicates()
    # An age that is impossible in itself has a check of its own.
    age = seen["age_years"].astype(float)
    seen_on = days(seen["study_date"])
    born = seen_on.dt.year + seen_on.dt.dayofyear / 365.25 - age.where(age.between(0, OLDEST_AGE))
    implied = born.groupby(seen["patient"])
    spread: pd.Series = implied.max() - implied.min()
    return spread.where(implied.count() > 1)
