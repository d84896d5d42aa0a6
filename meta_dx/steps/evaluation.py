"""Steps of evaluation: the rare diseases, opened once per bundle, through ONNX Runtime beside the baselines."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodeSampler, most_ways
from meta_dx.errors import MetaDxError
from meta_dx.evaluation.deployment import DeploymentResult, deployment_plans, evaluate_deployment
from meta_dx.evaluation.episodic import EpisodicResult, evaluate_episodes
from meta_dx.evaluation.options import EVALUATION_VERSION, EvaluationOptions
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

    def reliability(self) -> Path:
        """Draw how often the served head was right against how sure it was; returns the PNG file."""
        from meta_dx.evaluation.plots import write_reliability

        shown = [(f"{e.ways}-way {e.shots}-shot", e.comparison.served) for e in self.episodic]
        shown.append((f"all {len(self.deployment.offered)} at once", self.deployment.comparison.served))
        return write_reliability(shown, self.folder / "reliability.png")

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
        ``no_bundle``; ``too_few_diseases`` for the configured ways and shots, ``no_queries``, or from
        :func:`~meta_dx.steps.predictions.serving_of`, before the look is counted as an opening.
    """
    data = assemble(project)
    bundle = latest_bundle(project.home)
    asked = {
        "version": EVALUATION_VERSION,
        "evaluation": project.settings.evaluation,
        "serve": project.settings.serve,
        "seed": project.settings.cohort.seed,
    }
    name = fingerprint_of({"bundle": bundle.id, "data": data.version, **asked})
    # Everything that sets the figures: another number of shots is another look.
    protocol = f"rare diseases {fingerprint_of(asked, 8)}"
    folder = project.home.evaluations / name
    results = folder / "results.json"
    records = Records.open(project.home)
    if not results.exists():
        asking = _asking(project, data)
        # Counted before any figure exists: a look that crashes is a look all the same.
        record_opening(
            records, bundle=bundle.id, split_version=data.split.lineage, protocol=protocol, by="meta_dx"
        )
        episodic, deployment = _measure(project, data, bundle, asking, progress)
        found = {"episodic": [to_json(e) for e in episodic], "deployment": to_json(deployment)}
        record = {"protocol": protocol, "split_version": data.split.version, "data_version": data.version}
        # The row first: a run that is killed in between measures again and replaces it by the same figures.
        save_evaluation(records, Evaluation(bundle=bundle.id, **record, numbers=found))
        write_json(results, found)
    numbers = json.loads(results.read_text())
    return RareEvaluation(
        id=name,
        folder=folder,
        episodic=tuple(from_json(EpisodicResult, e) for e in numbers["episodic"]),
        deployment=from_json(DeploymentResult, numbers["deployment"]),
        openings=count_openings(records),
    )


@dataclass(frozen=True)
class _Asking:
    """What the rare diseases are asked: ways and shots of the episodes, and who is offered whom at once."""

    tasks: list[tuple[int, int]]
    offered: tuple[str, ...]
    tested: list[str]
    everybody: Examples


def _asking(project: Project, data: CohortData) -> _Asking:
    """Draw everything that is going to be asked, so that what cannot be drawn is refused before anybody looks."""
    options, seed = project.settings.evaluation, project.settings.cohort.seed
    rare = data.by_role["rare"]
    tasks = feasible_tasks(rare, options, data.ancestors)
    for ways, shots in tasks:
        sampler = EpisodeSampler(rare, ways, shots, options.queries, seed, ancestors=data.ancestors)
        for _ in sampler.plans(options.episodes):
            pass
    offered = serving_of(project, data, table_cases(data)).codes
    # Diseases that the bundle was trained or chosen on are among the answers, but nobody asks about them.
    tested = [code for code in offered if code in set(rare.diseases)]
    everybody = data.everybody().with_codes(set(offered))
    cap = project.settings.serve.max_shots
    deployment_plans(everybody, offered, cap, seed, options.repeats, tested)
    return _Asking(tasks, offered, tested, everybody)


def _measure(
    project: Project, data: CohortData, bundle: Bundle, asking: _Asking, progress: Progress
) -> tuple[list[EpisodicResult], DeploymentResult]:
    options, seed = project.settings.evaluation, project.settings.cohort.seed
    predictor = Predictor(bundle, device=project.settings.cohort.device)
    rare = data.by_role["rare"]
    vectors = predictor.embed_studies(data.store.images, rare.images)
    heads = serving_first(bundle)
    shortcut = shortcut_features(rare, data.store.images, data.store.index)
    episodic = [
        evaluate_episodes(
            predictor,
            vectors,
            rare,
            ways=ways,
            shots=shots,
            queries=options.queries,
            episodes=options.episodes,
            seed=seed,
            heads=heads,
            extra={"shortcut": shortcut},
            ancestors=data.ancestors,
            progress=progress,
        )
        for ways, shots in asking.tasks
    ]
    everybody = asking.everybody
    deployment = evaluate_deployment(
        predictor,
        predictor.embed_studies(data.store.images, everybody.images),
        everybody,
        offered=asking.offered,
        tested=asking.tested,
        cap=project.settings.serve.max_shots,
        seed=seed,
        repeats=options.repeats,
        prior=project.settings.serve.prior,
        heads=heads,
        extra={"shortcut": shortcut_features(everybody, data.store.images, data.store.index)},
        progress=progress,
    )
    return episodic, deployment


def feasible_tasks(
    rare: Examples, options: EvaluationOptions, ancestors: Mapping[str, Collection[str]] | None = None
) -> list[tuple[int, int]]:
    """Return the (ways, shots) that the rare diseases permit: fewer ways where fewer can meet in one episode.

    Raises
    ------
    MetaDxError
        ``too_few_diseases`` when not even two diseases have enough patients for any of the shots.
    """
    tasks = []
    for shots in sorted(options.shots):
        enough = most_ways(rare, shots, ancestors)
        if enough >= 2:
            tasks.append((min(options.ways, enough), shots))
    if not tasks:
        raise MetaDxError(
            "too_few_diseases",
            f"No two rare diseases, none an ancestor of the other, have the {min(options.shots) + 2} patients that "
            f"{min(options.shots)}-shot episodes need: lower [evaluation] shots, or change the thresholds of [split].",
        )
    return tasks
