"""Reproduction runs go on where they were stopped, only as what they are, and are shown by seed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.reproduction import loop
from benchmarks.reproduction.loop import Job, choose_device, read_results, train, write_result
from benchmarks.reproduction.loop import test as measure
from benchmarks.reproduction.omniglot import Omniglot
from benchmarks.reproduction.page import write_page
from benchmarks.reproduction.recipes import RECIPES
from benchmarks.reproduction.runs import Figure, Run
from meta_dx.learners.mann import accuracy_by_presentation

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawings() -> Omniglot:
    return Omniglot(np.random.default_rng(0).integers(0, 256, (70, 20, 28, 28), dtype=np.uint8))


def weights(run: Run) -> list[torch.Tensor]:
    return [value.clone() for module in run.modules.values() for value in module.state_dict().values()]


def strip_key(folder: Path) -> None:
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    del content["key"], content["state"]["hardware"]
    torch.save(content, folder / "checkpoint.pt")


@pytest.mark.parametrize("old", [False, True], ids=["with a key", "from before there were keys"])
def test_a_run_that_is_stopped_and_resumed_is_the_same_run(
    drawings: Omniglot, tmp_path: Path, old: bool
) -> None:
    whole, parts = (Job(RECIPES["prototypical-1shot"], 3, 4, tmp_path / name, CPU) for name in "ab")
    run, state = whole.begin(drawings)
    train(whole, run, state, 1)
    half = replace(parts, iterations=2)
    train(half, *half.begin(drawings), 1)
    if old:
        strip_key(parts.folder)
    resumed, state = parts.begin(drawings)
    assert state.step == 2
    train(parts, resumed, state, 1)
    assert state.step == 4
    assert len(state.hardware) == 1
    for found, expected in zip(weights(resumed), weights(run), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_checkpoint_of_something_else_is_refused(drawings: Omniglot, tmp_path: Path) -> None:
    job = Job(RECIPES["reptile-5way"], 0, 1, tmp_path, CPU)
    train(job, *job.begin(drawings), 1)
    for other in (
        replace(job, seed=1),
        replace(job, iterations=2),
        replace(job, recipe=RECIPES["maml-5way-1shot"]),
    ):
        with pytest.raises(SystemExit, match=r"is of run reptile-5way, seed 0, iterations 1, not of"):
            other.begin(drawings)
    strip_key(tmp_path)
    with pytest.raises(SystemExit, match="unknown number of iterations"):
        job.begin(drawings)


def test_figures_of_one_sequence_are_read_from_one_pass(
    drawings: Omniglot, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, rng = RECIPES["mann"], np.random.default_rng
    run = recipe.make(Omniglot(drawings.drawings[..., :20, :20]), 0)
    learner, passes = run.modules["learner"], []
    sequence = learner.run_sequence
    monkeypatch.setattr(learner, "run_sequence", lambda x, y: passes.append((x, y)) or sequence(x, y))
    found = run.right(run.data, recipe.figures, rng(5), 3)
    assert found.shape == (6, 3)
    assert len(passes) == 1
    x, onehot = passes[0]
    for figure, each in zip(recipe.figures, found, strict=True):
        mean = accuracy_by_presentation(sequence(x, onehot), onehot)[figure.presentation - 1]
        assert each.mean() == pytest.approx(float(mean))


def test_modules_optimizer_and_episodes_are_on_the_device(drawings: Omniglot) -> None:
    run = RECIPES["prototypical-1shot"].make(drawings, 0)
    run.step(0, 2)
    torch.__future__.set_swap_module_params_on_conversion(
        True
    )  # parameters stay the same objects, as to a GPU
    try:
        run.to(torch.device("meta"))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert {value.device.type for value in weights(run)} == {"meta"}
    moments = [state["exp_avg"] for state in run.optimizer.state.values()]
    assert moments
    assert {moment.device.type for moment in moments} == {"meta"}
    seen: list[str] = []
    run.answer = lambda episode, figure: seen.append(episode.support_x.device.type) or episode.query_y  # type: ignore[method-assign]
    with pytest.raises(NotImplementedError, match="meta"):  # no numbers there to bring back
        run.right(drawings, [Figure(5, 1, None)], np.random.default_rng(0), 2)
    assert seen == ["meta"]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(SystemExit, match="no CUDA device"):
        choose_device("cuda")


def test_every_seed_has_a_result_and_rows_of_its_own(
    drawings: Omniglot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.reproduction.loop._TEST_EPISODES", 2)
    monkeypatch.setattr("benchmarks.reproduction.loop._AT_ONCE", 1)
    for seed in (1, 0):
        job = Job(RECIPES["prototypical-1shot"], seed, 1, tmp_path / str(seed), CPU)
        run, state = job.begin(drawings)
        train(job, run, state, 1)
        write_result(measure(job, run, state, {"423": drawings}), tmp_path / "results")
    results = read_results(tmp_path / "results")
    assert [result["seed"] for result in results["prototypical-1shot"]] == [0, 1]
    assert {result["device"] for result in results["prototypical-1shot"]} == {"cpu"}
    (tmp_path / "pictures").mkdir()
    page = write_page(RECIPES, results, tmp_path).read_text()
    rows = [[cell.strip() for cell in row.split("|")] for row in page.splitlines() if row.startswith("|")]
    assert len({len(row) for row in rows}) == 1, "as many cells in every row"
    shown = [(row[3], row[5]) for row in rows if row[1] == "Prototypical Networks" and row[6] != "not run"]
    assert shown == [(task, seed) for seed in "01" for task in ("5-way 1-shot", "20-way 1-shot")]


def test_a_test_that_is_stopped_goes_on_and_measures_the_same(
    drawings: Omniglot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_TEST_EPISODES", 100)
    asked: list[int] = []

    class Guessing:
        """Answers by chance, and is stopped once."""

        def __init__(self, stops_at: int | None) -> None:
            self.stops_at = stops_at

        def right(
            self, classes: Omniglot, figures: tuple, rng: np.random.Generator, count: int
        ) -> np.ndarray:
            if len(asked) == self.stops_at:
                raise KeyboardInterrupt
            asked.append(count)
            return rng.random((len(figures), count)).astype(np.float32)

    figures = RECIPES["prototypical-1shot"].figures
    whole = loop._measured(Guessing(None), figures, drawings, tmp_path / "whole")  # type: ignore[arg-type]
    made = len(asked)
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        loop._measured(Guessing(3), figures, drawings, tmp_path / "cut")  # type: ignore[arg-type]
    assert loop._measured(Guessing(None), figures, drawings, tmp_path / "cut") == whole  # type: ignore[arg-type]
    assert len(asked) == made
