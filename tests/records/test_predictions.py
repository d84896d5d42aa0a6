from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meta_dx.errors import MetaDxError
from meta_dx.records.database import Records
from meta_dx.records.predictions import (
    EvidenceCase,
    NearestCase,
    PredictedStudy,
    PredictionRun,
    latest_predictions,
    prediction_runs,
    save_prediction_run,
)
from meta_dx.records.support import SupportCase, SupportSets

RUN = PredictionRun("bundle", 1, "v0001", "data", "b0001", "2026-11-23T10:00:00.000000+00:00")
LATER = "2026-11-23T11:00:00.000000+00:00"


@pytest.fixture
def served(records: Records) -> Records:
    """Records that hold support set versions 1 and 2."""
    for study in "ab":
        SupportSets(records).add([SupportCase("X", "SCT", "x", study, "P")], "Dr A", "test")
    return records


def answer(study: str, p: float = 0.25) -> PredictedStudy:
    nearest = (NearestCase("a", "X", 0.9), NearestCase("b", "Y", -0.5))
    return PredictedStudy(study, {"X": p, "Y": 1 - p}, 0.5, nearest, support_patient=True)


def with_interval(row: PredictedStudy, widths: tuple[float, float] | None) -> PredictedStudy:
    """Give every probability an interval that reaches this share of the way to 0 and to 1."""
    if widths is None:
        return row
    down, up = widths
    ends = {code: (p - down * p, max(p, p + up * (1 - p))) for code, p in row.probabilities.items()}
    return replace(row, interval={code: (low, min(high, 1.0)) for code, (low, high) in ends.items()})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_was_saved_is_read_back_to_the_last_bit(served: Records, data: st.DataObject) -> None:
    part = st.floats(0, 1)
    number = st.floats(allow_nan=False, allow_infinity=False)
    studies = st.builds(
        PredictedStudy,
        study=st.text("0123456789.", min_size=1),
        probabilities=st.dictionaries(st.text("ABC-", min_size=1), part, max_size=4),
        entropy=number,
        nearest=st.lists(st.builds(NearestCase, st.text("12"), st.text("AB"), number), max_size=3).map(tuple),
        support_patient=st.booleans(),
        epistemic=st.none() | number,
        aleatoric=st.none() | number,
        evidence=st.none()
        | st.lists(
            st.builds(EvidenceCase, st.text("12"), st.text("AB"), st.text("34"), part), max_size=3
        ).map(tuple),
        remoteness=st.none() | part,
    )
    widths = st.none() | st.tuples(part, part)
    rows = data.draw(st.lists(studies, unique_by=lambda row: row.study, max_size=5))
    rows = [with_interval(row, data.draw(widths)) for row in rows]
    save_prediction_run(served, RUN, rows)
    (saved,) = latest_predictions(served, "b0001")
    assert saved.run == RUN
    assert saved.studies == tuple(sorted(rows, key=lambda row: row.study))


def test_numpy_numbers_are_saved_as_numbers(served: Records) -> None:
    nearest = (NearestCase("a", "X", np.float32(0.5)),)
    row = PredictedStudy("s", {"X": np.float64(0.25)}, np.float32(1.5), nearest, np.bool_(True))
    save_prediction_run(served, RUN, [row])
    assert latest_predictions(served)[0].studies == (
        PredictedStudy("s", {"X": 0.25}, 1.5, (NearestCase("a", "X", 0.5),), True),
    )


def test_repeating_a_run_replaces_its_answers_and_keeps_its_number(served: Records) -> None:
    first = save_prediction_run(served, RUN, [answer("s"), answer("gone")])
    again = replace(RUN, created_at=LATER)
    assert save_prediction_run(served, again, [answer("s", 0.75), answer("new")]) == first
    (saved,) = latest_predictions(served)
    assert (saved.id, saved.run) == (first, again)
    assert saved.studies == (answer("new"), answer("s", 0.75))


