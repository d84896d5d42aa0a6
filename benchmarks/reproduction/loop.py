"""One training run: resumable after any kill, with a learning curve and a test at its end.

A run's folder holds ``checkpoint.pt`` (weights, optimizer, step, seconds, curve). The test's result goes to
``docs/reproduction/<run>.json``, from which the page is written.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reproduction.omniglot import Omniglot, load
from benchmarks.reproduction.recipes import Figure, Recipe, Run
from meta_dx.home import write_bytes, write_json
from meta_dx.progress import bar

_POINTS = 100  # of a learning curve
_SAVE_SECONDS = 60.0
_TEST_SEED = 2026
_TEST_EPISODES = 1000
_AT_ONCE = 20


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def train(recipe: Recipe, folder: Path, data: Omniglot, iterations: int, minutes: float, seed: int) -> _State:
    """Go on with a run until it has made ``iterations`` steps, or for so many minutes.

    Returns
    -------
    _State
        Steps and seconds spent so far, over all sessions, and the learning curve.
    """
    run = recipe.make(data, seed)
    state = _resume(run, folder)
    every = max(1, iterations // _POINTS)
    began, saved, before = time.monotonic(), time.monotonic(), state.seconds
    sums: list[tuple[float, float]] = []
    with bar(recipe.name) as progress:
        while state.step < iterations and time.monotonic() - began < 60 * minutes:
            metrics = run.step(state.step, iterations)
            state.step += 1
            sums.append((metrics["loss"], metrics["accuracy"]))
            state.seconds = before + time.monotonic() - began
            if state.step % every == 0:
                loss, accuracy = np.mean(sums, axis=0)
                state.curve.append({"step": state.step, "loss": float(loss), "accuracy": float(accuracy)})
                sums.clear()
                progress(state.step, iterations, f"loss {loss:.3f}, training episodes {accuracy:.1%}")
            if time.monotonic() - saved > _SAVE_SECONDS:
                _save(run, state, folder)
                saved = time.monotonic()
    _save(run, state, folder)
    return state


def test(recipe: Recipe, folder: Path, data: Path, cache: Path, state: _State, seed: int) -> dict[str, Any]:
    """Answer 1000 test episodes of each figure on both pools; returns what the page is written from."""
    run = recipe.make(load(data, "trainval", recipe.side, cache), seed)
    _resume(run, folder)
    pools = {
        "1692": load(data, "test", recipe.side, cache),
        "423": load(data, "test", recipe.side, cache, rotations=False),
    }
    return {
        "run": recipe.name,
        "seed": seed,
        "steps": state.step,
        "seconds": round(state.seconds),
        "hardware": _hardware(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "curve": state.curve,
        "figures": [
            {"task": f.task, "mode": f.mode, "pool": pool, **_measured(run, f, classes)}
            for f in recipe.figures
            for pool, classes in pools.items()
        ],
    }


def _measured(run: Run, figure: Figure, classes: Omniglot) -> dict[str, float]:
    right = []
    with bar(figure.task) as progress:
        for start in range(0, _TEST_EPISODES, _AT_ONCE):
            rng = np.random.default_rng([_TEST_SEED, figure.ways, figure.shots, start])
            right.append(run.right(classes, figure, rng, _AT_ONCE))
            progress(start + _AT_ONCE, _TEST_EPISODES, "")
    each = 100 * np.concatenate(right)
    half = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
    return {"accuracy": round(float(each.mean()), 3), "half": round(float(half), 3), "episodes": len(each)}


def _save(run: Run, state: _State, folder: Path) -> None:
    import io

    buffer = io.BytesIO()
    torch.save(
        {
            "modules": {name: module.state_dict() for name, module in run.modules.items()},
            "optimizer": run.optimizer.state_dict(),
            "state": vars(state),
        },
        buffer,
    )
    write_bytes(folder / "checkpoint.pt", buffer.getvalue())


def _resume(run: Run, folder: Path) -> _State:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return _State()
    content = torch.load(path, weights_only=True)
    for name, module in run.modules.items():
        module.load_state_dict(content["modules"][name])
    run.optimizer.load_state_dict(content["optimizer"])
    return _State(**content["state"])


def write_result(result: dict[str, Any], folder: Path) -> None:
    """Keep a result where the page is written from."""
    write_json(folder / f"{result['run']}.json", result)


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return run → result of every run that was made."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
