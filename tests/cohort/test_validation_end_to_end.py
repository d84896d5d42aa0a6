"""Every fault reaches its check from real files and a real CSV, and no original identity reaches the results."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000, JPEG2000Lossless

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import all_diagnoses, import_diagnoses
from meta_dx.cohort.ingest import IngestOptions, ingest_folder
from meta_dx.cohort.validation import (
    ValidationReport,
    diagnosis_checks,
    ingest_checks,
    validate_batch,
    validate_diagnoses,
)
from meta_dx.home import Home
from tests.dicom.builders import picture, uid_of, write_instance

CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PATIENTS = [f"KH-{number:04d}-MUSTERMANN" for number in range(60)]
COLUMNS = ["study_instance_uid", "patient_id", "accession_number", "code", "coding_scheme", "meaning"]


def write(folder: Path, number: int, visit: int = 0, **tags: Any) -> Path:
    """Write an image of a study of one patient, sound unless told otherwise."""
    study = f"study {visit} of {number}"
    sound: dict[str, Any] = {
        "patient": PATIENTS[number],
        "study": study,
        "pixels": picture(f"{study} {tags.get('InstanceNumber', 1)}", (40, 40)),
        "BodyPartExamined": "CHEST",
        "AccessionNumber": f"RIS{number}.{visit}",
        "BitsStored": 12,
        "HighBit": 11,
        "Manufacturer": "Acme",
    }
    return write_instance(folder, **{**sound, **tags})


def slice_of_ct(folder: Path, number: int, **tags: Any) -> Path:
    """Write a slice of a CT of one patient, sound unless told otherwise."""
    sound: dict[str, Any] = {
        "SOPClassUID": CT,
        "Modality": "CT",
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 2.5,
        "FrameOfReferenceUID": uid_of(f"place of {number}"),
    }
    return write(folder, number, visit=1, **{**sound, **tags})


def faulty_export(folder: Path) -> None:
    """Write sound studies of all patients, and beside them one fault of each kind."""
    for number in range(len(PATIENTS)):
        write(folder / "ward 1", number)
    fault = folder / "ward 2"
    # What ingest refuses, because two files contradict each other or one lacks what is needed.
    write(fault, 1, study="study 0 of 0")
    write(fault, 2, visit=1, series="series of study 0 of 2")
    write(fault / "0", 3, visit=1, instance="twin", pixels=picture("one", (40, 40)))
    write(fault / "1", 3, visit=1, instance="twin", pixels=picture("other", (40, 40)))
    write(fault, 4, visit=1, PatientID=None)
    write(fault, 4, visit=1, Modality=None)
    write(fault, 4, visit=1, PhotometricInterpretation="CMYK")
    # What it takes.
    write(fault, 5, visit=1, BodyPartExamined=None)
    write(fault, 6, visit=1, pixels=np.full((40, 40), 7, np.uint16))
    write(fault, 7, visit=1, pixels=picture("thumbnail", (40, 20)))
    write(fault, 8, InstanceNumber=2, series="captures", SOPClassUID=SECONDARY_CAPTURE)
    deep = {"pixels": picture("deep", (40, 40), bits=16), "transfer_syntax": JPEG2000Lossless}
    recompressed = dcmread(write(fault, 9, visit=1, **deep, BitsStored=16, HighBit=15))
    recompressed.BitsStored, recompressed.HighBit = 12, 11
    # In a lossless syntax what stands above the stored bits would not count.
    recompressed.file_meta.TransferSyntaxUID = JPEG2000
    recompressed.save_as(recompressed.filename)
    write(fault, 10, visit=1, pixels=picture("copied", (40, 40)))
    write(fault, 11, visit=1, pixels=picture("copied", (40, 40)))
    write(fault, 12, visit=1, InstanceNumber=2, pixels=picture("twice", (40, 40)))
    write(fault, 12, visit=1, InstanceNumber=3, pixels=picture("twice", (40, 40)))
    write(fault, 13, InstanceNumber=2, Modality="RF")
    for position in (0, 1, 2, 3, 5, 6, 7):
        slice_of_ct(fault, 14, InstanceNumber=position, ImagePositionPatient=[0, 0, position * 2.5])
    slice_of_ct(fault, 15, RescaleIntercept=0)
    write(fault, 16, visit=1, AccessionNumber="RIS17.0")
    write(fault, 18, visit=1, PatientAge=None, PatientBirthDate="19000101")
    write(fault, 19, visit=1, StudyDate="19000101", PatientAge=None)
    write(fault, 20, visit=1, PatientSex="M")
    write(fault, 21, visit=1, PatientAge="060Y")
    write(fault, 22, visit=1, Modality="US")
    write(fault, 23, visit=1, ViewPosition=None)
    slice_of_ct(fault, 24, PixelSpacing=[50, 50])
    slice_of_ct(fault, 25, SliceThickness=700)
    write(fault, 26, visit=1, BodyPartExamined="KNEE")
    write(fault, 27, visit=1, BodyPartExamined="LEFT KNEE", ImageLaterality="R")
    slice_of_ct(fault, 28, InstanceNumber=1)
    slice_of_ct(fault, 28, InstanceNumber=2, FrameOfReferenceUID=uid_of("another"))
    slice_of_ct(fault, 29, RescaleIntercept=-6000)
    write(fault, 30, visit=1, PatientAge="053Y", StudyDate="20240601")


def validated(home: Home, batch: str) -> ValidationReport:
    catalog, only = Catalog(home), [batch]
    return validate_batch(
        home,
        batch,
        catalog.instances(only),
        catalog.rejections(only),
        catalog.studies(only),
        catalog.series(only),
        others=catalog.instances(),
    )


def row(number: int, visit: int = 0, **values: str) -> dict[str, str]:
    disease = number % 3
    sound = {
        "study_instance_uid": uid_of(f"study {visit} of {number}"),
        "patient_id": PATIENTS[number],
        "accession_number": f"RIS{number}.{visit}",
        "code": f"D{disease}",
        "coding_scheme": "99TEST",
        "meaning": f"Disease {disease}",
        "basis": "report",
        "diagnosed_on": "2024-03-01",
        "superseded_by": "",
    }
    return {**sound, **values}


def faulty_rows() -> Iterator[dict[str, str]]:
    """Label all patients, with one fault of each kind."""
    for number in range(20, len(PATIENTS)):
        yield row(number)
    yield row(0, study_instance_uid=uid_of("never exported"))
    yield row(1, patient_id=PATIENTS[2])
    yield row(3, accession_number="RIS4.0")
    yield row(4, code="n/a", meaning="")
    yield from (row(n, code="1E+50", meaning="Hepatitis") for n in (5, 6))
    yield row(7, code="d 1", meaning="Disease 1")
    yield row(8, coding_scheme="ICD-10")
    yield row(9, meaning="Something else")
    yield from (row(n, code="D9", meaning="Disease 1") for n in (10, 11))
    yield row(12, meaning="")
    yield from (row(13, code=f"D{n}", meaning=f"Disease {n}") for n in (0, 1))
    yield from (row(14, basis=basis) for basis in ("reader", "histology"))
    yield row(15, basis="a colleague")
    yield row(16, diagnosed_on="1899-12-30")
    yield row(17, diagnosed_on="2019-12-30")
    yield row(18, superseded_by="D77")
    yield row(19, code="D42", meaning="Seen once")
    # The last digit of 44054006 is another one.
    yield from (row(n, 1, code="44054007", coding_scheme="SCT", meaning="Diabetes") for n in (20, 21))


def write_table(path: Path, rows: Iterator[dict[str, str]]) -> Path:
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, [*COLUMNS, "basis", "diagnosed_on", "superseded_by"])
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("validation")
    faulty_export(root / "from the ward")
    home = Home.open(root / "home")
    ingest_folder(home, root / "from the ward", options=IngestOptions(allow=("secondary_capture",)))
    import_diagnoses(home, write_table(root / "diagnoses.csv", faulty_rows()))
    return home


def test_every_fault_of_an_export_is_seen_through_ingest(home: Home) -> None:
    (batch,) = Catalog(home).batches()
    report = validated(home, batch)
    # These need a batch of their own: see the next tests and test_validation_ingest.py.
    alone = {"batch_has_images", "few_files_damaged", "study_in_one_batch", "patient_id_not_placeholder"}
    alone |= {"intensity_like_cohort"}
    assert {failure.name for failure in report.failures} == {check.name for check in ingest_checks()} - alone
    # One fault each: every count is what was planted.
    counts = {failure.name: failure.failed for failure in report.failures}
    two = {"picture_of_one_patient", "picture_once_per_patient", "accession_of_one_patient"}
    assert {name for name, count in counts.items() if count != 1} == two
    assert {name: counts[name] for name in two} == dict.fromkeys(two, 2)


def test_every_fault_of_a_label_table_is_seen_through_its_import(home: Home) -> None:
    catalog = Catalog(home)
    report = validate_diagnoses(home, all_diagnoses(home), catalog.studies(), catalog.instances())
    # The rest needs a whole table or cohort of its own: see test_validation_diagnoses.py.
    alone = {"table_has_rows", "table_joins_studies"}
    expected = {c.name for c in diagnosis_checks() if c.suite == "diagnoses"} - alone
    assert {f.name for f in report.failures} == expected | {"disease_of_two_patients"}


def test_later_batches_are_compared_with_earlier_ones(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    for number in range(3):
        write(tmp_path / "first", number)
    # The second half of a study, a known picture under another name, and files that were cut on the way.
    write(tmp_path / "second", 0, InstanceNumber=2)
    write(tmp_path / "second", 4, pixels=picture("study 0 of 1 1", (40, 40)))
    for number in range(5, 10):
        file = write(tmp_path / "second", number)
        file.write_bytes(file.read_bytes()[:-100])
    for folder in ("first", "second"):
        ingest_folder(home, tmp_path / folder)
    assert (
        not validated(home, "b0001").failures == ()
    )  # the other half of the study and the picture came later
    assert {failure.name for failure in validated(home, "b0002").failures} == {
        "few_files_damaged",
        "study_in_one_batch",
        "picture_of_one_patient",
    }


def test_a_batch_in_which_nothing_is_usable_says_so(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    write(tmp_path / "source", 0, PatientID=None)
    ingest_folder(home, tmp_path / "source")
    assert [f.name for f in validated(home, "b0001").failures] == ["batch_has_images", "patient_id_given"]


def test_no_original_identity_reaches_results_or_pages(home: Home) -> None:
    (batch,) = Catalog(home).batches()
    report = validated(home, batch)
    catalog = Catalog(home)
    labels = validate_diagnoses(home, all_diagnoses(home), catalog.studies(), catalog.instances())
    written = "".join(file.read_text() for file in home.validation.rglob("*") if file.is_file())
    written += repr(report) + repr(labels)
    originals = [*PATIENTS, "MUSTERMANN", "RIS1", "ward 2", "from the ward"]
    originals += [uid_of(f"study {visit} of {n}") for n in range(len(PATIENTS)) for visit in (0, 1)]
    assert [original for original in originals if original in written] == []
    surrogates = {
        *catalog.instances()["study"],
        *catalog.rejections()["file"],
        *catalog.instances()["instance"],
    }
    assert sum(surrogate in written for surrogate in surrogates) > 10
