"""A step in shards is the mean of its parts, whichever process had which, and refuses what cannot be shared."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from meta_dx.errors import MetaDxError
from meta_dx.learners.body_options import MetaLstmOptions
from meta_dx.learners.options import LearnerOptions
from meta_dx.settings import parse_settings
from meta_dx.training import processes
from meta_dx.training.episodic import PROTOTYPICAL
from meta_dx.training.frozen import _Embedded
from meta_dx.training.options import TrainingOptions, require_even_shards
from meta_dx.training.pretraining import pretrain
from meta_dx.training.selection import select
from meta_dx.training.shards import Shard, mean_over_shards, require_whole_shards
from meta_dx.training.start import encoder_of
from meta_dx.training.task import TrainingTask, open_fabric, step_seed
from tests.training.tiny import tiny_task


class Counting(nn.Module):
    """Two running numbers, one of them counted in whole steps, and one that never moves."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.register_buffer("running", torch.randn(5, generator=generator))
        self.register_buffer("fixed", torch.randn(7, generator=generator))
        self.register_buffer("steps", torch.tensor(11))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_gradients_metrics_and_running_statistics_are_the_mean_of_the_shards(count: int) -> None:
    generator = torch.Generator().manual_seed(secrets.randbits(40))
    module = Counting(generator)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    seen = torch.randn(count, 5, generator=generator)
    gradients = torch.randn(count, 3, 4, generator=generator)
    losses = torch.rand(count, generator=generator, dtype=torch.float64)

    def objective(shard: Shard) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        assert (shard.step, shard.count) == (6, count)
        assert torch.equal(module.running, before["running"])
        module.running.lerp_(seen[shard.index], 0.1)
        module.steps += 1
        return {"m.weight": gradients[shard.index]}, {"loss": losses[shard.index], "accuracy": 1.0}  # type: ignore[dict-item]

    found, metrics = mean_over_shards(objective, {"m": module}, 6, count)
    torch.testing.assert_close(found["m.weight"], gradients.mean(0))
    torch.testing.assert_close(metrics["loss"], losses.mean())
    assert metrics["accuracy"] == 1
    torch.testing.assert_close(module.running, before["running"].lerp(seen.mean(0), 0.1))
    assert torch.equal(module.fixed, before["fixed"])
    assert torch.equal(module.weight, before["weight"])
    assert int(module.steps) == 12


def test_an_undivided_step_is_handed_through_untouched() -> None:
    answer = ({"w": torch.ones(2)}, {"loss": torch.zeros(())})
    found = mean_over_shards(lambda shard: answer if shard == Shard(3) else None, {}, 3, 1)  # type: ignore[arg-type,return-value]
    assert found is answer
    assert Shard(3).part(8) == range(8)
    assert Shard(3).seed(5, "noise") == step_seed(5, "noise", 3)


def test_shards_cover_a_step_without_overlap_and_draw_for_themselves() -> None:
    shards = [Shard(3, index, 4) for index in range(4)]
    assert [place for shard in shards for place in shard.part(12)] == list(range(12))
    assert len({shard.seed(0, "noise") for shard in shards}) == 4


def test_on_frozen_embeddings_without_noise_shards_give_the_gradient_of_the_whole_step(
    tmp_path: Path,
) -> None:
    learner = LearnerOptions(name="meta_lstm", meta_lstm=MetaLstmOptions(steps=2))
    task = replace(tiny_task(tmp_path, pretrain_epochs=0, episodes=0, ways=(3, 3)), learner=learner)
    learning = _Embedded(task, "meta_lstm", open_fabric(task), encoder_of(task, pretrain(task)))
    whole, said = mean_over_shards(learning.gradients, {"head": learning.learner}, 5, 1)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3
    for shards in (2, 4):
        parts, told = mean_over_shards(learning.gradients, {"head": learning.learner}, 5, shards)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-6)
        torch.testing.assert_close(told["loss"], said["loss"])


