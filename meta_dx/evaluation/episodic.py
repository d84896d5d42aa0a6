"""The episodic protocol: N-way K-shot tasks over diseases that the bundle has never seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodeSampler, eligible_diseases
from meta_dx.evaluation.asking import Answers, Asked, EpisodePredictor, ask_with_doubt, methods_of
from meta_dx.evaluation.comparison import Comparison, compare
from meta_dx.evaluation.doubt import DoubtResult, OutsideSampler, doubt_result
from meta_dx.progress import Progress, silent

#: Heads of a bundle that stand beside the serving one: SimpleShot (CL2N) and logistic regression.
BASELINES = ("simpleshot", "logistic")


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest of a count."""

    min: int
    median: float
    max: int

    @classmethod
    def of(cls, counts: npt.ArrayLike) -> Spread:
        """Summarise counts."""
        values = np.asarray(counts)
        return cls(int(values.min()), float(np.median(values)), int(values.max()))


@dataclass(frozen=True)
class EpisodicResult:
    """What the episodic protocol found.

    Parameters
    ----------
    ways, shots, queries, episodes, seed : int
        What was asked for.
    comparison : Comparison
        Figures of every method on the same episodes.
    classes : tuple of str
        Diseases that took part.
    left_out : dict of str to int
        Diseases with fewer than shots + 2 patients, and how many they have.
    queries_per_class : Spread
        Queries that a class of an episode really had.
    doubt : dict of str to DoubtResult
        Whether each method knows when it does not know.
    outside : int
        Queries from outside the episodes, over all of them.
    """

    ways: int
    shots: int
    queries: int
    episodes: int
    seed: int
    comparison: Comparison
    classes: tuple[str, ...]
    left_out: dict[str, int]
    queries_per_class: Spread
    doubt: dict[str, DoubtResult]
    outside: int

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1.0 / self.ways


def evaluate_episodes(
    predictor: EpisodePredictor,
    embeddings: npt.NDArray[np.floating],
    examples: Examples,
    *,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
    heads: Sequence[str] = ("prototypical", *BASELINES),
    extra: Mapping[str, npt.NDArray[np.floating]] | None = None,
    ancestors: Mapping[str, Collection[str]] | None = None,
    progress: Progress = silent,
) -> EpisodicResult:
    """Score a bundle and its baselines on the same seeded episodes.

    Parameters
    ----------
    predictor : EpisodePredictor
        The bundle on ONNX Runtime.
    embeddings : ndarray, shape (n, D)
        One vector an example, from the same bundle.
    examples : Examples
        Labelled studies of diseases that the bundle has never seen, row for row.
    ways, shots, queries : int
        Classes, support patients and (at most) query patients per class.
    episodes : int
        Number of episodes.
    seed : int
        Seed of the episodes and of the bootstrap; the same seed gives every method the same episodes.
    heads : sequence of str
        Heads of the bundle; the first is the one it serves.
    extra : mapping of str to ndarray, shape (n, d), optional
        Features for baselines that do not see the embeddings (``"shortcut"``): logistic regression in each
        episode.
    ancestors : mapping of str to collection of str, optional
        Diseases above each code; an episode never holds a disease together with one of its ancestors.
    progress : Progress
        Told the episodes finished, over all methods.

    Returns
    -------
    EpisodicResult

    Raises
    ------
    MetaDxError
        ``too_few_diseases`` when fewer than ``ways`` diseases have shots + 2 patients.
    """
    sampler = EpisodeSampler(examples, ways, shots, queries, seed, ancestors=ancestors)
    plans = list(sampler.plans(episodes))
    asked = Asked.of(plans, examples)
    methods = methods_of(predictor, embeddings, heads, extra or {})
    sampler_outside = OutsideSampler(examples, seed, ancestors)
    outside = [sampler_outside.rows(plan) for plan in plans]
    beyond = sampler_outside.whose(outside)
    answers: dict[str, Answers] = {}
    for at, (name, (method, vectors)) in enumerate(methods.items()):

        def tell(done: int, before: int = at * episodes, name: str = name) -> None:
            progress(before + done, len(methods) * episodes, name)

        answers[name] = ask_with_doubt(method, vectors, plans, outside, tell)
    eligible, left_out = eligible_diseases(examples, shots)
    return EpisodicResult(
        ways=ways,
        shots=shots,
        queries=queries,
        episodes=episodes,
        seed=seed,
        comparison=compare(asked, {n: found.probabilities for n, found in answers.items()}, heads[0], seed),
        classes=tuple(eligible),
        left_out=left_out,
        queries_per_class=Spread.of(asked.counts),
        doubt={name: doubt_result(asked, found, beyond, seed) for name, found in answers.items()},
        outside=len(beyond[0]),
    )
