"""``make run``: materialise the whole asset graph through Dagster in one process, with visible progress."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import uuid
from typing import TYPE_CHECKING

from pipelines.guard import guarded, require_room
from pipelines.instance import cohort_file, home_root, open_instance

if TYPE_CHECKING:
    import dagster as dg

    from meta_dx.steps import Project

log = logging.getLogger("meta_dx")


def main() -> int:
    """Run everything once.

    Returns
    -------
    int
        0 done, 2 the user's fault, 1 a fault of ours.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cohort", help="cohort.toml; META_DX_COHORT or the demo if absent")
    parser.add_argument("--home", help="home folder; META_DX_HOME or .meta_dx if absent")
    arguments = parser.parse_args()
    if arguments.cohort:
        os.environ["META_DX_COHORT"] = arguments.cohort
    if arguments.home:
        os.environ["META_DX_HOME"] = arguments.home
    os.environ.setdefault("MPLBACKEND", "Agg")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    return guarded(_run, home_root())


def _run() -> int:
    started = time.monotonic()
    log.info("cohort  %s\nhome    %s", cohort_file(), home_root())
    # Read the settings first: a wrong key must be told before anything heavy is imported.
    from meta_dx.steps import open_project

    project = open_project(cohort_file(), home_root())
    require_room(home_root())
    from meta_dx.errors import MetaDxError
    from meta_dx.progress import bar
    from meta_dx.steps.incoming import (
        idle_sources,
        require_batch,
        require_diagnoses_table,
        require_usable,
        usable_batches,
    )
    from meta_dx.steps.pacs import fetch_new
    from pipelines.batches import register_new_batches
    from pipelines.resources import meta_dx_resource
    from pipelines.working import end_dead_runs

    require_diagnoses_table(project)
    # The runner works in its own process, where no daemon and no UI listens: quiet, the instance keeps everything.
    logging.getLogger("dagster").setLevel(logging.ERROR)
    with open_instance() as instance:
        end_dead_runs(instance)
        if project.settings.addresses:
            log.info("\nFetch from the archives")
            fetch_new(project, bar)
        waiting = register_new_batches(meta_dx_resource(), instance)
        require_batch(project)
        for sentence in idle_sources(project):
            log.warning("%s", sentence)
        refused = []
        for batch in waiting:
            try:
                _execute(project, "ingest_job", instance, f"Ingest batch {batch}", batch)
            except MetaDxError as fault:
                if fault.code != "blocking_check":
                    raise
                refused.append(fault)
        require_usable(project, refused)
        _execute(project, "train_job", instance, "Cohort, training, bundle, evaluation")
        for batch in usable_batches(project):
            _execute(project, "predict_job", instance, f"Predictions for batch {batch}", batch)
        _execute(project, "report_job", instance, "Report")
    from meta_dx.steps.summary import summary_lines

    sys.stdout.write("\n".join(summary_lines(project, time.monotonic() - started)) + "\n")
    return 0


def _execute(
    project: Project, name: str, instance: dg.DagsterInstance, title: str, batch: str | None = None
) -> None:
    # Neither is exported; both are raised by every run that ends so.
    from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError

    from meta_dx.steps.incoming import require_passed
    from pipelines.definitions import defs
    from pipelines.working import working_on

    log.info("\n%s", title)
    job, run_id = defs.resolve_job_def(name), str(uuid.uuid4())
    try:
        with working_on(instance, run_id):
            job.execute_in_process(
                instance=instance, partition_key=batch, run_id=run_id, run_config={"loggers": {"console": {}}}
            )
    except DagsterExecutionInterruptedError as stop:
        raise KeyboardInterrupt from stop
    except DagsterAssetCheckFailedError:
        require_passed(project, batch)
        raise


if __name__ == "__main__":
    sys.exit(main())
