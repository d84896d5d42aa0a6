"""The resource through which every asset reaches its cohort and its home."""

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from meta_dx.steps import Project


class MetaDx(dg.ConfigurableResource):
    """Which cohort, and where everything is kept.

    Parameters
    ----------
    cohort : str
        Path of ``cohort.toml``.
    home : str
        The home folder.
    """

    cohort: str
    home: str

    def open(self) -> "Project":
        """Read the cohort file and open its home."""
        from meta_dx.steps import open_project

        return open_project(self.cohort, self.home)
