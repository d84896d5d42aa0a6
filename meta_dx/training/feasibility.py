"""Which ways and shots the patients of some diseases permit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import most_ways
from meta_dx.errors import MetaDxError
from meta_dx.training.options import TrainingOptions


def common_ways(
    examples: Examples, options: TrainingOptions, ancestors: Mapping[str, Collection[str]] | None = None
) -> int:
    """Return the ways of all validation episodes: what is wanted, or fewer where some shots permit no more.

    One number for all shots, because some learners are built for one number of ways.

    Raises
    ------
    MetaDxError
        ``too_few_diseases``.
    """
    return min(
        feasible(examples, options.validation_ways, shots, ancestors)[0] for shots in options.validation_shots
    )


def feasible(
    examples: Examples, ways: int, shots: int, ancestors: Mapping[str, Collection[str]] | None = None
) -> tuple[int, int]:
    """Return the ways and shots nearest to what is wanted for which there are enough patients.

    Shots are lowered until so many diseases have enough patients; where they are too few even for one shot, the ways
    are lowered to their number, with as many shots as all of these have patients for.

    Parameters
    ----------
    examples : Examples
        Labelled studies.
    ways, shots : int
        What is wanted.
    ancestors : mapping of str to collection of str, optional
        Diseases above each code.

    Returns
    -------
    ways, shots : int

    Raises
    ------
    MetaDxError
        ``too_few_diseases``.
    """
    possible = min(ways, most_ways(examples, 1, ancestors))
    if possible >= 2:
        return possible, next(k for k in range(shots, 0, -1) if most_ways(examples, k, ancestors) >= possible)
    counts = examples.patients_per_disease()
    listed = ", ".join(f"{code} ({patients})" for code, patients in sorted(counts.items())[:10]) or "none"
    raise MetaDxError(
        "too_few_diseases",
        "Episodes need two diseases with at least 3 patients each, none an ancestor of the other; there are "
        f"{len(counts)}: {listed}. "
        "Add cases, or lower the thresholds of [split] so that more diseases come to this side.",
    )


def formerly_feasible(
    examples: Examples, ways: int, shots: int, ancestors: Mapping[str, Collection[str]] | None = None
) -> tuple[int, int]:
    """Return the ways and shots that :func:`feasible` once gave, when diseases were given up before shots.

    Only the keys of stages ask: those for which it is the same are not trained anew. There must be two diseases for
    one shot.
    """
    most = next(k for k in range(shots, 0, -1) if most_ways(examples, k, ancestors) >= 2)
    return min(ways, most_ways(examples, most, ancestors)), most


def validation_fits(
    examples: Examples, options: TrainingOptions, ancestors: Mapping[str, Collection[str]] | None = None
) -> dict[str, object]:
    """Return the ways and shots of validation, for a stage's key; nothing where they are what they always were."""
    wanted = options.validation_shots
    found = [feasible(examples, options.validation_ways, shots, ancestors) for shots in wanted]
    former = [formerly_feasible(examples, options.validation_ways, shots, ancestors) for shots in wanted]
    fewest = min(ways for ways, _ in former)  # one number for all shots, as in common_ways
    return {} if found == [(fewest, shots) for _, shots in former] else {"validation_fits": found}
