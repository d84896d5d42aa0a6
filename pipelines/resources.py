"""Where the code location finds its cohort and its home."""

from __future__ import annotations

from assets.project import MetaDx
from pipelines.instance import cohort_file, home_root


def meta_dx_resource() -> MetaDx:
    """Return the resource for the cohort and the home that the environment names."""
    return MetaDx(cohort=str(cohort_file()), home=str(home_root()))
