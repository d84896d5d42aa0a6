"""Whole objects by the profile: nothing planted comes through, and the file stays good for other programs."""

import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.profile import ProfileOptions
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, read_instance
from tests.dicom.builders import uid_of, write_instance
from tests.dicom.planted import PLANTED, planted_file

SURROGATES = Surrogates(b"a key of the test, 32 bytes long")
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]
NOTHING = ProfileOptions(age_and_sex=False, dates=False, device=False, descriptors=False)


def read(path: Path, options: ProfileOptions | None = None) -> AcceptedInstance:
    result = read_instance(path, SURROGATES, limits=ReadLimits(profile=options))
    assert isinstance(result, AcceptedInstance), result
    return result


def profiled(path: Path, options: ProfileOptions = ProfileOptions()) -> Dataset:  # noqa: B008
    return dcmread(BytesIO(read(path, options).object))


def found(content: bytes) -> list[str]:
    return [text for text in PLANTED if text.encode() in content or text.encode("utf-16-le") in content]


@pytest.mark.parametrize("options", [None, ProfileOptions(), ProfileOptions(times=True), NOTHING])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nothing_that_was_planted_anywhere_in_a_file_comes_through(tmp_path, syntax, options):
    path = planted_file(tmp_path, transfer_syntax=syntax)
    assert set(found(path.read_bytes())) >= set(PLANTED) - {"1937-05-13"}
    result = read(path, options)
    kept = found(result.object + repr(result.row).encode())
    assert kept == (["031733.713"] if options and options.times else [])


def test_nothing_that_was_planted_in_a_jpeg_stream_comes_through(tmp_path):
    path = planted_file(tmp_path, packed=True)
    for options in (None, ProfileOptions()):
        result = read(path, options)
        assert found(result.object) == []
        assert np.array_equal(dcmread(BytesIO(result.object)).pixel_array, dcmread(path).pixel_array)


def test_the_surrogates_are_those_of_the_catalog(tmp_path):
    path = write_instance(tmp_path, patient="P1", study="S", instance="I", IssuerOfPatientID="H")
    row, dataset = read(path).row, profiled(path)
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == row["instance"]
    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID) == (row["study"], row["series"])
    assert (dataset.PatientID, dataset.AccessionNumber) == (row["patient"], row["accession"])
    assert dataset.StudyDate == row["study_date"].replace("-", "")


def test_what_the_standard_wants_to_be_said_is_said(tmp_path):
    dataset = profiled(write_instance(tmp_path, BurnedInAnnotation="NO"))
    assert dataset.PatientIdentityRemoved == "YES" and "PS3.15" in dataset.DeidentificationMethod
    codes = [(c.CodeValue, c.CodingSchemeDesignator) for c in dataset.DeidentificationMethodCodeSequence]
    assert codes == [("113100", "DCM"), ("113105", "DCM"), ("113107", "DCM"), ("113108", "DCM")]
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    assert dataset.BurnedInAnnotation == "NO" and dataset.SpecificCharacterSet == "ISO_IR 192"
    bare = profiled(write_instance(tmp_path), NOTHING)
    assert bare.LongitudinalTemporalInformationModified == "REMOVED"
    assert [c.CodeValue for c in bare.DeidentificationMethodCodeSequence] == ["113100"]


