"""CNP, NP and ANP on the one-dimensional regression of the *Attentive Neural Processes* paper.

Functions are drawn from Gaussian processes with a squared exponential kernel whose length scale (0.1 … 0.6) and
standard deviation (0.1 … 1) are drawn anew for each function, inputs from -2 … 2, noise 0.02, 3 … 49 context
points, as in the authors' code (https://github.com/google-deepmind/neural-processes). Architecture and batch
are theirs too; the number of steps is a fraction of their 100 000, and the learning rate is higher for it.

Run: ``python benchmarks/neural_process_regression.py [--steps N] [--seeds N]``. What is trained stands in
``build/neural_process_regression`` and is not trained again, so a killed run goes on with the next model.
Writes ``docs/neural_process_regression.json`` and ``.md``, and ``docs/pictures/neural_process_regression.png``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meta_dx.learners.neural_process_regressor import NeuralProcessRegressor

FORMS = {
    "CNP": {"latent": False, "attention": False},
    "NP": {"latent": True, "attention": False},
    "ANP": {"latent": True, "attention": True},
}
RATE, BATCH, MOST = 5e-4, 16, 50
HELD_OUT, SAMPLES, SHOWN = 40, 64, (5, 10, 25)  # batches of held-out functions, samples of z, contexts shown
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Curves:
    """Functions (B, T, 1) of which the first ``context`` points are known."""

    x: Tensor
    y: Tensor
    context: int

    @property
    def known(self) -> tuple[Tensor, Tensor]:
        """The context."""
        return self.x[:, : self.context], self.y[:, : self.context]


def draw_curves(generator: torch.Generator, x: Tensor, context: int) -> Curves:
    """Draw a function for each row of inputs (B, T, 1)."""
    length, height = (
        0.1 + span * torch.rand(x.shape[0], 1, 1, generator=generator, dtype=torch.float64)
        for span in (0.5, 0.9)
    )
    x64 = x.double()
    kernel = height.square() * (-0.5 * ((x64 - x64.mT) / length).square()).exp()
    kernel = kernel + 0.02**2 * torch.eye(x.shape[1], dtype=torch.float64)
    noise = torch.randn(x.shape[0], x.shape[1], 1, generator=generator, dtype=torch.float64)
    return Curves(x, (torch.linalg.cholesky(kernel) @ noise).float(), context)


def between(generator: torch.Generator, low: int, high: int) -> int:
    """Draw a whole number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=generator))


def inputs(generator: torch.Generator, count: int) -> Tensor:
    """Draw inputs (B, T, 1) between -2 and 2."""
    return 4 * torch.rand(BATCH, count, 1, generator=generator) - 2


