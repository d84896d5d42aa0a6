"""A token planted everywhere in every file is found in the vault and nowhere else, also when things go wrong."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meta_dx.cli.app import run as meta_dx
from tests.dicom.builders import picture
from tests.dicom.planted import DATE, TOKEN, UID, planted_file
from tests.pipelines.failing_run import FAULTS
from tests.pipelines.leaks import leaks, said

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DISEASES = {"D0": 8, "D1": 8, "D2": 8, "D3": 6, "D4": 6, "D5": 5, "D6": 5, "": 2}
NOBODY_KNOWS = ""  # what these patients have
COHORT = """\
[cohort]
name = "planted"
sources = ["{source}"]
diagnoses = "diagnoses.csv"
device = "cpu"

[images]
size = 16

[split]
common_min = {common}
validation_min = 6
rare_min = 5

[training]
pretrain_epochs = 1
episodes = 2
validation_episodes = 4

[evaluation]
ways = 2
shots = [1]
queries = 2
episodes = 4
repeats = 1

[serve]
max_shots = 2
"""


@dataclass
class Planted:
    """A cohort of planted files, its homes, and everything that was said."""

    folder: Path
    said: dict[str, str] = field(default_factory=dict)

    def command(self, name: str, *arguments: str) -> int:
        """Run a command of the package in a process, and keep what it said."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.said[name] = done.stdout + done.stderr
        return done.returncode


def write_source(folder: Path) -> None:
    rows, number = [], 0
    for code, patients in DISEASES.items():
        for _ in range(patients):
            number += 1
            study, patient = f"{UID}.{number}", f"{TOKEN}{number}"
            planted_file(
                folder / "studies", name=f"{TOKEN} {number}/{TOKEN}^{number}.dcm", step=40, depth=4,
                packed=number % 5 == 0, PatientID=patient, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1",
                SOPInstanceUID=f"{study}.1.1", AccessionNumber=f"{TOKEN}{number}"[:16],
                pixels=picture(f"{code} {number}", (24, 24), bits=12),
            )  # fmt: skip
            if code != NOBODY_KNOWS:
                rows.append([study, patient, f"{TOKEN}{number}", code, "99T", f"Disease {code}"])
    whole = next((folder / "studies").rglob("*.dcm"))
    (folder / "studies" / f"{TOKEN} cut.dcm").write_bytes(whole.read_bytes()[:-3000])
    (folder / "studies" / f"{TOKEN} letter.txt").write_text(f"About {TOKEN}, born {DATE}\n")
    for number in range(3):
        planted_file(folder / "nameless", name=f"{TOKEN}{number}.dcm", step=40, PatientID=None)
    with (folder / "diagnoses.csv").open("w", newline="") as stream:
        names = ("study_instance_uid", "patient_id", "accession_number", "code", "coding_scheme", "meaning")
        csv.writer(stream).writerows([names, *rows])
    for name, source, common in (
        ("good", "studies", 8),
        ("blocked", "nameless", 8),
        ("impossible", "studies", 500),
    ):
        (folder / f"{name}.toml").write_text(COHORT.format(source=source, common=common))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    made = Planted(tmp_path_factory.mktemp("planted"))
    write_source(made.folder)
    good, cohort = made.folder / "good", made.folder / "good.toml"
    os.environ.update(META_DX_HOME=str(good), META_DX_COHORT=str(cohort))
    try:
        assert made.command("run", "pipelines.run") == 0, made.said["run"][-3000:]
    finally:
        del os.environ["META_DX_HOME"], os.environ["META_DX_COHORT"]
    return made


def fails(planted: Planted, name: str, *arguments: str) -> None:
    assert planted.command(name, "meta_dx.cli", *arguments) == 2, planted.said[name][-2000:]


def test_a_whole_run_leaves_the_token_in_the_vault_only(planted: Planted) -> None:
    home = planted.folder / "good"
    assert leaks(home) == {}
    vault = b"".join(path.read_bytes() for path in (home / "private").iterdir() if path.is_file())
    assert TOKEN.encode() in vault and UID.encode() in vault
    for store in ("objects", "catalog", "images", "bundles", "dagster", "validation", "evaluations"):
        assert any(path.is_file() for path in (home / store).rglob("*")), store
    assert said(planted.said["run"].encode()) == []
    assert (home / "private").stat().st_mode & 0o077 == 0