@pytest.mark.parametrize(
    "other",
    [
        {"bundle": "other"},
        {"support_version": 2},
        {"split_version": "v0002"},
        {"data_version": "other"},
        {"batch": "b0002"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_lineage_is_another_run(served: Records, other: dict) -> None:
    numbers = {
        save_prediction_run(served, run, [answer("s")])
        for run in (RUN, replace(RUN, **other, created_at=LATER))
    }
    assert len(numbers) == 2
    assert {number for number, _ in prediction_runs(served)} == numbers


def test_the_latest_predictions_are_the_newest_run_of_each_batch(served: Records) -> None:
    save_prediction_run(served, replace(RUN, batch="b0002"), [answer("second")])
    save_prediction_run(served, replace(RUN, bundle="new", created_at=LATER), [answer("new")])
    save_prediction_run(served, RUN, [answer("old")])
    latest = latest_predictions(served)
    assert [(saved.run.batch, saved.studies[0].study) for saved in latest] == [
        ("b0001", "new"),
        ("b0002", "second"),
    ]
    assert latest_predictions(served, "b0001") == latest[:1]
    assert latest_predictions(served, "b0003") == []
    assert [run.bundle for _, run in prediction_runs(served, "b0001")] == ["new", "bundle"]


def test_a_run_without_studies_is_kept(served: Records) -> None:
    save_prediction_run(served, RUN, [])
    assert latest_predictions(served)[0].studies == ()


def test_predictions_name_a_support_set_that_the_records_hold(served: Records) -> None:
    with pytest.raises(MetaDxError, match="support set version 3") as fault:
        save_prediction_run(served, replace(RUN, support_version=3), [answer("s")])
    assert fault.value.code == "unknown_support_version"
    assert prediction_runs(served) == []


def test_answers_of_a_support_set_that_was_changed_meanwhile_are_not_saved_as_those_in_force(
    served: Records,
) -> None:
    with pytest.raises(MetaDxError) as fault:
        save_prediction_run(served, RUN, [answer("s")], in_force=True)
    assert fault.value.code == "support_changed"
    assert prediction_runs(served) == []
    save_prediction_run(served, replace(RUN, support_version=2), [answer("s")], in_force=True)
    assert [run.support_version for _, run in prediction_runs(served)] == [2]


@pytest.mark.parametrize(
    "wrong",
    [
        [answer("s", math.nan)],
        [answer("s", 1.5)],
        [replace(answer("s"), entropy=math.inf)],
        [replace(answer("s"), nearest=(NearestCase("a", "X", math.nan),))],
        [answer("s"), answer("s")],
        [replace(answer("s"), epistemic=math.nan)],
        [replace(answer("s"), aleatoric=math.inf)],
        [replace(answer("s"), interval={"X": (0.3, 0.9), "Y": (0.7, 0.8)})],
        [replace(answer("s"), interval={"X": (0.2, math.nan), "Y": (0.7, 0.8)})],
        [replace(answer("s"), interval={"Z": (0.0, 1.0)})],
        [replace(answer("s"), evidence=(EvidenceCase("a", "X", "i", 1.5),))],
        [replace(answer("s"), remoteness=1.5)],
    ],
)
def test_answers_that_are_no_probabilities_are_refused_and_the_old_ones_stay(
    served: Records, wrong: list
) -> None:
    save_prediction_run(served, RUN, [answer("s")])
    with pytest.raises(ValueError, match="stud"):
        save_prediction_run(served, RUN, wrong)
    assert latest_predictions(served)[0].studies == (answer("s"),)


def test_threads_that_save_the_same_run_leave_one_of_them_whole(fresh: Callable[[], Records]) -> None:
    records = fresh()
    SupportSets(records).add([SupportCase("X", "SCT", "x", "a", "P")], "Dr A", "test")
    start, numbers = threading.Barrier(3), []

    def save(p: float) -> None:
        start.wait()
        numbers.append(save_prediction_run(records, RUN, [answer(f"s{n}", p) for n in range(50)]))

    threads = [threading.Thread(target=save, args=(p,)) for p in (0.1, 0.2, 0.3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (saved,) = latest_predictions(records)
    assert numbers == [saved.id] * 3
    assert len(saved.studies) == 50
    assert len({study.probabilities["X"] for study in saved.studies}) == 1
