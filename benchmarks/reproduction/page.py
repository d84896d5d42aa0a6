"""``docs/reproduction.md`` and its learning curves, written from the results; no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduction.recipes import Recipe
from benchmarks.reproduction.runs import Figure

_HEAD = """# Reproduction on Omniglot

Written by `python benchmarks/reproduce.py page` from the results in `docs/reproduction/`; no figure is typed in.

Vinyals' split: training on 4800 classes (1200 characters and their rotations by 90°), test on 1692 rotated classes,
or on the 423 upright ones. Accuracy in percent over 1000 episodes of 15 queries a class, ± 1.96 standard errors.
*Difference* is ours minus the paper's; an interval that overlaps the paper's, or lies above, reproduces it.
*Steps* are those of the run, of those of the paper. Every seed has its own row.

What differs from the papers: where queries are normalised together (*transductive*), they are 15 a class here too;
the authors' code takes as many as there are shots (MAML), or one (Reptile). The encoder max-pools after each
convolution, as that of Prototypical Networks does; on Omniglot the authors of MAML and Reptile use strided
convolutions.

| method | mode | task | test classes | seed | ours | paper | difference | steps | hardware, threads | time |
|---|---|---|---|---|---|---|---|---|---|---|
"""


#: Run → its results, one a seed.
Results = Mapping[str, Sequence[dict[str, Any]]]


def write_page(recipes: Mapping[str, Recipe], results: Results, docs: Path) -> Path:
    """Write the page and one picture of all learning curves; returns the page."""
    rows = [row for recipe in recipes.values() for row in _rows(recipe, results.get(recipe.name, ()))]
    text = _HEAD + "\n".join(rows) + "\n"
    if results:
        _plot(recipes, results, docs / "pictures" / "reproduction.png")
        text += "\n![Accuracy on the training episodes of every run](pictures/reproduction.png)\n\n"
        text += "Accuracy on the training episodes as they come (each point the mean since the last).\n"
    page = docs / "reproduction.md"
    page.write_text(text)
    return page


def _rows(recipe: Recipe, results: Sequence[dict[str, Any]]) -> list[str]:
    if not results:
        return [
            f"| {recipe.method} | {f.mode or recipe.mode} | {f.task} | | | not run | {_paper(f)} | | | | |"
            for f in recipe.figures
        ]
    published = {(f.task, f.mode): f for f in recipe.figures}
    return [
        _row(recipe, result, published[found["task"], found["mode"]], found)
        for result in results
        for found in result["figures"]
    ]


def _row(recipe: Recipe, result: dict[str, Any], figure: Figure, found: dict[str, Any]) -> str:
    difference = "" if figure.accuracy is None else f"{found['accuracy'] - figure.accuracy:+.2f}"
    of = f"{result['steps']:,} of " + (f"{recipe.iterations:,}" if recipe.iterations else "unstated")
    return (
        f"| {recipe.method} | {figure.mode or recipe.mode} | {figure.task} | {found['pool']} | {result['seed']} "
        f"| {found['accuracy']:.2f} ± {found['half']:.2f} | {_paper(figure)} | {difference} | {of} "
        f"| {result['hardware']}, {result['threads']} | {result['seconds'] / 60:.0f} min |"
    )


def _paper(figure: Figure) -> str:
    if figure.accuracy is None:
        return "none published"
    return f"{figure.accuracy}" + (f" ± {figure.half}" if figure.half is not None else "")


def _plot(recipes: Mapping[str, Recipe], results: Results, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for result in (result for name in recipes for result in results.get(name, ())):
        if curve := result["curve"]:
            label = f"{result['run']}, seed {result['seed']}"
            axes.plot([p["step"] for p in curve], [100 * p["accuracy"] for p in curve], label=label, lw=1.2)
    axes.set(xlabel="meta-steps", ylabel="accuracy on training episodes, %", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
