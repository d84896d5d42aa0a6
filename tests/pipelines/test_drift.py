"""Drift on a home that the pipeline has made: studies that are drawn alike are none, darker ones are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.dicom.identity import Surrogates
from meta_dx.records.vault import Vault
from meta_dx.review.drift import drift
from meta_dx.steps import Project, open_project
from meta_dx.steps.drift import inputs_of
from meta_dx.steps.embedded import EmbeddedCohort, KeptCohort
from meta_dx.steps.incoming import validate
from meta_dx.steps.review import open_desk
from tests.pipelines.conftest import Ran

STUDIES = 40


@pytest.fixture
def project(ran: Ran, tmp_path: Path) -> Project:
    shutil.copytree(ran.home, tmp_path / "home")
    return open_project(ran.cohort, tmp_path / "home")


def called(project: Project, cohort: EmbeddedCohort, recent: list[str]) -> set[str]:
    found = drift(inputs_of(project, cohort, recent), [], []).comparisons
    assert {"Darkest value", "Brightest value", "Spread of grey", "Manufacturer"} <= {
        one.what for one, _ in found
    }
    assert "too few" not in {verdict for one, verdict in found if one.kind == "inputs"}
    return {one.what for one, verdict in found if verdict == "drift"}


def drawn(ran: Ran, project: Project, folder: Path, scale: float) -> list[str]:
    """Take in studies that differ from those of the cohort by their intensity, or by nothing but their noise."""
    rng = np.random.default_rng(0)
    known = set(Catalog(project.home).diagnoses()["study"])
    surrogates = Surrogates(Vault.open(project.home).key)
    uids: dict[str, str] = {}
    folder.mkdir()
    for path in sorted((ran.folder / "studies").rglob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path)
            pixels = dataset.pixel_array
        except Exception:  # noqa: S112 - the phantom's damaged files
            continue
        study = str(dataset.StudyInstanceUID)
        if (
            surrogates.uid(study) not in known
            or pixels.ndim != 2
            or dataset.file_meta.TransferSyntaxUID.is_compressed
        ):
            continue
        if study not in uids and len(uids) == STUDIES:
            break
        dataset.StudyInstanceUID = uids.setdefault(study, generate_uid())
        dataset.SeriesInstanceUID = generate_uid()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.PatientID = f"new-{list(uids).index(study)}"
        changed = pixels * scale + rng.normal(0, 1 + pixels.std() / 50, pixels.shape)
        dataset.PixelData = changed.clip(pixels.min() * scale, pixels.max()).astype(pixels.dtype).tobytes()
        dataset.save_as(folder / f"{generate_uid()}.dcm")
    before = set(Catalog(project.home).batches())
    ingest_folder(project.home, folder)
    (batch,) = set(Catalog(project.home).batches()) - before
    validate(project, batch)
    return [surrogates.uid(uid) for uid in uids.values()]


def test_studies_that_are_drawn_alike_are_no_drift_and_nothing_of_the_inbox_is(project: Project) -> None:
    cohort, rng = KeptCohort(project).get(), np.random.default_rng(1)
    everybody = cohort.data.everybody().study
    looks = [
        called(project, cohort, rng.choice(everybody, STUDIES, replace=False).tolist()) for _ in range(20)
    ]
    assert sum(map(bool, looks)) <= 2
    assert not open_desk(project).drift().changed


def test_studies_of_another_intensity_are_drift_of_the_inputs(
    ran: Ran, project: Project, tmp_path: Path
) -> None:
    recent = drawn(ran, project, tmp_path / "darker", 0.4)
    found = called(project, KeptCohort(project).get(), recent)
    assert {"Brightest value", "Spread of grey"} <= found
    assert "Manufacturer" not in found
