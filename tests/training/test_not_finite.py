"""A gradient or a log loss that is not finite: the step is left out and counted, and nothing is ruined silently."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Grads, Metrics
from meta_dx.training.checkpoints import CHECKPOINT
from meta_dx.training.curves import _kept
from meta_dx.training.shards import Shard
from meta_dx.training.stage import Stage, StageResult, run_stage
from meta_dx.training.task import open_fabric
from meta_dx.training.validation import Checked
from tests.training.tiny import tiny_task


class Killed(BaseException):
    """Stands for SIGKILL."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def stage_of(
    folder: Path,
    bad: Collection[int],
    *,
    net: nn.Module | None = None,
    steps: int = 12,
    check: Callable[[], Checked] = lambda: Checked(0.5),
    killed: Collection[int] = (),
    shards: int = 1,
    **more: float,
) -> Stage:
    """A stage whose pictures, and so its gradient and running statistics, are not finite at some steps."""
    net, pending = network() if net is None else net, set(killed)

    def gradients(shard: Shard) -> tuple[Grads, Metrics]:
        if shard.step in pending:
            pending.remove(shard.step)
            raise Killed
        x = torch.randn(8, 3)
        loss = net(x * (float("inf") if shard.step in bad else 1.0)).square().mean()
        found = torch.autograd.grad(loss, list(net.parameters()))
        named = {f"net.{name}": g for (name, _), g in zip(net.named_parameters(), found, strict=True)}
        return named, {"loss": loss.detach(), "accuracy": torch.tensor(0.5)}

    return Stage(
        name="maml",
        key="k",
        folder=folder,
        modules={"net": net},
        rates={"net": 1e-2},
        weight_decay=0.1,
        steps=steps,
        gradients=gradients,
        validate=check,
        validate_every=3,
        patience=0,
        checkpoint_seconds=-1.0,  # after every step
        seed=0,
        shards=shards,
        **more,  # type: ignore[arg-type]
    )


def run(stage: Stage, folder: Path) -> StageResult:
    return run_stage(stage, open_fabric(tiny_task(folder)))


def strict(path: Path) -> dict[str, object]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content: dict[str, object] = json.loads(path.read_text(), parse_constant=refuse)
    return content


@pytest.mark.parametrize("shards", [1, 2])
def test_a_step_without_a_finite_gradient_leaves_everything_as_it_was(tmp_path: Path, shards: int) -> None:
    net, seen = network(), []

    def check() -> Checked:
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
        return Checked(0.5)

    stage = stage_of(tmp_path, {3, 4, 5}, net=net, check=check, shards=shards)
    result = run(stage, tmp_path)
    assert (result.steps, result.skipped, result.stopped) == (12, 3, "all steps done")
    assert all(value.isfinite().all() for value in net.state_dict().values())
    before, after, later = seen[1:4]  # after the steps 3, 6 and 9
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(after["0.weight"], later["0.weight"])
    losses = [point["loss"] for point in result.history]
    assert losses[0] is None and losses[2] is None  # nothing was learnt in between
    assert strict(tmp_path / "stage.json")["skipped"] == 3


def test_many_in_a_row_end_the_stage_with_a_sentence_also_over_a_kill(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, range(2, 40), steps=40, killed={7})
    with pytest.raises(Killed):
        run(stage, tmp_path)
    with pytest.raises(
        MetaDxError, match=r"'maml' found no finite gradient in 10 steps in a row, up to step 12:"
    ) as fault:
        run(stage, tmp_path)
    assert fault.value.code == "not_finite"
    assert "[learner.maml]" in str(fault.value)
    assert not (tmp_path / "stage.json").exists()
    scattered = stage_of(tmp_path / "other", {step for step in range(40) if step % 10}, steps=40)
    assert run(scattered, tmp_path).skipped == 36  # never ten in a row


def test_a_run_that_is_cut_off_at_a_bad_step_ends_in_the_same_bits(tmp_path: Path) -> None:
    weights: list[dict[str, Tensor]] = []
    results = []
    for name, killed in (("whole", ()), ("broken", (4, 5, 8))):
        for attempt in range(len(killed) + 1):
            net = network()
            left = killed[attempt : attempt + 1]
            stage = stage_of(tmp_path / name, {4, 7}, net=net, killed=left)
            try:
                results.append(run(stage, tmp_path))
            except Killed:
                assert (tmp_path / name / CHECKPOINT).exists()
        weights.append(net.state_dict())
    whole, broken = results
    assert broken.history == whole.history
    assert (whole.skipped, broken.skipped) == (2, 2)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_log_loss_that_is_not_finite_keeps_no_weights_and_stands_as_null(tmp_path: Path) -> None:
    checks = iter([Checked(0.5, float("nan")), Checked(0.5, 1.2), Checked(0.9, float("nan"))])
    result = run(stage_of(tmp_path, (), steps=6, check=lambda: next(checks)), tmp_path)
    assert [point["log_loss"] for point in result.history] == [None, 1.2, None]
    assert (result.best_step, _kept(result.history)) == (3, 1)
    strict(tmp_path / "stage.json")
    never = stage_of(tmp_path / "never", (), steps=6, check=lambda: Checked(0.5, float("nan")))
    with pytest.raises(MetaDxError, match="No validation of 'maml' found a finite log loss"):
        run(never, tmp_path)
