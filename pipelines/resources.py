"""Where the code location finds its cohort and its home."""

from __future__ import annotations

import dagster as dg

from assets.project import MetaDx
from pipelines.instance import cohort_file, home_root
from pipelines.working import take_up


class WorkingMetaDx(MetaDx):
    """The resource of a run: the process that sets it up works on the run as long as it lives."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Take the run up, in whatever process it is executed; a sensor or a schedule asks outside of any run."""
        if context.run_id is not None and context.instance is not None:
            take_up(context.instance, context.run_id)


def meta_dx_resource() -> MetaDx:
    """Return the resource for the cohort and the home that the environment names."""
    return WorkingMetaDx(cohort=str(cohort_file()), home=str(home_root()))
