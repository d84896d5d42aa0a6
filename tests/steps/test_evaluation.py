"""What cannot be asked of the rare diseases is refused before a look is counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from meta_dx.cohort.examples import Examples
from meta_dx.errors import MetaDxError
from meta_dx.evaluation.options import EvaluationOptions
from meta_dx.home import Home
from meta_dx.inference.serving import ServeOptions
from meta_dx.records.database import Records
from meta_dx.records.openings import count_openings
from meta_dx.steps import evaluation


def cohort(patients: dict[str, list[str]]) -> Examples:
    code = np.repeat(list(patients), [len(who) for who in patients.values()])
    study = np.array([f"S{n}" for n in range(len(code))])
    rows = tuple(np.array([n]) for n in range(len(code)))
    return Examples(study, np.concatenate([np.array(who) for who in patients.values()]), code, rows)


def own(code: str, count: int) -> list[str]:
    return [f"P{code}{n}" for n in range(count)]


def project_of(monkeypatch: pytest.MonkeyPatch, home: Home, rare: Examples, offered: tuple[str, ...]) -> Any:
    data = SimpleNamespace(
        version="v",
        split=SimpleNamespace(lineage="l", version="s"),
        by_role={"rare": rare},
        ancestors={f"D{n}": frozenset({"D0"}) for n in range(1, 4)},
        everybody=lambda: rare,
    )
    monkeypatch.setattr(evaluation, "assemble", lambda _: data)
    monkeypatch.setattr(evaluation, "latest_bundle", lambda _: SimpleNamespace(id="b"))
    monkeypatch.setattr(evaluation, "serving_of", lambda *_: SimpleNamespace(codes=offered))
    monkeypatch.setattr(evaluation, "table_cases", lambda _: [])
    settings = SimpleNamespace(
        evaluation=EvaluationOptions(shots=(1,), ways=4, episodes=20),
        serve=ServeOptions(),
        cohort=SimpleNamespace(seed=0),
    )
    return cast(Any, SimpleNamespace(home=home, settings=settings))


@pytest.mark.parametrize(
    ("rare", "offered", "code"),
    [
        ({f"D{n}": own("", 8) for n in range(5)}, ("D0", "D1"), "too_few_diseases"),  # the same patients
        ({f"D{n}": own(str(n), 8) for n in range(5)}, ("D0",), "too_few_diseases"),
        ({**{f"D{n}": own(str(n), 8) for n in range(5)}, "X": ["a"], "Y": ["b"]}, ("X", "Y"), "no_queries"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_not_counted_as_an_opening(
    rare: dict[str, list[str]],
    offered: tuple[str, ...],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Home.open(tmp_path)
    project = project_of(monkeypatch, home, cohort(rare), offered)
    with pytest.raises(MetaDxError) as fault:
        evaluation.evaluate_rare(project)
    assert fault.value.code == code
    assert count_openings(Records.open(home)) == 0


def test_ways_are_those_of_diseases_that_can_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = cohort({f"D{n}": own(str(n), 8) for n in range(5)})
    home = Home.open(tmp_path)
    project = project_of(monkeypatch, home, rare, ("D0", "D1", "D2"))
    asked: list[Any] = []

    def measured(_project: Any, _data: Any, _bundle: Any, asking: Any, _progress: Any) -> Any:
        asked.append(asking.tasks)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "_measure", measured)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate_rare(project)
    assert asked == [[(4, 1)]]
    assert count_openings(Records.open(home)) == 1  # a look that crashes is a look all the same
