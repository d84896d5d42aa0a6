"""Score the inbox: predictions of studies whose known diagnosis was hidden with ``[inbox] holdout``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meta_dx.evaluation.figures import Ends
from meta_dx.metrics import classification
from meta_dx.metrics.intervals import two_level_bootstrap


@dataclass(frozen=True)
class HoldoutResult:
    """How the predictions of hidden cases turned out; fractions, every disease weighing the same.

    Parameters
    ----------
    studies, patients, diseases : int
        What was scored.
    not_offered : int
        Predicted studies whose disease was not among the offered ones: no answer could be right.
    not_predicted : int
        Hidden studies without a prediction.
    top1, top3, top1_ci95, top3_ci95 : float, (float, float)
        Share of studies whose disease came first, or among the first three. NaN when nothing was scored.
    truth, truth_ci95 : float, (float, float)
        Mean probability given to the true disease.
    chance : float
        Mean top-1 of guessing.
    """

    studies: int
    patients: int
    diseases: int
    not_offered: int
    not_predicted: int
    top1: float
    top1_ci95: Ends
    top3: float
    top3_ci95: Ends
    truth: float
    truth_ci95: Ends
    chance: float


def score_holdout(
    predictions: Mapping[str, Mapping[str, float]],
    truth: Mapping[str, str],
    patients: Mapping[str, str],
    *,
    seed: int = 0,
) -> HoldoutResult:
    """Compare predictions with the diagnoses that were hidden from the pipeline.

    Parameters
    ----------
    predictions : mapping of str to mapping
        Study → probability of each offered disease. Studies that are not in ``truth`` are ignored.
    truth : mapping of str to str
        Study → hidden disease code.
    patients : mapping of str to str
        Study → patient group; the unit of the bootstrap, below the disease.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    HoldoutResult
    """
    predicted = sorted(set(truth) & set(predictions))
    scored = [study for study in predicted if truth[study] in predictions[study]]
    nothing = (float("nan"), float("nan"))
    if not scored:
        nan = float("nan")
        return HoldoutResult(
            0,
            0,
            0,
            len(predicted),
            len(truth) - len(predicted),
            nan,
            nothing,
            nan,
            nothing,
            nan,
            nothing,
            nan,
        )
    first, third, own, guess = (np.empty(len(scored)) for _ in range(4))
    for i, study in enumerate(scored):
        codes = sorted(predictions[study])
        p = np.array([[predictions[study][code] for code in codes]])
        label = [codes.index(truth[study])]
        first[i], third[i] = (classification.hits(p, label, k)[0] for k in (1, 3))
        own[i], guess[i] = p[0, label[0]], 1.0 / len(codes)
    disease = np.array([truth[study] for study in scored])
    patient = np.array([patients[study] for study in scored])
    top1, top3, mean = (two_level_bootstrap(v, disease, patient, seed=seed) for v in (first, third, own))
    return HoldoutResult(
        studies=len(scored),
        patients=len(set(patient.tolist())),
        diseases=len(set(disease.tolist())),
        not_offered=len(predicted) - len(scored),
        not_predicted=len(truth) - len(predicted),
        top1=top1.estimate,
        top1_ci95=(top1.low, top1.high),
        top3=top3.estimate,
        top3_ci95=(top3.low, top3.high),
        truth=mean.estimate,
        truth_ci95=(mean.low, mean.high),
        chance=float(guess.mean()),
    )
