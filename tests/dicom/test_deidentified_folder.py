"""A folder of files becomes a folder without identities: complete, repeatable, and never over foreign files."""

import json
import os
import zipfile
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread

from meta_dx.cli.app import run as meta_dx
from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.cohort.seen import patients_of_studies
from meta_dx.dicom import deidentified_folder
from meta_dx.dicom.deidentified_folder import REPORT
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.profile import ProfileOptions
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.dicom.builders import picture, write_instance

KEY, OPTIONS = b"a key of the test, 32 bytes long", ProfileOptions()


deidentify_folder = partial(deidentified_folder.deidentify_folder, workers=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    write_instance(folder, name="a.dcm", patient="A")
    write_instance(folder, name="b.dcm", patient="B")
    (folder / "again.dcm").write_bytes((folder / "a.dcm").read_bytes())
    (folder / "cut.dcm").write_bytes((folder / "a.dcm").read_bytes()[:600])
    write_instance(folder, name="screen.dcm", patient="C", ConversionType="WSD")
    (folder / "note.txt").write_text("no picture")
    return folder


def counts(made) -> tuple[int, int, int, int, int, dict[str, int]]:
    return made.found, made.written, made.unchanged, made.duplicates, made.not_dicom, made.refused


def everything(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


def test_every_file_is_accounted_for_and_a_second_run_writes_nothing(tmp_path, source):
    before, out = everything(source), tmp_path / "out"
    refused = {"secondary_capture": 1, "truncated": 1}
    first = deidentify_folder(source, out, KEY, OPTIONS)
    assert counts(first) == (6, 2, 0, 1, 1, refused)
    assert {Path(file.path).name for file in first.files} == {"cut.dcm", "screen.dcm"}
    names = {path.stem for path in out.glob("*.dcm")}
    assert names == {dcmread(path).SOPInstanceUID for path in out.glob("*.dcm")} and len(names) == 2
    made = everything(out)
    assert counts(deidentify_folder(source, out, KEY, OPTIONS)) == (6, 0, 2, 1, 1, refused)
    again = everything(out)
    assert {p: c for p, c in again.items() if p.name != REPORT} == {
        p: c for p, c in made.items() if p.name != REPORT
    }
    assert everything(source) == before


def test_a_run_that_was_interrupted_goes_on(tmp_path, source):
    whole, half = tmp_path / "whole", tmp_path / "half"
    deidentify_folder(source, whole, KEY, OPTIONS)
    deidentify_folder(source, half, KEY, OPTIONS)
    sorted(half.glob("*.dcm"))[0].unlink()
    assert counts(deidentify_folder(source, half, KEY, OPTIONS))[1:3] == (1, 1)
    assert {p.name: p.read_bytes() for p in half.glob("*.dcm")} == {
        p.name: p.read_bytes() for p in whole.glob("*.dcm")
    }


def test_foreign_files_are_never_written_over(tmp_path, source):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for place in (out, source, source / "a.dcm"):
        with pytest.raises(MetaDxError) as fault:
            deidentify_folder(source, place, KEY, OPTIONS)
        assert fault.value.code == "out_not_ours"
    (out / "mine.txt").unlink()
    deidentify_folder(source, out, KEY, OPTIONS)
    taken = sorted(out.glob("*.dcm"))[0]
    taken.write_bytes(b"another")
    assert deidentify_folder(source, out, KEY, OPTIONS).refused["conflicting_instance"] >= 1
    assert taken.read_bytes() == b"another"


@pytest.mark.parametrize("other", [(KEY[::-1], OPTIONS), (KEY, ProfileOptions(dates=False))])
def test_two_ways_of_making_are_not_mixed_in_one_folder(tmp_path, source, other):
    deidentify_folder(source, tmp_path / "out", KEY, OPTIONS)
    with pytest.raises(MetaDxError) as fault:
        deidentify_folder(source, tmp_path / "out", *other)
    assert fault.value.code == "out_of_other_options"


def test_the_result_may_lie_in_the_source(tmp_path, source):
    out = source / "out"
    deidentify_folder(source, out, KEY, OPTIONS)
    assert deidentify_folder(source, out, KEY, OPTIONS).found == 6


def test_files_in_an_archive_are_taken_too(tmp_path):
    path = write_instance(tmp_path / "x", name="a.dcm")
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as archive:
        archive.write(path, "deep/a.dcm")
    assert deidentify_folder(tmp_path / "in", tmp_path / "out", KEY, OPTIONS).written == 1


def test_two_contents_of_one_instance_are_not_both_written(tmp_path):
    for name in ("a", "b"):
        write_instance(tmp_path / "in", name=f"{name}.dcm", instance="same", pixels=picture(name))
    made = deidentify_folder(tmp_path / "in", tmp_path / "out", KEY, OPTIONS)
    assert (made.written, made.refused) == (1, {"conflicting_instance": 1})


def test_the_command_uses_the_surrogates_of_the_home_and_its_vault_remembers(tmp_path, source, capsys):
    home = Home.open(tmp_path / "home")
    ingest_folder(home, source)
    write_instance(source, name="later.dcm", patient="D")
    arguments = [
        "deidentify",
        str(source),
        str(tmp_path / "out"),
        "--home",
        str(home.root),
        "--json",
        "--workers",
        "1",
    ]
    assert meta_dx(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["found"] == 7 and answer["written"] == 3 and "identities" not in answer
    names = {path.stem for path in (tmp_path / "out").glob("*.dcm")}
    assert set(Catalog(home).instances()["instance"]) < names
    vault = Vault.open(home)
    assert set(vault.all("patient").values()) == {"A", "B", "D"}
    assert vault.originals("instance", names).keys() == names


def test_a_key_of_its_own_is_made_once_and_kept_private(tmp_path, source, capsys):
    key, command = (
        tmp_path / "partner.key",
        ["deidentify", str(source), str(tmp_path / "out"), "--workers", "1", "--key"],
    )
    assert meta_dx([*command, str(key)]) == 0 and os.stat(key).st_mode & 0o777 == 0o600
    first = key.read_text()
    assert meta_dx([*command, str(key), "--json"]) == 0 and key.read_text() == first
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["unchanged"] == 2
    (tmp_path / "bad.key").write_text("secret")
    assert meta_dx([*command, str(tmp_path / "bad.key")]) == 2
    assert first.strip() not in (tmp_path / "out" / REPORT).read_text()


def test_options_of_the_command_reach_the_files(tmp_path, source):
    out = tmp_path / "out"
    options = ["--no-dates", "--no-age-and-sex", "--allow", "secondary_capture", "--workers", "1"]
    assert meta_dx(["deidentify", str(source), str(out), "--key", str(tmp_path / "k"), *options]) == 0
    made = [dcmread(path) for path in out.glob("*.dcm")]
    assert len(made) == 3 and all(dataset.StudyDate == "" and "PatientAge" not in dataset for dataset in made)


def test_the_command_keeps_to_the_limits_of_the_cohort_file_and_not_to_what_it_allows(
    tmp_path, source, capsys, monkeypatch
):
    file = tmp_path / "cohort.toml"
    table = '[cohort]\nname = "x"\nsources = ["in"]\ndiagnoses = "d.csv"\n[ingest]\nallow = ["secondary_capture"]\n'
    file.write_text(f"{table}max_file_bytes = 300\n")

    def refused(out, *more):
        command = [
            "deidentify",
            str(source),
            str(tmp_path / out),
            "--key",
            str(tmp_path / "k"),
            "--workers",
            "1",
        ]
        assert meta_dx([*command, "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)["refused"]

    plain = refused("plain")
    assert plain["secondary_capture"] == 1 and "file_too_large" not in plain
    assert set(refused("named", "--cohort", str(file))) == {"file_too_large"}
    monkeypatch.setenv("META_DX_COHORT", str(file))
    assert set(refused("of the environment")) == {"file_too_large"}
    file.write_text(f"{table}max_file_bytes = 1000000\n")
    assert refused("raised") == plain


def plant(folder, name, issuer, **options):
    options = {"patient": "12", "study": "S", "series": f"series of {name}", "instance": name} | options
    options |= {"InstanceNumber": 1, "IssuerOfPatientID": issuer} if issuer else {"InstanceNumber": 1}
    return write_instance(folder, name=name, **options)


def patients(out: Path) -> set[tuple[str, str]]:
    """Return whose the files are, and their moved date."""
    made = [dcmread(path) for path in out.glob("*.dcm")]
    return {(dataset.PatientID, dataset.StudyDate) for dataset in made}


@pytest.mark.parametrize("order", [("HOSP", "HOSP", "", ""), ("", "HOSP", "", "HOSP"), ("", "", "", "HOSP")])
def test_a_study_in_which_some_files_name_the_issuer_has_one_patient_and_one_shift(tmp_path, order):
    source, out = tmp_path / "in", tmp_path / "out"
    for number, issuer in enumerate(order):
        plant(source, f"{number}.dcm", issuer)
    (source / "copy.dcm").write_bytes((source / "0.dcm").read_bytes())
    assert counts(deidentify_folder(source, out, KEY, OPTIONS)) == (5, 4, 0, 1, 0, {})
    ((patient, _),) = patients(out)
    assert patient == Surrogates(KEY).patient("12", "HOSP")
    made = everything(out)
    assert counts(deidentify_folder(source, out, KEY, OPTIONS)) == (5, 0, 4, 1, 0, {})
    assert {p: c for p, c in everything(out).items() if p.name != REPORT} == {
        p: c for p, c in made.items() if p.name != REPORT
    }


def test_a_result_from_before_the_issuer_was_known_is_made_anew(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    plant(source, "0.dcm", "")
    deidentify_folder(source, out, KEY, OPTIONS)
    plant(source, "1.dcm", "HOSP")
    assert counts(deidentify_folder(source, out, KEY, OPTIONS)) == (2, 2, 0, 0, 0, {})
    assert {patient for patient, _ in patients(out)} == {Surrogates(KEY).patient("12", "HOSP")}


def test_a_study_of_two_patients_and_a_series_of_two_studies_are_refused_as_at_ingest(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    plant(source, "0.dcm", "")
    plant(source, "1.dcm", "NORTH")
    plant(source, "2.dcm", "SOUTH")
    plant(source, "3.dcm", "", patient="13")
    plant(source, "4.dcm", "", study="T", series="series of 1.dcm")
    made = deidentify_folder(source, out, KEY, OPTIONS)
    assert counts(made) == (5, 2, 0, 0, 0, {"series_of_two_studies": 1, "study_of_two_patients": 2})
    assert {Path(file.path).name for file in made.files} == {"2.dcm", "3.dcm", "4.dcm"}
    assert {patient for patient, _ in patients(out)} == {Surrogates(KEY).patient("12", "NORTH")}


def test_a_refused_file_claims_no_study(tmp_path):
    source = tmp_path / "in"
    plant(source, "0.dcm", "", instance="I")
    plant(source, "1.dcm", "", instance="I", patient="9", study="T")
    plant(source, "2.dcm", "", study="T")
    made = deidentify_folder(source, tmp_path / "out", KEY, OPTIONS)
    assert (made.written, made.refused) == (2, {"conflicting_instance": 1})


def test_with_a_home_a_study_has_the_patient_of_its_catalog(tmp_path, capsys):
    source, home = tmp_path / "in", Home.open(tmp_path / "home")
    plant(source, "1.dcm", "")
    ingest_folder(home, source)
    plant(source, "0.dcm", "HOSP")
    out = tmp_path / "out"
    assert meta_dx(["deidentify", str(source), str(out), "--home", str(home.root), "--workers", "1"]) == 0
    assert {patient for patient, _ in patients(out)} == set(Catalog(home).instances()["patient"])
    assert len(list(out.glob("*.dcm"))) == 2


def test_what_was_written_before_the_home_knew_the_issuer_is_written_anew(tmp_path):
    source, other, out = tmp_path / "in", tmp_path / "other", tmp_path / "out"
    home = Home.open(tmp_path / "home")
    vault = Vault.open(home)

    def run():
        held = patients_of_studies(Catalog(home), vault)
        return counts(deidentify_folder(source, out, vault.key, OPTIONS, held=held))

    for name in ("1.dcm", "2.dcm", "3.dcm"):
        plant(source, name, "")
    assert run() == (3, 3, 0, 0, 0, {})
    plant(other, "9.dcm", "HOSP")
    ingest_folder(home, other)
    plant(source, "0.dcm", "HOSP", instance="1.dcm", series="series of 1.dcm")  # 1.dcm, with the issuer
    foreign = out / f"{Surrogates(vault.key).uid(dcmread(source / '3.dcm').SOPInstanceUID)}.dcm"
    own = foreign.read_bytes()
    foreign.write_bytes(b"another")
    assert run() == (4, 2, 0, 1, 0, {"conflicting_instance": 1})
    assert foreign.read_bytes() == b"another"
    foreign.write_bytes(own)  # as if a run had been killed between the second file and the third
    assert run() == (4, 1, 2, 1, 0, {})
    assert {patient for patient, _ in patients(out)} == set(Catalog(home).instances()["patient"])
    assert len(patients(out)) == 1
    before = {path: path.read_bytes() for path in out.glob("*.dcm")}
    assert run() == (4, 0, 3, 1, 0, {})
    assert {path: path.read_bytes() for path in out.glob("*.dcm")} == before


def test_a_copy_of_another_content_is_not_replaced_when_the_home_knows_the_issuer(tmp_path):
    source, other, out = tmp_path / "in", tmp_path / "other", tmp_path / "out"
    home = Home.open(tmp_path / "home")
    vault = Vault.open(home)
    plant(source, "1.dcm", "", instance="I", series="R", pixels=picture(1))
    deidentify_folder(source, out, vault.key, OPTIONS)
    before = everything(out)
    plant(other, "9.dcm", "HOSP")
    ingest_folder(home, other)
    plant(source, "1.dcm", "", instance="I", series="R", pixels=picture(2))
    held = patients_of_studies(Catalog(home), vault)
    made = deidentify_folder(source, out, vault.key, OPTIONS, held=held)
    assert (made.written, made.refused) == (0, {"conflicting_instance": 1})
    assert {p: c for p, c in everything(out).items() if p.name != REPORT} == {
        p: c for p, c in before.items() if p.name != REPORT
    }
