"""Where a stage of training stands, and the file from which a killed one goes on."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from meta_dx.home import write_bytes
from meta_dx.training.curves import Curve

CHECKPOINT = "checkpoint.pt"


def no_sums() -> dict[str, float]:
    """Return sums of metrics over no step."""
    return {"loss": 0.0, "accuracy": 0.0, "steps": 0.0}


@dataclass
class StageState:
    """Where a stage stands; everything that a resumed run needs beside modules and optimizer.

    Parameters
    ----------
    step : int
        Steps made, those included that were left out.
    seconds : float
        Time spent, over all runs.
    stale : int
        Validations in a row without a new best.
    best_step, best_score, best_accuracy, best
        The best weights so far, and after which step and at which validation they stood.
    history : list of dict
        One entry a validation.
    sums : dict of str to float
        Metrics since the last validation, and over how many steps.
    skipped, skipped_in_row : int
        Steps that were left out because their gradient was not finite: all, and since the last that was made.
    """

    step: int = 0
    seconds: float = 0.0
    stale: int = 0
    best_step: int = -1
    best_score: float = -math.inf
    best_accuracy: float = -1.0
    best: dict[str, Any] = field(default_factory=dict)
    history: Curve = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=no_sums)
    skipped: int = 0
    skipped_in_row: int = 0


def save_checkpoint(
    folder: Path,
    key: str,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: StageState,
) -> None:
    """Write weights, moments and state of the stage of this key."""
    content = {
        "key": key,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "state": vars(state),
    }
    write_bytes(folder / CHECKPOINT, serialised(content))


def resume(
    folder: Path,
    key: str,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> StageState:
    """Load weights and moments into modules and optimizer and return the state; a new one without a checkpoint."""
    path = folder / CHECKPOINT
    if not path.exists():
        return StageState()
    content = torch.load(path, map_location=device, weights_only=True)
    if content["key"] != key:
        return StageState()
    for name, module in modules.items():
        module.load_state_dict(content["modules"][name])
    optimizer.load_state_dict(content["optimizer"])
    state = content["state"]
    state.setdefault("best_score", state["best_accuracy"])  # from before weights could be kept by log loss
    return StageState(**state)


def serialised(content: Any) -> bytes:
    """Return what torch saves, as bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
