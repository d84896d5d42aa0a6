"""Which studies become examples, and that nothing is left out without being counted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.selection import (
    REASONS,
    active_diagnoses,
    diagnosed_studies,
    labelled_examples,
    read_ancestors,
    unlabelled_examples,
    with_original_identifiers,
)
from meta_dx.cohort.splits import ROLES, Split, SplitOptions, freeze_split
from meta_dx.episodes.plan import EpisodeSampler
from meta_dx.errors import MetaDxError
from meta_dx.home import Home

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def tables_of(rows: list[tuple[str, str, list[str], int]]) -> Tables:
    """Return studies, index and diagnoses from (study, patient, codes, number of images)."""
    studies = pd.DataFrame([(s, p, "b0001") for s, p, _, _ in rows], columns=["study", "patient", "batch"])
    shown = [s for s, _, _, images in rows for _ in range(images)]
    index = pd.DataFrame({"row": np.arange(len(shown)), "study": shown})
    known = [(s, p, code, None) for s, p, codes, _ in rows for code in codes]
    return studies, index, pd.DataFrame(known, columns=["study", "patient", "code", "superseded_by"])


def a_split(diseases: dict[str, str], patients: dict[str, str]) -> Split:
    since = dict.fromkeys(patients, "v0001")
    return Split("v0001", None, "v0001", diseases, patients, since, SplitOptions(), {})


ROWS = [
    ("S1", "P1", ["A"], 2),
    ("S2", "P1", ["A", "B"], 1),
    ("S3", "P2", ["B"], 0),
    ("S4", "P2", ["B"], 1),
    ("S5", "P3", [], 1),
    ("S6", "P3", [], 0),
    ("S7", "P4", ["C"], 1),
]


def test_every_study_is_an_example_or_counted_once() -> None:
    studies, index, diagnoses = tables_of(ROWS)
    stray = pd.DataFrame([("S99", "P9", "A", None)], columns=diagnoses.columns)
    diagnoses = pd.concat([diagnoses, stray])
    examples, left_out = labelled_examples(studies, index, diagnoses)
    assert examples.study.tolist() == ["S1", "S4", "S7"]
    assert examples.code.tolist() == ["A", "B", "C"]
    assert [rows.tolist() for rows in examples.images] == [[0, 1], [3], [5]]
    assert left_out == {"several_diagnoses": 1, "no_usable_image": 1, "unknown_study": 1}
    waiting, no_image = unlabelled_examples(studies, index, diagnoses)
    assert (waiting.study.tolist(), waiting.code.tolist(), no_image) == (["S5"], [""], {"no_usable_image": 1})
    assert set(left_out) <= set(REASONS)


def test_superseded_and_repeated_diagnoses_do_not_count() -> None:
    diagnoses = pd.DataFrame(
        [("S1", "P1", "A", "B"), ("S1", "P1", "B", None), ("S1", "P1", "B", ""), ("S2", "P1", None, None)],
        columns=["study", "patient", "code", "superseded_by"],
    )
    assert active_diagnoses(diagnoses).to_numpy().tolist() == [["S1", "P1", "B"]]


def test_the_split_leaves_out_the_other_sides_and_says_why() -> None:
    rows = [
        ("S1", "P1", ["A"], 1),
        ("S2", "P2", ["A"], 1),  # P2 is rare
        ("S3", "P2", ["R"], 1),
        ("S4", "P3", ["few"], 1),
        ("S5", "P4", ["R"], 1),  # joined with P1, who was there first
        ("S6", "P5", ["R"], 1),  # came later
    ]
    split = a_split({"A": "common", "R": "rare"}, {"P1": "common", "P2": "rare", "P4": "rare"})
    groups = {"P1": "P1", "P4": "P1"}
    common, left_common = labelled_examples(*tables_of(rows), split=split, role="common", groups=groups)
    rare, left_rare = labelled_examples(*tables_of(rows), split=split, role="rare", groups=groups)
    assert (common.study.tolist(), rare.study.tolist()) == (["S1"], ["S3"])
    assert left_common == {"patient_on_another_side": 1, "disease_without_role": 1}
    assert left_rare == {"joined_with_another_side": 1, "disease_without_role": 1, "patient_not_in_split": 1}


def test_hidden_diagnoses_leave_with_the_whole_patient_group_and_wait_for_prediction() -> None:
    groups = {"P1": "P1", "P4": "P1"}
    examples, left_out = labelled_examples(*tables_of(ROWS), groups=groups, hidden={"S7"})
    assert examples.study.tolist() == ["S4"]
    assert left_out["held_out"] == 2
    waiting, _ = unlabelled_examples(*tables_of(ROWS), groups=groups, hidden={"S7"})
    assert (waiting.study.tolist(), waiting.patient.tolist()) == (["S5", "S7"], ["P3", "P1"])
    assert len(unlabelled_examples(*tables_of(ROWS), batch="b0002")[0]) == 0


def test_original_identifiers_do_not_depend_on_the_surrogates() -> None:
    def under(key: str) -> Examples:
        surrogate = {f"original{n}": f"{key}{(7 * n + len(key)) % 10}" for n in range(4)}
        back = {b: a for a, b in surrogate.items()}
        group = min(surrogate["original1"], surrogate["original3"])
        groups = {surrogate["original1"]: group, surrogate["original3"]: group}
        patients = np.array([groups.get(name, name) for name in surrogate.values()])
        inside = Examples(
            np.array(list(surrogate.values())), patients, np.array(["A"] * 4), (np.array([0]),) * 4
        )
        return with_original_identifiers(inside, back, back, groups)

    first, second = under("k"), under("another")
    assert first.study.tolist() == second.study.tolist() == [f"original{n}" for n in range(4)]
    assert (
        first.patient.tolist()
        == second.patient.tolist()
        == ["original0", "original1", "original2", "original1"]
    )


@st.composite
def cohorts(draw: st.DrawFn) -> list[tuple[str, str, list[str], int]]:
    sizes = {"C": 12, "C2": 11, "V": 7, "V2": 6, "R": 5, "R2": 5}
    rows = [(f"P{code}{n}", [code], 1) for code, size in sizes.items() for n in range(size)]
    patient = st.sampled_from([row[0] for row in rows])
    code = st.lists(st.sampled_from([*sizes, "few"]), max_size=2, unique=True)
    rows += draw(st.lists(st.tuples(patient, code, st.integers(0, 2)), max_size=60))
    return [(f"S{n}", *row) for n, row in enumerate(rows)]


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.lists(st.tuples(st.integers(0, 45), st.integers(0, 45)), max_size=6))
def test_no_patient_group_and_no_disease_is_in_two_roles(
    rows: list[tuple[str, str, list[str], int]], joins: list[tuple[int, int]]
) -> None:
    names = sorted({row[1] for row in rows})
    groups: dict[str, str] = {}
    for a, b in joins:  # disjoint pairs are enough here
        if names[a] not in groups and names[b] not in groups:
            groups[names[a]] = groups[names[b]] = min(names[a], names[b])
    tables = tables_of(rows)
    diagnosed, left_out = diagnosed_studies(*tables)
    assert len(diagnosed) + sum(left_out.values()) == tables[2]["study"].nunique()
    options = SplitOptions(common_min=10, validation_min=6, rare_min=3)
    with tempfile.TemporaryDirectory() as folder:
        try:
            split = freeze_split(Home.open(folder), diagnosed, options, groups=groups)
        except MetaDxError as fault:
            assert fault.code == "no_disease_for_role"
            assume(False)
    parts = [labelled_examples(*tables, split=split, role=role, groups=groups) for role in ROLES]
    patients = [set(examples.patient.tolist()) for examples, _ in parts]
    codes = [set(examples.code.tolist()) for examples, _ in parts]
    assert sum(map(len, patients)) == len(set().union(*patients))
    assert sum(map(len, codes)) == len(set().union(*codes))
    together, counted = labelled_examples(*tables, split=split, groups=groups)
    assert len(together) == sum(len(examples) for examples, _ in parts)
    assert len(together) + sum(counted.values()) == tables[2]["study"].nunique()
    for examples, _ in parts:
        try:
            plan = EpisodeSampler(examples, 2, 1, 3, 0).plan(0)
        except MetaDxError:
            continue
        drawn = examples.patient[plan.rows].tolist()
        assert len(drawn) == len(set(drawn))


def test_ancestors_are_found_through_every_generation(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("code,parent,meaning\nc,b,x\nb,a,y\na,,root\nd,a,z\nd,e,z\n")
    assert read_ancestors(path) == {"c": {"a", "b"}, "b": {"a"}, "d": {"a", "e"}}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("code,parent\na,b\nb,a\n", "codes_cycle"),
        ("code,up\na,b\n", "codes_columns"),
        (None, "codes_unreadable"),
    ],
)
def test_a_bad_code_table_is_refused(tmp_path: Path, text: str | None, code: str) -> None:
    path = tmp_path / "codes.csv"
    if text:
        path.write_text(text)
    with pytest.raises(MetaDxError) as fault:
        read_ancestors(path)
    assert fault.value.code == code
