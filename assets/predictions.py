"""Group ``predictions``: support sets and predictions for every study without a diagnosis."""

from collections.abc import Iterator

import dagster as dg

from assets.common import CLINICAL_TEAM
from assets.faults import asset
from assets.ingestion import diagnosis_table
from assets.models import bundle
from assets.partitions import ingest_batches
from assets.project import MetaDx
from assets.validation import validated_batch

#: Raise when the same input would give other predictions than before.
_CODE_VERSION = "2"


@asset(
    group_name="predictions",
    deps=[diagnosis_table, bundle],
    owners=CLINICAL_TEAM,
    kinds={"sql"},
    code_version=_CODE_VERSION,
)
def support_set(meta_dx: MetaDx) -> dg.MaterializeResult:
    """The current version of the confirmed cases that predictions rest on; older versions stay readable."""
    from meta_dx.steps import predictions

    version = predictions.refresh_support(meta_dx.open())
    return dg.MaterializeResult(
        metadata={
            "version": version.version,
            "diseases": len(version.diseases),
            "cases": len(version.cases),
            "reason": version.reason,
        },
        data_version=dg.DataVersion(version.fingerprint),
    )


@asset(
    group_name="predictions",
    partitions_def=ingest_batches,
    deps=[support_set, bundle, validated_batch],
    owners=CLINICAL_TEAM,
    kinds={"onnx", "sql"},
    code_version=_CODE_VERSION,
    output_required=False,
)
def batch_predictions(context: dg.AssetExecutionContext, meta_dx: MetaDx) -> Iterator[dg.MaterializeResult]:
    """Probabilities, entropy and nearest confirmed cases for every study of the batch without a diagnosis."""
    from meta_dx.steps import predictions

    made = predictions.predict_batch(meta_dx.open(), context.partition_key)
    if made is None:
        context.log.warning(predictions.OFF)
        return
    yield dg.MaterializeResult(
        metadata={
            "studies": made.studies,
            "offered_diseases": made.diseases,
            **({} if made.mean_entropy is None else {"mean_entropy_nats": made.mean_entropy}),
            "bundle": made.bundle,
            "support_version": made.support_version,
        },
    )


ASSETS = [support_set, batch_predictions]
