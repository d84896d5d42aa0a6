"""Frames for viewers come from the reading process too, and only in the right form."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from pydicom import dcmread

from meta_dx.dicom import child, sandbox
from meta_dx.dicom.display import compact
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sandbox import Reader
from tests.dicom.builders import picture, write_instance
from tests.dicom.test_sandbox import PROGRAM

KEY = b"a key of the test, 32 bytes long"
LIMITS = ReadLimits(memory_bytes=1 << 29, seconds=5.0)


@pytest.fixture(scope="module")
def reader():
    made = Reader(KEY, LIMITS)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("pixels", "more", "dtype"),
    [
        (picture(1), {}, "int16"),
        (picture(1, bits=16), {}, "uint16"),
        (picture(1), {"RescaleSlope": 2, "RescaleIntercept": -1024}, "int16"),
        (picture(1), {"RescaleSlope": 0.1}, "float32"),
        (picture(1, (9, 7, 3), 8), {}, "uint8"),
    ],
)
def test_a_frame_is_what_physical_pixels_are_in_the_smallest_type(reader, tmp_path, pixels, more, dtype):
    path = write_instance(tmp_path, pixels=pixels, **more)
    found = reader.frame(path, 0)
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found, compact(physical_pixels(dcmread(path))))


@pytest.mark.parametrize("values", [[0.5, 1.0], [np.nan, 1.0], [-40000.0, 1.0], [70000.0, -1.0]])
def test_what_no_whole_numbers_hold_stays_as_it_is(values):
    pixels = np.array([values], np.float32)
    np.testing.assert_array_equal(compact(pixels), pixels)
    assert compact(pixels).dtype == np.float32


def test_every_frame_of_many_can_be_asked_for(reader, tmp_path):
    frames = np.stack([picture(n) for n in range(3)])
    path = write_instance(tmp_path, pixels=frames, NumberOfFrames=3)
    for n in (2, 0, 1):
        np.testing.assert_array_equal(reader.frame(path, n), frames[n])


def test_what_cannot_be_decoded_is_refused_and_the_next_one_is_not(reader, tmp_path):
    path = write_instance(tmp_path)
    assert reader.frame(path, 5).code is RejectionCode.DAMAGED_PIXELS
    assert isinstance(reader.frame(tmp_path / "nowhere.dcm", 0), Refusal)
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:-100])
    assert isinstance(reader.frame(tmp_path / "cut.dcm", 0), Refusal)
    assert isinstance(reader.frame(path, 0), np.ndarray)


@pytest.mark.parametrize(
    "words",
    [
        {"dtype": "object", "shape": [1, 1]},
        {"dtype": "uint8", "shape": [2, 2]},
        {"dtype": "uint8", "shape": [1, 1, 4]},
        {"dtype": "uint8", "shape": [-1, -4]},
        {"dtype": "uint8", "shape": "44"},
        {"dtype": "uint8", "shape": [True, 4]},
        {"dtype": "uint8"},
    ],
)
def test_pixels_of_another_form_are_not_believed(words):
    with pytest.raises(ValueError, match="frame"):
        sandbox._pixels(words, bytes(8))


def test_a_reader_that_was_taken_over_and_lies_about_a_frame_is_ended(tmp_path, monkeypatch):
    act = "os.write(1, messages.packed({'dtype': 'uint8', 'shape': [9, 9]}, b'x')[0] + b'x')"
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", PROGRAM % act))
    lying = Reader(KEY, LIMITS)
    found = lying.frame(write_instance(tmp_path), 0)
    lying.close()
    assert found.code is RejectionCode.WORKER_CRASHED
