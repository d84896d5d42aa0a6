"""``meta-dx predictions``: what the pipeline has predicted, under original study UIDs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meta_dx.cli.common import HomeOption, JsonOption, existing_home, require_batch
from meta_dx.cli.output import counted, emit_json, say, table


def predictions(
    batch: Annotated[str | None, typer.Option(help="Only this ingest batch.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the newest predictions of each ingest batch, and the confirmed cases they rest on."""
    from meta_dx.home import Home
    from meta_dx.records.database import Records
    from meta_dx.records.predictions import latest_predictions
    from meta_dx.records.support import SupportSets
    from meta_dx.records.vault import Vault
    from meta_dx.steps.answering import as_contract

    opened = Home.open(existing_home(home))
    if batch is not None:
        require_batch(opened, batch)
    records = Records.open(opened)
    saved = latest_predictions(records, batch)
    studies = [study for run in saved for study in run.studies]
    named = {study.study for study in studies} | {near.study for one in studies for near in one.nearest}
    weighed = [case for one in studies for case in one.evidence or ()]
    vault = Vault.open(opened)
    original = vault.originals("study", named | {case.study for case in weighed})
    image = vault.originals("instance", {case.image for case in weighed})
    found = [
        {
            **as_contract(one, original, image),
            "batch": run.run.batch,
            "bundle": run.run.bundle,
            "support_version": run.run.support_version,
            "split_version": run.run.split_version,
            "data_version": run.run.data_version,
        }
        for run in saved
        for one in run.studies
    ]
    if json:
        emit_json(found)
        return
    sets = SupportSets(records)
    names = {
        version: {case.code: case.meaning for case in sets.get(version).cases}
        for version in {run.run.support_version for run in saved}
    }
    table(
        ["study", "first", "second", "entropy (nats)", "nearest confirmed case", "end of its UID"],
        [_row(one, names[one["support_version"]]) for one in found],
    )
    say(
        f"{counted(len(found), 'study', 'studies')}; --json has all probabilities and the versions that they come from"
    )


def _row(one: dict[str, Any], names: dict[str, str]) -> list[Any]:
    from meta_dx.records.predictions import ranked

    best = ranked(one["probabilities"])[:2]
    near = one["nearest_support"][0]
    return [
        one["study_instance_uid"],
        *(f"{p:.2f} {names.get(code) or code}" for code, p in best),
        one["entropy"],
        names.get(near["code"]) or near["code"],
        near["study_instance_uid"][-12:],
    ]
