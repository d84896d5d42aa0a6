"""New ingest batches of the sources, as Dagster partitions."""

from __future__ import annotations

import dagster as dg

from assets.partitions import ingest_batches
from assets.project import MetaDx


def register_new_batches(meta_dx: MetaDx, instance: dg.DagsterInstance) -> list[str]:
    """Look for new or changed files in the sources and register a partition for each batch of them.

    Parameters
    ----------
    meta_dx : MetaDx
        Cohort and home.
    instance : DagsterInstance
        Where partitions are registered.

    Returns
    -------
    list of str
        Batches that wait to be taken in: new ones, and ones whose ingest never finished.
    """
    from meta_dx.steps.incoming import pending_batches

    project = meta_dx.open()
    waiting = [batch.id for batch in pending_batches(project)]
    known = set(instance.get_dynamic_partitions(str(ingest_batches.name)))
    missing = [batch for batch in waiting if batch not in known]
    if missing:
        instance.add_dynamic_partitions(str(ingest_batches.name), missing)
    return waiting
