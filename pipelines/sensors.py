"""The inbox: new studies are taken in, validated and predicted within minutes, without any training."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from assets.faults import guarded
from assets.project import MetaDx
from pipelines.batches import register_new_batches
from pipelines.jobs import inbox_job, ingest_job
from pipelines.working import end_dead_runs


@dg.sensor(
    jobs=[inbox_job, ingest_job],
    minimum_interval_seconds=120,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Looks into the sources every two minutes; new files become an ingest batch and are predicted.",
)
@guarded
def inbox(context: dg.SensorEvaluationContext, meta_dx: MetaDx) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for a run for each waiting batch; before the first bundle exists, batches are only taken in."""
    end_dead_runs(context.instance)
    waiting = register_new_batches(meta_dx, context.instance)
    if not waiting:
        yield dg.SkipReason("No new or changed file in the sources.")
    job = inbox_job if (meta_dx.open().home.bundles / "latest.json").exists() else ingest_job
    # Once an hour a batch whose run failed is asked for again; a key that never changed would bar it for good.
    hour = datetime.now(UTC).strftime("%Y%m%dT%H")
    for batch in waiting:
        if _at_work(context.instance, batch):
            continue
        yield dg.RunRequest(run_key=f"inbox-{batch}-{hour}", job_name=job.name, partition_key=batch)


def _at_work(instance: dg.DagsterInstance, batch: str) -> bool:
    """Tell whether a run of this batch waits or works already."""
    unfinished = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    same = dg.RunsFilter(tags={"dagster/partition": batch}, statuses=unfinished)
    return bool(instance.get_runs(filters=same, limit=1))
