"""Near-duplicate groups are kept beside the store, and found anew when the store or the rule is another one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from meta_dx.cohort import duplicates
from meta_dx.home import Home
from meta_dx.steps import cohort
from meta_dx.steps.cohort import group_near_duplicates
from tests.cohort.drawn_scenes import Scene


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    picture = Scene(1).draw()
    pictures = np.stack([picture, Scene(2).draw(), np.fliplr(picture)])[:, None]
    store = SimpleNamespace(version="s1", images=pictures, index=pd.DataFrame({"patient": ["a", "b", "c"]}))
    monkeypatch.setattr(cohort, "build_images", lambda project: store)
    return SimpleNamespace(home=Home.open(tmp_path / "home", "c"), store=store)


def test_groups_are_found_once_and_again_under_another_rule(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    find = cohort.near_duplicate_groups
    monkeypatch.setattr(
        cohort, "near_duplicate_groups", lambda *given: calls.append(len(given[0])) or find(*given)
    )
    for _ in range(2):
        found = group_near_duplicates(project)
        assert (found.pairs, found.groups, found.patients) == (1, 1, 2)
    assert calls == [3]
    monkeypatch.setattr(duplicates, "DUPLICATES_VERSION", duplicates.DUPLICATES_VERSION + 1)
    group_near_duplicates(project)
    project.store.version = "s2"
    group_near_duplicates(project)
    assert calls == [3, 3, 3]
    assert len(list(project.home.store("duplicates").glob("*.json"))) == 3  # what was found before stays


def test_groups_that_an_older_rule_found_are_not_taken_for_those_of_this_one(project: Any) -> None:
    old = project.home.store("duplicates") / "0123456789abcdef.json"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text('{"groups": {"a": "a", "b": "b", "c": "c"}, "pairs": 0}')
    assert group_near_duplicates(project).pairs == 1
