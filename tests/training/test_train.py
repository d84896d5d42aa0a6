"""The whole training on a tiny cohort: it learns, chooses honestly, resumes bit for bit, repeats nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_dx.backbones import BackboneOptions, build_encoder, save_encoder
from meta_dx.backbones.encoder import weights_hash
from meta_dx.errors import MetaDxError
from meta_dx.learners.options import LearnerOptions, PrototypicalOptions
from meta_dx.training import stage as stages
from meta_dx.training import task as tasks
from meta_dx.training.embedding import embed_studies
from meta_dx.training.episodic import meta_train
from meta_dx.training.pretraining import pretrain
from meta_dx.training.selection import TrainingResult, load_result, select
from meta_dx.training.stage import CHECKPOINT
from meta_dx.training.task import LEAST_BF16_SIDE, TrainingTask, step_seed
from meta_dx.training.train import train, trained_learner
from meta_dx.training.validation import Checked, ValidationEpisodes
from tests.training.tiny import cohort, tiny_task


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingTask, TrainingResult]:
    task = tiny_task(tmp_path_factory.mktemp("run"))
    return task, train(task)


Trained = tuple[TrainingTask, TrainingResult]


def final_weights(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    content = torch.load(folder / stage / "best.pt", weights_only=True)
    return {f"{module}.{name}": t for module, state in content.items() for name, t in state.items()}


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_loss_falls_and_unseen_diseases_are_told_apart(trained: Trained) -> None:
    _, result = trained
    losses = [point["loss"] for point in result.history["pretrain"][1:]]
    assert losses[-1] < losses[0]
    assert max(row["mean"] for row in result.rows) > 0.6  # chance is 1/3


def test_every_checkpoint_meets_every_head_on_the_same_episodes_and_the_best_is_chosen(
    trained: Trained,
) -> None:
    _, result = trained
    pairs = {(row["checkpoint"], row["head"]) for row in result.rows}
    assert pairs == {
        (stage, head)
        for stage in ("pretrain", "prototypical")
        for head in ("prototypical", "simpleshot", "logistic", "ridge", "cosine")
    }
    assert {(row["shots"], row["ways"]) for row in result.rows} == {(1, 3), (2, 3)}
    chosen = [row for row in result.rows if row["chosen"]]
    assert {(row["checkpoint"], row["head"]) for row in chosen} == {(result.stage, result.head)}
    assert chosen[0]["mean"] == max(row["mean"] for row in result.rows)
    for row in result.rows:
        assert 0 <= row["low"] <= row["high"] <= 1


def test_the_stored_encoder_and_head_give_the_accuracy_of_the_table(trained: Trained) -> None:
    task, result = trained
    vectors = embed_studies(result.encoder(), task.images, task.validation)
    episodes = ValidationEpisodes(task.validation, task.options, step_seed(task.seed, "selected", 0))
    for name, head in result.heads().items():
        rows = [r for r in result.rows if (r["checkpoint"], r["head"]) == (result.stage, name)]
        for row, score in zip(rows, episodes.scores(head, vectors), strict=True):
            assert row["accuracy"] == pytest.approx(score.accuracy, abs=1e-4)
    assert next(iter(result.heads())) == result.head
    common = embed_studies(result.encoder(), task.images, task.common)
    np.testing.assert_allclose(result.base_mean.numpy(), common.mean(0), rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_read_and_not_repeated(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    task, result = trained

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stages, "_train", refuse)
    again = train(task)
    assert (again.version, again.rows) == (result.version, result.rows)
    assert load_result(task.folder) == again


def test_another_seed_or_other_options_are_another_run(trained: Trained, tmp_path: Path) -> None:
    task, _ = trained
    folder = tmp_path / "copy"
    shutil.copytree(task.folder, folder)
    kept = final_weights(folder, "pretrain")
    unchanged = replace(task, folder=folder, options=replace(task.options, episodes=7, threads=1))
    assert pretrain(unchanged).version == pretrain(task).version  # episodes do not touch pre-training
    pretrain(replace(task, folder=folder, seed=1))
    assert any(not torch.equal(kept[n], v) for n, v in final_weights(folder, "pretrain").items())


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library may catch it."""


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    apply, made = stages._apply, 0

    def dying(*arguments: object) -> None:
        nonlocal made
        made += 1
        if made > steps:
            raise Killed
        apply(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "_apply", dying)


