"""The whole way from a real archive into the catalog, over DICOMweb, C-GET and C-MOVE."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.fetch import clear_landed, fetch, landing_folder
from meta_dx.cohort.ingest import ingest_folder, plan_batches
from meta_dx.dicom.pacs.credentials import PASSWORD_VARIABLE, USER_VARIABLE
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from meta_dx.steps import open_project
from meta_dx.steps.incoming import pending_batches
from meta_dx.steps.incoming import take_in as take_in_batch
from tests.dicom.builders import picture, uid_of, write_instance, write_study
from tests.orthanc import OUR_TITLE, PASSWORD, USER, Orthanc, free_port

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[3]
# storescu proposes the syntaxes that a profile lists.
STORESCU = str(Path(__file__).with_name("storescu.cfg"))


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


@pytest.mark.parametrize("way", ["dicomweb", "get"])
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("modality=CT", 9),
        ("modality=MR,CT", 18),
        ("from=2021-01-01", 12),
        ("from=2020-06-15&to=2021-06-15&modality=MR", 6),
        ("to=2019-12-31", 0),
        ("body_part=chest", 6),
        ("body_part=HE*&modality=CT", 6),
        ("description=Study CT", 9),
        ("description=Study MR?", 9),
    ],
)
def test_filters_let_through_what_they_name(orthanc, home, source, quick, way, query, count) -> None:
    if not orthanc.rest("GET", "/instances"):
        orthanc.put(small_archive(source))
    assert fetch(home, address(orthanc, way, query), options=quick).fetched == count


def test_small_pages_bring_everything(orthanc, home, source) -> None:
    orthanc.put(small_archive(source))
    options = PacsOptions(page_size=2, retries=0)
    assert fetch(home, orthanc.dicomweb, options=options).fetched == 18


@pytest.mark.parametrize("way", ["dicomweb", "get", "move"])
def test_the_next_night_takes_only_what_is_new(orthanc, home, source, quick, way) -> None:
    where = address(orthanc, way)
    orthanc.put(write_study(source / "a", images=3, study="A", patient="P1"))
    assert fetch(home, where, options=quick).fetched == 3
    take_in(home, where)
    second = fetch(home, where, options=quick)
    assert (second.found, second.fetched, second.already_here) == (3, 0, 3)
    orthanc.put(write_study(source / "b", images=2, study="B", patient="P2"))
    orthanc.put([write_instance(source / "c", study="A", patient="P1", instance="late")])
    third = fetch(home, where, options=quick)
    assert (third.found, third.fetched, third.already_here) == (6, 3, 3)
    take_in(home, where)
    assert len(Catalog(home).instances()) == 6
    assert plan_batches(home, [landing_folder(home, where)]) == []


def test_a_study_that_has_been_quiet_is_not_looked_into_unless_its_counts_change(
    orthanc, home, source, quick, monkeypatch
) -> None:
    from meta_dx.dicom.pacs.dicomweb import DicomWebArchive

    options = replace(quick, recheck_days=0)
    orthanc.put(write_study(source / "a", images=3, study="A", patient="P1"))
    orthanc.put(write_study(source / "b", images=3, study="B", patient="P2"))
    fetch(home, orthanc.dicomweb, options=options)
    looked: list[str] = []
    whole = DicomWebArchive.instances
    monkeypatch.setattr(
        DicomWebArchive, "instances", lambda self, study: looked.append(study.uid) or whole(self, study)
    )
    assert fetch(home, orthanc.dicomweb, options=options).already_here == 6
    assert looked == []
    orthanc.put([write_instance(source / "c", study="B", patient="P2", instance="late")])
    assert fetch(home, orthanc.dicomweb, options=options).fetched == 1
    assert looked == [uid_of("B")]


@pytest.mark.parametrize("way", ["dicomweb", "get", "move"])
def test_an_instance_that_changes_on_the_server_is_fetched_again_and_counted_as_a_conflict(
    orthanc, home, source, quick, way
) -> None:
    where = address(orthanc, way)
    files = write_study(source / "a", images=3, study="A", patient="P1")
    orthanc.put(files)
    fetch(home, where, options=quick)
    take_in(home, where)
    before = instances(home)
    orthanc.put(
        [
            write_instance(
                source / "b",
                study="A",
                patient="P1",
                instance="A image 1",
                InstanceNumber=2,
                pixels=picture("other", (24, 16)),
            )
        ]
    )
    again = fetch(home, where, options=quick)
    assert (again.found, again.fetched, again.changed, again.already_here) == (3, 1, 1, 2)
    summary = ingest_folder(home, landing_folder(home, where))
    assert summary.rejected == {"conflicting_instance": 1} and summary.accepted == 0
    pd.testing.assert_frame_equal(instances(home), before)
    clear_landed(home, landing_folder(home, where))
    assert fetch(home, where, options=quick).already_here == 3, "once is enough"


def test_again_fetches_what_is_here_and_ingest_counts_duplicates(orthanc, home, source, quick) -> None:
    orthanc.put(write_study(source, images=3))
    fetch(home, orthanc.dicomweb, options=quick)
    take_in(home, orthanc.dicomweb)
    assert fetch(home, orthanc.dicomweb, options=quick, again=True).fetched == 3
    assert ingest_folder(home, landing_folder(home, orthanc.dicomweb)).duplicates == 3


@pytest.mark.parametrize("way", ["dicomweb", "get", "move"])
def test_killed_in_mid_transfer_and_run_again_everything_is_here_once(
    orthanc, home, source, quick, way
) -> None:
    where = address(orthanc, way)
    files = [
        write_instance(source, study="A", patient="P1", instance=f"i{n}", pixels=picture(n, (256, 256)))
        for n in range(60)
    ]
    orthanc.put(files)
    other = twin(home, "from-folder")
    ingest_folder(other, source)
    folder = landing_folder(home, where)
    command = (
        "import sys; from meta_dx.home import Home; from meta_dx.cohort.fetch import fetch; "
        "from meta_dx.dicom.pacs.options import PacsOptions; "
        "fetch(Home.open(sys.argv[1]), sys.argv[2], options=PacsOptions(listen_port=int(sys.argv[3])))"
    )
    landed: list[int] = []
    for wanted in (4, 20):
        run = subprocess.Popen(
            [sys.executable, "-c", command, home.root, where, str(orthanc.listener)], cwd=ROOT
        )
        until = time.monotonic() + 60
        while len(list(folder.iterdir())) < wanted and run.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        run.kill()
        assert run.wait(timeout=30) == -signal.SIGKILL, "it was killed before it was done"
        landed.append(len(list(folder.iterdir())))
    assert 4 <= landed[0] <= landed[1] < 60
    time.sleep(1)  # the archive of a killed C-MOVE may still be sending
    summary = fetch(home, where, options=quick)
    assert (summary.found, summary.fetched, summary.already_here) == (60, 60 - landed[1], landed[1])
    take_in(home, where)
    pd.testing.assert_frame_equal(
        instances(home).drop(columns="content"), instances(other).drop(columns="content")
    )


@pytest.mark.parametrize(("user", "password"), [(USER, "Wrong-s3cret"), ("", "")])
def test_wrong_credentials_are_one_sentence_and_status_2(
    orthanc, home, source, monkeypatch, caplog, user, password
) -> None:
    for name, value in ((USER_VARIABLE, user), (PASSWORD_VARIABLE, password)):
        monkeypatch.setenv(name, value)
    assert meta_dx(["fetch", orthanc.dicomweb, "--home", str(home.root)]) == 2
    assert "refuses the login" in caplog.text and "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"address": "dimse://WRONG@127.0.0.1:{port}"}, "is not called WRONG"),
        ({"ae_title": "STRANGER"}, "does not know us as STRANGER"),
    ],
)
def test_a_refused_association_is_one_sentence(orthanc, home, source, quick, change, told) -> None:
    orthanc.put(write_study(source, images=1))
    where = change.get("address", orthanc.dimse_address).format(port=orthanc.dimse)
    options = replace(quick, ae_title=change.get("ae_title", "META_DX"))
    with pytest.raises(MetaDxError, match=told):
        fetch(home, where, options=options)


def test_a_listener_that_the_archive_does_not_know_is_a_code_each(orthanc, home, source, quick) -> None:
    orthanc.put(write_study(source, images=2))
    where = (
        f"{orthanc.dimse_address}?move_to=NOBODY"  # Orthanc calls it a refusal, not an unknown destination
    )
    assert fetch(home, where, options=quick).failed == {"refused": 2}


@pytest.mark.parametrize("way", ["dicomweb", "get"])
def test_an_instance_whose_file_the_archive_has_lost_is_a_code_and_the_other_studies_come(
    orthanc, home, source, quick, way
) -> None:
    orthanc.put(write_study(source / "a", images=4, study="A"))
    lost = orthanc.rest("GET", "/instances")[1]
    orthanc.put(write_study(source / "b", images=3, study="B"))
    attached = orthanc.rest("GET", f"/instances/{lost}/attachments/dicom/info")["Uuid"]
    (orthanc.folder / "storage" / attached[:2] / attached[2:4] / attached).unlink()
    summary = fetch(home, address(orthanc, way), options=quick)
    # Orthanc reads the files to list them, and lists nothing of a series of which one is gone.
    assert (summary.found, summary.fetched, summary.failed) == (7, 3, {"not_listed": 4})


def test_storescu_sends_to_the_listener_and_the_source_is_taken_in(home, source, tmp_path) -> None:
    # pynetdicom installs a program of the same name beside Python; dcmtk's is known by its dump.
    folders = [one for one in os.environ["PATH"].split(os.pathsep) if shutil.which("dcmdump", path=one)]
    storescu = shutil.which("storescu", path=os.pathsep.join(folders))
    if storescu is None:
        pytest.skip("storescu is not installed (Debian: dcmtk)")
    sent = small_archive(source)
    (tmp_path / "c.toml").write_text('[cohort]\nname = "c"\nsources = ["received:"]\n')
    port = free_port()
    options = ["--home", str(home.root), "--port", str(port), "--allow", "SENDER"]
    run = subprocess.Popen(
        [sys.executable, "-m", "meta_dx.cli", "receive", *options], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert run.stdout is not None and b"listens" in run.stdout.readline()
        for title, fine in (("STRANGER", False), ("SENDER", True)):
            command = [
                storescu,
                "-aet",
                title,
                "-aec",
                "META_DX",
                "-xf",
                STORESCU,
                "Any",
                "127.0.0.1",
                str(port),
            ]
            done = subprocess.run([*command, *map(str, sent)], capture_output=True, timeout=60, check=False)
            assert (done.returncode == 0) is fine, done.stderr
    finally:
        run.send_signal(signal.SIGTERM)
        told = run.communicate(timeout=30)[0]
    assert b"received 18 instances, refused 0" in told
    project = open_project(tmp_path / "c.toml", home.root)
    (batch,) = pending_batches(project)
    assert take_in_batch(project, batch.id).accepted == 18
    assert not any(landing_folder(home, "received:").iterdir())
    other = Home.open(tmp_path / "other")
    assert ingest_folder(other, source).accepted == 18
    mine, theirs = Catalog(home).instances(), Catalog(other).instances()
    assert sorted(mine["transfer_syntax"]) == sorted(theirs["transfer_syntax"]), "as it was encoded"


def test_the_command_line_fetches_and_takes_in_in_one_go(orthanc, home, source, capsys) -> None:
    orthanc.put(small_archive(source))
    for accepted, already in ((18, 0), (0, 18)):
        assert meta_dx(["ingest", orthanc.dicomweb, "--home", str(home.root), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["accepted"] == accepted and told["fetch"]["already_here"] == already
    assert meta_dx(["fetch", orthanc.dicomweb, "--home", str(home.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "source": orthanc.dicomweb,
        "found": 18,
        "fetched": 0,
        "already_here": 18,
        "failed": {},
        "changed": 0,
        "studies": 6,
        "not_fetched": [],
    }


def test_a_cohort_whose_source_is_an_archive_is_fetched_taken_in_and_checked(
    orthanc, home, source, tmp_path, capsys
) -> None:
    orthanc.put(small_archive(source))
    (tmp_path / "c.toml").write_text(f'[cohort]\nname = "c"\nsources = ["{orthanc.dicomweb}?modality=CT"]\n')
    common = ["--cohort", str(tmp_path / "c.toml"), "--home", str(home.root)]
    assert meta_dx(["validate", *common, "--json"]) == 0
    assert len(Catalog(home).instances()) == 9
    secrets = (PASSWORD, str(orthanc.http))
    stored = [file for file in home.root.rglob("*") if file.is_file() and "private" not in file.parts]
    assert not [file for file in stored for secret in secrets if secret.encode() in file.read_bytes()]
