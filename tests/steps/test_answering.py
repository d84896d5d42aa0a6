"""Predictions of a folder with a head that knows its uncertainty, as programs are told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread

from meta_dx.inference.bundle import Bundle
from meta_dx.records.predictions import PredictedStudy
from meta_dx.steps.answering import as_contract
from meta_dx.steps.external import predict_folder
from meta_dx.steps.taken import taken_folder
from tests.dicom.builders import write_instance
from tests.inference.uncertain import uncertain_bundle

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/contract-schemas/predict.schema.json").read_text())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "uncertain_bundle"
    folder.mkdir(exist_ok=True)
    return uncertain_bundle(folder)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine studies of two pictures; the pictures of a disease are alike."""
    folder = tmp_path_factory.mktemp("studies")
    random = np.random.default_rng(0)
    looks = random.integers(0, 3000, (3, 40, 40))
    for study in range(9):
        for image in range(2):
            pixels = (looks[study % 3] + random.integers(0, 1500, (40, 40))).astype(np.uint16)
            write_instance(
                folder,
                patient=f"P{study}",
                study=f"1.2.{study}",
                instance=f"1.2.{study}.{image}",
                pixels=pixels,
            )
    return folder


def support_table(path: Path, order: list[int]) -> Path:
    rows = [(f"1.2.{study}", "ABC"[study % 3]) for study in order]
    pd.DataFrame(rows, columns=["study_instance_uid", "code"]).to_csv(path, index=False)
    return path


def test_a_folder_is_told_with_uncertainty_interval_and_evidence(
    bundle: Bundle, studies: Path, tmp_path: Path
) -> None:
    found = predict_folder(
        bundle, studies, support_table(tmp_path / "s.csv", [0, 1, 2, 3, 4, 5]), device="cpu"
    )
    jsonschema.validate(json.loads(json.dumps(found, allow_nan=False)), SCHEMA)
    assert {one["study_instance_uid"] for one in found} == {"1.2.6", "1.2.7", "1.2.8"}
    for one in found:
        assert one["epistemic"] > 0
        assert one["epistemic"] + one["aleatoric"] == pytest.approx(one["entropy"], abs=1e-9)
        for code, (low, high) in one["interval"].items():
            assert low <= one["probabilities"][code] <= high
        assert sum(case["weight"] for case in one["evidence"]) == pytest.approx(1, abs=1.1e-3)
        for case in one["evidence"]:
            number = int(case["study_instance_uid"].removeprefix("1.2."))
            assert case["code"] == "ABC"[number % 3]
            assert case["image"] in {f"1.2.{number}.0", f"1.2.{number}.1"}


def test_the_order_of_the_table_does_not_reach_the_last_digit(
    bundle: Bundle, studies: Path, tmp_path: Path
) -> None:
    first = predict_folder(
        bundle, studies, support_table(tmp_path / "a.csv", [0, 1, 2, 3, 4, 5]), device="cpu"
    )
    other = predict_folder(
        bundle, studies, support_table(tmp_path / "b.csv", [4, 2, 0, 5, 3, 1]), device="cpu"
    )
    assert first == other


def test_the_evidence_names_the_frame_that_looks_most_like_the_study(bundle: Bundle, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    looks = random.integers(0, 3000, (3, 40, 40))
    other = np.indices((40, 40)).sum(0) * 40
    for study in range(6):
        frames = np.stack([other, other.T[::-1], looks[study % 3]]).astype(np.uint16)
        write_instance(
            tmp_path,
            patient=f"P{study}",
            study=f"1.2.{study}",
            instance=f"1.2.{study}.0",
            pixels=frames if study < 3 else frames[2],
            NumberOfFrames=3 if study < 3 else 1,
        )
    found = predict_folder(bundle, tmp_path, support_table(tmp_path / "s.csv", [0, 1, 2]), device="cpu")
    for one in found:
        number = int(one["study_instance_uid"].removeprefix("1.2."))
        frame = {e["study_instance_uid"]: (e["image"], e["frame"]) for e in one["evidence"]}
        assert frame[f"1.2.{number - 3}"] == (f"1.2.{number - 3}.0", 2)


def test_what_a_plain_head_cannot_give_is_null() -> None:
    told = as_contract(PredictedStudy("s", {"A": 0.5, "B": 0.5}, 0.7, ()))
    assert [told[name] for name in ("epistemic", "aleatoric", "interval", "evidence")] == [None] * 4


def test_support_studies_that_lie_in_a_home_are_evidence_too(
    bundle: Bundle, studies: Path, tmp_path: Path
) -> None:
    home, others = tmp_path / "home", tmp_path / "others"
    with taken_folder(studies, bundle, home):
        pass
    shutil.copytree(studies, others)
    table = support_table(tmp_path / "s.csv", [0, 1, 2, 3, 4, 5])
    expected = predict_folder(bundle, studies, table, device="cpu")
    for file in others.rglob("*"):  # what is confirmed lies in the home alone
        if file.is_file() and dcmread(file, stop_before_pixels=True).StudyInstanceUID in {
            f"1.2.{n}" for n in range(6)
        }:
            file.unlink()
    found = predict_folder(bundle, others, table, home=home, device="cpu")
    assert [one["study_instance_uid"] for one in found] == [one["study_instance_uid"] for one in expected]
    for here, there in zip(found, expected, strict=True):
        assert here["probabilities"] == pytest.approx(there["probabilities"], abs=1e-6)
        assert {e["image"] for e in here["evidence"]} == {e["image"] for e in there["evidence"]}