def test_shards_train_other_weights_and_one_shard_is_no_other_stage(tmp_path: Path) -> None:
    task = tiny_task(tmp_path / "one", pretrain_epochs=1, episodes=0)
    names = "pretrain_epochs batch_size"
    assert task.deciding(names) == {"pretrain_epochs": 1, "batch_size": 8}
    cut = replace(task, folder=tmp_path / "two", options=replace(task.options, shards=2))
    assert cut.deciding(names) == {**task.deciding(names), "shards": 2}
    one, two = pretrain(task).history, pretrain(cut).history
    assert one[0] == two[0]
    assert one[-1]["loss"] != two[-1]["loss"]
    assert pretrain(replace(cut, folder=task.folder)).history == two  # that of one shard is out of date


def test_the_choice_is_not_made_again_because_an_option_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tmp_path, pretrain_epochs=0, episodes=0)
    stages = [pretrain(task)]
    chosen = select(task, stages)
    monkeypatch.setattr("meta_dx.training.selection._candidate", lambda *_: pytest.fail("chosen again"))
    other = replace(task, options=replace(task.options, shards=2))
    assert select(other, stages).version == chosen.version


@pytest.mark.parametrize(
    ("options", "learners", "says"),
    [
        ({"batch_size": 9}, (), "batch_size is 9.* multiple of 2, 4 at least"),
        ({"batch_size": 2}, (), "batch_size is 2.* multiple of 2, 4 at least"),
        ({"episodes_per_step": 3}, (), "episodes_per_step is 3.* multiple of 2, 2 at least"),
        ({"head_episodes_per_step": 5}, ("leo",), "head_episodes_per_step is 5"),
    ],
)
def test_steps_that_cannot_be_cut_evenly_are_refused(
    tmp_path: Path, options: dict[str, int], learners: tuple[str, ...], says: str
) -> None:
    options = {"shards": 2, "episodes_per_step": 2, **options}
    table = {
        "cohort": {"name": "c", "sources": ["."]},
        "training": options,
        "learner": {"compare": list(learners)},
    }
    with pytest.raises(MetaDxError, match=rf"cohort.toml: \[training\] {says}") as told:
        parse_settings(table, tmp_path / "cohort.toml")
    assert told.value.code == "bad_value"
    with pytest.raises(MetaDxError, match=says):
        replace(tiny_task(tmp_path, **options), learner=LearnerOptions(compare=learners))  # type: ignore[arg-type]


def test_steps_that_no_stage_makes_need_not_be_even() -> None:
    unused = {"batch_size": 9, "pretrain_epochs": 0, "episodes": 0, "head_episodes_per_step": 5}
    require_even_shards([PROTOTYPICAL, "fine_tuning"], TrainingOptions(shards=2, **unused))  # type: ignore[arg-type]


def test_processes_that_cannot_share_the_shards_evenly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_whole_shards(1)
    monkeypatch.setattr(processes, "count", lambda: 2)
    require_whole_shards(4)
    with pytest.raises(MetaDxError) as told:
        require_whole_shards(1)
    assert str(told.value) == (
        "torchrun started 2 processes, and [training] shards is 1: set it to a multiple of 2."
    )


@pytest.mark.parametrize(
    ("other", "code"), [((0, 0), ""), ((1, 0), "other_data"), ((0, 1), "other_checkpoint")]
)
def test_processes_with_other_data_or_another_checkpoint_make_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: tuple[int, int], code: str
) -> None:
    monkeypatch.setattr(processes, "gathered", lambda own: [own, own + torch.tensor(other)])
    task = tiny_task(tmp_path, pretrain_epochs=0, episodes=0)
    if not code:
        assert pretrain(task).steps == 0
        return
    with pytest.raises(MetaDxError) as told:
        pretrain(task)
    assert told.value.code == code


def test_a_process_without_a_gpu_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "device_number", lambda: 2)
    task: TrainingTask = replace(tiny_task(tmp_path), device="cuda")
    with pytest.raises(MetaDxError, match="a process for GPU 3, and torch finds 2 here"):
        open_fabric(task)
