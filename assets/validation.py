"""Group ``validation``: Great Expectations over each batch and over the diagnosis table, as asset checks."""

import dagster as dg

from assets.common import DATA_TEAM, check_results, check_specs
from assets.faults import asset
from assets.ingestion import diagnosis_table, ingested_batch
from assets.partitions import ingest_batches
from assets.project import MetaDx
from meta_dx.cohort.validation import diagnosis_checks, ingest_checks

#: Raise when the same input would give other results than before.
_CODE_VERSION = "2"


@asset(
    group_name="validation",
    partitions_def=ingest_batches,
    deps=[ingested_batch],
    check_specs=check_specs("validated_batch", ingest_checks()),
    owners=DATA_TEAM,
    kinds={"great_expectations"},
    code_version=_CODE_VERSION,
)
def validated_batch(context: dg.AssetExecutionContext, meta_dx: MetaDx) -> dg.MaterializeResult:
    """One batch, checked for the ways in which a hospital's export goes wrong (docs/validation.md).

    Every check row names its batch, counts, and the failing surrogate UIDs.
    """
    from meta_dx.steps import incoming

    report = incoming.validate(meta_dx.open(), context.partition_key)
    return dg.MaterializeResult(
        metadata={
            "checks": len(report.results),
            "failed": sum(not result.passed for result in report.results),
            "data_docs": dg.MetadataValue.path(str(report.data_docs)),
        },
        check_results=check_results(report),
    )


@asset(
    group_name="validation",
    deps=[diagnosis_table, validated_batch],
    check_specs=check_specs("validated_diagnoses", diagnosis_checks()),
    owners=DATA_TEAM,
    kinds={"great_expectations"},
    code_version=_CODE_VERSION,
)
def validated_diagnoses(meta_dx: MetaDx) -> dg.MaterializeResult:
    """The diagnosis table, checked against the studies that it speaks of."""
    from meta_dx.steps import incoming

    report = incoming.validate_diagnoses(meta_dx.open())
    return dg.MaterializeResult(
        metadata={
            "checks": len(report.results),
            "failed": sum(not result.passed for result in report.results),
            "data_docs": dg.MetadataValue.path(str(report.data_docs)),
        },
        check_results=check_results(report),
    )


ASSETS = [validated_batch, validated_diagnoses]
