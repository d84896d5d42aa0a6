"""One study, of which some files name the issuer of the patient's number and others do not."""

import itertools
import random
import zipfile

import pytest
from pydicom import dcmread

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.cohort.objects import ObjectStore
from meta_dx.dicom.identity import Surrogates
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.dicom.builders import picture, write_instance


def plant(source, name, issuer, **options):
    named = {"IssuerOfPatientID": issuer} if issuer else {}
    options = {"patient": "12", "study": "S", "series": f"series of {name}", "instance": name} | options
    return write_instance(source, name=name, InstanceNumber=1, **named, **options)


def patient(home, issuer=None):
    return Surrogates(Vault.open(home).key).patient("12", issuer)


def patients(home):
    """Return the patients of the catalog, after a look at every object and date."""
    instances = Catalog(home).instances()
    surrogates, store = Surrogates(Vault.open(home).key), ObjectStore(home)
    for row in instances.itertuples():
        kept = store.read(row.object)
        assert kept.PatientID == row.patient and kept.StudyDate == row.study_date.replace("-", "")
    assert instances["study_date"].nunique() == 1
    stored = {path.stem for path in home.objects.rglob("*.dcm")}
    assert stored == set(instances["object"])
    assert Vault.open(home).originals("patient", set(instances["patient"])).keys() == set(
        instances["patient"]
    )
    assert surrogates.shift_days(instances["patient"][0]) > 0
    return set(instances["patient"])


@pytest.mark.parametrize("order", list(itertools.permutations(["HOSP", "HOSP", "", ""]))[::5])
def test_some_files_with_an_issuer_make_no_second_patient_whatever_their_order(home, source, order):
    for number, issuer in enumerate(order):
        plant(source, f"{number}.dcm", issuer)
    summary = ingest_folder(home, source)
    assert (summary.accepted, summary.rejected, summary.studies, summary.patients) == (4, {}, 1, 1)
    assert patients(home) == {patient(home, "HOSP")}


def test_the_same_in_archives(home, source):
    for place, issuers in (("a.zip", ["", ""]), ("b.zip", ["HOSP", ""])):
        source.mkdir(exist_ok=True)
        with zipfile.ZipFile(source / place, "w") as archive:
            for number, issuer in enumerate(issuers):
                archive.write(plant(source.parent / "out", f"{place}{number}", issuer), f"{number}.dcm")
    assert ingest_folder(home, source).accepted == 4
    assert patients(home) == {patient(home, "HOSP")}


@pytest.mark.parametrize("first", ["HOSP", ""])
def test_a_study_keeps_the_patient_of_the_ingest_that_brought_it(home, source, first):
    plant(source, "m.dcm", first)
    ingest_folder(home, source)
    for name, issuer in (("a.dcm", "HOSP"), ("b.dcm", ""), ("x.dcm", "HOSP")):
        plant(source, name, issuer)
    assert ingest_folder(home, source).accepted == 3
    assert patients(home) == {patient(home, first)}


@pytest.mark.parametrize("before", [True, False])
def test_two_issuers_are_two_patients(home, source, before):
    plant(source, "1.dcm", "")
    if before:
        ingest_folder(home, source)
    plant(source, "2.dcm", "NORTH")
    plant(source, "3.dcm", "SOUTH")
    plant(source, "4.dcm", "NORTH")
    assert ingest_folder(home, source).rejected == {"study_of_two_patients": 1}
    assert patients(home) == {patient(home, None if before else "NORTH")}


def test_another_number_is_another_patient(home, source):
    plant(source, "1.dcm", "")
    plant(source, "2.dcm", "HOSP", patient="13")
    plant(source, "3.dcm", "", patient="13")
    assert ingest_folder(home, source).rejected == {"study_of_two_patients": 2}
    assert patients(home) == {patient(home)}


@pytest.mark.parametrize("order", [("HOSP", ""), ("", "HOSP")])
def test_an_instance_with_and_without_the_issuer_is_one(home, source, order):
    for number, issuer in enumerate(order):
        plant(source, f"{number}.dcm", issuer, instance="I", series="R", pixels=picture(1))
    plant(source, "9.dcm", order[0], instance="I", series="R", pixels=picture(2))
    summary = ingest_folder(home, source)
    assert (summary.accepted, summary.duplicates) == (1, 1)
    assert summary.rejected == {"conflicting_instance": 1}
    assert patients(home) == {patient(home, "HOSP")}


def test_a_file_of_a_series_of_another_study_names_no_issuer_for_its_own(home, source):
    plant(source, "0.dcm", "", study="T", series="R")
    plant(source, "1.dcm", "")
    plant(source, "2.dcm", "HOSP", series="R")
    assert ingest_folder(home, source).rejected == {"series_of_two_studies": 1}
    assert patients(home) == {patient(home)}


def test_what_is_known_and_what_is_new_agree_after_many_ingests_in_any_order(tmp_path):
    rng = random.Random()
    files = [(f"{number:02}.dcm", issuer) for number, issuer in enumerate(["", "HOSP"] * 6)]
    rng.shuffle(files)
    home, source = Home.open(tmp_path / "home"), tmp_path / "source"
    while files:
        for _ in range(min(len(files), rng.randint(1, 4))):
            name, issuer = files.pop()
            plant(source, name, issuer)
        summary = ingest_folder(home, source)
        assert summary.rejected == {} and summary.patients == 1
    assert len(patients(home)) == 1 and len(Catalog(home).instances()) == 12
    again = ingest_folder(home, source)
    assert (again.accepted, again.duplicates) == (0, 12)


def test_a_killed_ingest_ends_with_the_same_batch(home, source, monkeypatch):
    from meta_dx.cohort import ingest

    for number, issuer in enumerate(["", "", "HOSP"]):
        plant(source, f"{number}.dcm", issuer)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ingest, "write_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        ingest_folder(home, source)
    assert ingest_folder(home, source).accepted == 3
    assert patients(home) == {patient(home, "HOSP")}
    assert dcmread(source / "0.dcm").get("IssuerOfPatientID") is None  # the source is only read


@pytest.mark.parametrize("archived", [False, True])
def test_what_a_killed_ingest_took_and_what_has_come_since_are_counted_once(
    home, source, monkeypatch, archived
):
    from meta_dx.cohort import ingest

    def place(name, issuer, instance):
        path = plant(
            source.parent / "out" if archived else source, name, issuer, instance=instance, series="R"
        )
        if archived:
            source.mkdir(exist_ok=True)
            with zipfile.ZipFile(source / f"{name}.zip", "w") as archive:
                archive.write(path, name)

    place("2.dcm", "HOSP", "X")
    place("9.dcm", "HOSP", "Y")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ingest, "write_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        ingest_folder(home, source)
    place("1.dcm", "", "X")
    summary = ingest_folder(home, source)
    assert (summary.found, summary.accepted, summary.duplicates) == (3, 2, 1)
    counts = Catalog(home).summary(Catalog(home).batches()[-1])
    assert (counts["found"], counts["accepted"], counts["duplicates"]) == (3, 2, 1)
    assert patients(home) == {patient(home, "HOSP")}
