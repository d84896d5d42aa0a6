"""Steps of evaluation: the rare diseases, opened once per bundle, through ONNX Runtime beside the baselines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_dx.evaluation.deployment import DeploymentResult, evaluate_deployment
from meta_dx.evaluation.episodic import EpisodicResult, evaluate_episodes
from meta_dx.evaluation.record import from_json, to_json
from meta_dx.evaluation.shortcut import shortcut_features
from meta_dx.home import fingerprint_of, write_json
from meta_dx.inference.bundle import Bundle, latest_bundle
from meta_dx.inference.predictor import Predictor
from meta_dx.progress import Progress, silent
from meta_dx.records.database import Records
from meta_dx.records.openings import Evaluation, count_openings, record_opening, save_evaluation
from meta_dx.steps import Project
from meta_dx.steps.cohort import CohortData, assemble
from meta_dx.steps.external import serving_first
from meta_dx.steps.predictions import serving_of, table_cases

PROTOCOL = "rare diseases, episodes and deployment view"


@dataclass(frozen=True)
class RareEvaluation:
    """The figures of one bundle on the rare diseases.

    Parameters
    ----------
    id : str
        Names bundle, data and protocol.
    folder : Path
        Where ``results.json`` and the report lie.
    episodic : tuple of EpisodicResult
        One for each number of shots.
    deployment : DeploymentResult
        All offered rare diseases at once, as ``[serve]`` says.
    openings : int
        Distinct looks at the rare diseases of this split so far.
    """

    id: str
    folder: Path
    episodic: tuple[EpisodicResult, ...]
    deployment: DeploymentResult
    openings: int

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a protocol and method, for a table."""
        views = [(f"{e.ways}-way {e.shots}-shot", e.comparison) for e in self.episodic]
        views.append((f"deployment, {len(self.deployment.offered)} diseases", self.deployment.comparison))
        return [
            {
                "protocol": name,
                "method": method + (" (served)" if method == comparison.serving else ""),
                "accuracy": round(found.accuracy, 4),
                "low": round(found.ci95[0], 4),
                "high": round(found.ci95[1], 4),
                "auroc": round(found.auroc, 4),
                "ece": round(found.ece, 4),
            }
            for name, comparison in views
            for method, found in comparison.methods.items()
        ]


def evaluate_rare(project: Project, progress: Progress = silent) -> RareEvaluation:
    """Evaluate the newest bundle on the rare diseases; a finished evaluation is read, not repeated.

    Parameters
    ----------
    project : Project
        Cohort and home.
    progress : Progress
        Called while episodes are answered.

    Returns
    -------
    RareEvaluation

    Raises
    ------
    MetaDxError
        ``no_bundle``, or ``too_few_diseases`` for the configured ways and shots.
    """
    data = assemble(project)
    bundle = latest_bundle(project.home)
    options, serve = project.settings.evaluation, project.settings.serve
    name = fingerprint_of({"bundle": bundle.id, "data": data.version, "evaluation": options, "serve": serve})
    folder = project.home.evaluations / name
    results = folder / "results.json"
    records = Records.open(project.home)
    lineage = data.split.lineage
    # Counted before any figure exists: a look that crashes is a look all the same.
    record_opening(records, bundle=bundle.id, split_version=lineage, protocol=PROTOCOL, by="meta_dx")
    if not results.exists():
        episodic, deployment = _measure(project, data, bundle, progress)
        numbers = {"episodic": [to_json(e) for e in episodic], "deployment": to_json(deployment)}
        write_json(results, numbers)
        save_evaluation(
            records,
            Evaluation(
                bundle=bundle.id,
                protocol=PROTOCOL,
                split_version=data.split.version,
                data_version=data.version,
                numbers=numbers,
            ),
        )
    numbers = json.loads(results.read_text())
    return RareEvaluation(
        id=name,
        folder=folder,
        episodic=tuple(from_json(EpisodicResult, e) for e in numbers["episodic"]),
        deployment=from_json(DeploymentResult, numbers["deployment"]),
        openings=count_openings(records, lineage),
    )


def _measure(
    project: Project, data: CohortData, bundle: Bundle, progress: Progress
) -> tuple[list[EpisodicResult], DeploymentResult]:
    options, seed = project.settings.evaluation, project.settings.cohort.seed
    predictor = Predictor(bundle, device=project.settings.cohort.device)
    rare = data.by_role["rare"]
    vectors = predictor.embed_studies(data.store.images, rare.images)
    extra = {"shortcut": shortcut_features(rare, data.store.images, data.store.index)}
    heads = serving_first(bundle)
    episodic = [
        evaluate_episodes(
            predictor,
            vectors,
            rare,
            ways=options.ways,
            shots=shots,
            queries=options.queries,
            episodes=options.episodes,
            seed=seed,
            heads=heads,
            extra=extra,
            progress=progress,
        )
        for shots in sorted(options.shots)
    ]
    serving = serving_of(project, data, table_cases(data))
    deployment = evaluate_deployment(
        predictor,
        vectors,
        rare,
        # Diseases that the bundle was trained or chosen on may be offered, but not tested.
        offered=[code for code in serving.codes if code in set(rare.diseases)],
        cap=project.settings.serve.max_shots,
        seed=seed,
        repeats=options.repeats,
        prior=project.settings.serve.prior,
        heads=heads,
        extra=extra,
        progress=progress,
    )
    return episodic, deployment
