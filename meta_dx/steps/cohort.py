"""Steps of the cohort: images, near-duplicates, the frozen split, and the examples that everything later draws from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import active_diagnoses
from meta_dx.cohort.duplicates import near_duplicate_groups, rule_version
from meta_dx.cohort.examples import Examples
from meta_dx.cohort.fingerprint import write_fingerprint
from meta_dx.cohort.holdout import choose_holdout
from meta_dx.cohort.images import ImageStore
from meta_dx.cohort.selection import (
    diagnosed_studies,
    labelled_examples,
    read_ancestors,
    unlabelled_examples,
)
from meta_dx.cohort.splits import ROLES, Split, current_split, freeze_split
from meta_dx.errors import MetaDxError
from meta_dx.home import fingerprint_of, write_json
from meta_dx.progress import Progress, silent
from meta_dx.steps import Project
from meta_dx.steps.incoming import usable_batches

if TYPE_CHECKING:
    from collections.abc import Mapping


_FEWEST, _DISEASES = 3, 2  # patients of a disease, and diseases, without which no episode can be drawn


@dataclass(frozen=True)
class NearDuplicates:
    """How many near-duplicate pairs were found, and the groups and patients that they join."""

    pairs: int
    groups: int
    patients: int


@dataclass(frozen=True)
class CohortData:
    """Everything that training, evaluation and prediction draw from.

    Parameters
    ----------
    store : ImageStore
        Preprocessed images.
    split : Split
        The frozen split.
    groups : mapping of str to str
        Patient → near-duplicate group.
    studies, diagnoses : DataFrame
        Catalog studies, active diagnoses.
    by_role : dict of str to Examples
        Labelled examples of the common, validation and rare diseases; hidden patients are in none.
    left_out : dict of str to int
        Diagnosed studies left out, by reason.
    hidden : dict of str to str
        Study → code of the diagnoses that are withheld, so that predictions can be scored.
    ancestors : mapping of str to frozenset of str
        Diseases above each code.
    version : str
        Hash of all of the above.
    """

    store: ImageStore
    split: Split
    groups: Mapping[str, str]
    studies: pd.DataFrame
    diagnoses: pd.DataFrame
    by_role: dict[str, Examples]
    left_out: dict[str, int]
    hidden: dict[str, str]
    ancestors: Mapping[str, frozenset[str]]
    version: str

    def role_counts(self) -> list[dict[str, Any]]:
        """Return one row a role: diseases, patients and studies."""
        return [
            {
                "role": role,
                "diseases": len(self.by_role[role].diseases),
                "patients": len(set(self.by_role[role].patient.tolist())),
                "studies": len(self.by_role[role]),
            }
            for role in ROLES
        ]

    def images_version(self, rows: npt.NDArray[np.int64]) -> str:
        """Name the content of some images of the store, wherever they stand in it."""
        return _images_version(self.store, rows)

    def to_predict(self, batch: str | None = None) -> Examples:
        """Return the studies without a known diagnosis, hidden ones included, of one batch or of all."""
        return unlabelled_examples(
            self.studies,
            self.store.index,
            self.diagnoses,
            groups=self.groups,
            hidden=self.hidden,
            batch=batch,
        )[0]

    def everybody(self) -> Examples:
        """Return the labelled examples of all roles, hidden patients excepted."""
        parts = [self.by_role[role] for role in ROLES]
        return Examples(
            np.concatenate([part.study for part in parts]),
            np.concatenate([part.patient for part in parts]),
            np.concatenate([part.code for part in parts]),
            tuple(rows for part in parts for rows in part.images),
        )

    def meanings(self) -> dict[str, str]:
        """Return disease code → name for people."""
        named = self.diagnoses.dropna(subset=["meaning"])
        return dict(zip(named["code"], named["meaning"], strict=True))


def build_images(project: Project, progress: Progress = silent) -> ImageStore:
    """Preprocess every image of new batches; finished shards are kept."""
    return _prepared(project, Catalog(project.home), progress)


def usable_catalog(project: Project) -> Catalog:
    """Return the catalog of the batches that passed their blocking checks."""
    return Catalog(project.home, only=usable_batches(project))


def contact_sheet(project: Project, store: ImageStore) -> Path:
    """Draw a fixed random sample of prepared pictures, 4 × 8, as the network sees them.

    Only for cohorts that say ``[privacy] pictures_in_lineage = true``.
    """
    from PIL import Image

    rng = np.random.default_rng(project.settings.cohort.seed)
    rows = rng.choice(len(store.index), size=min(32, len(store.index)), replace=False)
    side, middle = store.shape[-1], store.shape[2] // 2
    sheet = Image.new("RGB", (8 * side, 4 * side))
    for place, row in enumerate(rows):
        image = store.images[int(row)]
        image = image[:, middle] if image.ndim == 4 else image  # of a volume, its middle slice
        picture = np.moveaxis(image, 0, -1).squeeze()  # (H, W) or (H, W, 3)
        sheet.paste(Image.fromarray(picture), (place % 8 * side, place // 8 * side))
    path = project.home.images / "sample.jpg"
    sheet.save(path, quality=70)
    return path


def group_near_duplicates(project: Project) -> NearDuplicates:
    """Join patients that share nearly the same picture, and keep the groups beside the store's version."""
    store = build_images(project)
    path = _groups_file(project, store)
    if not path.exists():
        groups, pairs = near_duplicate_groups(store.images, store.index["patient"].tolist())
        write_json(path, {"groups": groups, "pairs": len(pairs)})
    kept = json.loads(path.read_text())
    sizes = Counter(kept["groups"].values())
    joined = [size for size in sizes.values() if size > 1]
    return NearDuplicates(kept["pairs"], len(joined), sum(joined))


