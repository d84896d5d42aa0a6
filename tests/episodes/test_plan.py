"""The sampler: portable, reproducible, patient-disjoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import (
    EpisodePlan,
    EpisodeSampler,
    eligible_diseases,
    most_ways,
    ordering_key,
    plan_episode,
)
from meta_dx.errors import MetaDxError

GOLDEN = Path(__file__).with_name("golden_episodes.json")
Table = list[tuple[str, str, str]]


def examples_of(table: Table) -> Examples:
    study, patient, code = (np.array(column, dtype=str) for column in zip(*table, strict=True))
    return Examples(study, patient, code, tuple(np.array([row]) for row in range(len(table))))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Return cohorts with shared patients, several studies per patient, and unlabelled studies."""
    diseases = draw(st.integers(2, 8))
    patients = draw(st.integers(8, 60))
    rows = draw(
        st.lists(st.tuples(st.integers(0, patients), st.integers(-1, diseases)), min_size=20, max_size=160)
    )
    return [(f"S{n}", f"P{who}", f"D{what}" if what >= 0 else "") for n, (who, what) in enumerate(rows)]


def one_pass(
    table: Table, n: int, k: int, queries: int, order: list[str], key: Any, ancestors: dict[str, list[str]]
) -> tuple[dict[str, Any], list[str]]:
    """Step 3 of the algorithm, and the diseases that it skipped as related."""
    episode: dict[str, Any] = {"classes": [], "support": [], "query": []}
    used: set[str] = set()
    skipped: list[str] = []
    for code in order:
        if len(episode["classes"]) == n:
            break
        if any(t in ancestors.get(code, []) or code in ancestors.get(t, []) for t in episode["classes"]):
            skipped.append(code)
            continue
        free = {p for _, p, c in table if c == code} - used
        if len(free) < k + 1:
            continue
        drawn = sorted(free, key=lambda p: key("patient", p))[: k + queries]
        studies = [
            min((s for s, p, c in table if p == who and c == code), key=lambda s: key("study", s))
            for who in drawn
        ]
        used.update(drawn)
        episode["classes"].append(code)
        episode["support"].append(studies[:k])
        episode["query"].append(studies[k:])
    return episode, skipped


def by_the_book(
    table: Table, ways: Any, shots: Any, queries: int, seed: int, index: int, ancestors: dict[str, list[str]]
) -> dict[str, Any] | None:
    """Draw an episode as docs/sampling.md says, step by step, sharing no code with the library."""

    def key(what: str, name: str) -> tuple[str, str]:
        return hashlib.sha256(f"{seed}/{index}/{what}/{name}".encode()).hexdigest(), name

    def number(name: str, value: Any) -> int:
        if isinstance(value, int):
            return value
        return int(value[0] + int(key("draw", name)[0], 16) % (value[1] - value[0] + 1))

    n, k = number("ways", ways), number("shots", shots)  # step 1
    least = min(n, ways if isinstance(ways, int) else ways[0])
    codes = {c for _, _, c in table if c}
    eligible = [c for c in codes if len({p for _, p, d in table if d == c}) >= k + 2]  # step 2
    order = sorted(eligible, key=lambda c: key("class", c))  # step 3
    while len((found := one_pass(table, n, k, queries, order, key, ancestors))[0]["classes"]) < least:
        blocked = {t: sum(t in ancestors.get(s, []) for s in found[1]) for t in found[0]["classes"]}  # step 4
        if not any(blocked.values()):
            return None
        order.remove(max(blocked, key=lambda t: blocked[t]))
    return {"index": index, **found[0]}


def as_studies(plan: EpisodePlan, examples: Examples) -> dict[str, Any]:
    return {
        "index": plan.index,
        "classes": list(plan.classes),
        "support": [examples.study[rows].tolist() for rows in plan.support],
        "query": [examples.study[rows].tolist() for rows in plan.query],
    }


def test_the_golden_episodes_come_out_of_the_library_and_of_the_written_algorithm() -> None:
    golden = json.loads(GOLDEN.read_text())
    table = [tuple(row) for row in golden["examples"]]
    examples = examples_of(table)
    count = 0
    for series in golden["series"]:
        ways, shots = (
            value if isinstance(value, int) else tuple(value) for value in (series["ways"], series["shots"])
        )
        queries, seed, ancestors = series["queries"], series["seed"], series["ancestors"]
        sampler = EpisodeSampler(examples, ways, shots, queries, seed, ancestors=ancestors)
        for episode in series["episodes"]:
            assert as_studies(sampler.plan(episode["index"]), examples) == episode
            assert by_the_book(table, ways, shots, queries, seed, episode["index"], ancestors) == episode
            count += 1
    assert count == 20


