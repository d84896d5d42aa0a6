"""Group ``cohort``: preprocessed images, near-duplicates, the frozen split, the dataset fingerprint."""

import dagster as dg

from assets.common import DATA_TEAM, table
from assets.faults import asset
from assets.project import MetaDx
from assets.validation import validated_batch, validated_diagnoses
from meta_dx.cohort.preprocessing import PREPROCESSING_VERSION

#: The first number is to be raised when the same images would give other groups or another split than before.
_CODE_VERSION = f"1.{PREPROCESSING_VERSION}"


@asset(
    group_name="cohort",
    deps=[validated_batch],
    owners=DATA_TEAM,
    kinds={"numpy"},
    code_version=_CODE_VERSION,
)
def image_store(meta_dx: MetaDx) -> dg.MaterializeResult:
    """Every picture that counts, preprocessed once and memory-mapped; one shard per batch."""
    from meta_dx.progress import bar
    from meta_dx.steps import cohort

    project = meta_dx.open()
    with bar("preprocessing") as progress:
        store = cohort.build_images(project, progress)
    metadata: dict[str, dg.MetadataValue | int | str] = {
        "images": len(store.index),
        "studies": int(store.index["study"].nunique()),
        "shape": str(store.shape),
        "left_out": table([{"reason": why, "images": n} for why, n in sorted(store.left_out.items())]),
    }
    if project.settings.privacy.pictures_in_lineage:
        from assets.common import picture

        sheet = cohort.contact_sheet(project, store)
        metadata["sample"] = picture(
            sheet, "A random sample as the network sees it; bad: black, cropped or inverted."
        )
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(store.version))


@asset(
    group_name="cohort",
    deps=[image_store],
    owners=DATA_TEAM,
    kinds={"numpy"},
    code_version=_CODE_VERSION,
)
def near_duplicates(meta_dx: MetaDx) -> dg.MaterializeResult:
    """Patients that share nearly the same picture, joined into groups; a group counts as one patient."""
    from meta_dx.steps import cohort

    found = cohort.group_near_duplicates(meta_dx.open())
    return dg.MaterializeResult(
        metadata={"pairs": found.pairs, "groups": found.groups, "patients": found.patients}
    )


@asset(
    group_name="cohort",
    deps=[near_duplicates, validated_diagnoses],
    owners=DATA_TEAM,
    kinds={"json"},
    code_version=_CODE_VERSION,
)
def frozen_split(meta_dx: MetaDx) -> dg.MaterializeResult:
    """Common, validation and rare diseases, and their patients; nothing ever changes side."""
    from meta_dx.steps import cohort

    project = meta_dx.open()
    data = cohort.freeze_and_assemble(project)
    return dg.MaterializeResult(
        metadata={
            "version": data.split.version,
            "roles": table(data.role_counts()),
            "left_out": table([{"reason": why, "studies": n} for why, n in sorted(data.left_out.items())]),
            "hidden_for_scoring": len(data.hidden),
        },
        data_version=dg.DataVersion(data.version),
    )


@asset(
    group_name="cohort",
    deps=[frozen_split],
    owners=DATA_TEAM,
    kinds={"json"},
    code_version=_CODE_VERSION,
)
def dataset_fingerprint(meta_dx: MetaDx) -> dg.MaterializeResult:
    """What the cohort looks like in numbers, so that a later batch can be compared with it."""
    from meta_dx.steps import cohort

    fingerprint = cohort.fingerprint(meta_dx.open())
    return dg.MaterializeResult(metadata={"fingerprint": dg.MetadataValue.json(fingerprint)})


ASSETS = [image_store, near_duplicates, frozen_split, dataset_fingerprint]
