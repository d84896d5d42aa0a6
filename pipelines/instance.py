"""The Dagster instance: its storage lies in the home, and it calls nobody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import meta_dx.home as homes

if TYPE_CHECKING:
    import dagster as dg

_DAGSTER_YAML = """\
# Written by meta_dx when it is missing; edit freely.
telemetry:
  enabled: false
nux:
  enabled: false
# One run at a time: two runs on one home would train the same thing twice.
concurrency:
  runs:
    max_concurrent_runs: 1
# A run whose process died is reported as failed, so that it does not hold up those that wait.
run_launcher:
  module: pipelines.launcher
  class: WatchedRunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 30
"""

DEFAULT_COHORT = "examples/demo.toml"


def home_root() -> Path:
    """Return the home named by ``META_DX_HOME`` (default ``.meta_dx``)."""
    return Path(os.environ.get("META_DX_HOME") or homes.DEFAULT_HOME).resolve()


def cohort_file() -> Path:
    """Return the cohort file named by ``META_DX_COHORT`` (default: the demo)."""
    return Path(os.environ.get("META_DX_COHORT") or DEFAULT_COHORT).resolve()


def prepare_instance_folder() -> Path:
    """Create ``DAGSTER_HOME`` inside the home, with telemetry off, and point the environment to it."""
    folder = homes.Home.open(home_root()).store("dagster")
    settings = folder / "dagster.yaml"
    if not settings.exists():
        homes.write_text(settings, _DAGSTER_YAML)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def open_instance() -> dg.DagsterInstance:
    """Open the instance of this home."""
    import dagster as dg

    prepare_instance_folder()
    return dg.DagsterInstance.get()
