"""The nightly runs: fetch what came during the day; take it in, retrain what it changes, predict."""

from collections.abc import Iterator

import dagster as dg

from assets.faults import guarded
from assets.project import MetaDx
from pipelines.batches import register_new_batches
from pipelines.jobs import all_assets_job, fetch_job
from pipelines.working import end_dead_runs


@dg.schedule(
    job=fetch_job,
    cron_schedule="30 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every night at 00:30 UTC: fetch what is new in the archives, two hours before it is taken in.",
)
@guarded
def nightly_fetch(
    context: dg.ScheduleEvaluationContext, meta_dx: MetaDx
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for one run; the archives are spoken to there, never here, where a slow one would hold everything up."""
    if meta_dx.open().settings.addresses:
        yield dg.RunRequest(run_key=f"fetch-{context.scheduled_execution_time.date().isoformat()}")
    else:
        yield dg.SkipReason("No source of the cohort is an archive.")


@dg.schedule(
    job=all_assets_job,
    cron_schedule="30 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every night at 02:30 UTC: one run of everything for each new ingest batch.",
)
@guarded
def nightly(
    context: dg.ScheduleEvaluationContext, meta_dx: MetaDx
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for one run for each waiting batch; without any, for one over the newest batch.

    A night without new files still sees a changed table of diagnoses or cohort file; what has not changed is not
    computed again.
    """
    from meta_dx.steps.incoming import usable_batches

    end_dead_runs(context.instance)
    waiting = register_new_batches(meta_dx, context.instance)
    batches = waiting or usable_batches(meta_dx.open())[-1:]
    if not batches:
        yield dg.SkipReason("No file in the sources, and no batch in the home.")
    day = context.scheduled_execution_time.date().isoformat()
    for batch in batches:
        yield dg.RunRequest(run_key=f"nightly-{day}-{batch}", partition_key=batch)