def freeze_and_assemble(project: Project) -> CohortData:
    """Freeze the split, or extend it by what is new, and assemble the examples.

    Raises
    ------
    MetaDxError
        From the split: a role without a usable disease, changed options against a frozen split.
    """
    store, groups, catalog = _stored(project)
    studies, diagnoses = catalog.studies(), active_diagnoses(project.home)
    table, _ = diagnosed_studies(studies, store.index, diagnoses)
    freeze_split(
        project.home,
        table,
        project.settings.split,
        groups=groups,
        created_from={"images": store.version, "catalog": catalog.version},
    )
    data = assemble(project)
    for role, examples in data.by_role.items():
        usable = [code for code, n in examples.patients_per_disease().items() if n >= _FEWEST]
        if len(usable) < _DISEASES:
            raise MetaDxError(
                "too_few_diseases",
                f"Role '{role}' has {len(usable)} disease(s) with {_FEWEST} patients or more, and needs {_DISEASES}: "
                f"change {role}_min or list codes under [split], then 'meta-dx split thaw --reason …'.",
            )
    return data


def assemble(project: Project) -> CohortData:
    """Assemble the examples from what the home holds, under the split in force.

    Raises
    ------
    MetaDxError
        ``no_split`` before the first freeze.
    """
    split = current_split(project.home)
    if split is None:
        raise MetaDxError(
            "no_split",
            f"The home {project.home.root} has no frozen split yet: run 'make run' or 'meta-dx train'.",
        )
    store, groups, catalog = _stored(project)
    studies, diagnoses = catalog.studies(), active_diagnoses(project.home)
    everything, left_out = labelled_examples(studies, store.index, diagnoses, split=split, groups=groups)
    hidden = _hidden(project, split, everything.with_codes(split.codes("rare")))
    by_role = {
        role: labelled_examples(
            studies, store.index, diagnoses, split=split, role=role, groups=groups, hidden=hidden
        )[0]
        for role in ROLES
    }
    codes = project.settings.cohort.codes
    ancestors = read_ancestors(Path(codes)) if codes else {}
    version = fingerprint_of(
        {
            "images": _images_version(
                store, np.unique(np.concatenate([i for e in by_role.values() for i in e.images]))
            ),
            "lineage": split.lineage,
            "examples": {
                role: sorted(zip(e.study.tolist(), e.patient.tolist(), e.code.tolist(), strict=True))
                for role, e in by_role.items()
            },
            "hidden": sorted(hidden),
            "ancestors": {code: sorted(above) for code, above in ancestors.items()},
        }
    )
    return CohortData(
        store=store,
        split=split,
        groups=groups,
        studies=studies,
        diagnoses=diagnoses,
        by_role=by_role,
        left_out=left_out,
        hidden=hidden,
        ancestors=ancestors,
        version=version,
    )


def fingerprint(project: Project) -> dict[str, Any]:
    """Write the dataset fingerprint of the cohort and return it."""
    data = assemble(project)
    return write_fingerprint(project.home, data.store, usable_catalog(project).instances(), data.by_role)


def _hidden(project: Project, split: Split, offered: Examples) -> dict[str, str]:
    """Return the hidden studies; once chosen under a split they stay, so that no prediction becomes its own support."""
    count = project.settings.inbox.holdout
    path = project.home.splits / f"hidden-{split.lineage}.json"
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if count and len(kept) < count:
        keep = max(project.settings.evaluation.shots) + 2
        others = offered.take(~np.isin(offered.study, sorted(kept)))
        more = choose_holdout(others, count - len(kept), project.settings.cohort.seed, keep=keep)
        code_of = dict(zip(offered.study.tolist(), offered.code.tolist(), strict=True))
        grown = {**kept, **{study: code_of[study] for study in sorted(more)}}
        if grown != kept:
            write_json(path, grown)
        kept = grown
    return kept if count else {}


def _images_version(store: ImageStore, rows: npt.NDArray[np.int64]) -> str:
    # An instance names a picture; several volumes may have one middle slice.
    name = "instance" if store.options.dimensions == 2 else "object"
    named = store.index.iloc[rows][[name, "frame"]]
    return fingerprint_of(
        [store.options.picture_hash(), sorted(map(list, named.itertuples(index=False, name=None)))]
    )


def _stored(project: Project) -> tuple[ImageStore, dict[str, str], Catalog]:
    catalog = usable_catalog(project)
    store = _prepared(project, catalog)
    path = _groups_file(project, store)
    if not path.exists():
        group_near_duplicates(project)
    return store, json.loads(path.read_text())["groups"], catalog


def _prepared(project: Project, catalog: Catalog, progress: Progress = silent) -> ImageStore:
    reading = project.settings.ingest
    return ImageStore.build(
        project.home,
        catalog,
        project.settings.images,
        limits=reading.limits,
        workers=reading.workers,
        progress=progress,
    )


def _groups_file(project: Project, store: ImageStore) -> Path:
    found = fingerprint_of([store.version, rule_version()])
    return project.home.store("duplicates") / f"{found}.json"
