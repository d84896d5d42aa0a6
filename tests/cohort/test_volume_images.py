"""Volumes in the image store: prepared in mm, always the same way round, and none left out in silence."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.images import ImageOptions, ImageStore
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.cohort.volume_preprocessing import preprocess_volume
from meta_dx.dicom.volumes import Volume
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.cohort.test_volumes import write
from tests.dicom.series import along_z, slices_at

SMALL = ImageOptions(dimensions=3, size=16, intensity="range", fit="stretch")


def laid(spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the affine of an array whose axes run towards head, back and left."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)[::-1]
    return affine


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float) -> np.ndarray:
    """Draw a ball in the middle; ``radius`` in mm."""
    axes = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (np.sqrt(z**2 + y**2 + x**2) <= radius).astype(np.float32)


def test_a_volume_looks_the_same_in_all_48_ways_to_lay_it() -> None:
    rng = np.random.default_rng(1)
    voxels = gaussian_filter(rng.standard_normal((20, 24, 28)), 2).astype(np.float32)
    affine = laid((2.0, 1.0, 0.5))
    looks = set()
    for order in itertools.permutations(range(3)):
        for reverse in itertools.product((False, True), repeat=3):
            turned, here = voxels.transpose(order), affine.copy()
            here[:3, :3] = affine[:3, list(order)]
            for axis, back in enumerate(reverse):
                if back:
                    turned = np.flip(turned, axis)
                    here[:3, axis] *= -1
            looks.add(preprocess_volume(Volume(turned, here), SMALL).tobytes())
    assert len(looks) == 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("spacing", [(5.0, 0.5, 0.5), (1.0, 1.0, 1.0), (2.0, 1.5, 0.75)])
def test_a_ball_stays_a_ball_whatever_the_voxels_were(fit: str, spacing: tuple[float, float, float]) -> None:
    shape = tuple(round(side / s) for side, s in zip((100, 80, 60), spacing, strict=True))
    options = ImageOptions(dimensions=3, size=32, depth=40, intensity="range", fit=fit)  # type: ignore[arg-type]
    picture = preprocess_volume(Volume(ball(shape, spacing, 20.0), laid(spacing)), options)
    assert picture.shape == (1, 40, 32, 32)
    side = 60 / 32 if fit == "crop" else 100 / 40
    filled = picture[0] > 127
    assert filled.sum() * side**3 == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.08)
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        extent = filled.any(axis=other).sum() * side
        assert extent == pytest.approx(40, abs=2 * side + spacing[axis])
        middle = np.average(np.arange(picture.shape[1 + axis]), weights=picture[0].sum(axis=other))
        assert middle == pytest.approx((picture.shape[1 + axis] - 1) / 2, abs=0.1)


def test_pad_is_black_outside_and_crop_cuts_evenly() -> None:
    bright = Volume(np.full((10, 40, 40), 5.0, np.float32), laid((1.0, 1.0, 1.0)))
    bright.voxels[:, 0, 0] = 0.0
    padded = preprocess_volume(bright, ImageOptions(dimensions=3, size=20, intensity="range", fit="pad"))[0]
    assert np.flatnonzero(padded.any(axis=(1, 2))).tolist() == [7, 8, 9, 10, 11]  # 10 mm in voxels of 2 mm
    assert padded[9, 5:15, 5:15].min() == 255
    cropped = preprocess_volume(bright, ImageOptions(dimensions=3, size=20, intensity="range", fit="crop"))[0]
    assert cropped.min() == 255  # the dark corner is outside


def test_fine_texture_does_not_alias() -> None:
    stripes = np.tile(np.array([0.0, 1.0], np.float32), 64)
    voxels = np.broadcast_to(stripes, (128, 128, 128)).copy()
    for axis in range(3):
        turned = np.moveaxis(voxels, 2, axis)
        picture = preprocess_volume(Volume(turned, laid((1.0, 1.0, 1.0))), SMALL)
        assert np.ptp(picture[0, 1:-1, 1:-1, 1:-1].astype(int)) <= 6


def test_a_window_in_hounsfield_units_is_applied() -> None:
    voxels = np.linspace(-1000, 1000, 16, dtype=np.float32)[:, None, None] * np.ones((1, 16, 16), np.float32)
    options = ImageOptions(
        dimensions=3, size=16, fit="stretch", intensity="window", window_center=40, window_width=400
    )
    picture = preprocess_volume(Volume(voxels, laid((1.0, 1.0, 1.0))), options)
    expected = np.rint(np.clip((voxels + 160) * 255 / 400, 0, 255))
    assert np.abs(picture[0].astype(int) - expected).max() <= 1


def test_the_store_holds_volumes_and_counts_what_is_none(home: Home, source: Path) -> None:
    write(along_z([0, 2, 4, 6], series="good", patient="P1"), source / "a")
    write(along_z([0, 2, 6, 8], series="gap", patient="P2"), source / "b")
    tilted = slices_at([(0, k, 2.0 * k) for k in range(5)], spacing=(0.5, 0.5), series="t", patient="P3")
    write(tilted, source / "c")
    ingest_folder(home, source)
    store = ImageStore.build(home, Catalog(home), SMALL)
    assert store.shape == (1, 1, 16, 16, 16) and store.images[0].dtype == np.uint8
    assert store.left_out == {"gap": 1, "gantry_tilt": 1}
    again = ImageStore.build(home, Catalog(home), SMALL)
    assert again.version == store.version and (again.load() == store.load()).all()
    straight = ImageStore.build(home, Catalog(home), ImageOptions(dimensions=3, size=16, tilt="straighten"))
    assert straight.shape[0] == 2 and straight.left_out == {"gap": 1}


def test_the_middle_slice_names_a_volume(home: Home, source: Path) -> None:
    write(along_z([0, 2, 4, 6, 8]), source)
    ingest_folder(home, source)
    store = ImageStore.build(home, Catalog(home), SMALL)
    instances = Catalog(home).instances().sort_values("position_z")
    assert store.index["instance"].tolist() == [instances["instance"].iloc[2]]
    assert len(store.index["object"].iloc[0]) == 64 and store.index["object"].iloc[0] not in set(
        instances["object"]
    )


def test_phases_are_volumes_of_their_own_and_filters_and_max_images_count(home: Home, source: Path) -> None:
    def phase(dataset, number):  # type: ignore[no-untyped-def]
        dataset.AcquisitionNumber = number // 4

    write(along_z([0, 2, 4, 6] * 3, edit=phase), source)
    ingest_folder(home, source)
    assert ImageStore.build(home, Catalog(home), SMALL).shape[0] == 3
    few = ImageStore.build(home, Catalog(home), ImageOptions(dimensions=3, size=16, max_images=2))
    assert few.shape[0] == 2 and few.left_out == {"beyond_max_images": 1}
    none = ImageStore.build(home, Catalog(home), ImageOptions(dimensions=3, size=16, modalities=("MR",)))
    assert none.shape == (0, 1, 16, 16, 16) and none.left_out == {"filtered": 12}


def test_what_is_prepared_elsewhere_is_the_same(home: Home, source: Path) -> None:
    for number in range(6):
        write(along_z([0, 2, 4], series=f"s{number}", patient=f"P{number}"), source / str(number))
    ingest_folder(home, source)
    here = ImageStore.build(home, Catalog(home), SMALL).load()
    with ThreadPoolExecutor(2) as pool:
        other = Home.open(home.root.with_name("other"))
        ingest_folder(other, source)
        there = ImageStore.build(other, Catalog(other), SMALL, executor=pool).load()
    assert sorted(v.tobytes() for v in here) == sorted(v.tobytes() for v in there)


def test_options_of_volumes_are_checked_and_pictures_keep_their_names() -> None:
    for bad in ({"dimensions": 4}, {"depth": 16}, {"dimensions": 3, "depth": 3}, {"tilt": "ignore"}):
        with pytest.raises(MetaDxError) as told:
            ImageOptions(**bad)  # type: ignore[arg-type]
        assert told.value.code == "bad_value"
    assert ImageOptions().picture_hash() == "d6387f64ecfff818"  # since before there were volumes
    assert ImageOptions(dimensions=3).picture_hash() != ImageOptions().picture_hash()
    assert ImageOptions(dimensions=3, depth=16, size=32).shape == (1, 16, 32, 32)
