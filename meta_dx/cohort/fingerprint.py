"""The dataset fingerprint: what a cohort looks like, in one JSON that anyone can read and that names nobody.

Input are the catalog's instances, the prepared pictures and the examples of each role. An engineer compares
two fingerprints to see why a learner that worked on one cohort does not on another. Versions lie in
``<home>/fingerprint/<hash>.json``; ``current.json`` names the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.images import ImageStore
from meta_dx.home import Home, fingerprint_of, write_json

_COUNTED = ("modality", "body_part", "view", "manufacturer", "photometric", "transfer_syntax", "bits_stored")
_SAMPLE = 2000  # pictures that are read for the grey levels
_QUANTILES = {"min": 0, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "max": 100}
_INNER = ("p5", "p25", "median", "p75", "p95")  # of ages: the oldest patient is nobody's business


def dataset_fingerprint(
    store: ImageStore, instances: pd.DataFrame, by_role: Mapping[str, Examples]
) -> dict[str, Any]:
    """Describe a cohort.

    Parameters
    ----------
    store : ImageStore
        Prepared pictures.
    instances : DataFrame
        The catalog's instances.
    by_role : mapping of str to Examples
        Examples of each role of the split.

    Returns
    -------
    dict
        ``version`` (hash of the rest), ``counts``, ``instances`` (per modality, manufacturer, …), ``sizes``,
        ``physical_units`` per modality, ``pictures``, ``people``, ``diseases`` and
        ``prevalence`` (patients of each disease, all roles together).
    """
    content: dict[str, Any] = {
        "counts": {
            "instances": len(instances),
            "series": int(instances["series"].nunique()),
            "studies": int(instances["study"].nunique()),
            "patients": int(instances["patient"].nunique()),
        },
        "instances": {column: _counts(instances[column]) for column in _COUNTED},
        "sizes": {column: _quantiles(instances[column]) for column in ("rows", "columns", "frames")},
        "physical_units": {
            str(modality): {name: _quantiles(part[name]) for name in ("pixel_min", "pixel_max", "pixel_std")}
            for modality, part in instances.groupby("modality")
        },
        "pictures": _pictures(store),
        "people": _people(instances),
        "diseases": {role: _diseases(examples) for role, examples in by_role.items()},
        "prevalence": _prevalence(by_role),
    }
    return {"version": fingerprint_of(content), **content}


def write_fingerprint(
    home: Home, store: ImageStore, instances: pd.DataFrame, by_role: Mapping[str, Examples]
) -> dict[str, Any]:
    """Describe a cohort and keep the description as a version of the home's fingerprint."""
    content = dataset_fingerprint(store, instances, by_role)
    folder = home.store("fingerprint")
    write_json(folder / f"{content['version']}.json", content)
    write_json(folder / "current.json", {"version": content["version"]})
    return content


def read_fingerprint(home: Home) -> dict[str, Any] | None:
    """Return the current fingerprint, None before the first."""
    folder = home.store("fingerprint")
    current = folder / "current.json"
    if not current.exists():
        return None
    content: dict[str, Any] = json.loads(
        (folder / f"{json.loads(current.read_text())['version']}.json").read_text()
    )
    return content


def _counts(column: pd.Series[Any]) -> dict[str, int]:
    counts = column.astype("object").where(column.notna(), "unknown").value_counts()
    return {
        str(name): int(n) for name, n in sorted(counts.items(), key=lambda each: (-each[1], str(each[0])))
    }


def _quantiles(values: pd.Series[Any] | npt.NDArray[Any]) -> dict[str, float]:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return {}
    return {name: round(float(np.percentile(known, q)), 4) for name, q in _QUANTILES.items()}


def _pictures(store: ImageStore) -> dict[str, Any]:
    """Describe the grey levels as a network sees them, from pictures spread evenly over the store."""
    per_study = store.index.groupby("study").size()
    if not len(store.index):
        return {"count": 0, "shape": list(store.shape[1:])}
    rows = np.unique(np.linspace(0, len(store.index) - 1, _SAMPLE).astype(np.int64))
    sample = store.images[rows]
    levels = np.bincount(sample.ravel(), minlength=256).cumsum() / sample.size
    return {
        "count": len(store.index),
        "shape": list(store.shape[1:]),
        "left_out": dict(store.left_out),
        "per_study": _quantiles(per_study),
        "mean": [round(float(level), 3) for level in sample.mean(axis=_all_but_channels(sample))],
        "std": [round(float(level), 3) for level in sample.std(axis=_all_but_channels(sample))],
        "grey_levels": {
            name: int(np.searchsorted(levels, max(q / 100, 1e-12))) for name, q in _QUANTILES.items()
        },
    }


def _all_but_channels(sample: npt.NDArray[Any]) -> tuple[int, ...]:
    return (0, *range(2, sample.ndim))


def _people(instances: pd.DataFrame) -> dict[str, Any]:
    people = instances.groupby("patient")[["sex", "age_years"]].first()
    ages = _quantiles(people["age_years"])
    return {
        "sex": _counts(people["sex"]),
        "age_years": {name: ages[name] for name in _INNER if name in ages},
        "age_unknown": int(people["age_years"].isna().sum()),
    }


def _prevalence(by_role: Mapping[str, Examples]) -> dict[str, int]:
    patients: dict[str, int] = {}
    for examples in by_role.values():
        for code, count in examples.patients_per_disease().items():
            patients[str(code)] = patients.get(str(code), 0) + int(count)
    return dict(sorted(patients.items()))


def _diseases(examples: Examples) -> dict[str, Any]:
    patients = examples.patients_per_disease()
    return {
        "diseases": len(patients),
        "patients": len(set(examples.patient.tolist())),
        "studies": len(examples),
        "patients_per_disease": _quantiles(np.array(list(patients.values()))),
        "studies_per_patient": _quantiles(np.unique(examples.patient, return_counts=True)[1]),
    }
