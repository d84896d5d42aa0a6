"""One stage of training: steps, validation, early stop, and a state on disk from which a killed run goes on.

What a step does depends on the seed and the number of the step only, never on what was run before in the
process. With the weights, the optimizer's moments and the best weights so far in the checkpoint, a run that
is killed at any moment ends, on a CPU, in the same bits as one that was never stopped.

Under ``torchrun`` every process makes all steps, each on its shards (:mod:`meta_dx.training.shards`), and holds
the same weights. The first alone validates, writes and tells how far it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from meta_dx.errors import MetaDxError
from meta_dx.home import write_bytes, write_json
from meta_dx.learners.base import Grads, Metrics
from meta_dx.progress import Progress, silent
from meta_dx.training import processes
from meta_dx.training.checkpoints import (
    CHECKPOINT,
    StageState,
    no_sums,
    resume,
    save_checkpoint,
    serialised,
)
from meta_dx.training.curves import Curve, plot_curves
from meta_dx.training.determinism import deterministic
from meta_dx.training.optimizing import Kind, Schedule, optimizer_of, rate_share, shortened
from meta_dx.training.shards import (
    Shard,
    ShardGradients,
    mean_over_shards,
    require_one_run,
    require_whole_shards,
)
from meta_dx.training.validation import Checked

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BEST = "best.pt"
CURVES = "curves.png"
_RESULT = "stage.json"
_MOST_SKIPPED = 10  # steps in a row without a finite gradient: weights that nothing moves stay like that
_SUMMED = ("loss", "accuracy", "kl")  # metrics of a step that the learning curve keeps, where there are
_TELL_EVERY = 0.25  # seconds between progress messages


@dataclass(frozen=True)
class StageResult:
    """A finished stage.

    Parameters
    ----------
    name : str
        ``"pretrain"`` or the learner.
    folder : Path
        Holds the best weights, the curves and this result.
    steps : int
        Steps that were made.
    best_step : int
        Step after which the best weights stood.
    best_accuracy : float
        Their validation accuracy.
    seconds : float
        Time spent, over all runs that it took.
    version : str
        Names the best weights.
    stopped : str
        Why it ended: ``"all steps done"``, or that validation did not improve.
    history : list of dict
        One entry a validation: ``step``, ``loss``, ``training_accuracy``, ``accuracy``, ``log_loss`` (None where
        weights are not chosen by it), ``learning_rate``; ``kl`` too, the mean over the steps since the last entry,
        where the learner has a latent variable: near zero, the latent is ignored. What is not finite is None.
    skipped : int
        Steps that were left out because their gradient was not finite.
    """

    name: str
    folder: Path
    steps: int
    best_step: int
    best_accuracy: float
    seconds: float
    version: str
    stopped: str
    history: Curve
    skipped: int = 0

    @property
    def curves(self) -> Path:
        """Picture of the learning curves."""
        return self.folder / CURVES

    @property
    def best(self) -> dict[str, Any]:
        """The best weights: a state dict for each module."""
        content: dict[str, Any] = torch.load(self.folder / BEST, map_location="cpu", weights_only=True)
        return content


@dataclass(frozen=True)
class Stage:
    """What a stage trains and how.

    Parameters
    ----------
    name : str
        ``"pretrain"`` or the learner.
    key : str
        Hash of all that decides the result; a folder with another key is begun anew.
    folder : Path
        Where checkpoint and result go.
    modules : dict of str to Module
        What the checkpoint holds, on the device.
    rates : mapping of str to float
        Highest learning rate of each module; modules without one are not trained.
    optimizer : {"adamw", "sgd"}
        What applies the gradients; ``sgd`` has neither momentum nor weight decay.
    schedule : {"cosine", "linear"}
        Warm-up and half a cosine, or a straight line to zero.
    clip : callable, optional
        Shortens the gradients as the learner's paper does; by their length over all parameters if absent.
    weight_decay : float
        Of matrices and convolutions; vectors such as biases have none.
    steps : int
        Steps to make.
    gradients : callable
        From a shard of a step to the gradients by ``module.parameter`` and the metrics ``loss`` and
        ``accuracy``.
    validate : callable
        Measures the weights on the validation diseases, by which the best are kept; must leave everything as
        it was.
    validate_every : int
        Steps between validations; there is always one at the end.
    patience : int
        Validations in a row without a new best after which to stop; 0: never.
    checkpoint_seconds : float
        How often to save.
    seed : int
        The one seed.
    shards : int
        Into how many parts each step is cut.
    """

    name: str
    key: str
    folder: Path
    modules: Mapping[str, nn.Module]
    rates: Mapping[str, float]
    weight_decay: float
    steps: int
    gradients: ShardGradients
    validate: Callable[[], Checked]
    validate_every: int
    patience: int
    checkpoint_seconds: float
    seed: int
    optimizer: Kind = "adamw"
    schedule: Schedule = "cosine"
    clip: Callable[[Grads], Grads] | None = None
    shards: int = 1

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by ``module.parameter``."""
        return {
            f"{module}.{name}": parameter
            for module in self.rates
            for name, parameter in self.modules[module].named_parameters()
        }


