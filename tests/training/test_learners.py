"""Every meta-learner of ``cohort.toml`` trains, meets the others on the same episodes, and serves where it can."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Grads, Metrics
from meta_dx.learners.body_options import MetaLstmOptions
from meta_dx.learners.options import LearnerOptions, MannOptions, NeuralProcessOptions
from meta_dx.learners.registry import BASELINES
from meta_dx.learners.ridge import Ridge
from meta_dx.training import selection
from meta_dx.training.body import NETWORK_LEARNERS
from meta_dx.training.episodic import episode_sampler, meta_train
from meta_dx.training.frozen import train_on_embeddings
from meta_dx.training.optimizing import rate_share
from meta_dx.training.options import FROZEN_LEARNERS
from meta_dx.training.pretraining import pretrain
from meta_dx.training.selection import TrainingResult
from meta_dx.training.shards import Shard
from meta_dx.training.stage import CHECKPOINT, Stage, run_stage
from meta_dx.training.start import with_prior_head
from meta_dx.training.task import TrainingTask, open_fabric
from meta_dx.training.train import train, train_learner
from meta_dx.training.validation import Checked, ValidationEpisodes
from tests.training.tiny import tiny_task

ALL = (*FROZEN_LEARNERS, *NETWORK_LEARNERS)
SMALL = LearnerOptions(
    name="anp",
    compare=ALL[1:],  # type: ignore[arg-type] # names of learners
    anp=NeuralProcessOptions(hidden=16, heads=2, latent_size=4, decoder=8),
    mann=MannOptions(controller=16, rows=8, width=8, heads=2),
    meta_lstm=MetaLstmOptions(steps=2),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingTask, TrainingResult]:
    folder = tmp_path_factory.mktemp("learners")
    quick = {"pretrain_epochs": 1, "episodes": 2, "head_steps": 3, "body_validation_episodes": 2}
    task = replace(tiny_task(folder, **quick), learner=SMALL)
    return task, train(task)


def test_every_learner_stands_in_the_table_and_none_that_cannot_serve_is_chosen(
    trained: tuple[TrainingTask, TrainingResult],
) -> None:
    _, result = trained
    heads = {row["head"] for row in result.rows}
    assert heads == {*ALL, "prototypical", "simpleshot", "logistic", "ridge", "cosine"}
    unable = {row["head"] for row in result.rows if not row["serves"]}
    assert unable == {"mann", "meta_lstm", *NETWORK_LEARNERS}
    assert unable.isdisjoint(result.heads())
    assert {"anp", "leo"} <= set(result.heads()) or result.stage != "pretrain"
    assert {row["episodes"] for row in result.rows if row["head"] in NETWORK_LEARNERS} == {2}


def test_the_table_is_strict_json_also_where_a_learner_answers_one_episode(tmp_path: Path) -> None:
    quick = {"pretrain_epochs": 0, "episodes": 1, "body_validation_episodes": 1}
    learner = replace(SMALL, name="maml", compare=())
    result = train(replace(tiny_task(tmp_path, **quick), learner=learner))
    table = json.loads((result.folder / "training.json").read_text(), parse_constant=pytest.fail)["selection"]
    alone = [row["mc95"] for row in table if row["head"] == "maml"]
    assert alone == [None, None]
    assert all(row["mc95"] is not None for row in table if row["head"] == "simpleshot")


def test_learners_on_frozen_embeddings_leave_the_encoder_as_it_was(
    trained: tuple[TrainingTask, TrainingResult],
) -> None:
    task, _ = trained
    kept = {
        name: torch.load(task.folder / name / "best.pt", weights_only=True)["encoder"]
        for name in ("pretrain", "prototypical", *FROZEN_LEARNERS)
    }
    starts = [kept["pretrain"], kept["prototypical"]]
    for name in FROZEN_LEARNERS:
        assert any(all(torch.equal(v, start[k]) for k, v in kept[name].items()) for start in starts)


def test_a_finished_learner_is_read_and_another_option_of_it_trains_it_anew(
    trained: tuple[TrainingTask, TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, result = trained
    assert train(task).version == result.version
    start = pretrain(task)
    monkeypatch.setattr("meta_dx.training.frozen.run_stage", lambda *_: "trained")
    other = replace(task, learner=replace(SMALL, leo=replace(SMALL.leo, latent_size=8)))
    assert train_on_embeddings(other, "leo", start) == "trained"


def test_the_version_of_a_choice_names_every_head_that_goes_into_a_bundle(
    trained: tuple[TrainingTask, TrainingResult],
) -> None:
    task, result = trained
    served = result.head
    beside = next(name for name in FROZEN_LEARNERS if name in result.heads() and name != served)
    stages = [pretrain(task), meta_train(task, pretrain(task))]
    without = selection.select(replace(task, folder=task.folder / "less"), stages)
    assert beside not in without.heads()
    assert without.version != result.version
    # What a bundle says of itself are the options as they were resolved.
    assert result.options("anp")["prior_head"] in BASELINES


def test_the_rate_of_a_learner_is_its_own_where_it_has_one(
    trained: tuple[TrainingTask, TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = trained
    start, asked = pretrain(task), []
    monkeypatch.setattr("meta_dx.training.frozen.run_stage", lambda stage, *_: asked.append(stage))
    lstm = replace(SMALL.meta_lstm, learning_rate=0.002)
    learner = replace(SMALL, leo=replace(SMALL.leo, learning_rate=0.003), meta_lstm=lstm)
    other = replace(task, learner=learner, options=replace(task.options, head_learning_rate=0.05))
    for name in FROZEN_LEARNERS:
        train_on_embeddings(other, name, start)
    rates = {stage.name: stage.rates["head"] for stage in asked}
    assert rates == {"leo": 0.003, "meta_lstm": 0.002, "mann": 0.05, "anp": 0.05}


def test_fewer_validation_diseases_than_wanted_ways_make_every_learner_smaller(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, pretrain_epochs=0, validation_ways=9, head_steps=1, episodes=1)
    start = pretrain(task)
    for name in ("mann", "meta_lstm"):
        assert train_on_embeddings(replace(task, learner=SMALL), name, start).steps == 1
    assert ValidationEpisodes(task.validation, task.options, 0).ways == 4


@pytest.mark.parametrize(("name", "option"), [("leo", "head_steps"), ("reptile", "episodes")])
def test_a_learner_without_steps_is_refused(tmp_path: Path, name: str, option: str) -> None:
    task = tiny_task(tmp_path, pretrain_epochs=0, **{option: 0})
    with pytest.raises(MetaDxError, match=rf"\[training\] {option} is 0, and \[learner\] asks for '{name}'"):
        train_learner(task, name, pretrain(task), lambda *_: None)


def test_the_neural_process_adds_to_the_plain_head_that_is_best_on_the_validation_diseases(
    trained: tuple[TrainingTask, TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, result = trained
    start = pretrain(task)
    monkeypatch.setattr(
        ValidationEpisodes, "accuracy", lambda _self, head, _: 0.9 if isinstance(head, Ridge) else 0.5
    )
    found = with_prior_head(task, start).learner.anp
    assert found.prior_head == "ridge"
    assert found.prior_scale > 0
    own = replace(SMALL.anp, prior_head="logistic")
    named = with_prior_head(replace(task, learner=replace(SMALL, anp=own)), start).learner.anp
    assert named.prior_head == "logistic"
    assert named.prior_scale > 0
    fixed = replace(task, learner=replace(SMALL, anp=replace(own, prior_scale=3.0)))
    assert with_prior_head(fixed, start) is fixed
    if "anp" in result.heads():  # what was named is stored with the weights
        assert result.heads()["anp"].options.prior_head in BASELINES
        assert result.heads()["anp"].options.prior_scale > 0


def test_reptile_sees_as_many_rows_of_a_class_as_the_paper_says(tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    plan = next(iter(episode_sampler(task, 3, 4).plans(1)))
    assert [len(s) + len(q) for s, q in zip(plan.support, plan.query, strict=True)] == [4, 4, 4]


def test_training_gives_up_shots_before_diseases_and_tells_which_option_is_too_high(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = tiny_task(tmp_path, ways=(2, 6), shots=(1, 9))  # six common diseases of six patients
    sampler = episode_sampler(task)
    assert (sampler.ways, sampler.shots) == ((2, 6), (1, 4))
    assert "up to 6 ways, 4 shots" in caplog.text
    assert "9 ([training] shots)" in caplog.text
    assert episode_sampler(task, 3, 20).shots == (4, 4)
    assert "10 ([learner.reptile] train_shots)" in caplog.text
    with pytest.raises(MetaDxError, match=r"whatever \[learner.reptile\] train_shots is"):
        episode_sampler(task, 7, 20)


@pytest.mark.parametrize(
    ("anp", "latent", "serves", "says"),
    [
        (
            [0.5] * 10,
            4,
            "anp",
            r"anp on the prototypical checkpoint serves, against logistic .* \+0.0 points",
        ),
        ([0.4] * 10, 4, "logistic", "anp may be more than a point lower"),
        ([0.5] * 10, 0, "logistic", "without its latent"),
        ([0.5] * 4, 4, "logistic", "4 validation diseases are too few"),
        ([0.5] * 9, 4, "logistic", "9 validation diseases are too few"),
    ],
)
def test_who_serves_and_what_is_said_of_it(anp: list[float], latent: int, serves: str, says: str) -> None:
    head = SimpleNamespace(noise_size=latent)
    plain = SimpleNamespace(
        stage="prototypical",
        heads={"logistic": None, "anp": head},
        hits={"logistic": 0.5, "anp": float(np.mean(anp))},
        means={"logistic": 0.5, "anp": float(np.mean(anp))},
    )
    other = SimpleNamespace(stage="pretrain", heads={"logistic": None}, means={"logistic": 0.3})
    episodes = SimpleNamespace(
        difference=lambda a, b: (a - b, a - b - 0.005, a - b + 0.005), diseases=len(anp)
    )
    chosen, name, note = selection._choice([other, plain], episodes)  # type: ignore[list-item,arg-type] # stand-ins
    assert (chosen.stage, name) == ("prototypical", serves)
    assert re.search(says, note), note
    assert "the pretrain checkpoint with logistic, 30.0%, 20.0 points lower" in note


def test_the_weights_that_are_kept_have_the_lowest_log_loss_where_it_is_measured(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 0.0)
    checks = iter([Checked(0.5, 2.0), Checked(0.6, 1.5), Checked(0.9, 1.8), Checked(0.7, 1.7)])
    stage = Stage(
        name="sure",
        key="k",
        folder=tmp_path,
        modules={"m": module},
        rates={"m": 1.0},
        weight_decay=0.0,
        steps=4,
        gradients=lambda _: ({"m.weight": -torch.ones(1, 1)}, {"loss": torch.ones(()), "accuracy": 1.0}),  # type: ignore[dict-item,return-value]
        validate=lambda: next(checks),
        validate_every=1,
        patience=2,
        checkpoint_seconds=1000.0,
        seed=0,
        optimizer="sgd",
        schedule="linear",
    )
    result = run_stage(stage, open_fabric(tiny_task(tmp_path)))
    assert (result.best_step, result.best_accuracy) == (1, 0.6)
    assert float(result.best["m"]["weight"]) == pytest.approx(1.0)
    assert [point["log_loss"] for point in result.history] == [2.0, 1.5, 1.8, 1.7]
    assert result.stopped == "no better validation log loss in 2 validations"


def test_a_run_that_was_killed_before_log_losses_were_known_keeps_the_best_weights_it_had(
    tmp_path: Path,
) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 0.0)
    accuracies, kills = iter([0.5, 0.9, 0.6, 0.7]), iter([True])

    def gradients(shard: Shard) -> tuple[Grads, Metrics]:
        if shard.step == 1 and next(kills, False):
            raise KeyboardInterrupt
        return {"m.weight": -torch.ones(1, 1)}, {"loss": torch.ones(()), "accuracy": torch.ones(())}

    stage = Stage(
        name="old",
        key="k",
        folder=tmp_path,
        modules={"m": module},
        rates={"m": 1.0},
        weight_decay=0.0,
        steps=3,
        gradients=gradients,
        validate=lambda: Checked(next(accuracies)),
        validate_every=1,
        patience=0,
        checkpoint_seconds=-1.0,  # after every step
        seed=0,
        optimizer="sgd",
        schedule="linear",
    )
    old, fabric = tmp_path / CHECKPOINT, open_fabric(tiny_task(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, fabric)
    content = torch.load(old, weights_only=True)
    del content["state"]["best_score"]  # as it was written then
    torch.save(content, old)
    result = run_stage(stage, fabric)
    assert [point["accuracy"] for point in result.history] == [0.5, 0.9, 0.6, 0.7]
    assert (result.best_step, result.best_accuracy) == (1, 0.9)
    assert float(result.best["m"]["weight"]) == pytest.approx(1.0)


def test_reptile_is_applied_by_plain_descent_of_a_rate_that_falls_in_a_line(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 10.0)
    stage = Stage(
        name="line",
        key="k",
        folder=tmp_path,
        modules={"m": module},
        rates={"m": 1.0},
        weight_decay=0.5,
        steps=4,
        gradients=lambda _: (
            {"m.weight": torch.full((1, 1), 100.0)},
            {"loss": torch.ones(()), "accuracy": 1.0},
        ),  # type: ignore[dict-item,return-value]
        validate=lambda: Checked(0.5),
        validate_every=4,
        patience=0,
        checkpoint_seconds=1000.0,
        seed=0,
        optimizer="sgd",
        schedule="linear",
        clip=lambda gradients: gradients,
    )
    run_stage(stage, open_fabric(tiny_task(tmp_path)))
    assert float(module.weight.detach()) == pytest.approx(10.0 - 100.0 * (1 + 0.75 + 0.5 + 0.25))
    assert rate_share(0, 100, "cosine") == pytest.approx(0.1)
