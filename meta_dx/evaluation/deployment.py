"""The deployment view: every offered disease at once, with as many cases as the bundle would rest on.

Support is drawn again and again, ordered by the hash of ``docs/sampling.md``; every patient who is not
support is a query. In use a disease with K patients rests on all of them, and then nobody is left to ask
about; here it rests on one fewer, and the result says for which diseases that is so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodePlan, in_order
from meta_dx.errors import MetaDxError
from meta_dx.evaluation.asking import Asked, EpisodePredictor, Floats, ask_with_doubt, methods_of
from meta_dx.evaluation.comparison import Comparison, compare
from meta_dx.evaluation.episodic import BASELINES, Spread
from meta_dx.progress import Progress, silent


@dataclass(frozen=True)
class DeploymentResult:
    """What the deployment view found.

    Parameters
    ----------
    offered : tuple of str
        The N diseases that every answer chose between.
    cap : int
        Most support patients of a disease.
    shots : Spread
        Support patients that the diseases really had.
    repeats, seed : int
        Draws of the support, and their seed.
    prior : str
        ``"uniform"`` or ``"support"``.
    comparison : Comparison
        Figures of every method on the same draws.
    one_short : tuple of str
        Diseases tested with one support patient fewer than they are served with.
    untested : tuple of str
        Diseases that are offered but have no patient left to ask about.
    only_offered : tuple of str
        Diseases that are offered and, as was asked for, not tested: the bundle has seen them.
    absent : tuple of str
        Diseases of the list of which no example was given; they are not offered here.
    queries : int
        Patients asked about in each draw, at most.
    """

    offered: tuple[str, ...]
    cap: int
    shots: Spread
    repeats: int
    seed: int
    prior: str
    comparison: Comparison
    one_short: tuple[str, ...]
    untested: tuple[str, ...]
    only_offered: tuple[str, ...]
    absent: tuple[str, ...]
    queries: int

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1.0 / len(self.offered)


def draw_deployment(
    examples: Examples,
    offered: Sequence[str],
    cap: int,
    seed: int,
    index: int,
    tested: Collection[str] | None = None,
) -> EpisodePlan:
    """Draw the support of every offered disease; all other patients are queries.

    Parameters
    ----------
    examples : Examples
        Labelled examples.
    offered : sequence of str
        Diseases, each with at least one example.
    cap : int
        Most support patients of a disease.
    seed, index : int
        Seed of the series of draws, and number of the draw in it.
    tested : collection of str, optional
        Only patients with these diseases are queries; the others are possible answers. All if not given.

    Returns
    -------
    EpisodePlan
        With one study a patient; a disease may have no query. No patient is on both sides, whichever diseases
        the patient has.
    """
    ordered = partial(in_order, seed, index)

    studies: dict[str, dict[str, dict[str, int]]] = {code: {} for code in offered}
    for row in np.flatnonzero(np.isin(examples.code, offered)):
        by_patient = studies[str(examples.code[row])]
        by_patient.setdefault(str(examples.patient[row]), {})[str(examples.study[row])] = int(row)

    def study_of(code: str, patient: str) -> int:
        found = studies[code][patient]
        return found[ordered("study", list(found))[0]]

    asked = set(offered if tested is None else tested)
    taken: set[str] = set()
    support: dict[str, list[int]] = {}
    patients = {code: ordered("patient", list(studies[code])) for code in offered}
    for code in ordered("class", list(offered)):
        free = [patient for patient in patients[code] if patient not in taken]
        spared = 1 if code in asked else 0
        chosen = free[: max(1, min(cap, len(free) - spared))]
        taken.update(chosen)
        support[code] = [study_of(code, patient) for patient in chosen]
    query: dict[str, list[int]] = {}
    for code in ordered("class", list(offered)):
        left = [patient for patient in patients[code] if patient not in taken and code in asked]
        taken.update(left)
        query[code] = [study_of(code, patient) for patient in left]
    return EpisodePlan(
        index,
        tuple(offered),
        tuple(np.array(support[code], dtype=np.int64) for code in offered),
        tuple(np.array(query[code], dtype=np.int64) for code in offered),
    )


def deployment_plans(
    examples: Examples,
    offered: Sequence[str],
    cap: int,
    seed: int,
    repeats: int,
    tested: Collection[str] | None = None,
) -> list[EpisodePlan]:
    """Draw the support ``repeats`` times, of the offered diseases that have examples.

    Parameters and faults are those of :func:`evaluate_deployment`.
    """
    present = sorted(set(offered) & set(examples.diseases))
    if len(present) < 2:
        raise MetaDxError(
            "too_few_diseases",
            f"Of the {len(set(offered))} offered diseases {len(present)} have labelled studies here, and at"
            " least 2 are needed to choose between: add cases, or change [serve] offer.",
        )
    plans = [draw_deployment(examples, present, cap, seed, index, tested) for index in range(repeats)]
    if not all(sum(map(len, plan.query)) for plan in plans):
        raise MetaDxError(
            "no_queries",
            "No offered disease has a second patient, so nobody is left to ask about: add cases first.",
        )
    return plans


def evaluate_deployment(
    predictor: EpisodePredictor,
    embeddings: npt.NDArray[np.floating],
    examples: Examples,
    *,
    offered: Sequence[str],
    cap: int,
    seed: int,
    repeats: int = 20,
    prior: str = "uniform",
    tested: Collection[str] | None = None,
    heads: Sequence[str] = ("prototypical", *BASELINES),
    extra: Mapping[str, npt.NDArray[np.floating]] | None = None,
    progress: Progress = silent,
) -> DeploymentResult:
    """Score a bundle and its baselines as it would be used.

    Parameters
    ----------
    predictor, embeddings, examples, seed, heads, extra, progress
        As in :func:`~meta_dx.evaluation.episodic.evaluate_episodes`.
    offered : sequence of str
        Diseases that ``[serve]`` offers.
    cap : int
        ``[serve] max_shots``.
    repeats : int
        Draws of the support.
    prior : {"uniform", "support"}
        ``[serve] prior``.
    tested : collection of str, optional
        The offered diseases that the bundle has never seen, when others are offered beside them; all if not
        given.

    Returns
    -------
    DeploymentResult

    Raises
    ------
    MetaDxError
        ``too_few_diseases`` when fewer than two offered diseases have examples, ``no_queries`` when no
        patient is left to ask about.
    """
    present = sorted(set(offered) & set(examples.diseases))
    plans = deployment_plans(examples, offered, cap, seed, repeats, tested)
    counts = examples.patients_per_disease()
    # As when one of a disease's patients is asked about, and the others are confirmed.
    asked = set(present if tested is None else tested)
    others = None if prior == "uniform" else [max(1, counts[code] - (code in asked)) for code in present]
    methods = methods_of(predictor, embeddings, heads, extra or {}, others)
    answers: dict[str, Floats] = {}
    for at, (name, (method, vectors)) in enumerate(methods.items()):
        answers[name] = ask_with_doubt(method, vectors, plans).probabilities
        progress(at + 1, len(methods), name)
    shots = np.array([[len(rows) for rows in plan.support] for plan in plans])  # (R, N)
    asked_about = np.array([[len(rows) for rows in plan.query] for plan in plans]).max(0)
    return DeploymentResult(
        offered=tuple(present),
        cap=cap,
        shots=Spread.of(shots),
        repeats=repeats,
        seed=seed,
        prior=prior,
        comparison=compare(Asked.of(plans, examples), answers, heads[0], seed),
        one_short=tuple(c for c, k in zip(present, shots.min(0), strict=True) if k < min(cap, counts[c])),
        untested=tuple(c for c, most in zip(present, asked_about, strict=True) if not most and c in asked),
        only_offered=tuple(c for c in present if c not in asked),
        absent=tuple(sorted(set(offered) - set(present))),
        queries=max(sum(map(len, plan.query)) for plan in plans),
    )
