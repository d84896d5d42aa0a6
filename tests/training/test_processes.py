"""Under torchrun every learner ends in the weights of one process; who fails ends all, and nobody repeats it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.torchrun_program import STAGES, task_in, train_to_the_end

ROOT = Path(__file__).parents[2]

# What a process of two hears when the other is killed, or fails at what it does alone: `how process`.
HEARS = """
import os, signal, sys, torch
from meta_dx.errors import MetaDxError
from meta_dx.training import processes

def fail():
    if sys.argv[1] == "fails":
        raise OSError("the first process's own fault")
    return 7

try:
    assert processes.gathered(torch.tensor([processes.rank()])) == [0, 1]
    if sys.argv[1:] == ["dies", str(processes.rank())]:
        os.kill(os.getpid(), signal.SIGKILL)
    assert processes.alone(fail) == 7
    processes.gathered(torch.ones(3))
    print("went well")
except (MetaDxError, OSError) as fault:
    print(getattr(fault, "code", fault))
"""


def torchrun(*program: str) -> subprocess.CompletedProcess[str]:
    """Run a module in two processes, under torchrun on this machine's loopback."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr=127.0.0.1",
            "--nproc-per-node=2",
            "-m",
            *program,
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train_to_the_end(task_in(folder))
    return folder


def assert_same_bits(one: Path, other: Path) -> None:
    for stage in STAGES:
        ours, theirs = (torch.load(run / stage / "best.pt", weights_only=True) for run in (one, other))
        moved = 0
        for module, weights in ours.items():
            for name, value in weights.items():
                assert torch.equal(value, theirs[module][name]), f"{stage} {module}.{name}"
                moved += 1
        assert moved


def test_two_processes_train_every_learner_to_the_weights_of_one(alone: Path, tmp_path: Path) -> None:
    done = torchrun("tests.training.torchrun_program", str(tmp_path))
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_bits(alone, tmp_path)


@pytest.mark.system
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_dies_ends_all_and_the_next_run_ends_in_the_same_weights(
    alone: Path, tmp_path: Path, process: int
) -> None:
    died = torchrun("tests.training.torchrun_program", str(tmp_path), f"{process}:9")
    assert died.returncode != 0
    assert (tmp_path / "pretrain" / "best.pt").exists()
    assert not (tmp_path / STAGES[-1]).exists()
    if process:  # what two processes left, one goes on from as well
        train_to_the_end(task_in(tmp_path))
    else:
        assert torchrun("tests.training.torchrun_program", str(tmp_path)).returncode == 0
    assert_same_bits(alone, tmp_path)


@pytest.mark.system
def test_what_the_user_has_to_mend_is_said_once_and_ends_all(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort.toml"
    cohort.write_text('[cohort]\nname = "c"\nsources = ["."]\n')
    refused = torchrun("meta_dx", "train", "--cohort", str(cohort), "--home", str(tmp_path / "home"))
    assert refused.returncode != 0
    told = [line for line in refused.stderr.splitlines() if line.startswith("meta-dx:")]
    assert told == [
        "meta-dx: torchrun started 2 processes, and [training] shards is 1: set it to a multiple of 2."
    ]


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        (["fails"], ["the first process's own fault", "first_process_stopped"]),
        (["dies", "1"], ["process_lost", ""]),
        (["dies", "0"], ["", "process_lost"]),
        (["works"], ["went well", "went well"]),
    ],
)
def test_without_anybody_who_ends_them_processes_notice_that_another_has_ended(
    arguments: list[str], heard: list[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    as_torchrun_sets = {
        "TORCHELASTIC_RUN_ID": "none",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HEARS, *arguments],
            cwd=ROOT,
            env={**os.environ, **as_torchrun_sets, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        assert [process.communicate(timeout=100)[0].strip() for process in started] == heard
    finally:
        for process in started:
            process.kill()
