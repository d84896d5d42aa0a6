"""What the catalog says about the series of a home: volumes, and a reason for every other frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.cohort.tables import read_tables
from meta_dx.cohort.volumes import volume_counts, volumes_table
from meta_dx.dicom import frames, volumes
from meta_dx.dicom.frames import FRAME_FIELDS
from meta_dx.dicom.geometry import arrange
from meta_dx.dicom.volume_reasons import VolumeReason
from meta_dx.dicom.volumes import frames_of
from meta_dx.home import Home
from tests.dicom.builders import write_instance
from tests.dicom.series import along_z, enhanced, slices_at


def write(slices: list[Dataset], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(slices):
        one.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)


def test_every_frame_is_in_one_volume_or_has_one_reason(home: Home, source: Path) -> None:
    write(along_z([0, 2, 4, 6], series="good"), source / "a")
    write(along_z([0, 2, 6, 8], series="gap"), source / "b")
    write(slices_at([(0, k, 2.0 * k) for k in range(5)], spacing=(0.5, 0.5), series="tilt"), source / "c")
    write([enhanced(along_z([0, 3, 6]))], source / "d")
    write_instance(source / "e", patient="chest")
    ingest_folder(home, source)
    catalog = Catalog(home)
    table = catalog.volumes()
    assert table["frames"].sum() == catalog.instances()["frames"].sum() == 17
    assert volume_counts(table) == {
        "volumes": 2,
        "frames_in_volumes": 7,
        "gantry_tilt": 5,
        "gap": 4,
        "no_geometry": 1,
    }
    good = table[table["reason"].isna() & (table["slices"] == 4)].iloc[0]
    assert np.reshape(good["affine"], (4, 4))[:3, 0] == pytest.approx([0, 0, 2])
    assert (good["rows"], good["columns"], good["spacing_slices"]) == (5, 6, 2.0)
    assert volume_counts(catalog.volumes(allow_tilt=True))["volumes"] == 3


def test_ct_slices_of_which_one_lost_its_rescale_are_no_volume_in_the_catalog_either(
    home: Home, source: Path
) -> None:
    slices = along_z([0, 2, 4, 6, 8])
    for number, one in enumerate(slices):
        one.Modality = "CT"
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        if number == 2:
            del one.RescaleSlope, one.RescaleIntercept
    write(slices, source)
    ingest_folder(home, source)
    assert volume_counts(Catalog(home).volumes()) == {
        "volumes": 0,
        "frames_in_volumes": 0,
        "mixed_rescale": 5,
    }


def test_the_catalog_decides_as_the_files_do(home: Home, source: Path) -> None:
    slices = slices_at([(1.5, -2.25, 0.7 * k) for k in range(6)], spacing=(0.4, 0.3))
    write(slices, source)
    ingest_folder(home, source)
    (stack,) = arrange(frames_of(slices))
    found = np.reshape(Catalog(home).volumes()["affine"].iloc[0], (4, 4))
    assert (found == stack.affine).all()  # type: ignore[union-attr]


def test_an_object_with_too_many_frames_is_left_out_under_its_code(
    home: Home, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, few = enhanced(along_z(range(6))), along_z([0, 2, 4])
    for module in (frames, volumes):
        monkeypatch.setattr(module, "MOST_FRAMES", 5)
    in_memory = arrange(frames_of([*few, many]))
    assert [(len(part.rows), getattr(part, "reason", None)) for part in in_memory] == [
        (3, None),
        (6, VolumeReason.TOO_MANY_FRAMES),
    ]
    write([*few, many], source)
    ingest_folder(home, source)
    assert volume_counts(Catalog(home).volumes()) == {
        "volumes": 1,
        "frames_in_volumes": 3,
        "too_many_frames": 6,
    }


def test_a_series_that_came_in_two_batches_is_one_volume(home: Home, source: Path) -> None:
    slices = along_z([0, 2, 4, 6, 8, 10])
    write(slices[::2], source / "first")
    ingest_folder(home, source)
    alone = Catalog(home).volumes()
    write(slices[1::2], source / "second")
    ingest_folder(home, source)
    both = Catalog(home).volumes()
    assert alone["slices"].tolist() == [3] and both["slices"].tolist() == [6]
    assert alone["volume"].iloc[0] != both["volume"].iloc[0]


def test_the_rows_may_stand_in_any_order(home: Home, source: Path) -> None:
    write(along_z([0, 2, 4, 6], series="one"), source / "a")
    write([enhanced(along_z([0, 3, 6, 12]))], source / "b")
    ingest_folder(home, source)
    instances = Catalog(home).instances()
    pd.testing.assert_frame_equal(volumes_table(instances[::-1]), volumes_table(instances))


def test_no_original_frame_of_reference_stands_in_the_catalog(home: Home, source: Path) -> None:
    slices = along_z([0, 2, 4])
    write(slices, source)
    ingest_folder(home, source)
    kept = Catalog(home).instances()["frame_of_reference"]
    assert kept.nunique() == 1 and str(slices[0].FrameOfReferenceUID) not in kept.tolist()


def test_a_batch_from_before_the_geometry_was_recorded_is_read_and_says_so(home: Home, source: Path) -> None:
    write(along_z([0, 2, 4]), source)
    ingest_folder(home, source)
    (file,) = home.catalog.glob("*/instances.parquet")
    table = pq.read_table(file)
    newer = {*FRAME_FIELDS, "spacing_between_slices", "gantry_tilt", "geometry_version"}
    newer |= {"frame_of_reference", "frame_geometry"}
    pq.write_table(table.drop_columns(sorted(newer)), file)
    old = Catalog(home)
    assert len(old.instances()) == 3 and old.instances()["position_x"].isna().all()
    assert volume_counts(old.volumes()) == {"volumes": 0, "frames_in_volumes": 0, "not_recorded": 3}


def test_a_table_without_a_required_column_is_not_read(home: Home, source: Path) -> None:
    write(along_z([0, 2, 4]), source)
    ingest_folder(home, source)
    (file,) = home.catalog.glob("*/instances.parquet")
    pq.write_table(pq.read_table(file).drop_columns(["modality"]), file)
    with pytest.raises(KeyError, match="modality"):
        read_tables("instances", [file])


@pytest.mark.data
def test_every_frame_of_the_real_corpus_is_accounted_for(home: Home, real_data: Path) -> None:
    ingest_folder(home, real_data / "ct-volumes")
    catalog = Catalog(home)
    table = catalog.volumes()
    assert table["frames"].sum() == catalog.instances()["frames"].sum()
    assert volume_counts(table) == {"volumes": 1, "frames_in_volumes": 28, "gantry_tilt": 28}