def train(form: str, seed: int, steps: int, path: Path) -> dict[str, Any]:
    """Train one model, or read it; returns weights, seconds and the KL of the last hundred steps."""
    if path.exists():
        return torch.load(path, weights_only=True)
    torch.manual_seed(seed)
    net = NeuralProcessRegressor(**FORMS[form])
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    generator = torch.Generator().manual_seed(1000 + seed)  # the same functions for each form
    started, kls = time.process_time(), []
    for _ in range(steps):
        context = between(generator, 3, MOST)
        x = inputs(generator, context + between(generator, 0, MOST - context))
        curves = draw_curves(generator, x, context)
        noise = torch.randn(BATCH, 128, generator=generator)
        loss, kl = net.loss(*curves.known, curves.x, curves.y, noise if net.noise_size else None)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        kls.append(float(kl.detach()))
    found = {
        "weights": net.state_dict(),
        "seconds": time.process_time() - started,
        "kl": float(np.mean(kls[-100:])),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    return found


@torch.no_grad()
def likelihoods(net: NeuralProcessRegressor) -> dict[str, np.ndarray]:
    """Return the log-likelihood for each point of every held-out function, at new targets and at the context."""
    generator = torch.Generator().manual_seed(99)
    found: dict[str, list[Tensor]] = {"target": [], "context": []}
    for _ in range(HELD_OUT):
        context = between(generator, 3, MOST)
        curves = draw_curves(generator, inputs(generator, context + MOST), context)
        noise = torch.randn(SAMPLES, BATCH, 128, generator=generator)
        for name, part in (("target", slice(context, None)), ("context", slice(context))):
            asked = curves.x[:, part], curves.y[:, part]
            found[name].append(net.log_likelihood(*curves.known, *asked, noise if net.noise_size else None))
    return {name: torch.cat(values).numpy() for name, values in found.items()}


def interval(values: np.ndarray) -> list[float]:
    """Return mean and 95 % interval over held-out functions."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return [round(float(v), 3) for v in (values.mean(), values.mean() - half, values.mean() + half)]


def table(
    runs: dict[str, list[dict[str, Any]]], found: dict[str, list[dict[str, np.ndarray]]]
) -> dict[str, Any]:
    """Return the figures: means over seeds with intervals over functions, and each seed's mean."""
    rows = []
    for form in FORMS:
        row: dict[str, Any] = {"model": form}
        for part in ("target", "context"):
            each = np.stack([seed[part] for seed in found[form]])  # (seeds, functions)
            row[part] = interval(each.mean(0))
            row[f"{part}_by_seed"] = [round(float(value), 3) for value in each.mean(1)]
        row["kl"] = [round(run["kl"], 4) for run in runs[form]]
        row["cpu_seconds"] = [round(run["seconds"]) for run in runs[form]]
        rows.append(row)
    paired = {
        part: interval(
            np.mean([a[part] - b[part] for a, b in zip(found["ANP"], found["NP"], strict=True)], axis=0)
        )
        for part in ("target", "context")
    }
    return {"rows": rows, "anp_minus_np": paired}


def page(content: dict[str, Any]) -> str:
    """Write the figures as markdown."""

    def told(values: list[float]) -> str:
        return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"

    about = content["settings"]
    lines = [
        "# Neural processes on Gaussian-process regression\n",
        "The regressors of the papers:\n",
        "![Mean and deviation of NP and ANP on held-out functions](pictures/neural_process_regression.png)\n",
        "| model | targets, nats a point | context, nats a point | targets by seed | KL at the end, nats | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        by_seed = ", ".join(f"{v:.3f}" for v in row["target_by_seed"])
        kl = "" if row["model"] == "CNP" else ", ".join(f"{v:.3f}" for v in row["kl"])
        seconds = ", ".join(str(v) for v in row["cpu_seconds"])
        lines.append(
            f"| {row['model']} | {told(row['target'])} | {told(row['context'])} | {by_seed} | {kl} | {seconds} |"
        )
    paired = content["anp_minus_np"]
    lines += [
        "",
        f"ANP less NP, paired over functions: targets {told(paired['target'])}, context {told(paired['context'])}.",
        f"Log-likelihood of all points of a function together (mean over {SAMPLES} samples of z), for each point; "
        f"{about['functions']} held-out functions, 95 % intervals over functions of the mean over "
        f"{about['seeds']} seeds. {about['steps']} steps of {BATCH} functions (the authors: 100 000), Adam {RATE:g}. "
        f"{about['machine']}, one core. Command: `python benchmarks/neural_process_regression.py --steps "
        f"{about['steps']} --seeds {about['seeds']}`.",
        "",
    ]
    return "\n".join(lines)


@torch.no_grad()
def draw_picture(nets: dict[str, NeuralProcessRegressor], path: Path) -> None:
    """Draw NP above ANP on the same held-out functions."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    grid = torch.linspace(-2, 2, 200)
    figure, axes = plt.subplots(
        2, len(SHOWN), figsize=(12, 6), sharex=True, sharey="col", layout="constrained"
    )
    for column, context in enumerate(SHOWN):
        generator = torch.Generator().manual_seed(7 + column)
        seen = 4 * torch.rand(context, generator=generator) - 2
        curves = draw_curves(generator, torch.cat([seen, grid])[None, :, None], context)
        x, y = curves.x[0, :, 0], curves.y[0, :, 0]
        noise = torch.randn(SAMPLES, 1, 128, generator=generator)
        for row, (form, net) in enumerate(nets.items()):
            answer = net.predict(*curves.known, grid[None, :, None], noise)
            mean = answer.mean.mean(0)[0, :, 0]
            sd = (answer.sd.square().mean(0) + answer.mean.var(0, correction=0)).sqrt()[0, :, 0]
            axis = axes[row, column]
            axis.plot(grid, y[context:], "k:", label="truth")
            axis.plot(grid, mean, color="tab:blue", label="mean")
            axis.fill_between(grid, mean - sd, mean + sd, color="tab:blue", alpha=0.25, label="± 1 sd", lw=0)
            axis.plot(x[:context], y[:context], "ko", ms=4, label="context")
            axis.set_title(f"{form}, {context} context points", fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel("x")
    for axis in axes[:, 0]:
        axis.set_ylabel("y")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Train what is not trained yet, and write figures and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "neural_process_regression")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    found: dict[str, list[dict[str, np.ndarray]]] = {form: [] for form in FORMS}
    first: dict[str, NeuralProcessRegressor] = {}
    for seed in range(asked.seeds):
        for form, options in FORMS.items():
            run = train(form, seed, asked.steps, asked.work / f"{form}-{asked.steps}-{seed}.pt")
            net = NeuralProcessRegressor(**options)
            net.load_state_dict(run["weights"])
            runs[form].append(run)
            found[form].append(likelihoods(net))
            if form != "CNP":
                first.setdefault(form, net)
            print(
                form,
                seed,
                f"targets {found[form][-1]['target'].mean():.3f}",
                f"{run['seconds']:.0f} s",
                flush=True,
            )
    settings = {
        "steps": asked.steps,
        "seeds": asked.seeds,
        "functions": HELD_OUT * BATCH,
        "learning_rate": RATE,
        "machine": f"{platform.machine()}, torch {torch.__version__.split('+')[0]}",
    }
    content = {"settings": settings, **table(runs, found)}
    (asked.docs / "neural_process_regression.json").write_text(json.dumps(content, indent=1) + "\n")
    (asked.docs / "neural_process_regression.md").write_text(page(content))
    draw_picture(first, asked.docs / "pictures" / "neural_process_regression.png")


if __name__ == "__main__":
    main()
