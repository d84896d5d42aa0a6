"""``meta-dx export-adapted``: a folder of its own from confirmed studies, and what it is refused for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from meta_dx.cli.app import run as meta_dx
from meta_dx.dicom.identity import Surrogates
from meta_dx.inference.adapted import AdaptedNetwork
from meta_dx.records.vault import Vault
from meta_dx.steps import Project, cohort, incoming, open_project, training
from meta_dx.training.body import build_on_images
from meta_dx.training.train import trained_learner
from tests.dicom.builders import write_instance

COHORT = """\
[cohort]
name = "c"
sources = ["studies"]
diagnoses = "diagnoses.csv"
device = "cpu"
[images]
size = 16
[split]
common_min = 7
validation_min = 6
rare_min = 4
[backbone]
name = "conv4"
[learner]
name = "maml"
compare = ["reptile"]
[learner.maml]
test_steps = 2
[training]
threads = 1
pretrain_epochs = 0
episodes = 1
validation_ways = 3
validation_shots = [1]
validation_queries = 2
validation_episodes = 2
body_validation_episodes = 1
"""


@dataclass(frozen=True)
class Trained:
    """A home in which MAML is trained for three diseases; D6 … D8 are rare."""

    folder: Path
    project: Project

    def export(self, out: Path, *more: object, learner: str = "maml") -> list[str]:
        at = ["--cohort", str(self.folder / "c.toml"), "--home", str(self.folder / "h")]
        return ["export-adapted", "--learner", learner, "--out", str(out), *at, *map(str, more)]

    def table(self, path: Path, codes: dict[str, int]) -> Path:
        rows = pd.read_csv(self.folder / "diagnoses.csv", dtype=str)[["study_instance_uid", "code"]]
        pd.concat([rows[rows["code"] == code].head(k) for code, k in codes.items()]).to_csv(path, index=False)
        return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("adapted")
    rng, rows = np.random.default_rng(0), []
    for disease in range(9):
        look = rng.integers(0, 3000, (8, 8))
        for patient in range((8, 6, 4)[disease // 3]):
            study = f"1.2.77{disease}.88{patient}"
            coarse = look + rng.integers(0, 3000, (8, 8))
            write_instance(
                folder / "studies",
                patient=f"NAME{disease}{patient}",
                study=study,
                pixels=coarse.repeat(4, 0).repeat(4, 1).astype(np.uint16),
            )
            rows.append((study, f"NAME{disease}{patient}", "", f"D{disease}", "99T", f"Disease {disease}"))
    columns = ["study_instance_uid", "patient_id", "accession_number", "code", "coding_scheme", "meaning"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "diagnoses.csv", index=False)
    (folder / "c.toml").write_text(COHORT)
    project = open_project(folder / "c.toml", folder / "h")
    for batch in incoming.pending_batches(project):
        incoming.take_in(project, batch.id)
        incoming.accept(project, batch.id, "drawn")
    incoming.take_in_diagnoses(project)
    cohort.freeze_and_assemble(project)
    training.meta_train(project, "maml")
    return Trained(folder, project)


@pytest.fixture(scope="module")
def out(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("out") / "maml"
    assert meta_dx(trained.export(where)) == 0
    return where


def refused(caplog: pytest.LogCaptureFixture, arguments: list[str]) -> str:
    caplog.clear()
    assert meta_dx(arguments) == 2
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    return lines[0]


def test_the_confirmed_studies_of_the_home_are_those_that_predictions_rest_on(
    trained: Trained, out: Path
) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(d["code"], d["scheme"], d["meaning"], d["confirmed"]) for d in manifest["diseases"]] == [
        (f"D{n}", "99T", f"Disease {n}", 4) for n in (6, 7, 8)
    ]
    assert manifest["learner"]["name"] == "maml"
    assert manifest["learner"]["batch_norm"] == manifest["batch_norm"] == "support"
    assert manifest["support"]["studies"] == 12
    assert manifest["split_version"] == cohort.assemble(trained.project).split.version


def test_a_table_of_the_same_studies_gives_the_same_network(
    trained: Trained, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = trained.table(tmp_path / "s.csv", {"D8": 4, "D6": 4, "D7": 4})
    capsys.readouterr()
    assert meta_dx(trained.export(tmp_path / "again", "--support", table)) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'again'}\n"
    first, again = (json.loads((f / "manifest.json").read_text()) for f in (out, tmp_path / "again"))
    assert again == first
    other = trained.table(tmp_path / "s.csv", {"D0": 1, "D4": 3, "D7": 2})
    assert meta_dx(trained.export(tmp_path / "other", "--support", other)) == 0
    made = json.loads((tmp_path / "other" / "manifest.json").read_text())
    assert [(d["code"], d["confirmed"]) for d in made["diseases"]] == [("D0", 1), ("D4", 3), ("D7", 2)]
    assert made["network"]["sha256"] != first["network"]["sha256"]


def test_its_classes_are_the_diseases_of_the_manifest_in_that_order(trained: Trained, tmp_path: Path) -> None:
    codes = {"D8": 1, "D3": 2, "D6": 1}
    table = trained.table(tmp_path / "s.csv", codes)
    assert meta_dx(trained.export(tmp_path / "out", "--support", table)) == 0
    made = AdaptedNetwork.load(tmp_path / "out")
    data = cohort.assemble(trained.project)
    row_of = dict(zip(data.store.index["study"], data.store.index["row"], strict=True))
    surrogates = Surrogates(Vault.open(trained.project.home).key)
    confirmed = pd.read_csv(table, dtype=str)
    rows = [row_of[surrogates.uid(study)] for study in confirmed["study_instance_uid"]]
    task = training.training_task(trained.project, data)
    learner = build_on_images("maml", task).eval()
    learner.load_state_dict(trained_learner(task, "maml").best["learner"])
    pictures = torch.from_numpy(np.asarray(data.store.images[np.array(rows)])).float()
    labels = torch.tensor([made.codes.index(code) for code in confirmed["code"]])
    state = {n: v.detach() for n, v in learner.adapt_task(pictures, labels, 3).items()}
    for seed in range(3):
        fresh = np.random.default_rng(seed).integers(0, 256, (1, 1, 16, 16), dtype=np.uint8)
        expected = learner.predict_task(state, torch.from_numpy(fresh).float()).softmax(-1)
        np.testing.assert_allclose(made.study(fresh), expected[0].detach().numpy(), atol=1e-4)
    assert expected.max() - expected.min() > 1e-2


def test_nothing_in_the_folder_names_a_patient_or_a_study(trained: Trained, out: Path) -> None:
    vault = Vault.open(trained.project.home)
    named = {**vault.all("study"), **vault.all("patient"), **vault.all("instance")}
    words = {word.encode() for pair in named.items() for word in pair}
    assert len(words) > 100
    for file in out.iterdir():
        content = file.read_bytes()
        assert not [word for word in words if word in content]
        assert str(trained.folder).encode() not in content
        assert b"/site-packages/" not in content


def test_the_network_runs_with_onnxruntime_alone(out: Path) -> None:
    code = (
        "import json, sys\nimport numpy as np, onnxruntime as ort\n"
        f"about = json.load(open({str(out / 'manifest.json')!r}))\n"
        f"session = ort.InferenceSession({str(out)!r} + '/' + about['network']['file'])\n"
        "shape = about['network']['input']['images'][1:]\n"
        "x = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)\n"
        "(p,) = session.run(['probabilities'], {'images': x})\n"
        "assert not {'torch', 'meta_dx'} & set(sys.modules)\n"
        "print(p.shape, len(about['diseases']), p.sum(1).round(4).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 3) 3 [1.0, 1.0, 1.0]\n"


def test_confirmed_cases_cannot_be_added_to_it_nor_is_it_a_bundle(
    trained: Trained,
    out: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    study = ["--study", "1.2.3"]
    table = str(trained.table(tmp_path / "s.csv", {"D6": 1, "D7": 1}))
    commands = [
        ["support", "add", "--code", "D6", *study, "--home", str(out)],
        ["support", "correct", "--code", "D6", *study, "--home", str(out)],
        ["support", "remove", "--code", "D6", "--home", str(out)],
        ["predict", "--bundle", str(out), "--support", table, "--studies", str(trained.folder / "studies")],
        [
            "evaluate",
            "--bundle",
            str(out),
            "--diagnoses",
            table,
            "--studies",
            str(trained.folder / "studies"),
        ],
    ]
    told = {refused(caplog, command) for command in commands}
    monkeypatch.setenv("META_DX_HOME", str(out))
    told.add(refused(caplog, ["support", "list"]))
    assert len(told) == 1
    for part in (
        "adapted once",
        "none can be added",
        "'meta-dx export-adapted'",
        "'meta-dx support add'",
        str(out),
    ):
        assert part in told.copy().pop()
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before


def test_what_cannot_be_exported_is_told_with_what_to_do_and_leaves_nothing(
    trained: Trained, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = tmp_path / "new"
    two = trained.table(tmp_path / "two.csv", {"D6": 2, "D7": 2})
    sentence = refused(caplog, trained.export(where, "--support", two))
    assert "'maml' was trained for 3 diseases, and 2 are confirmed" in sentence
    strange = tmp_path / "strange.csv"
    strange.write_text("study_instance_uid,code\n9.9.9,D6\n1.2.777.880,D7\n")
    sentence = refused(caplog, trained.export(where, "--support", strange))
    assert "1 of the 2 studies" in sentence
    assert "9.9.9" not in sentence
    sentence = refused(caplog, trained.export(where, learner="reptile"))
    assert "no finished 'reptile'" in sentence
    assert "meta-dx train" in sentence
    assert "meta-dx export'" in refused(caplog, trained.export(where, learner="anp"))
    assert "proto_maml" in refused(caplog, trained.export(where, learner="mann"))
    before = sorted(out.iterdir())
    assert "--out" in refused(caplog, trained.export(out))
    assert sorted(out.iterdir()) == before
    assert not where.exists()
    assert not list(tmp_path.glob(".*"))
