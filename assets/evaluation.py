"""Group ``evaluation``: the rare diseases, opened once per bundle, and the report."""

import dagster as dg

from assets.common import CLINICAL_TEAM, MODEL_TEAM, picture, table
from assets.faults import asset
from assets.models import bundle
from assets.predictions import batch_predictions
from assets.project import MetaDx
from meta_dx.evaluation.options import EVALUATION_VERSION

_CODE_VERSION = str(EVALUATION_VERSION)


@asset(
    group_name="evaluation",
    deps=[bundle],
    owners=MODEL_TEAM,
    kinds={"onnx"},
    code_version=_CODE_VERSION,
)
def rare_disease_evaluation(meta_dx: MetaDx) -> dg.MaterializeResult:
    """Accuracy on diseases that nothing was trained or chosen on, through ONNX Runtime, beside the baselines."""
    from meta_dx.progress import bar
    from meta_dx.steps import evaluation

    with bar("evaluating") as progress:
        record = evaluation.evaluate_rare(meta_dx.open(), progress)
    return dg.MaterializeResult(
        metadata={
            "results": table(record.rows()),
            "reliability": picture(
                record.reliability(),
                "Bad: dots far from the dashed line; below it the model is surer than it is right.",
            ),
            "openings_of_the_rare_diseases": record.openings,
            "folder": dg.MetadataValue.path(str(record.folder)),
        },
        data_version=dg.DataVersion(record.id),
    )


@asset(
    group_name="evaluation",
    deps=[rare_disease_evaluation, batch_predictions],
    owners=CLINICAL_TEAM,
    kinds={"html"},
    code_version=_CODE_VERSION,
)
def report(meta_dx: MetaDx) -> dg.MaterializeResult:
    """The report for doctors and researchers: what was measured, beside what, and how sure."""
    from meta_dx.steps import reporting

    written = reporting.report(meta_dx.open())
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(str(written.path)),
            "headline": written.headline,
            "hidden_cases": table(written.hidden_rows),
        }
    )


ASSETS = [rare_disease_evaluation, report]
