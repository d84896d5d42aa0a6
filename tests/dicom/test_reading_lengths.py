"""A small file does not make a large row or a large identity, whatever it unpacks to."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from meta_dx.dicom.frames import FRAME_FIELDS, MOST_FRAMES
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


def frames_of_one_pixel(folder, count: int, **shared):
    def edit(dataset):
        group, place = Dataset(), Dataset()
        for keyword, value in shared.items():
            setattr(place, keyword, value)
        group.PlanePositionSequence = Sequence([place])
        dataset.SharedFunctionalGroupsSequence = Sequence([group])

    pixels = np.zeros((count, 1, 1), np.uint8)
    return write_instance(folder, pixels=pixels, transfer_syntax=DeflatedExplicitVRLittleEndian, edit=edit)


def test_many_frames_of_a_tiny_file_do_not_make_a_large_row(tmp_path):
    path = frames_of_one_pixel(tmp_path, MOST_FRAMES + 1, ImagePositionPatient=[1, 2, 3])
    result = read(path)
    assert isinstance(result, AcceptedInstance) and path.stat().st_size < 1000
    assert result.row["frame_geometry"] is None
    assert [result.row[f"position_{axis}"] for axis in "xyz"] == [1, 2, 3]


def test_numbers_of_frames_that_lie_nowhere_are_not_kept(tmp_path):
    nowhere = read(frames_of_one_pixel(tmp_path, 100))
    somewhere = read(frames_of_one_pixel(tmp_path, 100, ImagePositionPatient=[1, 2, 3]))
    assert isinstance(nowhere, AcceptedInstance) and isinstance(somewhere, AcceptedInstance)
    assert nowhere.row["frame_geometry"] is None
    assert len(somewhere.row["frame_geometry"]) == 100 * len(FRAME_FIELDS)
