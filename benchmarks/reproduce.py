"""Train and test the learners on Omniglot by their papers' protocols, and write ``docs/reproduction.md``.

    META_DX_DATA=/path/to/data python benchmarks/reproduce.py run prototypical-1shot --iterations 20000 --minutes 60
    python benchmarks/reproduce.py page
    python benchmarks/reproduce.py list

``run`` goes on where it was stopped, across days and kills; when its steps (or the minutes) are spent it tests,
keeps the result in ``docs/reproduction/`` and writes the page anew, one pool of test classes after the other.
Checkpoints lie in ``.meta_dx/reproduction``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.reproduction.recipes import RECIPES  # noqa: E402 # after the path

RESULTS = ROOT / "docs" / "reproduction"


def main() -> None:
    """Run, list or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the runs there are")
    commands.add_parser("page", help="write docs/reproduction.md from the results")
    run = commands.add_parser("run", help="train (or go on) and test")
    run.add_argument("name", choices=list(RECIPES))
    run.add_argument("--iterations", type=int, help="meta-steps in all; the paper's if absent")
    run.add_argument("--minutes", type=float, default=float("inf"), help="stop training after so many")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--threads", type=int, default=0)
    run.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if any")
    run.add_argument("--work", type=Path, default=ROOT / ".meta_dx" / "reproduction")
    arguments = parser.parse_args()
    if arguments.command == "list":
        sys.stdout.writelines(f"{r.name:24} {r.method}, {r.mode}\n" for r in RECIPES.values())
    elif arguments.command == "page":
        sys.stdout.write(f"{_page()}\n")
    else:
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.reproduction.loop import Job, choose_device, test, train, write_result
    from benchmarks.reproduction.omniglot import data_folder, load

    recipe = RECIPES[arguments.name]
    iterations = arguments.iterations or recipe.iterations
    if iterations is None:
        sys.exit(f"The paper of {recipe.name} states no number of steps: say --iterations.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data, cache, side = data_folder(), arguments.work, recipe.side
    folder = cache / f"{recipe.name}-seed{arguments.seed}"
    job = Job(recipe, arguments.seed, iterations, folder, choose_device(arguments.device))
    run, state = job.begin(load(data, "trainval", side, cache))
    train(job, run, state, arguments.minutes)
    pools = {
        "1692": load(data, "test", side, cache),
        "423": load(data, "test", side, cache, rotations=False),
    }
    for ready in range(
        1, len(pools) + 1
    ):  # a pool may take hours: what is known is on the page before the next
        write_result(test(job, run, state, dict(list(pools.items())[:ready])), RESULTS)
        sys.stdout.write(f"{_page()}\n")


def _page() -> Path:
    from benchmarks.reproduction.loop import read_results
    from benchmarks.reproduction.page import write_page

    return write_page(RECIPES, read_results(RESULTS), ROOT / "docs")


if __name__ == "__main__":
    main()
