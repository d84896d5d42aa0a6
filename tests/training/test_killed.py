"""Training processes that are killed with SIGKILL, again and again, end in the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from meta_dx.training.train import train
from tests.training.tiny import tiny_task
from tests.training.torchrun_program import STAGES, task_in, train_to_the_end

PROGRAM = """
import sys
from pathlib import Path
from meta_dx.training.train import train
from tests.training.tiny import tiny_task
print("ready", flush=True)
train(tiny_task(Path(sys.argv[1]), pretrain_epochs=40, episodes=120, checkpoint_seconds=0.0))
"""

# Each process makes one step of whatever stage it finds, and dies within the next one.
ONE_STEP_EACH = """
import os, sys
from pathlib import Path
from tests.training.torchrun_program import die_at, task_in, train_to_the_end
ended = []
while not ended or ended[-1]:
    child = os.fork()
    if not child:
        die_at(0, 1)
        train_to_the_end(task_in(Path(sys.argv[1])))
        os._exit(0)
    ended.append(os.waitpid(child, 0)[1])
print(*map(os.waitstatus_to_exitcode, ended))
"""


@pytest.mark.system
@pytest.mark.timeout(900)
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random()
    killed = 0
    for attempt in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "killed")],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert child.stdout is not None
        child.stdout.readline()
        deadline = time.monotonic() + (rng.uniform(0.2, 2.0) if attempt < 5 else 300.0)
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            killed += 1
            continue
        assert child.returncode == 0
        break
    assert killed >= 2
    options = {"pretrain_epochs": 40, "episodes": 120, "checkpoint_seconds": 1000.0}
    whole = train(tiny_task(tmp_path / "whole", **options))
    for stage in ("pretrain", "prototypical"):
        one, other = (
            torch.load(tmp_path / run / stage / "best.pt", weights_only=True) for run in ("killed", "whole")
        )
        for module in one:
            for name, value in one[module].items():
                assert torch.equal(value, other[module][name]), f"{stage} {module}.{name}"
    assert not [path for path in (tmp_path / "killed").rglob("*.json") if not path.read_text().endswith("\n")]
    assert whole.version


@pytest.mark.system
def test_a_process_for_every_step_of_every_learner_ends_in_the_weights_of_one(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_to_the_end(task_in(whole))
    steps = [json.loads((whole / stage / "stage.json").read_text())["steps"] for stage in STAGES]
    assert min(steps) >= 2
    done = subprocess.run(
        [sys.executable, "-c", ONE_STEP_EACH, str(killed)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    ended = [int(code) for code in done.stdout.split()]
    assert ended == [-signal.SIGKILL] * (sum(steps) - 1) + [0]
    for stage in STAGES:
        one, other = (torch.load(run / stage / "best.pt", weights_only=True) for run in (whole, killed))
        for module in one:
            for name, value in one[module].items():
                assert torch.equal(value, other[module][name]), f"{stage} {module}.{name}"
