"""A small file does not make a large row or a large identity, whatever it unpacks to."""

from __future__ import annotations

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from meta_dx.dicom.reading import AcceptedInstance
from meta_dx.dicom.rejections import Refusal, RejectionCode
from tests.dicom.builders import write_instance
from tests.dicom.test_reading import read, refused


@pytest.mark.parametrize(
    ("keyword", "longest"),
    [
        ("SOPClassUID", 64),
        ("SOPInstanceUID", 64),
        ("StudyInstanceUID", 64),
        ("SeriesInstanceUID", 64),
        ("PatientID", 256),
        ("IssuerOfPatientID", 256),
        ("AccessionNumber", 256),
    ],
)
def test_an_identity_of_any_length_does_not_get_into_the_vault(tmp_path, keyword, longest):
    def of(length):
        value = ("1.2." + "34" * length)[:length]
        return lambda dataset: dataset.add_new(keyword, "UT", value)

    assert isinstance(read(write_instance(tmp_path, edit=of(longest))), AcceptedInstance)
    result = read(write_instance(tmp_path, edit=of(longest + 1)))
    assert result == Refusal(RejectionCode.DAMAGED_HEADER, f"{keyword} has more than {longest} characters")


def test_a_small_file_whose_patient_number_unpacks_to_megabytes_is_refused(tmp_path):
    def edit(dataset):
        dataset.add_new("PatientID", "UT", "7" * 20_000_000)

    path = write_instance(tmp_path, transfer_syntax=DeflatedExplicitVRLittleEndian, edit=edit)
    assert path.stat().st_size < 30_000
    assert refused(path) is RejectionCode.DAMAGED_HEADER


def test_of_endless_values_of_image_type_only_the_first_are_kept(tmp_path):
    def edit(dataset):
        dataset.add_new("ImageType", "UT", "\\".join(["ORIGINAL", "PRIMARY", *["AXIAL"] * 5000]))

    result = read(write_instance(tmp_path, edit=edit))
    assert isinstance(result, AcceptedInstance)
    assert result.row["image_type"] == "\\".join(["ORIGINAL", "PRIMARY", *["AXIAL"] * 14])
