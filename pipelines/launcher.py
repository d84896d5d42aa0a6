"""How the UI and the daemon start runs: as Dagster does by default, and with a look whether their process lives."""

from __future__ import annotations

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus  # what a launcher answers; not exported

from pipelines.working import is_dead


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's own launcher; its run monitoring learns from the lock of a run whether anybody still works on it."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Say that the monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell whether the process of a started run lives; one of another machine counts as living."""
        if is_dead(self._instance, run.run_id):
            return CheckRunHealthResult(WorkerStatus.FAILED, "The process of this run died.")
        return CheckRunHealthResult(WorkerStatus.RUNNING)
