"""What can be run as one: everything, or one part of the flow."""

from __future__ import annotations

import dagster as dg

_BATCH = dg.AssetSelection.assets("ingested_batch", "validated_batch")
# Apart from the batches: what is fetched now is a batch only when the sources are looked at the next time.
_FETCH = dg.AssetSelection.assets("fetched_instances")
_PREDICTIONS = dg.AssetSelection.groups("predictions")
_REPORT = dg.AssetSelection.assets("report")

all_assets_job = dg.define_asset_job(
    "all_assets_job",
    selection=dg.AssetSelection.all() - _FETCH,
    description="Everything for one ingest batch: take in, validate, retrain what the cohort changes, predict.",
)
fetch_job = dg.define_asset_job(
    "fetch_job",
    selection=_FETCH,
    description="Fetch from the archives among the sources what is not here yet; it waits for the next ingest.",
)
ingest_job = dg.define_asset_job(
    "ingest_job",
    selection=_BATCH,
    description="Take in and validate one ingest batch.",
)
inbox_job = dg.define_asset_job(
    "inbox_job",
    selection=_BATCH | dg.AssetSelection.assets("diagnosis_table", "batch_predictions"),
    description="Take in, validate and predict one ingest batch with the bundle and the support set at hand.",
)
train_job = dg.define_asset_job(
    "train_job",
    selection=dg.AssetSelection.all() - _FETCH - _BATCH - _PREDICTIONS - _REPORT,
    description="Diagnoses, cohort, training, bundle and evaluation over everything that has been taken in.",
)
predict_job = dg.define_asset_job(
    "predict_job",
    selection=_PREDICTIONS,
    description="Refresh the support sets and predict the undiagnosed studies of one ingest batch; no training.",
)
report_job = dg.define_asset_job(
    "report_job",
    selection=_REPORT,
    description="Write the report anew.",
)
