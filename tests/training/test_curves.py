"""Learning curves: a picture of every stage, also of one that was never validated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from meta_dx.learners.base import Grads, Metrics
from meta_dx.training.curves import _kept, plot_curves
from meta_dx.training.shards import Shard
from meta_dx.training.stage import CHECKPOINT, Stage, StageResult, run_stage
from meta_dx.training.task import open_fabric
from meta_dx.training.validation import Checked
from tests.training.tiny import tiny_task


def point(step: int, loss: float | None, accuracy: float) -> dict[str, float | None]:
    return {"step": step, "loss": loss, "training_accuracy": None, "accuracy": accuracy, "learning_rate": 0.1}


def test_one_column_a_stage_small_enough_for_the_event_log(tmp_path: Path) -> None:
    stages = {
        "pretrain": [point(0, None, 0.2), point(50, 2.1, 0.5), point(100, 1.4, 0.6)],
        "prototypical": [point(0, None, 0.6), point(50, 0.9, 0.62)],
    }
    sizes = {}
    for count in (1, 2):
        path = tmp_path / f"{count}.png"
        plot_curves(dict(list(stages.items())[:count]), path)
        assert path.stat().st_size < 75_000  # base64 of it stays under 100 kB
        with Image.open(path) as picture:
            sizes[count] = picture.size
    assert sizes[2][0] > sizes[1][0]


def test_an_empty_history_is_drawn_as_empty_axes(tmp_path: Path) -> None:
    plot_curves({"pretrain": []}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


@pytest.mark.parametrize(
    ("accuracies", "log_losses", "kept"),
    [
        ([0.2, 0.6, 0.5, 0.6], [None] * 4, 3),  # of level ones the last
        ([0.6, 0.5, 0.6, 0.3], [None] * 4, 0),  # the untouched start has to be beaten
        ([0.2, 0.6, 0.5, 0.9], [2.0, 1.5, 1.2, 1.4], 2),
    ],
)
def test_the_weights_that_were_kept_are_marked(
    accuracies: list[float], log_losses: list[float | None], kept: int
) -> None:
    history = [
        {**point(10 * place, 1.0, accuracy), "log_loss": log_loss}
        for place, (accuracy, log_loss) in enumerate(zip(accuracies, log_losses, strict=True))
    ]
    assert _kept(history) == kept


class Killed(BaseException):
    """Stands for a kill."""


def run_with(
    folder: Path, kl: list[float] | None, *, shards: int = 1, dies_at: int | None = None
) -> StageResult:
    """Run four steps, validated after every second, whose metrics hold this ``kl``."""
    module = torch.nn.Linear(1, 1, bias=False)

    def gradients(shard: Shard) -> tuple[Grads, Metrics]:
        if shard.step == dies_at:
            raise Killed
        told = {} if kl is None else {"kl": torch.tensor(kl[shard.step] + shard.index)}
        metrics = {
            "loss": torch.tensor(2.0),
            "accuracy": torch.tensor(0.5),
            "other": torch.tensor(1.0),
            **told,
        }
        return {"m.weight": torch.ones(1, 1)}, metrics

    stage = Stage(
        name="latent",
        key="k",
        folder=folder,
        modules={"m": module},
        rates={"m": 0.1},
        weight_decay=0.0,
        steps=4,
        gradients=gradients,
        validate=lambda: Checked(0.5),
        validate_every=2,
        patience=0,
        checkpoint_seconds=-1.0,  # after every step
        seed=0,
        shards=shards,
    )
    return run_stage(stage, open_fabric(tiny_task(folder)))


def test_kl_is_kept_where_the_learner_reports_it_and_nothing_else_is(tmp_path: Path) -> None:
    usual = {"step", "loss", "training_accuracy", "accuracy", "log_loss", "learning_rate"}
    kl = [4.0, 2.0, 1.0, 0.5]
    found = run_with(tmp_path / "whole", kl).history
    assert [point.get("kl") for point in found] == [None, 3.0, 0.75]
    assert [set(point) - {"kl"} for point in found] == [usual] * 3
    assert [point.get("kl") for point in run_with(tmp_path / "cut", kl, shards=2).history] == [
        None,
        3.5,
        1.25,
    ]
    assert [set(point) for point in run_with(tmp_path / "plain", None).history] == [usual] * 3


def test_kl_is_the_same_after_a_kill_and_left_out_where_an_older_checkpoint_had_not_summed_it(
    tmp_path: Path,
) -> None:
    kl = [4.0, 2.0, 1.0, 0.5]
    for name, expected in (("killed", [None, 3.0, 0.75]), ("older", [None, None, 0.75])):
        folder = tmp_path / name
        with pytest.raises(Killed):
            run_with(folder, kl, dies_at=1)
        if name == "older":
            content = torch.load(folder / CHECKPOINT, weights_only=True)
            del content["state"]["sums"]["kl"]
            torch.save(content, folder / CHECKPOINT)
        assert [point.get("kl") for point in run_with(folder, kl).history] == expected
