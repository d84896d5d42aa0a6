"""A stage is trained anew where its episodes are others than before, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meta_dx.cohort.examples import Examples
from meta_dx.learners.body_options import ReptileOptions
from meta_dx.learners.options import LearnerOptions
from meta_dx.training import body, episodic, frozen, pretraining
from meta_dx.training.body import NETWORK_LEARNERS, build_on_images
from meta_dx.training.episodic import FIXED_WAYS, PROTOTYPICAL
from meta_dx.training.feasibility import feasible, formerly_feasible, validation_fits
from meta_dx.training.frozen import build_on_embeddings
from meta_dx.training.options import FROZEN_LEARNERS, TrainingOptions
from meta_dx.training.task import PRETRAIN, TrainingTask

LEARNERS = (PROTOTYPICAL, *FROZEN_LEARNERS, *NETWORK_LEARNERS)
FITS = ("training_fits", "validation_fits")


def diseases(*patients: int) -> Examples:
    """One disease for each number of patients, who have a study of one image each."""
    codes = [f"D{d:02}" for d, count in enumerate(patients) for _ in range(count)]
    names = np.array([f"P{n}" for n in range(len(codes))])
    return Examples(names, names, np.array(codes), tuple(np.array([n]) for n in range(len(codes))))


def task_of(common: Examples, validation: Examples, **options: Any) -> TrainingTask:
    return TrainingTask(
        common=common,
        validation=validation,
        images=np.zeros((1, 1, 32, 32), np.uint8),
        folder=Path("never_written"),
        options=TrainingOptions(**options),
    )


def entries(task: TrainingTask) -> dict[str, dict[str, object]]:
    """What each stage's key holds of the ways and shots that fit, where it holds any."""
    deciding = {PRETRAIN: pretraining._deciding(task), PROTOTYPICAL: episodic._deciding(task)}
    deciding |= {name: frozen._deciding(task, name) for name in FROZEN_LEARNERS}
    deciding |= {name: body._deciding(task, name) for name in NETWORK_LEARNERS}
    found = {stage: {fit: d[fit] for fit in FITS if fit in d} for stage, d in deciding.items()}
    return {stage: held for stage, held in found.items() if held}


@pytest.mark.parametrize(("common", "validation"), [(8, 6), (8, 4), (12, 6)])
def test_keys_stay_where_only_diseases_are_too_few(common: int, validation: int) -> None:
    task = task_of(diseases(*[20] * common), diseases(*[20] * validation))
    assert entries(task) == {}


def test_keys_stay_where_all_diseases_have_as_few_patients() -> None:
    assert feasible(diseases(*[6] * 8), 10, 5) == (8, 4)
    assert entries(task_of(diseases(*[6] * 8), diseases(*[6] * 6))) == {}


def test_other_training_episodes_are_in_the_keys_of_the_stages_that_draw_them() -> None:
    common = diseases(7, 7, 7, 7, 7, 4, 4, 4, 4, 4)  # ten diseases at two shots, five at five
    held = {"training_fits": (10, 2)}
    found = entries(task_of(common, diseases(*[20] * 6)))
    assert found == {name: held for name in LEARNERS if name not in FIXED_WAYS}
    found = entries(task_of(common, diseases(*[20] * 6), validation_ways=6))
    assert found.pop("maml") == {"training_fits": (6, 2)}
    assert set(found) == {*LEARNERS} - {"maml"}


def test_the_shots_of_reptile_are_in_the_key_of_reptile_only() -> None:
    task = task_of(diseases(20, 20, *[8] * 8), diseases(*[20] * 6))
    assert entries(task) == {}
    task = replace(task, learner=LearnerOptions(reptile=ReptileOptions(train_shots=20)))
    assert entries(task) == {"reptile": {"training_fits": (5, 6)}}


def test_other_validation_episodes_are_in_the_key_of_every_stage() -> None:
    validation = diseases(20, 20, 20, 6, 6, 6)
    task = task_of(diseases(*[20] * 12), validation)
    held = {"validation_fits": [(5, 1), (5, 4)]}
    assert entries(task) == {stage: held for stage in (PRETRAIN, *LEARNERS)}
    assert validation_fits(validation, replace(task.options, validation_ways=3)) == {}


def test_diseases_were_given_up_before_shots() -> None:
    examples = diseases(20, 20, 20, 6, 6)
    assert formerly_feasible(examples, 5, 1) == (5, 1)
    assert formerly_feasible(examples, 5, 5) == (3, 5)
    assert formerly_feasible(examples, 5, 30) == (3, 18)
    above = {"D00": ["D01"], "D02": ["D01"]}
    assert formerly_feasible(examples, 5, 5, above) == (2, 5)


def test_learners_for_one_number_of_ways_are_known_by_name() -> None:
    task = task_of(diseases(*[20] * 8), diseases(*[20] * 6))
    built = {name: build_on_embeddings(name, 8, task) for name in FROZEN_LEARNERS}
    built |= {name: build_on_images(name, task) for name in NETWORK_LEARNERS}
    assert {name for name, learner in built.items() if learner.capabilities.fixed_ways} == {*FIXED_WAYS}
