"""Learning curves of ours beside a reference implementation, with the same budget, on Omniglot.

    META_DX_DATA=/path/to/data python benchmarks/reference_curves.py --protonets CHECKOUT --learn2learn CHECKOUT

``--protonets`` is a checkout of the Prototypical Networks authors' code (jakesnell/prototypical-networks),
``--learn2learn`` one of learnables/learn2learn. Of them the loss and encoder (``protonets/models/few_shot.py``) and the
algorithm (``learn2learn/algorithms/maml.py``) are imported, unchanged; neither is a dependency. Both sides see the same
episodes, in the same order, with the paper's optimizer; for MAML they also start from the same weights, for
Prototypical Networks each draws its own. Every seed is a run of its own. Writes
``docs/reproduction/reference/curves.json``, ``docs/pictures/reference_curves.png`` and ``docs/reference_curves.md``;
a method that is not asked for keeps the curves it has.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 # after the path
import numpy.typing as npt  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.reproduction.omniglot import Omniglot, data_folder, load  # noqa: E402
from benchmarks.reproduction.references import learn2learn_maml, prototypical_authors  # noqa: E402
from benchmarks.reproduction.runs import Figure, MamlRun, PrototypicalRun  # noqa: E402
from meta_dx.episodes.episode import Episode  # noqa: E402
from meta_dx.progress import bar  # noqa: E402

TEST_SEED = 2027
#: Method → episodes of the test; one of 20 ways holds four times the pictures of one of five.
TEST_EPISODES = {"prototypical": 50, "maml": 200}
DOCS = ROOT / "docs"
#: Method → task of the test, and how a curve is told apart in the picture.
TASKS = {"prototypical": Figure(20, 1, None), "maml": Figure(5, 1, None)}
TITLES = {"prototypical": "Prototypical Networks, 20-way 1-shot", "maml": "MAML, 5-way 1-shot, transductive"}
REFERENCES = {"prototypical": "authors' code", "maml": "learn2learn"}
Side = tuple[Callable[[int], None], Callable[[Episode], Tensor]]


def prototypical(data: Omniglot, seed: int, checkout: Path) -> dict[str, Side]:
    """Return step and answer of ours and of the authors' code."""
    ours = PrototypicalRun(data, seed, 1)
    torch.manual_seed(seed)
    theirs = prototypical_authors(checkout)(x_dim=(1, 28, 28), hid_dim=64, z_dim=64)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3)

    def step(number: int) -> None:
        episode = data.episode(ours.rng(number), 1, ours.ways, 1, ours.queries)
        sample = {
            "xs": episode.support_x[0].unflatten(0, (ours.ways, 1)) / 255,
            "xq": episode.query_x[0].unflatten(0, (ours.ways, ours.queries)) / 255,
        }
        optimizer.zero_grad()
        theirs.train().loss(sample)[0].backward()
        optimizer.step()

    def answer(episode: Episode) -> Tensor:
        theirs.eval()
        with torch.inference_mode():
            z = theirs.encoder(torch.cat([episode.support_x[0], episode.query_x[0]]) / 255)
        support = len(episode.support_x[0])
        nearest: Tensor = torch.cdist(z[support:], z[:support]).argmin(-1)
        return nearest

    return {"ours": _ours(ours, TASKS["prototypical"]), REFERENCES["prototypical"]: (step, answer)}


def maml(data: Omniglot, seed: int, checkout: Path) -> dict[str, Side]:
    """Return step and answer of ours and of learn2learn, from the same weights."""
    ours = MamlRun(data, seed, 5, 1, "batch")
    torch.manual_seed(seed)
    options = ours.learner.options
    theirs = learn2learn_maml(checkout)(_plain_twin(ours), lr=options.inner_rate, first_order=False)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    cross_entropy = nn.functional.cross_entropy

    def adapted(x: Tensor, y: Tensor, steps: int) -> Any:
        task = theirs.clone()
        for _ in range(steps):
            task.adapt(cross_entropy(task(x), y))
        return task

    def step(number: int) -> None:
        episode = data.episode(ours.rng(number), ours.tasks, 5, 1, 1)
        optimizer.zero_grad()
        for e in range(ours.tasks):
            task = adapted(episode.support_x[e], episode.support_y[e], options.steps)
            (cross_entropy(task(episode.query_x[e]), episode.query_y[e]) / ours.tasks).backward()
        optimizer.step()

    def answer(episode: Episode) -> Tensor:
        task = adapted(episode.support_x[0], episode.support_y[0], options.test_steps)
        named: Tensor = task(episode.query_x[0]).detach().argmax(-1)
        return named

    return {"ours": _ours(ours, TASKS["maml"]), REFERENCES["maml"]: (step, answer)}


def _plain_twin(ours: MamlRun) -> nn.Module:
    """Return the network with torch's own batch norm, always on the statistics of what is put in."""
    from benchmarks.reproduction.runs import _encoder
    from meta_dx.learners.classifier import Classifier

    encoder = _encoder()
    twin = Classifier(encoder, encoder.embedding_size, 5)
    weights = {
        name: value for name, value in ours.learner.network.state_dict().items() if name in twin.state_dict()
    }
    twin.load_state_dict(weights, strict=False)
    for layer in twin.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    return copy.deepcopy(twin)


