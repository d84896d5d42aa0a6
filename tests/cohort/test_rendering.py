"""Stored objects are decoded in limited processes, and what comes back is what decoding them here would give."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from meta_dx.cohort import objects, rendering
from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.images import ImageStore
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.picture_process import prepared_frame
from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.cohort.rendering import renderer
from meta_dx.cohort.volume_images import candidate_volumes
from meta_dx.cohort.volume_preprocessing import preprocess_volume
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.dicom.volumes import assemble, decoded_slices
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.cohort.image_tables import HandMadeCatalog, photo
from tests.cohort.test_volume_images import SMALL
from tests.cohort.test_volumes import write
from tests.dicom.builders import build_instance
from tests.dicom.series import along_z

LIMITS = ReadLimits(memory_bytes=1 << 30, seconds=2.0)
OPTIONS = ImageOptions(size=16)
LOOKS = [
    ImageOptions(size=24, channels=1),
    ImageOptions(size=24, channels=3, intensity="range", fit="pad"),
    ImageOptions(size=24, intensity="window", window_center=40, window_width=400, fit="stretch"),
    ImageOptions(size=24, intensity="dicom"),
]


@pytest.fixture
def home(tmp_path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def hostile(monkeypatch):
    command = (sys.executable, "-m", "tests.cohort.hostile_picture_process")
    monkeypatch.setattr(rendering, "COMMAND", command)


def stored(home: Home, *datasets) -> list[str]:
    names = []
    for dataset in datasets:
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=False)
        names.append(ObjectStore(home).put(stream.getvalue()))
    return names


def prepared(home: Home, keys, options, volumes=None, limits=LIMITS):
    with renderer(home, options, volumes or {}, limits, workers=2) as pictures:
        return [one for some in pictures.rendered(keys) for one in some]


def some_objects(random: np.random.Generator) -> list:
    grey = random.integers(0, 4096, (30, 37)).astype(np.uint16)
    voi = {"WindowCenter": 2000, "WindowWidth": 900}
    colour = random.integers(0, 256, (33, 29, 3)).astype(np.uint8)
    deep = random.integers(0, 1 << 16, (21, 29, 3)).astype(
        np.uint16
    )  # RGB that is no whole number from 0 to 255
    film = random.integers(0, 256, (5, 24, 24)).astype(np.uint8)
    return [
        build_instance(pixels=grey, RescaleSlope=0.37, RescaleIntercept=-1024, instance="1"),
        build_instance(pixels=grey, PhotometricInterpretation="MONOCHROME1", instance="2", **voi),
        build_instance(pixels=colour, instance="3"),
        build_instance(pixels=deep, instance="4"),
        build_instance(pixels=film, NumberOfFrames=5, instance="5"),
    ]


@pytest.mark.parametrize("options", LOOKS, ids=lambda one: f"{one.intensity}-{one.channels}")
def test_a_prepared_picture_is_bit_for_bit_what_decoding_here_gives(home, options):
    names = stored(home, *some_objects(np.random.default_rng()))
    files = ("SC_rgb_jpeg_dcmtk.dcm", "examples_palette.dcm", "JPEG2000.dcm", "examples_ybr_color.dcm")
    names += [
        ObjectStore(home).put(Path(path).read_bytes()) for one in files if (path := get_testdata_file(one))
    ]
    keys = [(name, frame) for name in names for frame in ((4, 0, 2) if name == names[4] else (0,))]
    made = prepared(home, keys, options)
    for (name, frame), picture in zip(keys, made, strict=True):
        expected = prepared_frame(ObjectStore(home).read(name), frame, options)
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("tilt", ["refuse", "straighten"])
def test_a_prepared_volume_is_bit_for_bit_what_assembling_here_gives(home, tmp_path, tilt):
    write(along_z([0, 2, 4, 6, 8]), tmp_path / "source")
    ingest_folder(home, tmp_path / "source")
    options = ImageOptions(dimensions=3, size=16, tilt=tilt)
    rows, volumes, _ = candidate_volumes(Catalog(home).instances(), options)
    (name,) = rows["object"]
    (made,) = prepared(home, [(name, 0)], options, volumes)
    store, one = ObjectStore(home), volumes[name]
    slices = (
        (store.read(n), int(f)) for n, f in zip(one.instances["object"], one.instances["frame"], strict=True)
    )
    np.testing.assert_array_equal(
        made, preprocess_volume(assemble(one.part, decoded_slices(slices)), options)
    )


def test_no_object_is_parsed_in_this_process(tmp_path, monkeypatch):
    catalog = HandMadeCatalog(Home.open(tmp_path / "home"))
    for n in range(3):
        catalog.add(photo(n), f"S{n}")

    def never(*_, **__):
        raise AssertionError("an object was parsed here")

    monkeypatch.setattr(objects, "dcmread", never)
    assert ImageStore.build(catalog.home, catalog, OPTIONS).shape[0] == 3


@pytest.mark.parametrize(
    ("height", "code", "seconds"),
    # To fill a gigabyte takes longer than two seconds on a busy machine.
    [(41, "worker_crashed", 60.0), (42, "time_limit", 2.0), (43, "memory_limit", 60.0)],
)
def test_an_object_that_harms_its_process_is_left_out_with_a_code_and_stays_so(
    tmp_path, hostile, monkeypatch, height, code, seconds
):
    catalog = HandMadeCatalog(Home.open(tmp_path / "home"))
    for n in range(4):
        catalog.add(photo(n), f"S{n}")
    catalog.add(np.zeros((height, 16), np.uint8), "S4")
    catalog.add(photo(5), "S5")
    limits = replace(LIMITS, seconds=seconds)
    store = ImageStore.build(catalog.home, catalog, OPTIONS, limits=limits, workers=1)
    assert store.left_out == {code: 1}
    assert store.index["study"].tolist() == ["S0", "S1", "S2", "S3", "S5"]
    monkeypatch.setattr(rendering, "COMMAND", ("/nonexistent",))  # nothing is tried again
    again = ImageStore.build(catalog.home, catalog, OPTIONS)
    assert (again.version, again.left_out) == (store.version, store.left_out)


def test_each_slice_of_a_volume_has_the_whole_time(home, tmp_path, hostile):
    write(along_z([0, 2, 4, 6, 8]), tmp_path / "source")
    ingest_folder(home, tmp_path / "source")
    rows, volumes, _ = candidate_volumes(Catalog(home).instances(), SMALL)
    (made,) = prepared(home, [(rows["object"][0], 0)], SMALL, volumes)  # 5 slices of 0.6 s, 2 s allowed
    assert isinstance(made, np.ndarray)


@pytest.mark.parametrize("fault", ["object_missing", "object_damaged"])
def test_an_object_that_is_not_what_was_stored_is_an_error_and_no_exclusion(tmp_path, fault):
    catalog = HandMadeCatalog(Home.open(tmp_path / "home"))
    catalog.add(photo(0), "S0")
    catalog.add(photo(1), "S1")
    path = ObjectStore(catalog.home).path(catalog.rows[1]["object"])
    if fault == "object_missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(MetaDxError) as told:
        ImageStore.build(catalog.home, catalog, OPTIONS)
    assert told.value.code == fault and path.name in str(told.value)
    assert not list(catalog.home.images.glob("*/b*"))


PROGRAM = """
import os
from meta_dx.dicom import messages
messages.received(lambda n: os.read(0, n), 1 << 20)
os.write(1, messages.packed({"ready": True})[0])
while True:
    messages.received(lambda n: os.read(0, n), 0)
    os.write(1, b"".join(messages.packed(%s)))
"""


@pytest.mark.parametrize(
    "lie",
    [
        "{'taken': [True]}, bytes(255)",
        "{'taken': [True, True]}, bytes(512)",
        "{'taken': [False]}, bytes(256)",
        "{'taken': [1]}, bytes(256)",
        "{'taken': 'yes'}, bytes(256)",
        "{'working': True}, b''",
    ],
)
def test_a_process_that_was_taken_over_gives_no_picture_of_another_form(home, monkeypatch, lie):
    monkeypatch.setattr(rendering, "COMMAND", (sys.executable, "-c", PROGRAM % lie))
    (name,) = stored(home, build_instance())
    assert prepared(home, [(name, 0)], OPTIONS) == [RejectionCode.WORKER_CRASHED]