def failed_run(planted: Planted, home: Path, *arguments: str) -> None:
    """Make a run that fails, and look for the token in what it said and in everything it has left."""
    name = " ".join(arguments[:2])
    status = planted.command(name, "tests.pipelines.failing_run", *arguments, str(home))
    assert status in (1, 2), planted.said[name][-2000:]
    assert said(planted.said[name].encode()) == []
    assert leaks(home) == {}


def events_of_failures(home: Path) -> str:
    """Return the events of the runs that failed last, as Dagster's UI shows them."""
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        (run, *_) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1)
        events = [
            one.dagster_event.event_specific_data
            for one in instance.all_logs(run.run_id)
            if one.dagster_event is not None and one.dagster_event.is_step_failure
        ]
        return "\n".join(str(one.error) for one in events)


@pytest.mark.parametrize("how", ["run", "job"])
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "nothing"])
def test_a_library_that_quotes_a_file_is_quoted_by_no_event(
    planted: Planted, tmp_path: Path, name: str, how: str
) -> None:
    home, fault = tmp_path / "home", FAULTS[name]
    if fault.anew is not None:
        shutil.copytree(planted.folder / "good", home, ignore=shutil.ignore_patterns(*fault.anew))
    failed_run(planted, home, name, how, str(planted.folder / "good.toml"))
    kept = "".join(path.read_text() for path in (home / "private" / "faults").iterdir())
    assert TOKEN in kept, "nothing quoted anything"
    outside = (name, how) == ("looking", "run")  # sources are looked through before there is a run
    assert fault.told in (planted.said[f"{name} {how}"] if outside else events_of_failures(home))


@pytest.mark.parametrize("how", ["run", "job"])
def test_the_events_of_a_batch_that_is_refused_name_no_patient(
    planted: Planted, tmp_path: Path, how: str
) -> None:
    home, cohort = tmp_path / "home", str(planted.folder / "blocked.toml")
    failed_run(planted, home, "nothing", how, cohort)
    events = "".join(path.read_bytes().decode("latin-1") for path in (home / "dagster").rglob("*.db"))
    assert "ASSET_CHECK_EVALUATION" in events and "few_files_damaged" in events


def test_failures_say_nothing_of_a_patient(planted: Planted) -> None:
    folder, good = planted.folder, planted.folder / "good"
    for name, commands in (("blocked", ["validate", "train"]), ("impossible", ["train"])):
        for command in commands:
            cohort, home = str(folder / f"{name}.toml"), str(folder / name)
            fails(planted, f"{name} {command}", command, "--cohort", cohort, "--home", home)
        assert leaks(folder / name) == {}
    (bundle,) = [path for path in (good / "bundles").iterdir() if path.is_dir()]
    broken = folder / "broken"
    broken.mkdir()
    for path in bundle.rglob("*"):
        target = broken / path.relative_to(bundle)
        target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    (broken / "configs" / "metadata.json").write_text("{}")
    (folder / "support.csv").write_text(f"study_instance_uid,code\n{UID}.1,D0\n{UID}.9,D1\n")
    studies, support = str(folder / "studies"), str(folder / "support.csv")
    fails(planted, "broken", "predict", "--bundle", str(broken), "--support", support, "--studies", studies)
    nowhere = str(folder / "nameless")
    fails(planted, "nobody", "predict", "--bundle", str(bundle), "--support", support, "--studies", nowhere)
    for name, text in planted.said.items():
        assert said(text.encode()) == [], name


def test_what_commands_print_for_people_names_the_files(
    planted: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert meta_dx(["rejections", "--home", str(planted.folder / "good")]) == 0
    assert TOKEN in capsys.readouterr().out


def test_handing_out_leaves_the_token_behind(planted: Planted, caplog: pytest.LogCaptureFixture) -> None:
    out = planted.folder / "out"
    with caplog.at_level(logging.DEBUG):
        home = str(planted.folder / "good")
        assert (
            meta_dx(["deidentify", str(planted.folder / "studies"), str(out), "--home", home, "--json"]) == 0
        )
    assert len(list(out.glob("*.dcm"))) == sum(DISEASES.values())
    assert leaks(out) == {} and TOKEN not in caplog.text
