"""Does a method know when it does not know: its doubt against its errors, and against unknown diseases.

Two questions, each an AUROC: the chance that the doubt is larger where it should be. *Wrong or right*: of a
wrongly and a rightly named query, is the wrong one doubted more? *Outside*: of a query whose disease is not
among those that can be named and one whose disease is, is the outsider doubted more? Every method is asked with
the entropy of its probabilities, and a head with a latent variable also with its epistemic uncertainty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodePlan, in_order
from meta_dx.evaluation.asking import Answers, Asked, Floats
from meta_dx.evaluation.figures import Ends
from meta_dx.inference.evidence import entropy
from meta_dx.metrics.calibration import class_weights
from meta_dx.metrics.classification import hits, separation
from meta_dx.metrics.intervals import separation_interval

Rows = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]
_Figure = tuple[float | None, Ends | None]


@dataclass(frozen=True)
class DoubtResult:
    """Four AUROCs of one method, each with its 95 % interval; every disease weighs the same, 0.5 is guessing.

    None where every answer was right (or wrong), nobody is outside, or the method has no epistemic uncertainty.

    Parameters
    ----------
    entropy_auroc, epistemic_auroc : float, optional
        Wrong answers are doubted more than right ones, by entropy and by epistemic uncertainty.
    openset_entropy_auroc, openset_auroc : float, optional
        Queries from diseases outside the episode are doubted more than those inside, likewise.
    entropy_auroc_ci95, epistemic_auroc_ci95, openset_entropy_auroc_ci95, openset_auroc_ci95 : (float, float), optional
        Bootstrap over diseases, then patients.
    """

    entropy_auroc: float | None
    entropy_auroc_ci95: Ends | None
    epistemic_auroc: float | None
    epistemic_auroc_ci95: Ends | None
    openset_entropy_auroc: float | None
    openset_entropy_auroc_ci95: Ends | None
    openset_auroc: float | None
    openset_auroc_ci95: Ends | None

    @property
    def figures(self) -> list[tuple[float | None, Ends | None]]:
        """The four figures in this order, each with its interval."""
        values = list(vars(self).values())
        return list(zip(values[::2], values[1::2], strict=True))


class OutsideSampler:
    """Draws queries of diseases that an episode does not offer, as many as it has queries.

    Parameters
    ----------
    examples : Examples
        The labelled examples that the episodes were drawn from.
    seed : int
        Seed of the episodes.
    ancestors : mapping of str to collection of str, optional
        Diseases above each code: a relative of an offered disease is not outside.
    """

    def __init__(
        self, examples: Examples, seed: int, ancestors: Mapping[str, Collection[str]] | None = None
    ) -> None:
        self._seed, self._ancestors = seed, ancestors or {}
        self._studies: dict[str, dict[str, dict[str, int]]] = {}
        rows = zip(examples.code.tolist(), examples.patient.tolist(), examples.study.tolist(), strict=True)
        for row, (code, patient, study) in enumerate(rows):
            if code:
                self._studies.setdefault(code, {}).setdefault(patient, {})[study] = row
        self._code, self._patient = examples.code, examples.patient

    def rows(self, plan: EpisodePlan) -> Rows:
        """Draw one episode's outside queries.

        Parameters
        ----------
        plan : EpisodePlan
            The episode.

        Returns
        -------
        ndarray of int64
            Rows of the examples: the outside diseases in the order of their key take turns, each giving its
            next patient in the order of the patients' keys, one study each, until there are as many as the
            episode has queries or nobody is left. Patients who also have an offered disease are passed over.
        """
        offered = {code for code in self._studies if self._inside(code, plan.classes)}
        outside = self._ordered(plan.index, "class", self._studies.keys() - offered)
        taken = {patient for code in offered for patient in self._studies[code]}
        waiting = {code: self._patients(plan.index, code) for code in outside}
        wanted = sum(map(len, plan.query))
        found: list[int] = []
        for code in cycle(outside):
            if len(found) == wanted or not waiting:
                break
            patient = next((p for p in waiting.get(code, ()) if p not in taken), None)
            if patient is None:
                waiting.pop(code, None)
                continue
            taken.add(patient)
            studies = self._studies[code][patient]
            found.append(studies[self._ordered(plan.index, "study", studies)[0]])
        return np.array(found, dtype=np.int64)

    def whose(self, rows: Sequence[Rows]) -> tuple[Names, Names]:
        """Return disease and patient of every outside query of all episodes, shape (U,) each."""
        chosen = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
        return np.asarray(self._code[chosen]), np.asarray(self._patient[chosen])

    def _inside(self, code: str, classes: Collection[str]) -> bool:
        above = set(self._ancestors.get(code, ()))
        return any(code == c or c in above or code in self._ancestors.get(c, ()) for c in classes)

    def _patients(self, index: int, code: str) -> Iterator[str]:
        """Yield the patients of a disease in order; where nobody asks, they are never sorted."""
        yield from self._ordered(index, "patient", self._studies[code])

    def _ordered(self, index: int, what: str, names: Iterable[str]) -> list[str]:
        return in_order(self._seed, index, f"outside {what}", names)


def doubt_result(asked: Asked, answers: Answers, outside: tuple[Names, Names], seed: int) -> DoubtResult:
    """Compute a method's four figures.

    Parameters
    ----------
    asked : Asked
        The queries inside, T rows.
    answers : Answers
        What the method answered inside and outside.
    outside : (ndarray of str, ndarray of str), shape (U,) each
        Disease and patient of each query outside.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DoubtResult
    """
    weight = class_weights(asked.disease)
    right = hits(answers.probabilities, asked.label)
    inside = (asked.disease, asked.patient)
    everybody = tuple(np.concatenate(both) for both in zip(inside, outside, strict=True))
    strangers = np.concatenate([np.zeros(len(weight)), class_weights(outside[0])])
    offered = np.concatenate([weight, np.zeros(len(outside[0]))])

    def wrong(doubt: Floats | None) -> _Figure:
        if doubt is None:
            return None, None
        sides = (weight * (1 - right), weight * right)
        return separation(doubt, *sides), separation_interval(doubt, *sides, *inside, seed=seed)

    def beyond(doubt: Floats | None, of_strangers: Floats | None) -> _Figure:
        if doubt is None or of_strangers is None or not len(outside[0]):
            return None, None
        both = np.concatenate([doubt, of_strangers])
        ends = separation_interval(both, strangers, offered, *everybody, seed=seed)
        return separation(both, strangers, offered), ends

    entropies = entropy(answers.probabilities)
    return DoubtResult(
        *wrong(entropies),
        *wrong(answers.epistemic),
        *beyond(entropies, entropy(answers.outside_probabilities)),
        *beyond(answers.epistemic, answers.outside_epistemic),
    )
