"""``meta-dx predictions --json``: the fields of ``predict`` under original identifiers, null where there is nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from meta_dx.cli.app import app
from meta_dx.home import Home
from meta_dx.records.database import Records
from meta_dx.records.predictions import (
    EvidenceCase,
    NearestCase,
    PredictedStudy,
    PredictionRun,
    save_prediction_run,
)
from meta_dx.records.support import SupportCase, SupportSets
from meta_dx.records.vault import Vault

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/contract-schemas/predict.schema.json").read_text())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with one answer of a head that knows its uncertainty and one of a plain head."""
    home = Home.open(tmp_path / "home", "trial")
    vault = Vault.open(home)
    with vault.transaction():
        vault.remember("study", {f"2.25.{n}": f"1.2.{n}" for n in range(3)})
        vault.remember("instance", {"2.25.77": "1.2.0.7"})
    records = Records.open(home)
    SupportSets(records).add([SupportCase("X", "SCT", "Disease X", "2.25.0", "P")], "Dr A", "test")
    nearest = (NearestCase("2.25.0", "X", 0.9),)
    rows = [
        PredictedStudy(
            "2.25.1",
            {"X": 0.25, "Y": 0.75},
            0.56,
            nearest,
            epistemic=0.06,
            aleatoric=0.5,
            interval={"X": (0.2, 0.4), "Y": (0.6, 0.8)},
            evidence=(EvidenceCase("2.25.0", "X", "2.25.77", 1.0),),
        ),
        PredictedStudy("2.25.2", {"X": 0.5, "Y": 0.5}, 0.69, nearest),
    ]
    save_prediction_run(records, PredictionRun("bundle", 1, "v0001", "data", "b0001"), rows)
    return home


def test_answers_have_their_uncertainty_and_evidence_under_original_identifiers(home: Home) -> None:
    done = CliRunner().invoke(app, ["predictions", "--home", str(home.root), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    sure, plain = sorted(found, key=lambda one: one["study_instance_uid"])
    assert sure["study_instance_uid"] == "1.2.1"
    assert (sure["epistemic"], sure["aleatoric"]) == (0.06, 0.5)
    assert sure["interval"] == {"X": [0.2, 0.4], "Y": [0.6, 0.8]}
    assert sure["evidence"] == [
        {"study_instance_uid": "1.2.0", "code": "X", "image": "1.2.0.7", "frame": 0, "weight": 1.0}
    ]
    assert [plain[name] for name in ("epistemic", "aleatoric", "interval", "evidence")] == [None] * 4
    assert "2.25." not in done.stdout


def test_the_table_for_people_calls_diseases_by_their_names(home: Home) -> None:
    done = CliRunner().invoke(app, ["predictions", "--home", str(home.root)])
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if line.startswith("1.2.1 "))
    assert re.split("  +", row) == ["1.2.1", "0.75 Y", "0.25 Disease X", "0.560", "Disease X", "1.2.0"], (
        "a code where no name is known"
    )
    assert "2 studies" in done.stdout
