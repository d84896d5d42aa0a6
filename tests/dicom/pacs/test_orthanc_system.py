"""The whole way from a real archive into the catalog, over DICOMweb, C-GET and C-MOVE."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.fetch import clear_landed, fetch, landing_folder
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.dicom.builders import picture, write_instance
from tests.dicom.pacs.orthanc import OUR_TITLE, Orthanc

pytestmark = pytest.mark.system


def address(orthanc: Orthanc, way: str, query: str = "") -> str:
    base = orthanc.dicomweb if way == "dicomweb" else orthanc.dimse_address
    parts = [query, f"move_to={OUR_TITLE}" if way == "move" else ""]
    return f"{base}?{'&'.join(part for part in parts if part)}".rstrip("?")


def twin(home: Home, name: str) -> Home:
    """Copy an empty home, so that two ways can be compared under one key."""
    Vault.open(home).close()
    return Home.open(shutil.copytree(home.root, home.root.parent / name))


def small_archive(source: Path) -> list[Path]:
    files = []
    for number, syntax in enumerate((None, RLELossless, JPEG2000Lossless)):
        options = {"transfer_syntax": syntax} if syntax else {}
        for modality in ("CT", "MR"):
            study = f"{modality}{number}"
            files += [
                write_instance(
                    source,
                    study=study,
                    patient=f"P{number}",
                    instance=f"{study} {i}",
                    Modality=modality,
                    StudyDate=f"202{number}0615",
                    BodyPartExamined="HEAD" if number else "CHEST",
                    StudyDescription=f"Study {study}",
                    pixels=picture(f"{study} {i}", (40, 40)),
                    **options,
                )
                for i in range(3)
            ]
    return files


def take_in(home: Home, source: str) -> None:
    folder = landing_folder(home, source)
    ingest_folder(home, folder)
    clear_landed(home, folder)
    assert not any(folder.iterdir())


def instances(home: Home) -> pd.DataFrame:
    return Catalog(home).instances().sort_values("instance").drop(columns="batch").reset_index(drop=True)


@pytest.mark.parametrize("way", ["dicomweb", "get", "move"])
def test_what_comes_from_the_archive_is_what_came_from_the_folder(orthanc, home, source, quick, way) -> None:
    files = small_archive(source)
    orthanc.put(files)
    other = twin(home, "from-folder")
    ingest_folder(other, source)
    found = fetch(home, address(orthanc, way), options=quick)
    assert (found.found, found.fetched, found.already_here, found.failed, found.studies) == (18, 18, 0, {}, 6)
    take_in(home, address(orthanc, way))
    mine, theirs = instances(home), instances(other)
    assert len(mine) == 18
    # The file meta group names its writer; the data set, and so the object, is the same.
    pd.testing.assert_frame_equal(mine.drop(columns="content"), theirs.drop(columns="content"))
