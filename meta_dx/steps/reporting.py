"""Step of the report: gather what the other steps left in the home, and write it for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meta_dx
from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.selection import REASONS
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.evaluation.holdout import HoldoutResult, score_holdout
from meta_dx.evaluation.report import headline, write_report
from meta_dx.evaluation.report_input import Counted, DataSummary, ReportInput, RoleCount, TrainingSummary
from meta_dx.inference.bundle import latest_bundle
from meta_dx.records.database import Records
from meta_dx.records.predictions import latest_predictions
from meta_dx.records.support import SupportSets
from meta_dx.steps import Project
from meta_dx.steps.cohort import CohortData, assemble, group_near_duplicates
from meta_dx.steps.evaluation import evaluate_rare
from meta_dx.steps.training import select

if TYPE_CHECKING:
    from meta_dx.training.selection import TrainingResult


@dataclass(frozen=True)
class WrittenReport:
    """Where the report lies and what its first sentence says."""

    path: Path
    headline: str
    hidden_rows: list[dict[str, Any]]


def report(project: Project) -> WrittenReport:
    """Write the report of the newest bundle beside its figures.

    Returns
    -------
    WrittenReport

    Raises
    ------
    MetaDxError
        Whatever an earlier step that has not run yet raises.
    """
    data = assemble(project)
    evaluated = evaluate_rare(project)
    hidden = score_hidden(project, data)
    bundle = latest_bundle(project.home)
    support = SupportSets(Records.open(project.home)).current()
    told = ReportInput(
        cohort=project.settings.cohort.name,
        created=datetime.now(UTC).date().isoformat(),
        episodic=evaluated.episodic,
        deployment=evaluated.deployment,
        holdout=hidden,
        data=data_summary(project, data),
        training=_training_summary(project, select(project)),
        openings=evaluated.openings,
        versions=(
            ("bundle", bundle.id),
            ("split", f"{data.split.version}, comparable since {data.split.lineage}"),
            ("data", data.version),
            ("support set", f"version {support.version}" if support else "none yet"),
            ("program", f"meta_dx {meta_dx.__version__}"),
        ),
        names=data.meanings(),
        limits=_limits(project, data),
    )
    path = write_report(evaluated.folder / "report.html", told)
    rows = [] if hidden is None else [{k: v for k, v in vars(hidden).items() if isinstance(v, int | float)}]
    return WrittenReport(path, headline(told), rows)


def score_hidden(project: Project, data: CohortData) -> HoldoutResult | None:
    """Score the predictions of the diagnoses that ``[inbox] holdout`` hid, or None when none is hidden."""
    if not data.hidden:
        return None
    runs = latest_predictions(Records.open(project.home))
    predictions = {one.study: one.probabilities for saved in runs for one in saved.studies}
    patients = dict(zip(data.studies["study"], data.studies["patient"], strict=True))
    groups = {study: data.groups.get(patients[study], patients[study]) for study in data.hidden}
    return score_holdout(predictions, data.hidden, groups, seed=project.settings.cohort.seed)


def data_summary(project: Project, data: CohortData) -> DataSummary:
    """Count files, studies and patients, and say why the rest was left out."""
    catalog = Catalog(project.home)
    summaries = [catalog.summary(batch) for batch in catalog.batches()]
    rejected: Counter[str] = Counter()
    for summary in summaries:
        rejected.update(summary["rejected"])
    duplicates = group_near_duplicates(project)
    return DataSummary(
        found=sum(s["found"] for s in summaries),
        accepted=sum(s["accepted"] for s in summaries),
        duplicates=sum(s["duplicates"] for s in summaries),
        not_dicom=sum(s["not_dicom"] for s in summaries),
        rejected=tuple(Counted(c, n, RejectionCode(c).sentence) for c, n in sorted(rejected.items())),
        studies=len(data.studies),
        patients=int(data.studies["patient"].nunique()),
        without_diagnosis=len(data.to_predict()) - len(data.hidden),
        roles=tuple(RoleCount(**row) for row in data.role_counts()),
        near_duplicate_groups=duplicates.groups,
        near_duplicate_patients=duplicates.patients,
        left_out=tuple(Counted(why, n, REASONS.get(why, "")) for why, n in sorted(data.left_out.items())),
    )


def _training_summary(project: Project, chosen: TrainingResult) -> TrainingSummary:
    settings, one = project.settings, chosen.rows[0]
    return TrainingSummary(
        facts=(
            ("backbone", settings.backbone.name),
            (
                "pictures",
                f"{' × '.join(map(str, settings.images.shape[1:]))}, {settings.images.channels} channel(s)",
            ),
            ("learner", settings.learner.name),
            ("served", f"{chosen.head} head on the {chosen.stage} weights"),
            ("seed", str(settings.cohort.seed)),
        ),
        how_chosen=(
            f"Weights and head were chosen by mean accuracy on the validation diseases alone: the {chosen.stage} "
            f"weights with the {chosen.head} head. {one['episodes']} episodes of {one['ways']} of the "
            f"{one['diseases']} diseases for each number of confirmed cases; 95 % intervals in brackets."
        ),
        candidates=_candidates(chosen.rows),
        curves=chosen.curves.read_bytes(),
    )


def _limits(project: Project, data: CohortData) -> tuple[str, ...]:
    limits = []
    if project.settings.serve.offer != "rare":
        limits.append(
            "Predictions also offer diseases that the model was trained or chosen on; the deployment view tests the "
            "unseen ones only."
        )
    if len(data.by_role["rare"].diseases) < 20:
        limits.append(
            f"There are only {len(data.by_role['rare'].diseases)} rare diseases: another set of diseases could give "
            "other figures, as the intervals say."
        )
    return tuple(limits)


def _candidates(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """Return the table of the choice: a head, then one row for each head on each weights, the chosen one first."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["checkpoint"], row["head"]), []).append(row)
    shots = sorted({row["shots"] for row in rows})
    ordered = sorted(found.items(), key=lambda one: (not one[1][0]["chosen"], -one[1][0]["mean"]))
    table = [("Candidate", *(f"{k} case{'s' * (k != 1)}, %" for k in shots), "Mean, %", "Can be served")]
    for (checkpoint, head), scores in ordered:
        by_shots = {
            row["shots"]: f"{100 * row['accuracy']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f})"
            for row in scores
        }
        table.append(
            (
                head
                if head == checkpoint and not scores[0]["serves"]
                else f"{head} on the {checkpoint} weights",
                *(by_shots.get(k, "–") for k in shots),
                f"{100 * scores[0]['mean']:.1f}",
                "yes" if scores[0]["serves"] else "no",
            )
        )
    return tuple(table)