def test_dates_move_by_the_days_of_the_patient_and_times_go(tmp_path):
    item = Dataset()
    item.ScheduledProcedureStepStartDate = "20240301"
    path = write_instance(
        tmp_path,
        patient="P1",
        StudyDate="20240229",
        SeriesDate="20240305",
        AcquisitionDateTime="20240306101112.5+0100",
        StudyTime="101112",
        PatientBirthDate="19500101",
        DateOfLastCalibration=["20240101", "20231231"],
        SharedFunctionalGroupsSequence=Sequence([item]),
    )
    dataset, days = profiled(path), SURROGATES.shift_days(SURROGATES.patient("P1"))
    moved = [
        np.datetime64("2024-02-29") - days,
        np.datetime64("2024-03-05") - days,
        np.datetime64("2024-03-06") - days,
    ]
    texts = [str(day).replace("-", "") for day in moved]
    assert [dataset.StudyDate, dataset.SeriesDate, dataset.AcquisitionDateTime] == texts
    assert dataset.StudyTime == "" and dataset.PatientBirthDate == ""
    timed = profiled(path, ProfileOptions(times=True))
    assert (timed.StudyTime, timed.AcquisitionDateTime) == ("101112", texts[2] + "101112.5+0100")
    bare = profiled(path, NOTHING)
    assert bare.StudyDate == "" and bare.get("AcquisitionDateTime") in (None, "19000101")


def test_every_option_can_be_switched_off(tmp_path):
    path = write_instance(
        tmp_path, Manufacturer="Maker & Söhne", StudyDescription="CHEST PA", DeviceSerialNumber="4711"
    )
    kept, bare = profiled(path), profiled(path, NOTHING)
    assert (kept.Manufacturer, kept.StudyDescription) == ("Maker & Söhne", "CHEST PA")
    assert (kept.PatientAge, kept.PatientSex, kept.DeviceSerialNumber) == ("054Y", "F", "REMOVED")
    assert (bare.Manufacturer, bare.PatientSex) == ("", "")
    assert "StudyDescription" not in bare and "PatientAge" not in bare


def test_a_description_with_any_other_word_goes(tmp_path):
    assert "StudyDescription" not in profiled(write_instance(tmp_path, StudyDescription="CHEST of Mr. Smith"))


def test_codes_and_references_stay_useful(tmp_path):
    region, image = Dataset(), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Thorax"
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", uid_of("other")
    dataset = profiled(
        write_instance(
            tmp_path,
            AnatomicRegionSequence=Sequence([region]),
            SourceImageSequence=Sequence([image]),
            KVP="120",
        )
    )
    (kept,), (reference,) = dataset.AnatomicRegionSequence, dataset.SourceImageSequence
    assert (kept.CodeValue, kept.CodingSchemeDesignator, kept.CodeMeaning) == ("51185008", "SCT", "Thorax")
    assert reference.ReferencedSOPClassUID == image.ReferencedSOPClassUID
    assert reference.ReferencedSOPInstanceUID == SURROGATES.uid(uid_of("other"))
    assert dataset.KVP == 120


def test_deep_nesting_ends_and_crashes_nothing(tmp_path):
    item = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.SourceImageSequence = Sequence([item])
        item = outer
    assert (
        profiled(write_instance(tmp_path, SourceImageSequence=Sequence([item]))).PatientIdentityRemoved
        == "YES"
    )


def errors(path: Path) -> set[str]:
    done = subprocess.run(
        ["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False
    )
    # Without UIDs: surrogates are not the originals.
    lines = (re.sub(r"<[0-9.]+>", "<>", line) for line in (done.stdout + done.stderr).splitlines())
    return {line for line in lines if line.startswith("Error")}


@pytest.mark.data
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump (dcmtk) is not installed")
def test_other_programs_find_no_new_fault_in_files_of_many_vendors(real_data, tmp_path):
    limits = ReadLimits(
        profile=ProfileOptions(), allow=frozenset({"ultrasound", "secondary_capture", "burned_in_annotation"})
    )
    files = sorted(path for path in (real_data / "dicom-corpus").rglob("*") if path.is_file())[::3]
    checked = 0
    for path in files:
        result = read_instance(path, SURROGATES, limits=limits)
        if not isinstance(result, AcceptedInstance):
            continue
        made = tmp_path / "made.dcm"
        made.write_bytes(result.object)
        assert errors(made) <= errors(path), path.name
        dump = subprocess.run(["dcmdump", "-q", str(made)], capture_output=True, check=False)
        assert (dump.returncode, dump.stderr) == (0, b""), path.name
        checked += 1
    assert checked >= 50
