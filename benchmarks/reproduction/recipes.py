"""The papers' protocols on Omniglot, one recipe a training run, and what the papers report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.reproduction.omniglot import Omniglot
from benchmarks.reproduction.runs import (
    INDUCTIVE,
    TRANSDUCTIVE,
    Figure,
    MamlRun,
    MannRun,
    PrototypicalRun,
    ReptileRun,
    Run,
)


@dataclass(frozen=True)
class Recipe:
    """A paper's protocol.

    Parameters
    ----------
    name : str
        Of the run.
    method, mode : str
        As they stand in the table.
    figures : tuple of Figure
        What is tested, and what the paper reports.
    iterations : int or None
        Of the paper; None where it trains until validation stops improving.
    make : callable
        From training classes and seed to the run.
    side : int
        Pixels.
    planned : bool
        What a step does hangs on how many there will be, so that a run cannot go on for another number.
    """

    name: str
    method: str
    mode: str
    figures: tuple[Figure, ...]
    iterations: int | None
    make: Callable[[Omniglot, int], Run]
    side: int = 28
    planned: bool = False


def _prototypical(shots: int, figures: tuple[Figure, ...]) -> Recipe:
    return Recipe(
        name=f"prototypical-{shots}shot",
        method="Prototypical Networks",
        mode="inductive; stored batch statistics",
        figures=figures,
        iterations=None,
        make=lambda data, seed: PrototypicalRun(data, seed, shots),
    )


# The paper trains until validation stops improving and says neither when that was nor in which precision.
_LONG = Recipe(
    name="prototypical-1shot-long",
    method="Prototypical Networks",
    mode="inductive; stored batch statistics; rate halved every 4000 steps, not 2000; trained in bf16",
    figures=(Figure(5, 1, 98.8), Figure(20, 1, 96.0)),
    iterations=None,
    make=lambda data, seed: PrototypicalRun(data, seed, 1, halved_every=4000, bf16=True),
)


def _maml(ways: int, shots: int, accuracy: float, half: float, iterations: int = 60_000) -> list[Recipe]:
    name = f"maml-{ways}way-{shots}shot"

    def recipe(suffix: str, mode: str, batch_norm: str, figure: Figure) -> Recipe:
        def make(data: Omniglot, seed: int) -> Run:
            return MamlRun(data, seed, ways, shots, batch_norm)

        return Recipe(name + suffix, "MAML, second order", mode, (figure,), iterations, make)

    return [
        recipe("", "transductive batch norm", "batch", Figure(ways, shots, accuracy, half)),
        recipe("-support", "inductive; statistics of the support set", "support", Figure(ways, shots, None)),
    ]


def _reptile(ways: int, iterations: int, *figures: Figure) -> Recipe:
    return Recipe(
        name=f"reptile-{ways}way",
        method="Reptile",
        mode="batch statistics",
        figures=figures,
        iterations=iterations,
        make=lambda data, seed: ReptileRun(data, seed, ways),
        planned=True,
    )


_MANN = Recipe(
    name="mann",
    method="Memory-augmented network",
    mode="sequences of 50; labels one step late",
    figures=tuple(
        Figure(5, 10, accuracy, presentation=k)
        for k, accuracy in ((1, 36.4), (2, 82.8), (3, 91.0), (4, 92.6), (5, 94.9), (10, 98.1))
    ),
    iterations=100_000,
    make=MannRun,
    side=20,
)

#: By name, in the order of the page.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _prototypical(1, (Figure(5, 1, 98.8), Figure(20, 1, 96.0))),
        _LONG,
        _prototypical(5, (Figure(5, 5, 99.7), Figure(20, 5, 98.9))),
        *_maml(5, 1, 98.7, 0.4),
        *_maml(5, 5, 99.9, 0.1),
        *_maml(20, 1, 95.8, 0.3),
        *_maml(20, 5, 98.9, 0.2),
        _reptile(
            5,
            100_000,
            Figure(5, 1, 95.39, 0.09, mode=INDUCTIVE),
            Figure(5, 1, 97.68, 0.04, mode=TRANSDUCTIVE),
            Figure(5, 5, 98.90, 0.10, mode=INDUCTIVE),
            Figure(5, 5, 99.48, 0.06, mode=TRANSDUCTIVE),
        ),
        _reptile(
            20,
            200_000,
            Figure(20, 1, 88.14, 0.15, mode=INDUCTIVE),
            Figure(20, 1, 89.43, 0.14, mode=TRANSDUCTIVE),
            Figure(20, 5, 96.65, 0.33, mode=INDUCTIVE),
            Figure(20, 5, 97.12, 0.32, mode=TRANSDUCTIVE),
        ),
        _MANN,
    )
}
