"""Asset checks of a batch stop what lies downstream of that batch, and nothing else."""

from pathlib import Path

import dagster as dg
import numpy as np

from assets.ingestion import ingested_batch
from assets.partitions import ingest_batches
from assets.project import MetaDx
from assets.validation import validated_batch
from meta_dx.steps import open_project
from meta_dx.steps.incoming import pending_batches
from tests.dicom.builders import write_instance


def two_exports(folder: Path) -> Path:
    """Write a sound export and one of which every second file was cut off."""
    rng = np.random.default_rng(0)
    for part, patients in (("good", range(6)), ("cut", range(6, 26))):
        for number in patients:
            pixels = rng.integers(0, 4000, (40, 40), dtype=np.uint16)
            path = write_instance(
                folder / part, patient=f"P{number}", study=f"1.2.{number + 1}", pixels=pixels
            )
            if part == "cut" and number % 2:
                path.write_bytes(path.read_bytes()[:-900])
    (folder / "c.toml").write_text('[cohort]\nname = "c"\nsources = ["good", "cut"]\n')
    return folder / "c.toml"


def test_a_refused_batch_holds_up_what_lies_downstream_of_it_and_no_other_batch(tmp_path: Path) -> None:
    reached = []

    @dg.asset(partitions_def=ingest_batches, deps=[validated_batch])
    def downstream(context: dg.AssetExecutionContext) -> None:
        reached.append(context.partition_key)

    cohort, home = two_exports(tmp_path), tmp_path / "home"
    good, cut = (batch.id for batch in pending_batches(open_project(cohort, home)))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("ingest_batch", [good, cut])
        for batch in (cut, good):  # the refused one first
            done = dg.materialize(
                [ingested_batch, validated_batch, downstream],
                instance=instance,
                resources={"meta_dx": MetaDx(cohort=str(cohort), home=str(home))},
                partition_key=batch,
                raise_on_error=False,
            )
            failed = {check.check_name for check in done.get_asset_check_evaluations() if not check.passed}
            assert done.success == (batch == good)
            assert ("few_files_damaged" in failed) == (batch == cut)
    assert reached == [good]
