"""Which studies become examples: one usable diagnosis, a usable image, the right side of the split.

Input are the catalog's studies and diagnoses, the index of :class:`~meta_dx.cohort.images.ImageStore`, the
near-duplicate groups and the split. What is left out is counted by reason, never dropped in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.splits import Split
from meta_dx.errors import MetaDxError

#: Why a study is left out, and what that means.
REASONS = {
    "unknown_study": "the diagnosis names a study that is not in the catalog",
    "no_usable_image": "no image of the study passes the filters of [images], or none could be read",
    "several_diagnoses": "the study has several active diagnoses, an episode needs exactly one",
    "disease_without_role": "the disease has too few patients for any role of the split",
    "patient_on_another_side": "the patient belongs to another role because of a scarcer disease",
    "patient_not_in_split": "the patient came after this version of the split was frozen",
    "joined_with_another_side": "near-duplicate images join the patient with one of another role",
    "held_out": "the diagnosis is hidden so that the prediction can be scored",
}


def active_diagnoses(diagnoses: pd.DataFrame) -> pd.DataFrame:
    """Return the diagnoses in force: ``study``, ``patient``, ``code``, each pair of study and code once.

    Parameters
    ----------
    diagnoses : DataFrame
        The catalog's diagnoses; rows with ``superseded_by`` are history.

    Returns
    -------
    DataFrame
    """
    kept = diagnoses[diagnoses["code"].fillna("") != ""]
    if "superseded_by" in kept:
        kept = kept[kept["superseded_by"].fillna("") == ""]
    return kept[["study", "patient", "code"]].drop_duplicates(["study", "code"]).reset_index(drop=True)


def diagnosed_studies(
    studies: pd.DataFrame, index: pd.DataFrame, diagnoses: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the studies that have exactly one diagnosis and at least one image: what a split is made from.

    Parameters
    ----------
    studies : DataFrame
        The catalog's studies: ``study`` and ``patient``.
    index : DataFrame
        The image store's index: ``row`` and ``study``.
    diagnoses : DataFrame
        The catalog's diagnoses.

    Returns
    -------
    table : DataFrame
        Columns ``study``, ``patient``, ``code``, sorted by study.
    left_out : dict of str to int
        Studies left out, by reason (see :data:`REASONS`).
    """
    active = active_diagnoses(diagnoses)
    patient_of = dict(zip(studies["study"], studies["patient"], strict=True))
    with_image = set(index["study"])
    left_out: Counter[str] = Counter()
    rows = []
    for study, codes in active.groupby("study", sort=True)["code"]:
        if study not in patient_of:
            left_out["unknown_study"] += 1
        elif study not in with_image:
            left_out["no_usable_image"] += 1
        elif len(codes) > 1:
            left_out["several_diagnoses"] += 1
        else:
            rows.append((study, patient_of[study], codes.iloc[0]))
    return pd.DataFrame(rows, columns=["study", "patient", "code"], dtype="str"), dict(left_out)


def labelled_examples(
    studies: pd.DataFrame,
    index: pd.DataFrame,
    diagnoses: pd.DataFrame,
    *,
    split: Split | None = None,
    role: str | None = None,
    groups: Mapping[str, str] | None = None,
    hidden: Collection[str] = (),
) -> tuple[Examples, dict[str, int]]:
    """Return the examples with a known diagnosis.

    Parameters
    ----------
    studies, index, diagnoses : DataFrame
        As in :func:`diagnosed_studies`.
    split : Split, optional
        Only diseases with a role, and patients on the side of their disease; without one every study counts.
    role : str, optional
        Only this role of the split.
    groups : mapping of str to str, optional
        Patient → near-duplicate group.
    hidden : collection of str, optional
        Studies whose diagnosis is withheld (see :func:`~meta_dx.cohort.holdout.choose_holdout`); every study
        of their patient groups is left out.

    Returns
    -------
    examples : Examples
        Sorted by study; ``patient`` is the group.
    left_out : dict of str to int
        Studies left out, by reason (see :data:`REASONS`); with a ``role``, only those of its diseases and of
        diseases without a role.
    """
    table, left_out = diagnosed_studies(studies, index, diagnoses)
    groups = groups or {}
    counts = Counter(left_out)
    sides = split.sides(groups) if split else {}
    withheld = _groups_of(hidden, studies, groups)
    kept = []
    for row, (patient, code) in enumerate(table[["patient", "code"]].itertuples(index=False, name=None)):
        if split and role and split.diseases.get(code, role) != role:
            continue
        group = groups.get(patient, patient)
        reason = "held_out" if group in withheld else _wrong_side(split, sides, patient, group, code)
        if reason:
            counts[reason] += 1
        else:
            kept.append(row)
    chosen = table.iloc[kept]
    return _examples(chosen["study"], chosen["patient"], chosen["code"], index, groups), dict(counts)


