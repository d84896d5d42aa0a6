"""CT series go in, predictions about volumes come out: training, export, evaluation and prediction in 3-D."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest

from meta_dx.cli.app import run as meta_dx
from meta_dx.dicom.phantom.volumes import write_volume_phantom

pytestmark = pytest.mark.system  # no service, but a minute of work

COHORT = """\
[cohort]
name = "volumes"
sources = ["cohort/studies"]
diagnoses = "cohort/diagnoses.csv"
device = "cpu"

[images]
dimensions = 3
size = 20
depth = 16
fit = "stretch"
intensity = "window"
window_center = 40
window_width = 700
max_images = 1

[split]
common_min = 8
validation = ["VX08", "VX09", "VX10", "VX11"]
validation_min = 5
rare = ["VX12", "VX13", "VX14", "VX15"]
rare_min = 5

[learner]
name = "prototypical"

[training]
pretrain_epochs = 14
batch_size = 16
episodes = 30
flip = "both"
rotate = 20.0
gain = 0.1
validate_every = 15
validation_episodes = 60

[evaluation]
shots = [1]
"""


RARE = ("VX12", "VX13", "VX14", "VX15")


@dataclass(frozen=True)
class Trained:
    """What the command line made: ``rare`` holds the studies of the rare diseases, ``table`` their diagnoses."""

    folder: Path
    home: Path
    bundle: Path
    rare: Path
    table: pd.DataFrame


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("volumes")
    write_volume_phantom(folder / "cohort", patients=6)
    (folder / "cohort.toml").write_text(COHORT)
    options = ["--cohort", str(folder / "cohort.toml"), "--home", str(folder / "home")]
    assert meta_dx(["train", *options]) == 0
    assert meta_dx(["export", *options]) == 0
    (bundle,) = (path for path in (folder / "home" / "bundles").iterdir() if path.is_dir())
    table = pd.read_csv(folder / "cohort" / "diagnoses.csv", dtype=str)
    table = table[table["code"].isin(RARE)]
    table.to_csv(folder / "rare.csv", index=False)
    for patient in table["patient_id"]:
        shutil.copytree(folder / "cohort" / "studies" / patient, folder / "rare" / patient)
    return Trained(folder, folder / "home", bundle, folder / "rare", table)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert meta_dx([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_unseen_rare_diseases_are_told_apart_far_better_than_by_chance(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(
        capsys,
        "evaluate",
        *("--bundle", str(trained.bundle), "--studies", str(trained.rare)),
        *("--diagnoses", str(trained.folder / "rare.csv"), "--home", str(trained.folder / "asked")),
        *("--ways", "4", "--shots", "3", "--queries", "3", "--episodes", "40"),
    )
    assert found["classes"] == 4
    assert found["accuracy"] > 0.55
    assert found["ci95"][0] > 1 / 4


def test_the_exported_network_takes_volumes(trained: Trained) -> None:
    graph = onnx.load(trained.bundle / "models" / "encoder.onnx").graph
    sizes = [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    assert sizes[1:] == [1, 16, 20, 20]
    metadata = json.loads((trained.bundle / "configs" / "metadata.json").read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == [16, 20, 20] and image["num_channels"] == 1


def test_a_new_study_is_prepared_and_answered_as_a_volume(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [group for _, group in trained.table.groupby("code")]
    support = pd.concat([group.iloc[:4] for group in parts])
    asked = pd.concat([group.iloc[4:] for group in parts])
    support[["study_instance_uid", "code"]].to_csv(tmp_path / "support.csv", index=False)
    found = answer(
        capsys,
        "predict",
        *("--bundle", str(trained.bundle), "--support", str(tmp_path / "support.csv")),
        *("--studies", str(trained.rare)),
    )
    code_of = dict(zip(asked["study_instance_uid"], asked["code"], strict=True))
    assert {one["study_instance_uid"] for one in found} == set(code_of)
    right = 0
    for one in found:
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        right += max(one["probabilities"], key=one["probabilities"].get) == code_of[one["study_instance_uid"]]
        near = {case["study_instance_uid"] for case in one["nearest_support"]}
        assert near <= set(support["study_instance_uid"])
    assert right / len(found) >= 0.5


def test_series_that_are_no_volume_are_counted(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    counts = answer(capsys, "volumes", "--home", str(trained.home))["counts"]
    studies = len(list((trained.folder / "cohort" / "studies").iterdir()))
    assert counts["volumes"] == studies - 5 + 1  # five have a fault, one has two phases
    assert {"gantry_tilt", "gap", "duplicate_position", "irregular_spacing", "localiser"} <= set(counts)
