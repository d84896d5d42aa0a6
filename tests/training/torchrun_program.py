"""Trains every learner on the tiny cohort, by itself or under torchrun: ``folder [process:step]``, where to die."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from meta_dx.learners.body_options import (
    AnilOptions,
    MamlOptions,
    MetaLstmOptions,
    ProtoMamlOptions,
    ReptileOptions,
)
from meta_dx.learners.options import LearnerOptions, MannOptions, NeuralProcessOptions
from meta_dx.progress import silent
from meta_dx.training import processes, stage
from meta_dx.training.task import TrainingTask
from meta_dx.training.train import train_stages
from meta_dx.training.validation import Checked
from tests.training.tiny import tiny_task

MAML = MamlOptions(steps=2, test_steps=2, batch_norm="support", learned_rates=True)
LEARNERS = LearnerOptions(
    name="anp",
    compare=("leo", "maml", "anil", "proto_maml", "reptile", "mann", "meta_lstm"),
    anp=NeuralProcessOptions(hidden=16, heads=2, latent_size=4, decoder=8),
    maml=replace(MAML, batch_norm="per_step"),
    anil=AnilOptions(steps=2, test_steps=2),
    proto_maml=ProtoMamlOptions(steps=2, test_steps=2, batch_norm="support", learned_rates=True),
    reptile=ReptileOptions(steps=3, test_steps=3),
    mann=MannOptions(controller=16, rows=8, width=8, heads=2),
    meta_lstm=MetaLstmOptions(steps=2),
)
STAGES = ("pretrain", "prototypical", *LEARNERS.wanted)


def task_in(folder: Path) -> TrainingTask:
    """A few steps of every stage, each in four shards: two for each of two processes."""
    task = tiny_task(
        folder,
        shards=4,
        pretrain_epochs=1,
        episodes=2,
        episodes_per_step=4,
        head_steps=3,
        validation_shots=(1,),
        validation_episodes=2,
        body_validation_episodes=1,
        checkpoint_seconds=0.0,
    )
    return replace(task, learner=LEARNERS)


def train_to_the_end(task: TrainingTask) -> None:
    """Train all stages so that the last weights of each are its best, whatever validation says."""
    validate = stage._validate

    def rising(trained: stage.Stage, state: stage.StageState, rate: float = 0.0) -> None:
        def checked() -> Checked:
            return Checked(trained.validate().accuracy + state.step)

        validate(replace(trained, validate=checked), state, rate)

    stage._validate = rising
    try:
        train_stages(task, lambda _: silent)
    finally:
        stage._validate = validate


def die_at(process: int, step: int) -> None:
    """Kill this process before it applies a step, counted over all stages, if it has this number."""
    apply, made = stage._apply, itertools.count()

    def dying(*arguments: object) -> None:
        if processes.rank() == process and next(made) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        apply(*arguments)  # type: ignore[arg-type]

    stage._apply = dying


if __name__ == "__main__":
    if sys.argv[2:]:
        die_at(*map(int, sys.argv[2].split(":")))
    train_to_the_end(task_in(Path(sys.argv[1])))
    processes.leave()
