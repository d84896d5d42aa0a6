"""The three-dimensional demo cohort is drawn the same way each time, and its faults are found."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread

from meta_dx.dicom.geometry import LeftOut
from meta_dx.dicom.phantom.volumes import FAULTS, write_volume_phantom
from meta_dx.dicom.volumes import Volume, volumes_of
from meta_dx.errors import MetaDxError

REASONS = {
    "tilt": ["gantry_tilt"],
    "gap": ["gap"],
    "duplicate": ["duplicate_position"],
    "uneven": ["irregular_spacing"],
    "scout": ["localiser"],
    "two_phases": ["", ""],
}


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    def written(name: str, seed: int) -> dict[str, bytes]:
        write_volume_phantom(tmp_path / name, seed=seed, diseases=6, patients=3)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    first = written("a", 1)
    assert written("b", 1) == first
    assert written("c", 2).keys() != first.keys()


def test_sound_series_are_volumes_and_each_fault_has_its_reason(tmp_path: Path) -> None:
    summary = write_volume_phantom(tmp_path / "p", diseases=6, patients=3)
    table = pd.read_csv(tmp_path / "p" / "diagnoses.csv", dtype=str)
    assert table["code"].nunique() == 6 and len(table) == 3 * 6 + 3 * 3 == summary.studies - len(FAULTS)
    series, files = defaultdict(list), 0
    for path in (tmp_path / "p" / "studies").rglob("*.dcm"):
        dataset = dcmread(path)
        series[dataset.StudyInstanceUID].append(dataset)
        files += 1
    assert files == summary.files
    found = []
    for study, slices in series.items():
        parts = volumes_of(slices)
        if study in set(table["study_instance_uid"]):
            (volume,) = parts
            assert isinstance(volume, Volume)
            corner, middle = volume.voxels[0, 0, 0], np.median(volume.voxels[volume.voxels > -500])
            assert corner < -900 and 0 < middle < 90  # air and tissue in Hounsfield units
        else:
            found.append([part.reason.value if isinstance(part, LeftOut) else "" for part in parts])
    assert sorted(found) == sorted(REASONS.values())
    assert set(REASONS) == set(FAULTS) == set(summary.faults)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for options, code in (
        ({"diseases": 17}, "diseases_out_of_range"),
        ({"diseases": 5}, "diseases_out_of_range"),
        ({"patients": 2}, "bad_value"),
    ):
        with pytest.raises(MetaDxError) as told:
            write_volume_phantom(tmp_path / "new", **options)
        assert told.value.code == code
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(MetaDxError) as told:
        write_volume_phantom(tmp_path / "full")
    assert told.value.code == "output_exists"
