"""The inbox: new studies are taken in, validated and predicted within minutes, without any training."""

from collections.abc import Iterator

import dagster as dg

from assets.project import MetaDx
from pipelines.batches import register_new_batches
from pipelines.jobs import ingest_job


@dg.sensor(
    job=ingest_job,
    minimum_interval_seconds=120,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Looks into the sources every two minutes; new files become an ingest batch.",
)
def inbox(context: dg.SensorEvaluationContext, meta_dx: MetaDx) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for an ingest of each waiting batch, once."""
    waiting = register_new_batches(meta_dx, context.instance)
    if not waiting:
        yield dg.SkipReason("No new or changed file in the sources.")
    for batch in waiting:
        yield dg.RunRequest(run_key=f"inbox-{batch}", partition_key=batch)
