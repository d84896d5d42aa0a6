"""From a support set and queries to predictions with uncertainty and evidence, and to what programs are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meta_dx.records.predictions import EvidenceCase, NearestCase, PredictedStudy

if TYPE_CHECKING:
    from meta_dx.cohort.images import ImageStore
    from meta_dx.inference.evidence import EmbeddedStudies
    from meta_dx.inference.predictor import Predictor, State

_NEAREST = 3


def predicted_studies(
    predictor: Predictor,
    state: State,
    codes: Sequence[str],
    support: EmbeddedStudies,
    support_studies: Sequence[str],
    labels: npt.NDArray[np.int64],
    query_x: npt.NDArray[np.float32],
    query_studies: Sequence[str],
    support_patient: Sequence[bool],
    prior: npt.ArrayLike | None = None,
) -> list[PredictedStudy]:
    """Answer queries from an adapted state.

    Parameters
    ----------
    predictor : Predictor
        The bundle at work.
    state : State
        Adapted to the support.
    codes : sequence of str, length N
        Disease code of each class.
    support : EmbeddedStudies
        The S confirmed cases, pictures named.
    support_studies : sequence of str, length S
        Their studies.
    labels : ndarray of int64, shape (S,)
        Their classes.
    query_x : ndarray of float32, shape (Q, D)
        Embeddings of the queries.
    query_studies : sequence of str, length Q
        Their studies.
    support_patient : sequence of bool, length Q
        Whether the query's patient is also in the support.
    prior : array_like, shape (N,), optional
        Class prior.

    Returns
    -------
    list of PredictedStudy
        One a query, in their order; None in the fields that the served head cannot give.
    """
    from meta_dx.inference.evidence import entropy, evidence, nearest_support, remoteness

    answer = predictor.answer(state, query_x, prior, codes)
    entropies = entropy(answer.probabilities)
    nearest, similarity = nearest_support(
        predictor.centred(support.x), predictor.centred(query_x), min(_NEAREST, len(support_studies))
    )
    far = remoteness(predictor.centred(support.x), predictor.centred(query_x))
    weighed = evidence(answer, labels, query_x, support, predictor.bundle.embedding_mean)
    code_of = [codes[label] for label in labels]
    found = []
    for at, study in enumerate(query_studies):
        cases = None if weighed is None else weighed[at]
        interval = None if answer.interval is None else answer.interval[at]
        found.append(
            PredictedStudy(
                study=study,
                probabilities=dict(zip(codes, answer.probabilities[at].tolist(), strict=True)),
                entropy=float(entropies[at]),
                nearest=tuple(
                    NearestCase(support_studies[k], code_of[k], float(s))
                    for k, s in zip(nearest[at], similarity[at], strict=True)
                ),
                support_patient=bool(support_patient[at]),
                epistemic=None if answer.epistemic is None else float(answer.epistemic[at]),
                aleatoric=None if answer.aleatoric is None else float(answer.aleatoric[at]),
                interval=None
                if interval is None
                else {code: (low, high) for code, (low, high) in zip(codes, interval.tolist(), strict=True)},
                evidence=None
                if cases is None
                else tuple(
                    EvidenceCase(support_studies[one.case], code_of[one.case], image, one.weight, frame)
                    for one in cases
                    for image, frame in [_image_and_frame(one.picture)]
                ),
                remoteness=None if far is None else float(far[at]),
            )
        )
    return found


def picture_names(store: ImageStore, originals: Mapping[str, str] | None = None) -> npt.NDArray[np.str_]:
    """Return the SOP instance UID of every picture of a store, original where it is known, and its frame, by row.

    A name is ``"UID/frame"``, frames counted from 0. The index may be a selection of the store's pictures; the others
    have no name.
    """
    known, index = originals or {}, store.index
    found = np.full(store.shape[0], "", dtype=object)
    pictures = zip(index["instance"], index["frame"], strict=True)
    found[index["row"].to_numpy()] = [f"{known.get(name, name)}/{frame}" for name, frame in pictures]
    return found.astype(np.str_)


def _image_and_frame(name: str) -> tuple[str, int]:
    """Return what a name of :func:`picture_names` says."""
    image, _, frame = name.partition("/")
    return image, int(frame or 0)


def as_contract(
    one: PredictedStudy, studies: Mapping[str, str] | None = None, images: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the fields of ``meta-dx predict --json`` (``docs/contract.md``).

    Parameters
    ----------
    one : PredictedStudy
        The answer.
    studies, images : mapping of str to str, optional
        Surrogate → original, where the answer speaks in surrogates.
    """
    study_of, image_of = studies or {}, images or {}
    return {
        "study_instance_uid": study_of.get(one.study, one.study),
        "probabilities": dict(one.probabilities),
        "entropy": one.entropy,
        "epistemic": one.epistemic,
        "aleatoric": one.aleatoric,
        "interval": None
        if one.interval is None
        else {code: list(ends) for code, ends in one.interval.items()},
        "nearest_support": [
            {
                "study_instance_uid": study_of.get(near.study, near.study),
                "code": near.code,
                "similarity": near.similarity,
            }
            for near in one.nearest
        ],
        "evidence": None
        if one.evidence is None
        else [
            {
                "study_instance_uid": study_of.get(case.study, case.study),
                "code": case.code,
                "image": image_of.get(case.image, case.image),
                "frame": case.frame,
                "weight": case.weight,
            }
            for case in one.evidence
        ],
        "support_patient": one.support_patient,
    }
