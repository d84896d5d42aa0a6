"""The code location: every asset, check, job, schedule and sensor of meta_dx.

Loaded by ``workspace.yaml``. Which cohort and which home it works on comes from ``META_DX_COHORT`` and
``META_DX_HOME``; heavy libraries are imported inside the assets, so that this loads in a second.
"""

from __future__ import annotations

import dagster as dg

import assets
from pipelines.jobs import (
    all_assets_job,
    fetch_job,
    inbox_job,
    ingest_job,
    predict_job,
    report_job,
    train_job,
)
from pipelines.progress import step_lines
from pipelines.resources import meta_dx_resource
from pipelines.schedules import nightly, nightly_fetch
from pipelines.sensors import inbox

defs = dg.Definitions(
    assets=assets.all_assets(),
    jobs=[all_assets_job, fetch_job, ingest_job, inbox_job, train_job, predict_job, report_job],
    schedules=[nightly_fetch, nightly],
    sensors=[inbox],
    resources={"meta_dx": meta_dx_resource()},
    # One process: a step in a process of its own costs three seconds before it does anything.
    executor=dg.in_process_executor,
    loggers={"console": step_lines},
)
