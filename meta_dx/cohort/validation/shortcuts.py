"""The suite ``cohort``: labels and images together, where a learner has a shortcut or nothing to learn.

A disease whose every patient was examined on one scanner can be told by the scanner. No rule can say whether
that is chance, medicine or the way the cohort was collected, so everything here is a warning that names the
disease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from meta_dx.cohort.validation.checks import NAMED_AT_MOST, CheckSpec, CheckTable, Unit, between
from meta_dx.cohort.validation.columns import canonical_codes, fold, given
from meta_dx.cohort.validation.diagnoses import COLUMNS, PLACEHOLDERS
from meta_dx.cohort.validation.drift import prevalence_changes

#: A tie that would come about by chance in less than one cohort in a hundred, with an attribute that at most
#: half of the other patients share.
CHANCE, COMMON_SHARE = 0.01, 0.5
#: A disease that holds more of the patients than this is taken for a default entry of a form.
DEFAULT_SHARE = 0.8
_BETWEEN = "ExpectColumnValuesToBeBetween"
_NULL = "ExpectColumnValuesToBeNull"


def _check(name: str, fault: str, expectation: str, settings: Mapping[str, object]) -> CheckSpec:
    return CheckSpec(name, "cohort", fault, "warning", "disease", expectation, settings)


def _tie(attribute: str, fault: str) -> CheckSpec:
    return _check(f"disease_not_tied_to_{attribute}", fault, _NULL, {"column": f"only_{attribute}"})


CHECKS: tuple[CheckSpec, ...] = (
    _check(
        "disease_of_two_patients",
        "A disease has one patient only: it cannot be support and query at once, so nothing can be measured "
        "with it.",
        _BETWEEN,
        between("patients_of_disease", 2),
    ),
    _check(
        "disease_not_default",
        f"One disease holds more than {DEFAULT_SHARE:.0%} of the patients: it looks like the default entry "
        "of a form.",
        _BETWEEN,
        between("share_of_patients", high=DEFAULT_SHARE),
    ),
    _check(
        "picture_of_one_diagnosis",
        "The very same picture carries two diagnoses: at least one of them is wrong.",
        _BETWEEN,
        between("pictures_of_other_diseases", high=0),
    ),
    _tie(
        "scanner",
        "All patients of a disease were examined on one scanner that few others were examined on: the "
        "scanner gives the disease away.",
    ),
    _tie(
        "modality",
        "All patients of a disease were examined with one modality that few others were examined with: the "
        "modality gives the disease away.",
    ),
    _tie(
        "image_size",
        "All pictures of a disease have one size that few others have (another source, another crop): the "
        "size gives the disease away.",
    ),
    _tie(
        "batch",
        "All patients of a disease came in one batch in which few others came: whatever is special about "
        "that export gives the disease away.",
    ),
    _check(
        "prevalence_like_cohort",
        "A disease is at least twice as frequent, or half, as in the cohort that networks were trained for, beyond "
        "chance: another ward, another question, or a table that was filled in differently.",
        _NULL,
        {"column": "prevalence_change"},
    ),
)
_ATTRIBUTES = ("scanner", "modality", "image_size", "batch")


def cohort_tables(
    diagnoses: pd.DataFrame, instances: pd.DataFrame, fingerprint: Mapping[str, Any] | None = None
) -> dict[Unit, CheckTable]:
    """Make the table of diseases, one row each.

    Parameters
    ----------
    diagnoses : DataFrame
        The label table; only valid rows with a code, of ingested studies that have no other diagnosis, count.
    instances : DataFrame
        Instances of all batches.
    fingerprint : mapping, optional
        Of the cohort that networks were trained for.

    Returns
    -------
    dict of str to CheckTable
        The one table of the suite. A disease stands for its studies: they are what a result names.
    """
    labelled = _labelled(diagnoses, instances)
    patients = labelled.drop_duplicates(["code", "patient"]).groupby("code").size()
    frame = pd.DataFrame({"disease": patients.index.astype(object), "batch": "all"})
    frame["patients_of_disease"] = patients.to_numpy(float)
    # With one or two diseases, each holds most of the patients as a matter of course.
    share = patients.to_numpy(float) / max(1, labelled["patient"].nunique())
    frame["share_of_patients"] = share if len(frame) > 2 else np.nan
    frame["pictures_of_other_diseases"] = frame["disease"].map(_contradicted(labelled, instances)).fillna(0.0)
    for attribute in _ATTRIBUTES:
        frame[f"only_{attribute}"] = frame["disease"].map(_ties(labelled, attribute)).astype(object)
    changes = prevalence_changes({str(code): int(count) for code, count in patients.items()}, fingerprint)
    gone = sorted(set(changes) - set(frame["disease"]))
    frame = pd.concat(
        [frame, pd.DataFrame({"disease": gone, "batch": "all"}, dtype=object)], ignore_index=True
    )
    frame["prevalence_change"] = frame["disease"].map(changes).astype(object)
    members: dict[str, list[tuple[str, str]]] = {code: [] for code in gone}
    members |= {
        str(code): list(
            zip(rows["study"].head(NAMED_AT_MOST), rows["batch"].head(NAMED_AT_MOST), strict=True)
        )
        for code, rows in labelled.groupby("code")
    }
    return {"disease": CheckTable("disease", frame, "disease", members)}


def _labelled(diagnoses: pd.DataFrame, instances: pd.DataFrame) -> pd.DataFrame:
    """One row per study with exactly one valid diagnosis: its patient, batch and how it was acquired."""
    table = diagnoses.reindex(columns=COLUMNS)
    codes = fold(table["code"])
    filled = codes.notna() & ~codes.isin(PLACEHOLDERS)
    valid = table[filled & given(table["superseded_by"]).isna()]
    # Spellings of one code (which have a check of their own) are one disease here, under the commonest.
    canonical = canonical_codes(valid["code"])
    usual = valid["code"].groupby(canonical).agg(lambda spellings: spellings.mode()[0])
    stated = valid.assign(code=canonical.map(usual)).drop_duplicates(["study", "code"])
    single = stated.drop_duplicates("study", keep=False)[["study", "code"]]
    images = instances.assign(
        scanner=_described(instances, ["manufacturer", "model"]),
        image_size=_described(instances, ["rows", "columns"]),
        modality=_described(instances, ["modality"]),
    )
    return single.merge(images.drop_duplicates("study")[["study", "patient", *_ATTRIBUTES]], on="study")


def _described(instances: pd.DataFrame, columns: list[str]) -> pd.Series:
    parts = [given(instances[column]).fillna("none").astype(str) for column in columns]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + " × " + part
    return whole


def _ties(labelled: pd.DataFrame, attribute: str) -> dict[str, str]:
    """Find the diseases whose patients all share one value of an attribute that is not common elsewhere.

    With a share p of the other patients having the value, n patients would share it by chance with
    probability p ** n. A disease is named where that is below :data:`CHANCE` divided by the number of
    diseases (Bonferroni).
    """
    seen = labelled[["code", "patient", attribute]].drop_duplicates()
    diseases = seen["code"].nunique()
    everybody = seen.groupby(attribute)["patient"].nunique()
    total = labelled["patient"].nunique()
    found = {}
    for code, rows in seen.groupby("code"):
        values, patients = rows[attribute].unique(), rows["patient"].nunique()
        others = total - patients
        if len(values) > 1 or others < 1:
            continue
        # At least one other patient is assumed to share it: a handful cannot show that nobody does.
        share = max(1, everybody[values[0]] - patients) / others
        if share <= COMMON_SHARE and share**patients < CHANCE / diseases:
            found[str(code)] = f"all {patients} patients of {code}: {values[0]}"
    return found


def _contradicted(labelled: pd.DataFrame, instances: pd.DataFrame) -> pd.Series:
    """Count, for each disease, the pictures that also carry another disease (blank pictures aside)."""
    varied = instances[instances["pixel_min"] < instances["pixel_max"]]
    shown = varied[["study", "pixels"]].merge(labelled[["study", "code"]], on="study")
    shown = shown[["pixels", "code"]].drop_duplicates()
    diseases = shown.groupby("pixels")["code"].transform("nunique")
    return shown[diseases > 1].groupby("code").size().astype(float)
