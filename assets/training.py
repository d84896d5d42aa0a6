"""Group ``training``: supervised pre-training, one asset per meta-learner, and the choice on validation diseases."""

import dagster as dg

from assets.cohort import frozen_split
from assets.common import MODEL_TEAM, picture, table
from assets.faults import asset
from assets.project import MetaDx
from meta_dx.training.task import SELECTION_VERSION, TRAINING_VERSION

_CODE_VERSION = str(TRAINING_VERSION)
#: Learners that the same input gives other weights than when ``TRAINING_VERSION`` was raised last, and how often so.
_LATER = {"anp": 2, "proto_maml": 2} | dict.fromkeys(("maml", "anil", "reptile", "fine_tuning"), 1)
_CHOICE_VERSION = f"{TRAINING_VERSION}.{SELECTION_VERSION}"


@asset(
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


def meta_learner_asset(learner: str, description: str, after: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Make the training asset of one meta-learner.

    Parameters
    ----------
    learner : str
        Name in ``[learner]``; the asset trains only where the cohort asks for this learner.
    description : str
        First line of the paper, for the UI.
    after : AssetsDefinition
        Where it starts from.

    Returns
    -------
    AssetsDefinition
    """

    @asset(
        name=f"{learner}_learner",
        group_name="training",
        deps=[after],
        owners=MODEL_TEAM,
        kinds={"pytorch"},
        code_version=f"{_CODE_VERSION}.{_LATER[learner]}" if learner in _LATER else _CODE_VERSION,
        description=description,
    )
    def trained(meta_dx: MetaDx) -> dg.MaterializeResult:
        from meta_dx.progress import bar
        from meta_dx.steps import training

        with bar(f"meta-training {learner}") as progress:
            stage = training.meta_train(meta_dx.open(), learner, progress)
        if stage is None:
            # Materialised all the same, so that what comes after can run.
            return dg.MaterializeResult(
                metadata={"trained": f"no: cohort.toml does not ask for '{learner}'"},
                data_version=dg.DataVersion("not asked for"),
            )
        return _stage_result(stage)

    return trained


prototypical_learner = meta_learner_asset(
    "prototypical",
    "Prototypical Networks (Snell, Swersky, Zemel 2017), trained on episodes of common diseases.",
    pretrained_backbone,
)
_PAPERS = {
    "anp": "Attentive Neural Process (Kim and others 2019), a residual on a plain head: says how sure it is.",
    "leo": "Latent Embedding Optimization (Rusu and others 2019), adapts in a latent space of class weights.",
    "maml": "Model-Agnostic Meta-Learning (Finn, Abbeel, Levine 2017), adapts the whole network.",
    "anil": "ANIL (Raghu and others 2020): MAML of the last layer alone.",
    "proto_maml": "Proto-MAML (Triantafillou and others 2020): MAML from a last layer of prototypes.",
    "reptile": "Reptile (Nichol, Achiam, Schulman 2018), first-order meta-learning of the initial weights.",
    "mann": "Memory-augmented network (Santoro and others 2016), reads the support set as a sequence.",
    "meta_lstm": "Meta-LSTM (Ravi, Larochelle 2017): a recurrent network is the optimiser of the last layer.",
    "fine_tuning": "Fine-tuning with augmentation (Guo and others 2020): a baseline by plain descent.",
}
LEARNER_ASSETS = [
    prototypical_learner,
    *(meta_learner_asset(name, paper, prototypical_learner) for name, paper in _PAPERS.items()),
]


@asset(
    group_name="training",
    deps=LEARNER_ASSETS,
    owners=MODEL_TEAM,
    kinds={"pytorch"},
    code_version=_CHOICE_VERSION,
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


@asset(
    group_name="training",
    deps=[selected_learner],
    owners=MODEL_TEAM,
    kinds={"pytorch"},
    code_version=_CHOICE_VERSION,
)
def learner_comparison(meta_dx: MetaDx) -> dg.MaterializeResult:
    """Every learner and baseline on the same episodes of the validation diseases, best first."""
    from meta_dx.steps import training

    chosen = training.select(meta_dx.open())
    return dg.MaterializeResult(
        metadata={
            "chosen": chosen.note,
            "comparison": table(chosen.ranked),
            "plot": picture(
                chosen.comparison,
                "Bad: a meta-learner whose interval lies wholly below the plain heads' costs time for nothing.",
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


ASSETS = [pretrained_backbone, *LEARNER_ASSETS, selected_learner, learner_comparison]
