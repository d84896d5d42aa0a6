"""The frozen split: disjoint, stable under growth, thawed only on purpose."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort.splits import (
    ROLES,
    Split,
    SplitOptions,
    current_split,
    freeze_split,
    read_split,
    thaw_split,
    thawed_splits,
)
from meta_dx.errors import MetaDxError
from meta_dx.home import Home

SMALL = SplitOptions(common_min=8, validation_min=5, rare_min=3)
BASE = {"C": 9, "V": 6, "R": 4}  # one disease for each role of SMALL


def table_of(rows: list[tuple[str, str]]) -> pd.DataFrame:
    """Return a table from (patient, code) pairs."""
    return pd.DataFrame(
        [(f"S{n}", patient, code) for n, (patient, code) in enumerate(rows)],
        columns=["study", "patient", "code"],
    )


def rows_of(sizes: dict[str, int]) -> list[tuple[str, str]]:
    return [(f"P{code}{n}", code) for code, size in sizes.items() for n in range(size)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def test_diseases_get_their_role_by_the_number_of_patients(home: Home) -> None:
    sizes = {"A": 8, "B": 7, "C": 5, "D": 4, "E": 3, "F": 2}
    split = freeze_split(home, table_of(rows_of(sizes) + [("PF0", "F")] * 20), SMALL)
    assert split.diseases == {
        "A": "common", "B": "validation", "C": "validation", "D": "rare", "E": "rare"
    }  # fmt: skip
    assert split.patients == {f"P{c}{n}": role for c, role in split.diseases.items() for n in range(sizes[c])}
    assert split.codes("rare") == ["D", "E"]


def test_lists_win_over_counts_and_zero_means_by_list_only(home: Home) -> None:
    sizes = {"A": 8, "B": 8, "C": 8, "D": 4}
    options = SplitOptions(
        common_min=0, validation_min=0, rare_min=3, common=("A",), validation=("B",), rare=()
    )
    split = freeze_split(home, table_of(rows_of(sizes)), options)
    assert split.diseases == {"A": "common", "B": "validation", "C": "rare", "D": "rare"}


def test_a_patient_goes_to_the_scarcest_of_their_diseases(home: Home) -> None:
    rows = [*rows_of(BASE), ("PR0", "C"), ("PV0", "C"), ("PR1", "V")]
    split = freeze_split(home, table_of(rows), SMALL)
    assert [split.patients[p] for p in ("PR0", "PV0", "PR1")] == ["rare", "validation", "rare"]


def test_joined_patients_count_once_and_stand_together(home: Home) -> None:
    rows = rows_of({**BASE, "X": 3})
    groups = {"PX0": "PX0", "PX1": "PX0", "PC0": "PC0", "PV0": "PC0"}
    split = freeze_split(home, table_of(rows), SMALL, groups=groups)
    assert "X" not in split.diseases
    assert split.patients["PC0"] == split.patients["PV0"] == "validation"


def test_the_same_data_make_the_same_split_and_no_new_version(home: Home, tmp_path: Path) -> None:
    table = table_of(rows_of(BASE))
    first = freeze_split(home, table, SMALL)
    assert freeze_split(home, table.sample(frac=1, random_state=0), replace(SMALL, version_note="x")) == first
    assert [path.name for path in home.splits.iterdir()] == ["v0001.json"]
    other = freeze_split(Home.open(tmp_path / "other"), table.sample(frac=1, random_state=1), SMALL)
    assert other == first == current_split(home) == read_split(home, "v0001")


def test_new_data_extend_the_split_and_change_nothing_that_was_there(home: Home) -> None:
    rows = rows_of(BASE)
    first = freeze_split(home, table_of(rows), SMALL)
    rows += [*rows_of({"R": 30, "N": 9}), ("PC0", "N2"), ("PC1", "N2"), ("Q", "N2")]
    second = freeze_split(home, table_of(rows), SMALL)
    assert (second.version, second.parent, second.lineage) == ("v0002", "v0001", "v0001")
    assert second.diseases == {**first.diseases, "N": "common", "N2": "rare"}
    assert second.patients["PC0"] == "common"  # stays although a scarcer disease has come
    assert second.patients["Q"] == "rare"
    assert {second.since["PC0"], second.since["Q"]} == {"v0001", "v0002"}


def test_when_groups_join_two_sides_the_oldest_patient_decides_and_nobody_moves(home: Home) -> None:
    rows = rows_of(BASE)
    freeze_split(home, table_of(rows), SMALL)
    rows += [("A-new", "R")]  # sorts first by name, but came later
    second = freeze_split(home, table_of(rows), SMALL)
    assert second.patients["A-new"] == "rare"
    groups = {"A-new": "A-new", "PC3": "A-new", "newest": "A-new"}
    third = freeze_split(home, table_of([*rows, ("newest", "R")]), SMALL, groups=groups)
    assert third.sides(groups)["A-new"] == "common"
    assert [third.patients[p] for p in ("PC3", "A-new", "newest")] == ["common", "rare", "common"]


def test_changed_options_are_refused_and_point_to_thawing(home: Home) -> None:
    table = table_of(rows_of(BASE))
    freeze_split(home, table, SMALL)
    with pytest.raises(MetaDxError, match=r"common_min from 8 to 7.*thaw") as fault:
        freeze_split(home, table, replace(SMALL, common_min=7))
    assert fault.value.code == "split_is_frozen"


def test_thawing_keeps_the_old_versions_and_starts_a_new_lineage(home: Home) -> None:
    table = table_of(rows_of(BASE))
    first = freeze_split(home, table, SMALL)
    assert thaw_split(home, "wrong thresholds") == "v0001"
    assert current_split(home) is None
    assert thawed_splits(home)[0]["reason"] == "wrong thresholds"
    again = freeze_split(home, table, replace(SMALL, common_min=7))
    assert (again.version, again.parent, again.lineage) == ("v0002", None, "v0002")
    assert read_split(home, "v0001") == first


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda home: thaw_split(home, "why"), "no_split"),
        (lambda home: read_split(home, "v0009"), "no_such_split"),
        (lambda home: freeze_split(home, table_of([]), SplitOptions()), "no_disease_for_role"),
        (
            lambda home: freeze_split(home, table_of([]), SplitOptions(rare=("A",))),
            "unknown_disease_in_split",
        ),
    ],
)
def test_faults_of_the_user_have_a_code(home: Home, act: object, code: str) -> None:
    with pytest.raises(MetaDxError) as fault:
        act(home)  # type: ignore[operator]
    assert fault.value.code == code
    assert not list(home.splits.iterdir())


@pytest.mark.parametrize("wrong", [{"rare_min": 21}, {"rare_min": -1}, {"rare": ("A",), "common": ("A",)}])
def test_options_that_contradict_themselves_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MetaDxError) as fault:
        SplitOptions(**wrong)
    assert fault.value.code == "bad_value"


def test_thawing_without_a_reason_is_refused(home: Home) -> None:
    freeze_split(home, table_of(rows_of(BASE)), SMALL)
    with pytest.raises(MetaDxError, match="give a reason"):
        thaw_split(home, "  ")


def test_an_empty_role_is_refused_with_counts_and_what_to_change(home: Home) -> None:
    with pytest.raises(MetaDxError) as fault:
        freeze_split(home, table_of(rows_of({"C": 9, "R": 4, "R2": 4})), SMALL)
    message = str(fault.value)
    assert "as 'validation'" in message
    assert "C 9, R 4, R2 4" in message
    assert "at least 5 (validation_min) and fewer than 8 (common_min) patients" in message


def test_a_role_whose_patients_all_went_to_a_scarcer_one_is_empty(home: Home) -> None:
    rows = rows_of(BASE) + [(f"PR{n % 4}" if n < 4 else f"PV{n - 4}", "C") for n in range(10)]
    rows = [(patient, code) for patient, code in rows if not patient.startswith("PC")]
    with pytest.raises(MetaDxError, match="as 'common'"):
        freeze_split(home, table_of(rows), SMALL)


def test_the_file_is_json_that_anyone_can_read(home: Home) -> None:
    split = freeze_split(home, table_of(rows_of(BASE)), SMALL, created_from={"catalog": "abc"})
    value = json.loads((home.splits / "v0001.json").read_text())
    assert value["diseases"] == {"C": "common", "R": "rare", "V": "validation"}
    assert value["created_from"] | {"content": ""} == {
        "catalog": "abc", "studies": 19, "patients": 19, "diseases": 3, "content": ""
    }  # fmt: skip
    assert Split.from_json(value) == split


cohort_rows = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6)), max_size=150)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(cohort_rows, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)))
)
def test_growth_in_any_order_never_moves_anybody(
    batches: list[list[tuple[int, int]]], joins: list[tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.open(folder)
        rows = rows_of(BASE)
        splits = [freeze_split(home, table_of(rows), SMALL)]
        for number, batch in enumerate(batches):
            rows += [(f"X{patient}", f"D{code}") for patient, code in batch]
            groups = chained(joins[: number * 3])  # more patients are joined as time goes by
            splits.append(freeze_split(home, table_of(rows), SMALL, groups=groups))
            split = splits[-1]
            for old in splits:
                assert old.diseases.items() <= split.diseases.items()
                assert old.patients.items() <= split.patients.items()
                assert old.since.items() <= split.since.items()
            roles = [set(split.codes(role)) for role in ROLES]
            assert sum(map(len, roles)) == len(set().union(*roles)) == len(split.diseases)
            sides = split.sides(groups)
            newest = {p for p, since in split.since.items() if since == split.version}
            if len(splits) > 1 and split.version != splits[-2].version:
                assert all(split.patients[p] == sides[groups.get(p, p)] for p in newest)


def chained(pairs: list[tuple[int, int]]) -> dict[str, str]:
    """Return patient → group for pairs of joined patients, by repeated relabelling."""
    group = {n: n for pair in pairs for n in pair}
    for _ in group:
        for a, b in pairs:
            group[a] = group[b] = min(group[a], group[b])
    return {f"X{n}": f"X{g}" for n, g in group.items()}
