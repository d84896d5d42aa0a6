"""Hidden diagnoses: spread, whole patients, never too many."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.holdout import choose_holdout

rows = st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 4)), min_size=1, max_size=120)


def examples_of(pairs: list[tuple[int, int]]) -> Examples:
    return Examples(
        np.array([f"S{n}" for n in range(len(pairs))]),
        np.array([f"P{patient}" for patient, _ in pairs]),
        np.array([f"D{code}" if code >= 0 else "" for _, code in pairs]),
        tuple(np.array([n]) for n in range(len(pairs))),
    )


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(0, 30), st.integers(0, 5), st.integers(2, 6), st.randoms())
def test_whole_patients_are_hidden_and_every_disease_keeps_enough(
    pairs: list[tuple[int, int]], count: int, seed: int, keep: int, random: object
) -> None:
    examples = examples_of(pairs)
    hidden = choose_holdout(examples, count, seed, keep=keep)
    assert len(hidden) <= count
    is_hidden = np.isin(examples.study, sorted(hidden))
    known = examples.code != ""
    assert not (is_hidden & ~known).any()
    assert not set(examples.patient[is_hidden]) & set(examples.patient[known & ~is_hidden])
    before, after = examples.patients_per_disease(), examples.take(~is_hidden).patients_per_disease()
    for code, patients in before.items():
        assert after.get(code, 0) >= min(keep, patients)
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert choose_holdout(examples.take(order), count, seed, keep=keep) == hidden


def test_the_hidden_ones_are_spread_over_the_diseases_and_change_with_the_seed() -> None:
    examples = examples_of([(10 * n + d, d) for d in range(5) for n in range(10)])
    for count in (5, 12):
        hidden = choose_holdout(examples, count, keep=7)
        by_disease = Counter(examples.code[np.isin(examples.study, sorted(hidden))].tolist())
        assert len(hidden) == count
        assert max(by_disease.values()) - min(by_disease.values()) <= 1
    assert len(choose_holdout(examples, 100, keep=7)) == 15
    assert choose_holdout(examples, 5, 0) != choose_holdout(examples, 5, 1)
    assert choose_holdout(examples, 0) == frozenset()