def finished(folder: Path, key: str, may_train: bool = True) -> StageResult | None:
    """Return the result in a folder if the stage of this key has ended there; every process gets one answer.

    Raises
    ------
    MetaDxError
        ``not_trained`` where it has not, and the caller may not train it.
    """
    done = processes.alone(lambda: _result_of(folder, key))
    if done is None and not may_train:
        raise MetaDxError(
            "not_trained",
            f"The home holds no finished '{folder.name}' of these data and options: name the learner in [learner] "
            "name or compare, and run 'meta-dx train'.",
        )
    return done


def _result_of(folder: Path, key: str) -> StageResult | None:
    import json

    path = folder / _RESULT
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return StageResult(folder=folder, **content) if content.pop("key") == key else None


def run_stage(stage: Stage, fabric: Fabric, progress: Progress = silent) -> StageResult:
    """Train a stage from its checkpoint, or from the start, to its end.

    Parameters
    ----------
    stage : Stage
        What and how.
    fabric : Fabric
        Device and arithmetic.
    progress : Progress
        Called with steps done, steps in all, and loss and validation accuracy.

    Returns
    -------
    StageResult

    Raises
    ------
    MetaDxError
        ``bad_value`` where the processes cannot share the shards evenly, ``other_data`` and ``other_checkpoint``
        where they do not make one run, ``process_lost``; ``not_finite`` where step after step has no finite
        gradient, or no validation a finite score.
    """
    processes.alone(lambda: require_whole_shards(stage.shards))
    optimizer = optimizer_of(stage.modules, stage.rates, stage.weight_decay, stage.optimizer)
    with deterministic(), torch.random.fork_rng(devices=[]):
        state = resume(stage.folder, stage.key, stage.modules, optimizer, fabric.device)
        require_one_run(stage.key, state.step)
        _train(stage, optimizer, state, progress)
    return processes.alone(lambda: _finish(stage, state))


def _train(stage: Stage, optimizer: torch.optim.Optimizer, state: StageState, progress: Progress) -> None:
    parameters = stage.parameters()
    buffers = [buffer for name in stage.rates for buffer in stage.modules[name].buffers()]
    began, saved, told = time.monotonic() - state.seconds, time.monotonic(), 0.0
    leading = processes.rank() == 0

    def gradients_of(shard: Shard) -> tuple[Grads, Metrics]:
        torch.manual_seed(shard.seed(stage.seed, f"{stage.name}/network"))
        return stage.gradients(shard)

    if not state.history:
        _validate(stage, state)
    while state.step < stage.steps and not _stale(stage, state):
        rate = rate_share(state.step, stage.steps, stage.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["highest"]
        before = [buffer.clone() for buffer in buffers]
        gradients, metrics = mean_over_shards(gradients_of, stage.modules, state.step, stage.shards)
        state.step += 1
        if nn.utils.get_total_norm([gradients[name] for name in parameters]).isfinite():
            _apply(optimizer, parameters, gradients, stage.clip or shortened)
            _sum_up(state, metrics)
        else:
            _skip(stage, state, buffers, before)
        if state.step % stage.validate_every == 0 or state.step == stage.steps:
            _validate(stage, state, rate)
        now = time.monotonic()
        state.seconds = now - began
        if leading and (now - told > _TELL_EVERY or state.step == stage.steps):
            told = now
            progress(state.step, stage.steps, _message(state, float(metrics["loss"])))
        if leading and now - saved > stage.checkpoint_seconds:
            save_checkpoint(stage.folder, stage.key, stage.modules, optimizer, state)
            saved = time.monotonic()


def _skip(stage: Stage, state: StageState, buffers: list[Tensor], before: list[Tensor]) -> None:
    """Leave weights and moments as they were, and the running statistics too, which the step has seen already."""
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)
    state.skipped += 1
    state.skipped_in_row += 1
    if state.skipped_in_row == _MOST_SKIPPED:
        raise MetaDxError(
            "not_finite",
            f"'{stage.name}' found no finite gradient in {_MOST_SKIPPED} steps in a row, up to step {state.step}: lower"
            f" its learning rate, in [training] or [learner.{stage.name}], or set [training] precision to '32'.",
        )