def _ours(run: PrototypicalRun | MamlRun, figure: Figure) -> Side:
    def step(number: int) -> None:
        run.step(number, 1)

    return step, lambda episode: run.answer(episode, figure)[0]


def curve(side: Side, test: Sequence[Episode], steps: int, every: int, told: str) -> list[float]:
    """Train and return the accuracy on the test episodes after every so many steps."""
    step, answer = side
    found = []
    with bar(told) as progress:
        for number in range(steps):
            step(number)
            if (number + 1) % every == 0:
                right = [(answer(episode) == episode.query_y[0]).float().mean() for episode in test]
                found.append(float(torch.stack(right).mean()))
                progress(number + 1, steps, f"test {found[-1]:.1%}")
    return found


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the curves of every method, side and seed."""
    cache, found = asked.work, {}
    data, pool = (load(data_folder(), split, 28, cache) for split in ("trainval", "test"))
    contests = {"prototypical": (prototypical, asked.protonets), "maml": (maml, asked.learn2learn)}
    for name, (contest, checkout) in contests.items():
        if checkout is None:
            continue
        task = TASKS[name]
        rng = np.random.default_rng(TEST_SEED)
        test = [pool.episode(rng, 1, task.ways, task.shots, 15) for _ in range(TEST_EPISODES[name])]
        curves: dict[str, list[list[float]]] = {}
        for seed in range(asked.seeds):
            for side, made in contest(data, seed, checkout).items():
                told = f"{name}, {side}, seed {seed}"
                curves.setdefault(side, []).append(curve(made, test, asked.steps, asked.every, told))
        found[name] = {"steps": asked.steps, "every": asked.every, "curves": curves}
    return found


def write_page(found: Mapping[str, Any]) -> None:
    """Write picture and page from the curves."""
    rows = []
    for name, result in found.items():
        last = {side: 100 * np.array(curves)[:, -1] for side, curves in result["curves"].items()}
        gap = last["ours"] - last[REFERENCES[name]]
        largest = _largest(result["curves"], REFERENCES[name])
        each = ", ".join(f"{g:+.2f}" for g in gap)
        rows.append(
            f"| {TITLES[name]} | {result['steps']} | {TEST_EPISODES[name]} | {_listed(last['ours'])} "
            f"| {REFERENCES[name]} | {_listed(last[REFERENCES[name]])} | {each} | {largest:.2f} |"
        )
    text = (
        "# Beside reference implementations\n\n"
        "Written by `python benchmarks/reference_curves.py`; no figure is typed in. Omniglot, training on 4800\n"
        "classes, accuracy in percent on the same test episodes of 15 queries a class from the 1692 test classes.\n"
        "Both sides see the same training episodes; for MAML they start from the same weights, for Prototypical\n"
        "Networks each draws its own. One figure a seed.\n\n"
        "| method | steps | test episodes | ours | reference | theirs | ours less theirs | largest gap |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "![Accuracy on the test episodes after so many steps](pictures/reference_curves.png)\n"
    )
    (DOCS / "reference_curves.md").write_text(text)
    _plot(found, DOCS / "pictures" / "reference_curves.png")


def _listed(values: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _largest(curves: Mapping[str, list[list[float]]], reference: str) -> float:
    return float(100 * np.abs(np.array(curves["ours"]) - np.array(curves[reference])).max())


def _plot(found: Mapping[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(found), figsize=(4.6 * len(found), 3.6), squeeze=False, layout="constrained"
    )
    for at, (name, result) in enumerate(found.items()):
        steps = np.arange(1, result["steps"] // result["every"] + 1) * result["every"]
        for side, color, style in (("ours", "#0b6e8a", "-"), (REFERENCES[name], "#c2571a", "--")):
            for seed, values in enumerate(result["curves"][side]):
                label = side if seed == 0 else None
                axes[0, at].plot(steps, 100 * np.array(values), style, color=color, lw=1.3, label=label)
        axes[0, at].set_title(TITLES[name], loc="left", fontsize=10)
        axes[0, at].set(xlabel="step")
        axes[0, at].grid(alpha=0.3)
        axes[0, at].legend(frameon=False, fontsize=9)
    axes[0, 0].set_ylabel("accuracy on test episodes, %")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, or only write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protonets", type=Path, help="checkout of the authors' Prototypical Networks")
    parser.add_argument("--learn2learn", type=Path, help="checkout of learn2learn")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / ".meta_dx" / "reproduction")
    asked = parser.parse_args()
    if asked.protonets is None and asked.learn2learn is None:
        parser.error("give a checkout: --protonets or --learn2learn.")
    result = DOCS / "reproduction" / "reference" / "curves.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    found = {**(json.loads(result.read_text()) if result.exists() else {}), **measure(asked)}
    result.write_text(json.dumps(found, indent=1) + "\n")
    write_page(found)


if __name__ == "__main__":
    main()
