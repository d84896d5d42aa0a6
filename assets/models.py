"""Group ``models``: the exported bundle."""

import dagster as dg

from assets.common import MODEL_TEAM
from assets.faults import asset
from assets.project import MetaDx
from assets.training import selected_learner
from meta_dx.inference import EXPORT_VERSION

_CODE_VERSION = str(EXPORT_VERSION)


@asset(
    group_name="models",
    deps=[selected_learner],
    owners=MODEL_TEAM,
    kinds={"onnx", "monai"},
    code_version=_CODE_VERSION,
)
def bundle(meta_dx: MetaDx) -> dg.MaterializeResult:
    """The immutable bundle: encoder, adapt and predict graphs, preprocessing and calibration, checked against torch."""
    from meta_dx.steps import models

    made = models.export(meta_dx.open())
    return dg.MaterializeResult(
        metadata={
            "bundle": made.id,
            "folder": dg.MetadataValue.path(str(made.path)),
            "serving_head": made.serving_head,
            "megabytes": round(sum(f.stat().st_size for f in made.path.rglob("*") if f.is_file()) / 1e6, 2),
        },
        data_version=dg.DataVersion(made.id),
    )


ASSETS = [bundle]
