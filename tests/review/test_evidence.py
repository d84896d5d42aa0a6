"""The pictures of the confirmed cases that an answer rests on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import update

from meta_dx.records.predictions import latest_predictions, save_prediction_run
from meta_dx.records.schema import PredictionRow
from meta_dx.review.desk import Desk
from meta_dx.review.images import Frame
from tests.review.conftest import Browser


def test_the_picture_is_the_frame_that_the_answer_names(
    desk: Desk, browser: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = latest_predictions(desk.records)
    of_frame = [
        replace(one, evidence=tuple(replace(case, frame=7) for case in one.evidence or ()))
        for one in run.studies
    ]
    save_prediction_run(desk.records, run.run, of_frame)
    decoded: list[int] = []

    def frame(name: str, number: int, shown: bool = False) -> Frame:
        decoded.append(number)
        return Frame(np.zeros((8, 8), np.uint16))

    monkeypatch.setattr(desk.images, "_decoded", frame)
    person = browser()
    study = person.cases()[0]
    person.read(study)
    addresses = re.findall(r'src="(/cases/[^"]*/evidence/[^"]*)"', person.get(f"/cases/{study}").text)
    assert len(addresses) == 2
    decoded.clear()
    assert [person.get(address).status_code for address in addresses] == [200, 200]
    assert decoded == [7, 7]
    assert person.get(addresses[0].replace("frame=7", "frame=0")).status_code == 404


@pytest.mark.parametrize(("weights", "shown"), [([0.5, 0.004], 1), ([0.004, 0.003], 2), ([0.5, 0.006], 2)])
def test_a_case_that_weighs_nothing_is_not_among_those_that_it_rests_on(
    desk: Desk, browser: Callable[..., Browser], weights: list[float], shown: int
) -> None:
    (run,) = latest_predictions(desk.records)
    weighed = [
        replace(
            one,
            evidence=tuple(
                replace(case, weight=weight) for case, weight in zip(one.evidence or (), weights, strict=True)
            ),
        )
        for one in run.studies
    ]
    save_prediction_run(desk.records, run.run, weighed)
    person = browser()
    study = person.cases()[0]
    person.read(study)
    assert person.get(f"/cases/{study}").text.count("evidence__case") == shown


def test_an_answer_from_before_frames_were_kept_shows_the_first(
    desk: Desk, browser: Callable[..., Browser]
) -> None:
    (run,) = latest_predictions(desk.records)
    with desk.records.transaction() as session:
        for one in run.studies:
            told = [vars(case) for case in one.evidence or ()]
            old = [{name: value for name, value in case.items() if name != "frame"} for case in told]
            session.execute(
                update(PredictionRow).where(PredictionRow.study == one.study).values(evidence=old)
            )
    person = browser()
    study = person.cases()[0]
    person.read(study)
    addresses = re.findall(r'src="(/cases/[^"]*/evidence/[^"]*)"', person.get(f"/cases/{study}").text)
    assert [person.get(address).status_code for address in addresses] == [200, 200]