def _sum_up(state: StageState, metrics: Metrics) -> None:
    """Add a step's metrics; one that an older checkpoint did not add up is left out until the next validation."""
    state.skipped_in_row = 0
    whole = not state.sums["steps"]
    for name in _SUMMED:
        if name in metrics and (whole or name in state.sums):
            state.sums[name] = state.sums.get(name, 0.0) + float(metrics[name])
    state.sums["steps"] += 1


def _apply(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    gradients: Grads,
    clip: Callable[[Grads], Grads],
) -> None:
    clipped = clip(gradients)
    for name, parameter in parameters.items():
        # The fused optimizer reads memory as it lies: a gradient in another layout would be taken for another.
        parameter.grad = torch.empty_like(parameter).copy_(clipped[name])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _validate(stage: Stage, state: StageState, rate: float = 0.0) -> None:
    checked = processes.alone(stage.validate)
    count = state.sums["steps"]
    mean = {name: _finite(total / count) for name, total in state.sums.items() if count}
    state.history.append(
        {
            "step": state.step,
            "loss": mean.get("loss"),
            "training_accuracy": mean.get("accuracy"),
            "accuracy": checked.accuracy,
            "log_loss": None if checked.log_loss is None else _finite(checked.log_loss),
            "learning_rate": rate,
            **({"kl": mean["kl"]} if "kl" in mean else {}),
        }
    )
    state.sums = no_sums()
    # Of two that are level the later one has seen more; the untouched start of a stage has to be beaten.
    score = checked.score
    if score > state.best_score or (score == state.best_score and state.best_step > 0):
        improved = score > state.best_score
        state.best_score, state.best_accuracy, state.best_step = score, checked.accuracy, state.step
        state.best = {name: _copied(module) for name, module in stage.modules.items()}
        state.stale = 0 if improved else state.stale + 1
    else:
        state.stale += 1


def _finite(value: float) -> float | None:
    """Return the value, or None, which JSON can hold."""
    return value if math.isfinite(value) else None


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _stale(stage: Stage, state: StageState) -> bool:
    return bool(stage.patience) and state.stale >= stage.patience


def _message(state: StageState, loss: float) -> str:
    text = f"loss {loss:.3f}"
    if state.history:
        text += f", validation {state.history[-1]['accuracy']:.1%} (kept {state.best_accuracy:.1%})"
    if state.skipped:
        text += f", {state.skipped} steps without a finite gradient left out"
    return text


def _finish(stage: Stage, state: StageState) -> StageResult:
    import hashlib

    if not state.best:
        raise MetaDxError(
            "not_finite",
            f"No validation of '{stage.name}' found a finite log loss: lower its learning rate, in [training] or "
            f"[learner.{stage.name}], or set [training] precision to '32'.",
        )
    best = serialised(state.best)
    write_bytes(stage.folder / BEST, best)
    stopped = "all steps done"
    if state.step < stage.steps:
        by_loss = any(point.get("log_loss") is not None for point in state.history)
        measured = "log loss" if by_loss else "accuracy"
        stopped = f"no better validation {measured} in {state.stale} validations"
    result = StageResult(
        name=stage.name,
        folder=stage.folder,
        steps=state.step,
        best_step=state.best_step,
        best_accuracy=state.best_accuracy,
        seconds=round(state.seconds, 1),
        version=hashlib.sha256(best).hexdigest()[:16],
        stopped=stopped,
        history=state.history,
        skipped=state.skipped,
    )
    plot_curves({stage.name: state.history}, result.curves)
    content = {"key": stage.key, **vars(result)}
    del content["folder"]
    write_json(stage.folder / _RESULT, content)  # last: it is what marks the stage as finished
    (stage.folder / CHECKPOINT).unlink(missing_ok=True)
    return result
