"""Drift: a batch, or a label table, that is unlike the cohort for which networks were trained.

The cohort is known by its fingerprint (:mod:`meta_dx.cohort.fingerprint`), written the last time that examples
were assembled; before the first one there is nothing to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from meta_dx.cohort.validation.checks import NAMED_AT_MOST, CheckTable

#: Fewer images of a modality than this, here or in the cohort, show no drift.
IMAGES = 20
#: How far beyond the middle nine tenths of the cohort, as a share of their width, the median of a batch may lie.
MARGIN = 0.1
#: A drift of a disease that would come about by chance in less than one cohort in a hundred, and at least doubles
#: or halves its share.
CHANCE, FACTOR = 0.01, 2.0
_MEASURES = {"pixel_min": "darkest", "pixel_max": "brightest", "pixel_std": "spread of grey"}


def modality_table(batch: str, here: pd.DataFrame, fingerprint: Mapping[str, Any] | None) -> CheckTable:
    """Make the table of modalities of a batch, one row each.

    Parameters
    ----------
    batch : str
        The batch.
    here : DataFrame
        Its instances.
    fingerprint : mapping, optional
        Of the cohort.

    Returns
    -------
    CheckTable
        A modality stands for its series: they are what a result names.
    """
    modalities = sorted(here["modality"].dropna().unique())
    known = fingerprint or {}
    rows = []
    for modality in modalities:
        images = here[here["modality"] == modality]
        before = int(known.get("instances", {}).get("modality", {}).get(modality, 0))
        compared = min(len(images), before) >= IMAGES
        change = _intensity_change(images, known["physical_units"].get(modality, {})) if compared else None
        rows.append({"modality": modality, "intensity_change": change, "compared": compared})
    frame = pd.DataFrame(rows, columns=["modality", "intensity_change", "compared"]).astype(object)
    series = here.drop_duplicates("series").groupby("modality")["series"]
    members = {str(name): [(uid, batch) for uid in found.head(NAMED_AT_MOST)] for name, found in series}
    compared_rows = frame[frame["compared"].astype(bool)].assign(batch=batch).reset_index(drop=True)
    return CheckTable("modality", compared_rows, "modality", members)


def _intensity_change(images: pd.DataFrame, cohort: Mapping[str, Mapping[str, float]]) -> str | None:
    """Say which value of the pictures in the middle of a batch lies outside of the cohort."""
    try:
        width = cohort["pixel_max"]["p95"] - cohort["pixel_min"]["p5"]
        for measure, name in _MEASURES.items():
            low, high = cohort[measure]["p5"], cohort[measure]["p95"]
            room = max(MARGIN * (high - low), MARGIN * width)
            median = float(images[measure].astype(float).median())
            if not low - room <= median <= high + room:
                return f"{name} value {median:g}, in the cohort {low:g} to {high:g}"
    except KeyError:
        return None  # a fingerprint of an earlier version, or without such values
    return None


def prevalence_changes(now: Mapping[str, int], fingerprint: Mapping[str, Any] | None) -> dict[str, str]:
    """Find the diseases whose share of the patients is another one than in the cohort.

    Parameters
    ----------
    now : mapping of str to int
        Patients of each disease in the table.
    fingerprint : mapping, optional
        Of the cohort.

    Returns
    -------
    dict of str to str
        Disease to what changed.

    Notes
    -----
    A two-sided test of two proportions with pooled variance, at :data:`CHANCE` divided by the number of diseases
    (Bonferroni). Patients who are in both are not independent, which makes the test cautious.
    """
    before = {str(code): int(count) for code, count in (fingerprint or {}).get("prevalence", {}).items()}
    total, old_total = sum(now.values()), sum(before.values())
    if not total or not old_total:
        return {}
    codes = sorted({*now, *before})
    found = {}
    for code in codes:
        one, other = now.get(code, 0) / total, before.get(code, 0) / old_total
        pooled = (now.get(code, 0) + before.get(code, 0)) / (total + old_total)
        deviation = math.sqrt(pooled * (1 - pooled) * (1 / total + 1 / old_total))
        if not deviation or max(one, other) < FACTOR * min(one, other):
            continue
        if math.erfc(abs(one - other) / deviation / math.sqrt(2)) < CHANCE / len(codes):
            found[code] = f"{code}: {one:.1%} of the patients, {other:.1%} in the cohort"
    return found
