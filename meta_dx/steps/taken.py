"""A folder of studies taken into a home of its own, with a bundle's preprocessing, to be asked about."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.duplicates import near_duplicate_groups
from meta_dx.cohort.images import ImageStore
from meta_dx.cohort.ingest import IngestOptions, IngestSummary, ingest_folder, instances_under
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.progress import Progress, silent
from meta_dx.records.vault import Vault

if TYPE_CHECKING:
    from meta_dx.inference.bundle import Bundle

log = logging.getLogger("meta_dx")

#: What reading and preparing may take, where nobody says.
DEFAULT_LIMITS = IngestOptions()


@dataclass(frozen=True)
class Taken:
    """A folder that has been taken in: its home, images, studies, and near-duplicate groups."""

    home: Home
    store: ImageStore
    studies: pd.DataFrame
    groups: dict[str, str]

    def originals(self, kind: str) -> dict[str, str]:
        """Return surrogate → original for ``"study"`` or ``"patient"``."""
        return Vault.open(self.home).all(kind)


@contextmanager
def taken_folder(
    folder: Path,
    bundle: Bundle,
    home: Path | None = None,
    progress: Progress = silent,
    allow: Sequence[str] = (),
    limits: IngestOptions = DEFAULT_LIMITS,
) -> Iterator[Taken]:
    """Take in a folder with a bundle's preprocessing.

    Parameters
    ----------
    folder : Path
        Folder with DICOM files.
    bundle : Bundle
        Whose preprocessing applies.
    home : Path, optional
        Home to use and keep; a temporary one, removed at the end, if absent.
    progress : Progress
        Called while files are read.
    allow : sequence of str
        Kinds of pictures to take although they may show whose they are (``[ingest] allow``).
    limits : IngestOptions
        What reading and preparing may take; its ``allow`` is not used.

    Yields
    ------
    Taken

    Raises
    ------
    MetaDxError
        From ingest; ``nothing_accepted`` when no file could be taken.
    """
    with tempfile.TemporaryDirectory(prefix="meta_dx-") as scratch:
        # A pipeline's home is refused: its label table and its batches are not to be mixed with a test's.
        opened = Home.open(home or Path(scratch) / "home", "external-evaluation")
        options = replace(limits, allow=tuple(dict.fromkeys(allow)))
        summary = ingest_folder(opened, folder, progress=progress, options=options)
        _tell_quarantined(summary, folder)
        catalog = Catalog(opened)
        store = prepared(opened, catalog, bundle, limits)
        # A home that was kept may hold other folders too: only what lies in this one is asked about.
        index = store.index[store.index["instance"].isin(instances_under(opened, folder))]
        store = replace(store, index=index)
        studies = catalog.studies()
        pictures = store.images[index["row"].to_numpy()]
        groups, _ = near_duplicate_groups(pictures, index["patient"].tolist())
        yield Taken(opened, store, studies[studies["study"].isin(index["study"])], groups)


def prepared(home: Home, catalog: Catalog, bundle: Bundle, limits: IngestOptions) -> ImageStore:
    """Prepare the pictures of a home as a bundle wants them."""
    return ImageStore.build(home, catalog, bundle.image_options, limits=limits.limits, workers=limits.workers)


def _tell_quarantined(summary: IngestSummary, folder: Path) -> None:
    """Say which pictures were left out because they may show whose they are, and how to take them."""
    kinds = {code: count for code, count in summary.rejected.items() if code in QUARANTINED}
    if not summary.accepted + summary.duplicates:
        hint = (
            f"allow them with {' '.join(f'--allow {kind}' for kind in kinds)}"
            if kinds
            else "export them again"
        )
        raise MetaDxError(
            "nothing_accepted",
            f"No file under {folder} could be taken in ({', '.join(summary.rejected)}): {hint} "
            "(docs/rejections.md says what each code means).",
        )
    for kind, count in kinds.items():
        log.warning("%d files of %s were left out: %s (take them with --allow %s)", count, folder, kind, kind)
