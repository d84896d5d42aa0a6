"""Group ``training``: supervised pre-training, one asset per meta-learner, and the choice on validation diseases."""

import dagster as dg

from assets.cohort import frozen_split
from assets.common import MODEL_TEAM, picture, table
from assets.project import MetaDx
from meta_dx.training.task import TRAINING_VERSION

_CODE_VERSION = str(TRAINING_VERSION)


@dg.asset(
    group_name="training",
    deps=[frozen_split],
    owners=MODEL_TEAM,
    kinds={"pytorch", "monai"},
    code_version=_CODE_VERSION,
)
def pretrained_backbone(meta_dx: MetaDx) -> dg.MaterializeResult:
    """The backbone after learning to tell the common diseases apart; where every meta-learner starts."""
    from meta_dx.progress import bar
    from meta_dx.steps import training

    with bar("pre-training") as progress:
        stage = training.pretrain(meta_dx.open(), progress)
    return _stage_result(stage)


def meta_learner_asset(learner: str, description: str) -> dg.AssetsDefinition:
    """Make the training asset of one meta-learner.

    Parameters
    ----------
    learner : str
        Name in ``[learner] name``; the asset trains only where the cohort asks for this learner.
    description : str
        First line of the paper, for the UI.

    Returns
    -------
    AssetsDefinition
    """

    @dg.asset(
        name=f"{learner}_learner",
        group_name="training",
        deps=[pretrained_backbone],
        owners=MODEL_TEAM,
        kinds={"pytorch"},
        code_version=_CODE_VERSION,
        description=description,
    )
    def trained(meta_dx: MetaDx) -> dg.MaterializeResult:
        from meta_dx.progress import bar
        from meta_dx.steps import training

        with bar(f"meta-training {learner}") as progress:
            stage = training.meta_train(meta_dx.open(), learner, progress)
        return _stage_result(stage)

    return trained


prototypical_learner = meta_learner_asset(
    "prototypical",
    "Prototypical Networks (Snell, Swersky, Zemel 2017), trained on episodes of common diseases.",
)
LEARNER_ASSETS = [prototypical_learner]


@dg.asset(
    group_name="training",
    deps=LEARNER_ASSETS,
    owners=MODEL_TEAM,
    kinds={"pytorch"},
    code_version=_CODE_VERSION,
)
def selected_learner(meta_dx: MetaDx) -> dg.MaterializeResult:
    """Checkpoint and serving head with the best accuracy on the validation diseases, baselines included."""
    from meta_dx.steps import training

    chosen = training.select(meta_dx.open())
    return dg.MaterializeResult(
        metadata={
            "checkpoint": chosen.stage,
            "serving_head": chosen.head,
            "validation": table(chosen.rows),
            "learning_curves": picture(
                chosen.curves,
                "Bad: the loss falls while validation accuracy does not rise, or a curve still climbs at its end.",
            ),
        },
        data_version=dg.DataVersion(chosen.version),
    )


def _stage_result(stage) -> dg.MaterializeResult:  # type: ignore[no-untyped-def]
    return dg.MaterializeResult(
        metadata={
            "steps": stage.steps,
            "best_validation_accuracy": stage.best_accuracy,
            "seconds": stage.seconds,
            "folder": dg.MetadataValue.path(str(stage.folder)),
            "learning_curves": picture(
                stage.curves, "Bad: validation accuracy flat or falling while the training loss goes down."
            ),
        },
        data_version=dg.DataVersion(stage.version),
    )


ASSETS = [pretrained_backbone, *LEARNER_ASSETS, selected_learner]
