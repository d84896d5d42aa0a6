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
        Batches that are not in use yet: new ones, and ones whose ingest or validation never ended well.
    """
    from meta_dx.steps.incoming import usable_batches, waiting_batches

    project = meta_dx.open()
    waiting = waiting_batches(project)
    known = set(instance.get_dynamic_partitions(str(ingest_batches.name)))
    # Batches that another command took in, or that an earlier instance knew, get their partition too.
    missing = sorted({*waiting, *usable_batches(project)} - known)
    if missing:
        instance.add_dynamic_partitions(str(ingest_batches.name), missing)
    return waiting
