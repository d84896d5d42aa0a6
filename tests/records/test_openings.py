from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np

from meta_dx.records.database import Records
from meta_dx.records.openings import (
    Evaluation,
    count_openings,
    evaluations,
    openings,
    record_opening,
    save_evaluation,
)


def look(
    records: Records, bundle: str = "b", split: str = "v0001", protocol: str = "5w1s", by: str = "x"
) -> int:
    return record_opening(records, bundle=bundle, split_version=split, protocol=protocol, by=by)


def test_every_other_bundle_protocol_or_split_is_an_opening(records: Records) -> None:
    assert count_openings(records) == 0
    assert look(records) == 1
    assert look(records, bundle="other") == 2
    assert look(records, protocol="5w5s") == 3
    assert look(records, split="v0002") == 1
    assert count_openings(records, "v0001") == 3
    assert count_openings(records, "v0003") == 0
    assert count_openings(records) == 4


def test_repeating_a_look_is_no_new_opening_but_is_noted(records: Records) -> None:
    look(records, by="first")
    (before,) = openings(records)
    assert look(records, by="second") == 1
    (after,) = openings(records, "v0001")
    assert (before.times, after.times) == (1, 2)
    assert (after.first_by, after.last_by) == ("first", "second")
    assert after.first_at == before.first_at == before.last_at < after.last_at
    assert openings(records, "v0002") == []


def test_looks_at_the_same_moment_are_all_counted(records: Records) -> None:
    start = threading.Barrier(4)

    def run(bundle: str) -> None:
        start.wait()
        for _ in range(5):
            look(records, bundle=bundle)

    threads = [threading.Thread(target=run, args=(bundle,)) for bundle in ("same", "same", "same", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {opening.bundle: opening.times for opening in openings(records)} == {"same": 15, "other": 5}


EVALUATION = Evaluation(
    "b", "5w1s", "v0001", "data", {"accuracy": 0.5, "ci95": [0.4, 0.6]}, "2026-11-23T10:00:00.000000+00:00"
)


def test_an_evaluation_is_read_back(records: Records) -> None:
    save_evaluation(records, EVALUATION)
    assert evaluations(records) == [EVALUATION]
    assert evaluations(records, "b") == [EVALUATION]
    assert evaluations(records, "other") == []


def test_an_evaluation_that_is_repeated_replaces_the_old_figures(records: Records) -> None:
    first = save_evaluation(records, EVALUATION)
    later = replace(EVALUATION, numbers={"accuracy": 0.75}, created_at="2026-11-24T10:00:00.000000+00:00")
    assert save_evaluation(records, later) == first
    other = replace(EVALUATION, protocol="5w5s")
    assert save_evaluation(records, other) != first
    assert evaluations(records) == [later, other]


def test_figures_of_numpy_are_kept_and_those_that_are_not_finite_become_none(records: Records) -> None:
    numbers = {
        "auroc": math.nan,
        "per_disease": {"X": np.float32(0.5)},
        "n": np.int64(3),
        "ci": (np.inf, 1.0),
    }
    save_evaluation(records, replace(EVALUATION, numbers=numbers))
    (saved,) = evaluations(records)
    assert saved.numbers == {"auroc": None, "per_disease": {"X": 0.5}, "n": 3, "ci": [None, 1.0]}
