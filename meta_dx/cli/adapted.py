"""``meta-dx export-adapted``: one network, adapted once, for learners that serve from no bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meta_dx.cli.common import CohortOption, HomeOption, project_of
from meta_dx.cli.output import say


def export_adapted(
    learner: Annotated[
        str, typer.Option(help="maml, anil, proto_maml, reptile, meta_lstm or fine_tuning, trained before.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for network.onnx and manifest.json.")],
    support: Annotated[
        Path | None,
        typer.Option(
            help="Confirmed cases in the home: CSV with study_instance_uid,code; the support set if absent."
        ),
    ] = None,
    cohort: CohortOption = None,
    home: HomeOption = None,
) -> None:
    """Adapt a trained network to confirmed cases, once and offline, and print the folder of the result."""
    from meta_dx.steps import adapted

    made = adapted.export_adapted(project_of(cohort, home), learner, out, support)
    say(str(made.path))
