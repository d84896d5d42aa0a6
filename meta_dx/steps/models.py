"""Step of the model: calibrate the heads on the validation diseases and export the bundle."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from meta_dx.episodes.plan import EpisodeSampler, most_ways
from meta_dx.errors import MetaDxError
from meta_dx.home import fingerprint_of, write_json
from meta_dx.inference import EXPORT_VERSION
from meta_dx.inference.bundle import Bundle, BundleParts, make_latest, write_bundle
from meta_dx.steps import Project
from meta_dx.steps.cohort import CohortData, assemble, fingerprint
from meta_dx.steps.training import select

if TYPE_CHECKING:
    import numpy.typing as npt

    from meta_dx.episodes.episode import Episode
    from meta_dx.training.selection import TrainingResult

log = logging.getLogger(__name__)

_WAYS = (2, 3, 5, 10, 20, 50)
_SHOTS = (1, 2, 5, 10, 20)
_EPISODES = 40  # for each number of ways and shots
_QUERIES = 5


def export(project: Project) -> Bundle:
    """Export the chosen learner as a bundle; the same choice on the same data is not exported twice.

    Returns
    -------
    Bundle

    Raises
    ------
    MetaDxError
        Faults of training, or a storage fault.
    """
    data = assemble(project)
    chosen = select(project)
    name = fingerprint_of(
        [
            EXPORT_VERSION,
            chosen.version,
            data.version,
            project.settings.images,
            project.settings.serve.max_shots,
            project.settings.ingest.allow,
        ]
    )
    memo = project.home.store("exports") / f"{name}.json"
    if memo.exists():
        known = project.home.bundles / json.loads(memo.read_text())["bundle"]
        if known.exists():
            bundle = Bundle.load(known)
            make_latest(project.home, bundle)
            return bundle
    made = write_bundle(project.home, _parts(project, data, chosen))
    write_json(memo, {"bundle": made.path.name})
    return made


def _parts(project: Project, data: CohortData, chosen: TrainingResult) -> BundleParts:
    from meta_dx.inference.calibration import calibrate
    from meta_dx.training.embedding import embed_studies

    encoder, heads = chosen.encoder(), chosen.heads()
    validation = data.by_role["validation"]
    vectors = embed_studies(encoder, data.store.images, validation)
    episodes = list(calibration_episodes(data, vectors, project.settings.cohort.seed))
    calibrations = {name: calibrate(head, episodes) for name, head in heads.items()}
    for name in (name for name, fitted in calibrations.items() if fitted.at_bound):
        log.warning(
            "The validation diseases do not tell how sure '%s' should be: its temperature is at an end.", name
        )
    return BundleParts(
        encoder=encoder,
        heads=heads,
        serving_head=chosen.head,
        image_options=project.settings.images,
        embedding_size=chosen.embedding_size,
        calibrations=calibrations,
        base_mean=chosen.base_mean.numpy(),
        backbone={"name": project.settings.backbone.name},
        learner=chosen.options(chosen.head),
        seed=project.settings.cohort.seed,
        cohort=project.settings.cohort.name,
        data_version=data.version,
        split_version=data.split.version,
        fingerprint=fingerprint(project),
        diseases=data.split.diseases,
        validation={"chosen": chosen.note, "candidates": chosen.rows},
        max_shots=project.settings.serve.max_shots,
        allowed_pictures=project.settings.ingest.allow,
    )


def calibration_episodes(data: CohortData, vectors: npt.NDArray, seed: int) -> Iterator[Episode]:  # type: ignore[type-arg]
    """Yield validation episodes of many ways and shots, as far as the validation diseases permit.

    Parameters
    ----------
    data : CohortData
        The cohort.
    vectors : ndarray, shape (n, D)
        Embeddings of the validation examples.
    seed : int
        Seed of the episodes.

    Yields
    ------
    Episode
    """
    from meta_dx.episodes.collate import collate

    validation = data.by_role["validation"]
    for shots in _SHOTS:
        most = most_ways(validation, shots, data.ancestors)
        for ways in sorted({min(ways, most) for ways in _WAYS} - {0, 1}):
            try:
                sampler = EpisodeSampler(validation, ways, shots, _QUERIES, seed, ancestors=data.ancestors)
                plans = list(sampler.plans(_EPISODES))
            except MetaDxError:  # patients with several of the diseases can make a full table impossible
                continue
            yield collate(plans, vectors)