def test_a_run_that_dies_again_and_again_ends_in_the_same_bits(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = trained
    broken = replace(task, folder=tmp_path, options=replace(task.options, checkpoint_seconds=0.0))
    deaths = 0
    for steps in (1, 7, 12, 3, 9, 100):
        with monkeypatch.context() as patch:
            interrupt_after(patch, steps)
            try:
                meta_train(broken, pretrain(broken))
                break
            except Killed:
                deaths += 1
    assert deaths >= 4
    for stage in ("pretrain", "prototypical"):
        assert_same_bits(final_weights(task.folder, stage), final_weights(tmp_path, stage))
        told = [json.loads((folder / stage / "stage.json").read_text()) for folder in (task.folder, tmp_path)]
        assert told[0]["history"] == told[1]["history"]
        assert not (tmp_path / stage / CHECKPOINT).exists()


def test_a_checkpoint_of_other_options_is_not_taken_up(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = trained
    options = replace(task.options, learning_rate=1e-4, checkpoint_seconds=0.0)
    other = replace(task, folder=tmp_path, options=options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt_after(patch, 5)
        pretrain(other)
    assert (tmp_path / "pretrain" / CHECKPOINT).exists()
    pretrain(replace(task, folder=tmp_path))
    assert_same_bits(final_weights(task.folder, "pretrain"), final_weights(tmp_path, "pretrain"))


def test_training_stops_when_validation_no_longer_improves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])
    monkeypatch.setattr(
        "meta_dx.training.pretraining._Classification.validate", lambda _self: Checked(next(answers))
    )
    result = pretrain(tiny_task(tmp_path, pretrain_epochs=20, patience=3))
    assert [point["accuracy"] for point in result.history] == [0.2, 0.5, 0.4, 0.5, 0.3]
    assert (result.best_accuracy, result.best_step) == (0.5, 3 * 5)  # the later of two that are level
    assert result.stopped == "no better validation accuracy in 3 validations"


def test_a_learner_that_makes_things_worse_is_not_chosen_and_the_note_says_so(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, episode_learning_rate=1.0, patience=0)
    first = pretrain(task)
    learner = meta_train(task, first)
    assert learner.best_step == 0 or learner.best_accuracy > learner.history[0]["accuracy"]
    result = select(task, [first, learner])
    if result.stage == "pretrain":
        assert "Best of the others: the prototypical checkpoint" in result.note


def test_without_epochs_and_episodes_the_users_own_weights_are_used_as_they_are(tmp_path: Path) -> None:
    source = build_encoder(BackboneOptions(), 1)
    save_encoder(source, tmp_path / "own.pt")
    task = replace(
        tiny_task(tmp_path / "run", pretrain_epochs=0, episodes=0),
        backbone=BackboneOptions(weights=str(tmp_path / "own.pt")),
    )
    result = train(task)
    assert weights_hash(result.encoder().network) == weights_hash(source.network)
    assert result.stage == "pretrain"


def test_progress_tells_stage_steps_loss_and_accuracy(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    train(tiny_task(tmp_path, episodes=10), progress=lambda *what: told.append(what))
    last = {stage: (done, total, message) for stage, done, total, message in told}
    assert last["pretrain"][:2] == (20, 20)
    assert last["prototypical"][:2] == (10, 10)
    for word in ("loss", "validation", "kept"):
        assert word in last["pretrain"][2]
    assert last["select"][0] == last["select"][1]


def test_the_cosine_option_reaches_the_trained_head(tmp_path: Path) -> None:
    task = replace(
        tiny_task(tmp_path, pretrain_epochs=1, episodes=3),
        learner=LearnerOptions(prototypical=PrototypicalOptions(distance="cosine")),
    )
    assert train(task).heads()["prototypical"].distance == "cosine"


def test_too_few_validation_patients_are_named_in_one_sentence(tmp_path: Path) -> None:
    _, validation = cohort(3, 2, seed=1)
    with pytest.raises(MetaDxError) as told:
        train(replace(tiny_task(tmp_path), validation=validation))
    assert told.value.code == "too_few_diseases"
    assert "D10 (2)" in str(told.value)


def test_cuda_asked_for_where_there_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MetaDxError) as told:
        pretrain(replace(tiny_task(tmp_path), device="cuda"))
    assert told.value.code == "no_cuda"


def test_volumes_train_as_pictures_do(tmp_path: Path) -> None:
    flat = tiny_task(tmp_path, pretrain_epochs=1, episodes=2)
    volumes = np.repeat(flat.images[:, :, None], 16, axis=2)  # (n, 1, 16, 16, 16)
    result = train(replace(flat, images=volumes, options=replace(flat.options, batch_size=12)))
    assert result.encoder().spatial_dims == 3


def test_bf16_trains_on_a_cpu(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, precision="bf16")
    with pytest.raises(MetaDxError, match="at least 32 pixels along their longest side, not 16"):
        pretrain(task)
    larger = task.images.repeat(LEAST_BF16_SIDE // task.images.shape[2], 2).repeat(2, 3)
    result = pretrain(replace(task, images=larger))
    assert result.best_accuracy > 0.4
    assert result.skipped == 0
    assert all(value.isfinite().all() for value in final_weights(tmp_path, "pretrain").values())


def test_shallow_volumes_train_in_bf16_on_a_cpu(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, precision="bf16", pretrain_epochs=1)
    volumes = task.images.repeat(2, 2).repeat(2, 3)[:, :, None].repeat(4, 2)  # (n, 1, 4, 32, 32)
    result = pretrain(replace(task, images=volumes))
    assert result.steps > 0
    assert result.skipped == 0


def test_bf16_is_refused_where_an_encoder_is_to_be_trained_and_not_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tmp_path, precision="bf16", pretrain_epochs=1, episodes=2, head_steps=2)
    images = task.images.repeat(2, 2).repeat(2, 3)
    task = replace(task, images=images, learner=LearnerOptions(name="mann"))
    done = train(task)
    monkeypatch.setattr(tasks, "LEAST_BF16_SIDE", 64)
    (tmp_path / "selected" / "training.json").unlink()
    assert train(task).version == done.version  # chosen anew, from embeddings
    assert trained_learner(task, "mann").steps == 2
    shutil.rmtree(tmp_path / "mann")
    assert train(task).version == done.version  # 32 bit on what the encoder left, whatever precision says
    with pytest.raises(MetaDxError, match="at least 64 pixels along their longest side, not 32"):
        meta_train(replace(task, options=replace(task.options, episodes=3)), pretrain(task))
    shutil.rmtree(tmp_path / "pretrain")
    with pytest.raises(MetaDxError, match="at least 64 pixels along their longest side, not 32"):
        pretrain(task)
    with pytest.raises(MetaDxError) as told:
        pretrain(replace(task, may_train=False))
    assert told.value.code == "not_trained"
