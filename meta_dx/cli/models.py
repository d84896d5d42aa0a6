"""Commands of models: ``train``, ``export``, ``evaluate``, ``predict``."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meta_dx.cli.common import (
    AllowOption,
    CohortOption,
    HomeOption,
    JsonOption,
    ingest_options,
    project_of,
    take_in_new,
)
from meta_dx.cli.output import emit_json, say, table
from meta_dx.errors import MetaDxError
from meta_dx.progress import Progress, bar, silent

if TYPE_CHECKING:
    from meta_dx.steps import Project
    from meta_dx.training.selection import TrainingResult

log = logging.getLogger("meta_dx")

BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder of the bundle.")]
StudiesOption = Annotated[Path, typer.Option("--studies", help="Folder with DICOM files.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def train(cohort: CohortOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Take in the cohort, freeze its split, pre-train, meta-train and choose on the validation diseases."""
    from meta_dx.steps import training
    from meta_dx.training import processes

    first = processes.rank() == 0
    if not first:
        log.setLevel(logging.ERROR)  # one of torchrun's processes tells; another tells of its own faults only
    project = processes.alone(lambda: _ready_to_train(cohort, home))
    with _bar("pre-training", first) as progress:
        training.pretrain(project, progress)
    for name in ("prototypical", *project.settings.learner.wanted):
        with _bar(f"meta-training {name}", first) as progress:
            training.meta_train(project, name, progress)
    chosen = training.select(project)
    processes.leave()
    if first:
        _tell(chosen, json)


def _ready_to_train(cohort: Path | None, home: Path | None) -> Project:
    """Do everything that comes before training."""
    from meta_dx.steps import cohort as cohorts
    from meta_dx.steps import incoming
    from meta_dx.training.shards import require_whole_shards

    project = project_of(cohort, home)
    require_whole_shards(project.settings.training.shards)
    incoming.require_diagnoses_table(project)
    take_in_new(project)
    refused = []
    for waiting in incoming.waiting_batches(project):
        try:
            incoming.require_blocking(incoming.validate(project, waiting))
        except MetaDxError as fault:
            refused.append(fault)
    incoming.require_usable(project, refused)
    incoming.take_in_diagnoses(project)
    incoming.require_blocking(incoming.validate_diagnoses(project))
    cohorts.freeze_and_assemble(project)
    return project


def _bar(title: str, shown: bool) -> AbstractContextManager[Progress]:
    return bar(title) if shown else nullcontext(silent)


def _tell(chosen: TrainingResult, json: bool) -> None:
    if json:
        emit_json({"checkpoint": chosen.stage, "serving_head": chosen.head, "validation": chosen.rows})
        return
    say(f"Chosen on the validation diseases: the {chosen.stage} weights with the {chosen.head} head.")
    table(list(chosen.rows[0]), [list(row.values()) for row in chosen.rows])
    say("Next: meta-dx export")


def export(cohort: CohortOption = None, home: HomeOption = None) -> None:
    """Export the chosen learner as a bundle and print its folder."""
    from meta_dx.steps import models

    say(str(models.export(project_of(cohort, home)).path))


def evaluate(
    bundle: BundleOption,
    studies: StudiesOption,
    diagnoses: Annotated[Path, typer.Option(help="Table of their diagnoses (CSV).")],
    ways: Annotated[int, typer.Option(min=2, help="N, diseases in an episode.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="K, confirmed patients of each.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Patients of each to diagnose.")] = 10,
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same episodes for every method.")] = 0,
    deployment: Annotated[bool, typer.Option("--deployment", help="Also all diseases at once.")] = False,
    cap: Annotated[
        int | None,
        typer.Option(min=1, help="Most confirmed patients of a disease with --deployment; the bundle's own."),
    ] = None,
    allow: AllowOption = None,
    home: Annotated[
        Path | None, typer.Option(help="Home to use and keep; a temporary one if absent.")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Test a bundle, through ONNX Runtime, on diseases that it has never seen."""
    from meta_dx.inference.bundle import Bundle
    from meta_dx.steps.external import evaluate_folder

    with bar("evaluating") as progress:
        found = evaluate_folder(
            Bundle.load(bundle),
            studies,
            diagnoses,
            ways=ways,
            shots=shots,
            queries=queries,
            episodes=episodes,
            seed=seed,
            deployment=deployment,
            cap=cap,
            home=home,
            device=device,
            progress=progress,
            allow=allow or (),
            limits=ingest_options(None, home),
        )
    if json:
        emit_json(found)
        return
    say(f"{ways}-way {shots}-shot, {found['episodes']} episodes over {found['classes']} unseen diseases")
    rows: list[list[Any]] = [["this bundle", *_figures(found)]]
    rows += [[name, *_figures(figures)] for name, figures in found["baselines"].items()]
    table(["method", "accuracy", "95 % interval", "AUROC", "ECE"], rows)


def predict(
    bundle: BundleOption,
    support: Annotated[Path, typer.Option(help="Confirmed cases: CSV with study_instance_uid,code.")],
    studies: StudiesOption,
    allow: AllowOption = None,
    home: Annotated[Path | None, typer.Option(help="Home in which support studies may lie.")] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Diagnose the studies of a folder from a handful of confirmed ones."""
    from meta_dx.inference.bundle import Bundle
    from meta_dx.steps.external import predict_folder

    with bar("predicting") as progress:
        found = predict_folder(
            Bundle.load(bundle),
            studies,
            support,
            home=home,
            device=device,
            progress=progress,
            allow=allow or (),
            limits=ingest_options(None, home),
        )
    if json:
        emit_json(found)
        return
    from meta_dx.records.predictions import ranked

    rows = []
    for one in found:
        best = ranked(one["probabilities"])[:2]
        rows.append([one["study_instance_uid"], *(f"{code} {p:.2f}" for code, p in best), one["entropy"]])
    table(["study", "first", "second", "entropy (nats)"], rows)


def _figures(found: dict[str, Any]) -> list[Any]:
    low, high = found["ci95"]
    return [found["accuracy"], f"{low:.3f} – {high:.3f}", found["auroc"], found["ece"]]
