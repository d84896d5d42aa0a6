"""What a bundle offers: the prior counts every confirmed patient, the answers rest on a few."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from meta_dx.home import Home
from meta_dx.inference.serving import ServeOptions, class_prior
from meta_dx.records.support import SupportCase
from meta_dx.steps.predictions import serving_of


def served(tmp_path: Path, cases: list[SupportCase], groups: dict[str, str], **options: Any) -> Any:
    studies = pd.DataFrame(
        {
            "study": [case.study for case in cases],
            "patient": [case.patient for case in cases],
            "modality": "DX",
            "body_part": "",
        }
    )
    data = SimpleNamespace(
        store=SimpleNamespace(index=studies),
        studies=studies,
        hidden=[],
        groups=groups,
        split=SimpleNamespace(diseases={}),
    )
    chosen = ServeOptions(**options)
    project = SimpleNamespace(home=Home.open(tmp_path), settings=SimpleNamespace(serve=chosen))
    return serving_of(cast(Any, project), cast(Any, data), cases), chosen


def case(code: str, study: int, patient: str) -> SupportCase:
    return SupportCase(code, "x", code, f"{code}.{study}", patient)


def test_the_support_prior_counts_distinct_patients_before_the_cap(tmp_path: Path) -> None:
    frequent = [case("A", n, f"a{n}") for n in range(30)]
    rare = [case("B", n, f"b{n}") for n in range(10)]
    again = [case("B", 10 + n, "b0") for n in range(5)]  # one patient, six studies
    groups = {"b1": "b2", "b2": "b2"}  # near-duplicates: one patient
    serving, options = served(tmp_path, [*frequent, *rare, *again], groups, max_shots=4, prior="support")
    assert sum(c.code == "A" for c in serving.cases) == sum(c.code == "B" for c in serving.cases) == 4
    np.testing.assert_allclose(class_prior(serving.codes, serving.patients, options), [30 / 39, 9 / 39])


def test_a_uniform_prior_counts_nobody() -> None:
    patients = {"A": {"a"}, "B": set("xyz")}
    assert class_prior(["A", "B"], patients, ServeOptions()).tolist() == [0.5, 0.5]
    assert class_prior(["B"], patients, ServeOptions(prior="support")).tolist() == pytest.approx([1.0])