def unlabelled_examples(
    studies: pd.DataFrame,
    index: pd.DataFrame,
    diagnoses: pd.DataFrame,
    *,
    groups: Mapping[str, str] | None = None,
    hidden: Collection[str] = (),
    batch: str | None = None,
) -> tuple[Examples, dict[str, int]]:
    """Return the studies to be predicted: without an active diagnosis, or with one that is hidden.

    Parameters
    ----------
    studies, index, diagnoses : DataFrame
        As in :func:`diagnosed_studies`.
    groups : mapping of str to str, optional
        Patient → near-duplicate group.
    hidden : collection of str, optional
        Studies whose diagnosis is withheld.
    batch : str, optional
        Only studies that came first with this ingest batch.

    Returns
    -------
    examples : Examples
        Sorted by study; every code is ``""``.
    left_out : dict of str to int
        ``no_usable_image`` where that occurred.
    """
    diagnosed = set(active_diagnoses(diagnoses)["study"]) - set(hidden)
    wanted = studies if batch is None else studies[studies["batch"] == batch]
    wanted = wanted[~wanted["study"].isin(diagnosed)].drop_duplicates("study").sort_values("study")
    usable = wanted["study"].isin(set(index["study"]))
    left_out = {"no_usable_image": int((~usable).sum())} if not usable.all() else {}
    chosen = wanted[usable]
    no_code = pd.Series([""] * len(chosen), dtype="str")
    return _examples(chosen["study"], chosen["patient"], no_code, index, groups or {}), left_out


def with_original_identifiers(
    examples: Examples,
    studies: Mapping[str, str],
    patients: Mapping[str, str],
    groups: Mapping[str, str] | None = None,
) -> Examples:
    """Return the examples under their original identifiers, in memory only, for draws that outlive a home.

    Episodes are ordered by a hash of identifiers; surrogates depend on the home's key, originals do not.

    Parameters
    ----------
    examples : Examples
        Under surrogates.
    studies, patients : mapping of str to str
        Surrogate → original; ``patients`` must know every member of the groups.
    groups : mapping of str to str, optional
        Patient → near-duplicate group; a group bears the smallest of its original identifiers.

    Returns
    -------
    renamed : Examples
        The same rows in the same order.
    """
    smallest: dict[str, str] = {}
    for surrogate, original in patients.items():
        group = (groups or {}).get(surrogate, surrogate)
        smallest[group] = min(original, smallest.get(group, original))
    return Examples(
        np.array([studies[study] for study in examples.study.tolist()], dtype=str),
        np.array([smallest[patient] for patient in examples.patient.tolist()], dtype=str),
        examples.code,
        examples.images,
    )


def read_ancestors(path: Path) -> dict[str, frozenset[str]]:
    """Read ``codes.csv`` (columns ``code``, ``parent``; a code may have several parents).

    Returns
    -------
    dict of str to frozenset of str
        All ancestors of each code, near and far.

    Raises
    ------
    MetaDxError
        ``codes_unreadable``, ``codes_columns`` or ``codes_cycle``.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as fault:
        raise MetaDxError("codes_unreadable", f"Cannot read the code table {path}: {fault}.") from fault
    if not {"code", "parent"} <= set(table.columns):
        raise MetaDxError("codes_columns", f"The code table {path} needs the columns code and parent.")
    parents: dict[str, set[str]] = {}
    for code, parent in table[["code", "parent"]].itertuples(index=False, name=None):
        if parent:
            parents.setdefault(code, set()).add(parent)
    return {code: _above(code, parents, path) for code in parents}


def _above(code: str, parents: Mapping[str, Collection[str]], path: Path) -> frozenset[str]:
    found: set[str] = set()
    new = set(parents[code])
    while new:
        found |= new
        new = {parent for each in new for parent in parents.get(each, ())} - found
    if code in found:
        raise MetaDxError("codes_cycle", f"In the code table {path} the code {code} is its own ancestor.")
    return frozenset(found)


def _wrong_side(
    split: Split | None, sides: Mapping[str, str], patient: str, group: str, code: str
) -> str | None:
    """Return the reason for which the split leaves a study out, if there is one."""
    if split is None:
        return None
    role = split.diseases.get(code)
    if role is None:
        return "disease_without_role"
    if patient not in split.patients:
        return "patient_not_in_split"
    if split.patients[patient] != sides[group]:
        return "joined_with_another_side"
    return None if sides[group] == role else "patient_on_another_side"


def _groups_of(hidden: Collection[str], studies: pd.DataFrame, groups: Mapping[str, str]) -> set[str]:
    """Return the patient groups to which some studies belong."""
    patients = studies.loc[studies["study"].isin(set(hidden)), "patient"].tolist()
    return {groups.get(patient, patient) for patient in patients}


def _examples(
    studies: pd.Series[Any],
    patients: pd.Series[Any],
    codes: pd.Series[Any],
    index: pd.DataFrame,
    groups: Mapping[str, str],
) -> Examples:
    rows: dict[str, list[int]] = {}
    for row, study in index[["row", "study"]].sort_values("row").itertuples(index=False, name=None):
        rows.setdefault(study, []).append(row)
    return Examples(
        np.array(studies.tolist(), dtype=str),
        np.array([groups.get(patient, patient) for patient in patients.tolist()], dtype=str),
        np.array(codes.tolist(), dtype=str),
        tuple(np.array(rows[study], dtype=np.int64) for study in studies.tolist()),
    )
