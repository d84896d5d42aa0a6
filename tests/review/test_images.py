"""What the server says about the pictures of a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.objects import ObjectStore
from meta_dx.dicom.display import WHITE
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.review.desk import Desk
from tests.dicom.builders import uid_of, write_instance
from tests.review.two_studies import EARLIER, SAGITTAL, THICK, THIN, desk_of_two_studies, write_two_studies


def described(desk: Desk) -> dict[str, Any]:
    (study,) = desk.cases.waiting()
    return desk.images.manifest(study)


def frames_of_reference(manifest: dict[str, Any]) -> dict[int, str | None]:
    """Return each series' frame of reference, by its number of slices."""
    series = [one for study in manifest["studies"] for one in study["series"]]
    return {len(one["frames"]): one["frame_of_reference"] for one in series}


@pytest.mark.parametrize(("earlier", "told"), [("earlier", "1"), ("today", "0"), (None, None)])
def test_every_series_tells_a_key_of_its_frame_of_reference(
    tmp_path: Path, earlier: str | None, told: str | None
) -> None:
    write_two_studies(tmp_path / "files", earlier)
    found = frames_of_reference(described(desk_of_two_studies(tmp_path / "home", tmp_path / "files")))
    assert found == {THICK: "0", THIN: "0", SAGITTAL: "0", EARLIER: told}


def test_the_key_is_neither_the_original_uid_nor_its_surrogate(tmp_path: Path) -> None:
    write_two_studies(tmp_path / "files")
    desk = desk_of_two_studies(tmp_path / "home", tmp_path / "files")
    text = str(described(desk))
    kept = Catalog(desk.home).instances()["frame_of_reference"].unique()
    assert len(kept) == 2
    for uid in [*kept, uid_of("frame of today"), uid_of("frame of earlier")]:
        assert uid not in text


def test_pictures_without_positions_are_in_no_frame_of_reference(tmp_path: Path) -> None:
    write_instance(tmp_path / "files", FrameOfReferenceUID="1.2.3", Rows=16, Columns=16)
    desk = desk_of_two_studies(tmp_path / "home", tmp_path / "files")
    assert frames_of_reference(described(desk)) == {1: None}


def test_a_home_from_before_frames_of_reference_were_kept_is_shown_without(tmp_path: Path) -> None:
    write_two_studies(tmp_path / "files")
    desk = desk_of_two_studies(tmp_path / "home", tmp_path / "files")
    (file,) = desk.home.catalog.glob("*/instances.parquet")
    pq.write_table(pq.read_table(file).drop_columns(["frame_of_reference"]), file)
    assert frames_of_reference(described(Desk(desk.home))) == dict.fromkeys([THICK, THIN, SAGITTAL, EARLIER])


@pytest.mark.parametrize(("modality", "curved"), [("MG", True), ("CT", False)])
def test_a_table_shapes_the_pictures_of_its_series_but_never_hounsfield_units(
    tmp_path: Path, modality: str, curved: bool
) -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], np.arange(4096, dtype="<u2")[::-1].tobytes()
    tags = {"Modality": modality, "VOILUTSequence": Sequence([item])}
    write_instance(tmp_path / "files", **tags)
    desk = desk_of_two_studies(tmp_path / "home", tmp_path / "files")
    (series,) = described(desk)["studies"][0]["series"]
    (study,) = desk.cases.waiting()
    *_, name, number = series["frames"][0]["url"].split("/")
    instance = Catalog(desk.home).instances().iloc[0]
    measured = physical_pixels(dcmread(ObjectStore(desk.home).path(instance["object"])))
    found = desk.images.frame(study, name, int(number)).pixels
    if not curved:
        assert series["window"] is None
        np.testing.assert_array_equal(found, measured)
        found = desk.images.picture(instance["instance"]).pixels  # a small picture is shown in no unit
        np.testing.assert_allclose(found / WHITE, (4095 - measured.clip(0, 4095)) / 4095, atol=1e-4)
        return
    assert (series["window"], series["range"]) == ({"center": WHITE / 2, "width": WHITE}, [0, WHITE])
    np.testing.assert_allclose(found / WHITE, (4095 - measured.clip(0, 4095)) / 4095, atol=1e-4)
    assert np.ptp(found) > WHITE / 4