@settings(max_examples=60, deadline=None)
@given(tables(), st.data())
def test_the_library_agrees_with_the_written_algorithm_on_random_cohorts(
    table: Table, data: st.DataObject
) -> None:
    numbers = st.one_of(st.integers(2, 5), st.tuples(st.integers(2, 3), st.integers(3, 6)))
    ways = data.draw(numbers)
    shots = data.draw(st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 2), st.integers(2, 5))))
    queries, seed, index = data.draw(st.tuples(st.integers(1, 6), st.integers(0, 9), st.integers(0, 999)))
    below = {f"D{n}": ["D0"] for n in (1, 2, 4)}
    ancestors = data.draw(
        st.sampled_from([{}, {"D1": ["D0"], "D2": ["D0", "D1"]}, {**below, "D3": ["D1", "D5"]}])
    )
    examples = examples_of(table)
    try:
        sampler = EpisodeSampler(examples, ways, shots, queries, seed, ancestors=ancestors)
    except MetaDxError as fault:
        assert fault.code == "too_few_diseases"
        most = shots if isinstance(shots, int) else shots[1]
        assert most_ways(examples, most, ancestors) < (ways if isinstance(ways, int) else ways[0])
        return
    expected = by_the_book(table, ways, shots, queries, seed, index, ancestors)
    if expected is None:
        with pytest.raises(MetaDxError, match="diseases with at least"):
            sampler.plan(index)
    else:
        assert as_studies(sampler.plan(index), examples) == expected


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 99), st.integers(1, 3), st.integers(1, 5))
def test_no_patient_is_on_both_sides_or_in_two_classes(
    table: Table, index: int, shots: int, queries: int
) -> None:
    examples = examples_of(table)
    try:
        plan = plan_episode(examples, ways=2, shots=shots, queries=queries, seed=3, index=index)
    except MetaDxError:
        return
    patients = examples.patient[plan.rows].tolist()
    assert len(set(patients)) == len(patients)
    for code, support, query in zip(plan.classes, plan.support, plan.query, strict=True):
        assert len(support) == shots
        assert 1 <= len(query) <= queries
        assert set(examples.code[np.concatenate([support, query])]) == {code}


@settings(max_examples=30, deadline=None)
@given(tables(), st.randoms())
def test_the_order_of_the_rows_does_not_matter(table: Table, random: Any) -> None:
    shuffled = list(table)
    random.shuffle(shuffled)
    drawn: list[Any] = []
    for rows in (table, shuffled):
        examples = examples_of(rows)
        try:
            drawn.append(
                as_studies(plan_episode(examples, ways=2, shots=1, queries=3, seed=1, index=5), examples)
            )
        except MetaDxError as fault:
            drawn.append(str(fault))
    assert drawn[0] == drawn[1]


def cohort(patients: dict[str, int]) -> Examples:
    return examples_of([(f"S{c}{n}", f"P{c}{n}", c) for c, count in patients.items() for n in range(count)])


def test_over_many_episodes_every_disease_and_patient_has_its_turn() -> None:
    examples = cohort({f"D{n}": 9 for n in range(10)})
    sampler = EpisodeSampler(examples, 5, 1, 2, 0)
    classes = [code for plan in sampler.plans(600) for code in plan.classes]
    support = np.concatenate([rows for plan in sampler.plans(600) for rows in plan.support])
    share = np.unique(classes, return_counts=True)[1] / 600
    assert np.abs(share - 0.5).max() < 0.1  # 5 standard deviations of a fair draw
    assert len(np.unique(support)) == len(examples)


def test_a_disease_needs_two_patients_more_than_shots() -> None:
    examples = cohort({"A": 7, "B": 6, "C": 9, "D": 1})
    assert eligible_diseases(examples, 5) == (["A", "C"], {"B": 6, "D": 1})
    sampler = EpisodeSampler(examples, 2, 5, 10, 0)
    assert (sampler.eligible, sampler.left_out) == (["A", "C"], {"B": 6, "D": 1})
    assert sorted(map(len, sampler.plan(0).query)) == [2, 4]


def test_too_few_diseases_says_how_many_there_are_and_who_lacks_patients() -> None:
    with pytest.raises(MetaDxError) as fault:
        EpisodeSampler(cohort({"A": 7, "B": 6, "C": 9}), 3, 5, 10, 0)
    assert fault.value.code == "too_few_diseases"
    assert "3-way 5-shot" in str(fault.value)
    assert "2 have that many: A (7), C (9)" in str(fault.value)
    assert "too few patients in 1: B (6)" in str(fault.value)


