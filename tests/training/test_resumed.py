"""The stage of every learner that is trained, cut off in its midst and gone on with, ends in the same bits."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from meta_dx.learners.body_options import (
    AnilOptions,
    MamlOptions,
    MetaLstmOptions,
    ProtoMamlOptions,
    ReptileOptions,
)
from meta_dx.learners.options import LearnerOptions, MannOptions, NeuralProcessOptions
from meta_dx.progress import silent
from meta_dx.training import episodic
from meta_dx.training import stage as stages
from meta_dx.training.body import NETWORK_LEARNERS
from meta_dx.training.curves import Curve
from meta_dx.training.options import FROZEN_LEARNERS
from meta_dx.training.pretraining import pretrain
from meta_dx.training.stage import CHECKPOINT, StageResult
from meta_dx.training.task import TrainingTask
from meta_dx.training.train import train_learner
from tests.training.tiny import tiny_task

STEPS = 7
#: Runs are cut off before these steps are applied: within a validation's span of two steps, and right after one.
CUTS = (3, 4)

MAML = MamlOptions(steps=2, test_steps=2, learned_rates=True)
ANP = NeuralProcessOptions(
    hidden=16, heads=2, latent_size=4, decoder=8, prior_head="logistic", prior_scale=2.0
)
MANN = MannOptions(controller=16, rows=8, width=8, heads=2)
SMALL = LearnerOptions(
    name="anp",
    anp=ANP,
    maml=MAML,
    anil=AnilOptions(steps=2, test_steps=2),
    proto_maml=ProtoMamlOptions(steps=2, test_steps=2),
    reptile=ReptileOptions(steps=3, test_steps=3),
    mann=MANN,
    meta_lstm=MetaLstmOptions(steps=2),
)
PER_STEP = replace(MAML, batch_norm="per_step", multi_step_loss=True)  # a loss that changes with the step
CASES = {
    **{name: (name, SMALL) for name in (*FROZEN_LEARNERS, *NETWORK_LEARNERS) if name != "fine_tuning"},
    "maml++": ("maml", replace(SMALL, maml=PER_STEP)),
    "mann on sequences": ("mann", replace(SMALL, mann=replace(MANN, objective="sequence"))),
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library may catch it."""


@dataclass
class Run:
    """What one process did: the weights it stopped with, the steps it applied, its history."""

    steps: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    history: Curve = field(default_factory=list)


Start = tuple[TrainingTask, StageResult]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    task = tiny_task(
        tmp_path_factory.mktemp("resumed"),
        pretrain_epochs=1,
        episodes=STEPS,
        head_steps=STEPS,
        rotate=15.0,
        validation_shots=(1,),
        validation_episodes=2,
        body_validation_episodes=1,
        checkpoint_seconds=0.0,  # after every step
    )
    return task, pretrain(task)


def run(task: TrainingTask, name: str, start: StageResult, cut: int | None = None) -> Run:
    """Train like a process of its own, which comes with another state of all global generators."""
    torch.manual_seed(secrets.randbits(40))
    np.random.seed(secrets.randbits(30))  # the global one is meant
    random.seed(secrets.randbits(40))
    found, apply, finish = Run(), stages._apply, stages._finish

    def counted(*arguments: Any) -> None:
        if found.steps == cut:
            raise Killed
        apply(*arguments)
        found.steps += 1

    def finished(stage: stages.Stage, state: stages.StageState) -> StageResult:
        found.weights = {
            f"{module}.{key}": value.clone()
            for module, content in stage.modules.items()
            for key, value in content.state_dict().items()
        }
        found.history = state.history
        return finish(stage, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_apply", counted)
        patch.setattr(stages, "_finish", finished)
        patch.setattr(episodic, "STEPS_PER_VALIDATION_UNIT", 2)
        try:
            train_learner(task, name, start, silent)
        except Killed:
            assert not found.weights
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_learner_that_is_cut_off_twice_ends_in_the_weights_of_one_run(
    start: Start, tmp_path: Path, case: str
) -> None:
    name, learner = CASES[case]
    task, encoder = replace(start[0], learner=learner), start[1]
    whole = run(replace(task, folder=tmp_path / "whole"), name, encoder)
    assert whole.steps == STEPS
    broken = replace(task, folder=tmp_path / "broken")
    checkpoint = broken.folder / name / CHECKPOINT
    assert [run(broken, name, encoder, cut).steps for cut in (CUTS[0], CUTS[1] - CUTS[0])] == [3, 1]
    midway = torch.load(checkpoint, weights_only=True)["modules"]
    last = run(broken, name, encoder)
    assert last.steps == STEPS - CUTS[1]  # it went on, and did not begin anew
    assert last.history == whole.history
    assert last.weights.keys() == whole.weights.keys()
    for key, value in whole.weights.items():
        assert torch.equal(last.weights[key], value), key
    results = [
        torch.load(folder / name / "best.pt", weights_only=True)
        for folder in (tmp_path / "whole", broken.folder)
    ]
    for module, content in results[0].items():
        for key, value in content.items():
            assert torch.equal(results[1][module][key], value), f"{module}.{key}"
    module = "head" if name in FROZEN_LEARNERS else "learner"
    assert not all(torch.equal(whole.weights[f"{module}.{key}"], v) for key, v in midway[module].items())
    assert not checkpoint.exists()
