"""One training run: resumable after any kill, with a learning curve and a test at its end.

A run's folder holds ``checkpoint.pt`` (what it is of, weights, optimizer, step, seconds, hardware, curve) and what was
answered of a test that was stopped. The test's result goes to ``docs/reproduction/<run>-seed<k>.json``, from which the
page is written.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reproduction.omniglot import Omniglot
from benchmarks.reproduction.recipes import Recipe
from benchmarks.reproduction.runs import Figure, Run
from meta_dx.home import write_bytes, write_json
from meta_dx.progress import bar

_POINTS = 100  # of a learning curve
_SAVE_SECONDS = 60.0
_TEST_SEED = 2026
_TEST_EPISODES = 1000
_AT_ONCE = 20


@dataclass
class State:
    """How far a run is, over all sessions: steps, seconds, what they ran on, learning curve."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    hardware: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """A recipe with a seed, for so many steps, on a device.

    Parameters
    ----------
    recipe : Recipe
        What is reproduced.
    seed : int
        Of weights and episodes.
    iterations : int
        Steps in all.
    folder : Path
        Of its checkpoint.
    device : torch.device
        Where modules, optimizer and episodes are.
    """

    recipe: Recipe
    seed: int
    iterations: int
    folder: Path
    device: torch.device

    @property
    def key(self) -> dict[str, Any]:
        """What a checkpoint must be of; the number of steps only where what a step does hangs on it."""
        steps = {"iterations": self.iterations} if self.recipe.planned else {}
        return {"run": self.recipe.name, "seed": self.seed, **steps}

    def begin(self, data: Omniglot) -> tuple[Run, State]:
        """Make the run, or read it from its checkpoint; ends with a sentence where that is of something else."""
        run = self.recipe.make(data, self.seed).to(self.device)
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return run, State()
        content = torch.load(path, map_location="cpu", weights_only=True)
        # Older checkpoints do not say what they are of; their folder names recipe and seed.
        key = content.get("key", {} if self.recipe.planned else self.key)
        if key != self.key:
            sys.exit(
                f"{path} is of {_told(key)}, not of {_told(self.key)}: move it away, or choose another --work."
            )
        for name, module in run.modules.items():
            module.load_state_dict(content["modules"][name])
        run.optimizer.load_state_dict(content["optimizer"])
        return run, State(**content["state"])


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` stands for; ends with a sentence where there is none."""
    gpu = torch.cuda.is_available()
    if name == "cuda" and not gpu:
        sys.exit("torch finds no CUDA device: say --device auto, or install torch for CUDA.")
    return torch.device("cuda" if gpu and name != "cpu" else "cpu")


def train(job: Job, run: Run, state: State, minutes: float) -> None:
    """Go on with a run until it has made its steps, or for so many minutes; ``state`` goes on with it."""
    iterations, every = job.iterations, max(1, job.iterations // _POINTS)
    began, saved, before = time.monotonic(), time.monotonic(), state.seconds
    sums: list[tuple[float, float]] = []
    if state.step < iterations and (used := _hardware(job.device)) not in state.hardware:
        state.hardware.append(used)
    with bar(job.recipe.name) as progress:
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
                _save(job, run, state)
                saved = time.monotonic()
    _save(job, run, state)


def test(job: Job, run: Run, state: State, pools: Mapping[str, Omniglot]) -> dict[str, Any]:
    """Answer 1000 test episodes of each figure on each pool; returns what the page is written from."""
    measured = {
        pool: _measured(run, job.recipe.figures, classes, job.folder / f"test-{state.step}-{pool}")
        for pool, classes in pools.items()
    }
    return {
        "run": job.recipe.name,
        "seed": job.seed,
        "steps": state.step,
        "seconds": round(state.seconds),
        "hardware": " and ".join(state.hardware or [_hardware(job.device)]),
        "device": job.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "curve": state.curve,
        "figures": [
            {"task": figure.task, "mode": figure.mode, "pool": pool, **measured[pool][figure]}
            for figure in job.recipe.figures
            for pool in pools
        ],
    }


def _measured(
    run: Run, figures: Sequence[Figure], classes: Omniglot, folder: Path
) -> dict[Figure, dict[str, float]]:
    """Measure all figures; neighbours that ask for the same episodes are answered on them together.

    What is answered is kept in the folder: a test of hours goes on where it was stopped.
    """
    found = {}
    for (ways, shots), neighbours in groupby(figures, lambda figure: (figure.ways, figure.shots)):
        asked, right = tuple(neighbours), []
        with bar(f"{ways}-way {shots}-shot") as progress:
            for start in range(0, _TEST_EPISODES, _AT_ONCE):
                kept = folder / f"{ways}-{shots}-{start}.json"
                if not kept.exists():
                    rng = np.random.default_rng([_TEST_SEED, ways, shots, start])
                    write_json(kept, np.asarray(run.right(classes, asked, rng, _AT_ONCE)).tolist())
                right.append(np.array(json.loads(kept.read_text())))
                progress(start + _AT_ONCE, _TEST_EPISODES, "")
        for figure, each in zip(asked, 100 * np.concatenate(right, axis=1), strict=True):
            half = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
            found[figure] = {
                "accuracy": round(float(each.mean()), 3),
                "half": round(float(half), 3),
                "episodes": len(each),
            }
    return found


def _save(job: Job, run: Run, state: State) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "key": job.key,
            "modules": {name: module.state_dict() for name, module in run.modules.items()},
            "optimizer": run.optimizer.state_dict(),
            "state": vars(state),
        },
        buffer,
    )
    write_bytes(job.folder / "checkpoint.pt", buffer.getvalue())


def write_result(result: dict[str, Any], folder: Path) -> None:
    """Keep a result where the page is written from."""
    write_json(folder / f"{result['run']}-seed{result['seed']}.json", result)


def read_results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return run → its results, by seed, of every run that was made."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in (json.loads(path.read_text()) for path in folder.glob("*.json")):
        found[result["run"]].append(result)
    return {run: sorted(results, key=lambda result: result["seed"]) for run, results in found.items()}


def _told(key: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in key.items()) or "an unknown number of iterations"


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
