"""Modalities that come in unevenly are no drift of grey values, and a change within them is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from meta_dx.review.answered import FEWEST_TO_COMPARE
from meta_dx.review.drift import Drift, Inputs, drift
from meta_dx.steps import drift as steps

UNEVEN = [
    {"CT": (200, 25), "MR": (20, 100)},
    {"CT": (300, 20), "MR": (20, 300)},
    {"CT": (380, 20), "MR": (20, 800)},
]
"""Of each modality the studies of lately, and those that are known."""


def table(
    rng: np.random.Generator, sizes: dict[str, tuple[int, int]], shift: float
) -> tuple[pd.DataFrame, list[str]]:
    """Measures of studies, each modality on a level of its own, and who is of lately."""
    parts = []
    for level, (modality, (here, known)) in enumerate(sizes.items()):
        n = here + known
        part = pd.DataFrame({name: rng.normal(10 * level, 1, n) for name in steps._MEASURES})
        part.loc[: here - 1] += shift
        part["study"] = [f"{modality}.{'new' if i < here else 'known'}.{i}" for i in range(n)]
        parts.append(part.assign(modality=modality, body_part="CHEST", manufacturer="A"))
    found = pd.concat(parts).set_index("study", drop=False)
    found["patient"] = found["study"]
    return found, [study for study in found["study"] if ".new." in study]


def look(
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    sizes: dict[str, tuple[int, int]],
    shift: float = 0,
) -> Drift:
    studies, recent = table(rng, sizes, shift)
    known = studies.loc[~studies["study"].isin(recent), "study"]
    monkeypatch.setattr(steps, "_studies", lambda *_: studies)
    monkeypatch.setattr(steps, "_distances", lambda *_: None)
    monkeypatch.setattr(steps, "_outside", lambda *_: {})
    cohort: Any = SimpleNamespace(data=SimpleNamespace(everybody=lambda: SimpleNamespace(study=known)))
    project: Any = None
    # The mix of modalities has changed, and is told apart; here it is the grey values that matter.
    return drift(Inputs(steps.inputs_of(project, cohort, recent).measures), [], [])


@pytest.mark.parametrize("sizes", UNEVEN)
def test_modalities_that_come_in_unevenly_raise_no_more_alarms_than_promised(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, tuple[int, int]]
) -> None:
    rng = np.random.default_rng(11)
    looks = [look(monkeypatch, rng, sizes) for _ in range(200)]
    assert {len(found.comparisons) for found in looks} == {3}
    assert sum(found.changed for found in looks) <= 7  # of 2 at most; more in one of 1,000 such tests


@pytest.mark.parametrize("sizes", UNEVEN)
def test_a_change_within_unevenly_represented_modalities_is_found(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, tuple[int, int]]
) -> None:
    rng = np.random.default_rng(12)
    assert sum(look(monkeypatch, rng, sizes, shift).changed for shift in [1.0, -1.0] * 10) >= 19


def test_a_modality_that_is_hardly_known_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, few = np.random.default_rng(13), FEWEST_TO_COMPARE - 1
    found = look(monkeypatch, rng, {"CT": (30, 200), "MR": (90, few), "CR": (0, 50)})
    assert {(one.here, one.before) for one, _ in found.comparisons} == {(30, 200)}