def test_when_shared_patients_run_out_the_next_disease_is_taken_or_the_error_says_so() -> None:
    shared = [(f"S{c}{n}", f"P{n}", c) for c in "AB" for n in range(4)]  # A and B have the same 4 patients
    examples = examples_of(shared + [(f"SC{n}", f"PC{n}", "C") for n in range(4)])
    sampler = EpisodeSampler(examples, 2, 2, 2, 0)
    assert all("C" in plan.classes for plan in sampler.plans(50))
    with pytest.raises(MetaDxError, match="shared with no other"):
        EpisodeSampler(examples, 3, 2, 2, 0).plan(0)


def test_a_disease_never_meets_its_ancestor() -> None:
    examples = cohort({"root": 5, "child": 5, "grandchild": 5, "other": 5})
    ancestors = {"child": ["root"], "grandchild": ["child", "root"]}
    plans = list(EpisodeSampler(examples, 2, 1, 1, 0, ancestors=ancestors).plans(100))
    assert all("other" in plan.classes for plan in plans)
    assert {code for plan in plans for code in plan.classes} == set(examples.diseases)


@pytest.mark.parametrize("seed", range(3))
def test_an_ancestor_that_would_leave_an_episode_short_makes_room_for_those_below_it(seed: int) -> None:
    examples = cohort({f"D{n}": 8 for n in range(7)})
    ancestors = {f"D{n}": ["D0"] for n in (1, 2, 3, 4)}  # with D0 there are three diseases, without it six
    plain = EpisodeSampler(examples, 3, 1, 2, seed, ancestors=ancestors)
    assert sum("D0" in plan.classes for plan in plain.plans(200)) > 20
    crowded = list(EpisodeSampler(examples, 5, 1, 2, seed, ancestors=ancestors).plans(400))
    assert {code for plan in crowded for code in plan.classes} == set(examples.diseases) - {"D0"}
    untouched = [
        plan for plan in EpisodeSampler(examples, 5, 1, 2, seed).plans(400) if "D0" not in plan.classes
    ]
    of = {plan.index: plan.classes for plan in crowded}
    assert all(of[plan.index] == plan.classes for plan in untouched)


def test_a_disease_above_others_does_not_count_among_those_that_can_meet() -> None:
    examples = cohort({"root": 8, "child": 8, "other": 8, "lonely": 3, "parent": 8})
    ancestors = {"child": ["root"], "lonely": ["parent"]}
    assert most_ways(examples, 1, ancestors) == 3
    assert most_ways(examples, 5, ancestors) == 3  # nobody below 'parent' has seven patients
    assert most_ways(examples, 5) == 4
    with pytest.raises(MetaDxError, match="none an ancestor of another") as fault:
        EpisodeSampler(examples, 4, 5, 1, 0, ancestors=ancestors)
    assert "above others of them, which they never meet: root;" in str(fault.value)


def test_only_the_classes_asked_for_take_part() -> None:
    sampler = EpisodeSampler(cohort({"A": 5, "B": 5, "C": 5}), 2, 1, 1, 0, classes={"A", "C"})
    assert all(set(plan.classes) == {"A", "C"} for plan in sampler.plans(10))


def test_ranges_are_used_to_both_ends() -> None:
    sampler = EpisodeSampler(cohort({f"D{n}": 8 for n in range(6)}), (2, 4), (1, 5), 2, 0)
    plans = list(sampler.plans(200))
    assert {len(plan.classes) for plan in plans} == {2, 3, 4}
    assert {len(plan.support[0]) for plan in plans} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("ways", "shots", "queries"), [(1, 1, 1), (2, 0, 1), (2, 1, 0), ((5, 2), 1, 1)])
def test_impossible_numbers_are_refused(ways: Any, shots: Any, queries: int) -> None:
    with pytest.raises(MetaDxError) as fault:
        EpisodeSampler(cohort({"A": 9, "B": 9}), ways, shots, queries, 0)
    assert fault.value.code == "bad_episode_shape"


def test_a_study_that_comes_twice_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="more than once"):
        EpisodeSampler(examples_of([("S", "P", "A"), ("S", "P", "B")]), 2, 1, 1, 0)


def test_the_key_is_the_hash_of_the_written_text() -> None:
    assert ordering_key(0, 3, "class", "Ä1") == hashlib.sha256("0/3/class/Ä1".encode()).hexdigest()
