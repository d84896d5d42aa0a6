"""Voxels are where the affine says, in physical units, and agree with independent readers."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from meta_dx.dicom.geometry import LeftOut, arrange
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.dicom.volume_reasons import VolumeReason
from meta_dx.dicom.volumes import Volume, canonical, frames_of, volumes_of
from tests.dicom.series import along_z, code_of, enhanced, slices_at

AXES = [sign * np.eye(3)[axis] for axis in range(3) for sign in (1, -1)]
PLANES = [(a, d) for a, d in itertools.product(AXES, AXES) if a @ d == 0]  # 24


def volume_of(slices: list[Dataset], **options: Any) -> Volume:
    (volume,) = volumes_of(slices, **options)
    assert isinstance(volume, Volume)
    return volume


def places_of(volume: Volume) -> np.ndarray:
    """Return where the voxels lie, shape (S, R, C, 3)."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.voxels.shape), indexing="ij"), axis=-1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("across", "down"), PLANES)
def test_in_every_orientation_each_voxel_is_what_lies_where_the_affine_says(
    across: np.ndarray, down: np.ndarray, backwards: bool
) -> None:
    normal = np.cross(across, down)
    places = [np.array([3.0, -8, 20]) + 2.0 * k * normal for k in range(4)]
    slices = slices_at(
        places[::-1] if backwards else places, across=across, down=down, spacing=(0.5, 0.75), size=(5, 7)
    )
    volume = volume_of(slices)
    assert volume.voxels.shape == (4, 5, 7) and volume.voxels.dtype == np.float32
    assert (volume.voxels == code_of(places_of(volume))).all()
    laid = canonical(volume)
    assert (laid.voxels == code_of(places_of(laid))).all()
    head_back_left = laid.affine[:3, :3] / np.linalg.norm(laid.affine[:3, :3], axis=0)
    assert head_back_left == pytest.approx(np.eye(3)[::-1])


def test_all_48_ways_to_lay_an_array_become_one() -> None:
    rng = np.random.default_rng(5)
    voxels = rng.standard_normal((4, 5, 6), dtype=np.float32)
    affine = np.array([[0, 0, 0.5, -9], [0, 2, 0, 4], [3.0, 0, 0, 1], [0, 0, 0, 1]])
    affine[:3, :3] = _slightly_turned() @ affine[:3, :3]
    seen = set()
    for order in itertools.permutations(range(3)):
        for reverse in itertools.product((False, True), repeat=3):
            turned, laid = voxels.transpose(order), affine.copy()
            laid[:3, :3] = affine[:3, list(order)]
            for axis, back in enumerate(reverse):
                if back:
                    turned = np.flip(turned, axis)
                    laid[:3, 3] += laid[:3, axis] * (turned.shape[axis] - 1)
                    laid[:3, axis] *= -1
            again = canonical(Volume(turned, laid))
            assert (again.voxels == voxels).all()
            assert again.affine == pytest.approx(affine)
            seen.add(laid.tobytes())
    assert len(seen) == 48


def _slightly_turned() -> np.ndarray:
    angle = np.radians(12)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def test_shuffled_files_give_the_same_volume_bit_for_bit() -> None:
    slices = along_z([0, 2, 4, 6, 8], RescaleType="HU")
    first = volume_of(slices)
    for order in ([4, 2, 0, 1, 3], [1, 0, 3, 2, 4]):
        again = volume_of([slices[k] for k in order])
        assert again.voxels.tobytes() == first.voxels.tobytes()
        assert again.affine.tobytes() == first.affine.tobytes()


def test_every_slice_has_its_own_rescale() -> None:
    def rescale(dataset: Dataset, number: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + number, -100 * number - 7

    slices = along_z([0, 2, 4, 6], edit=rescale)
    volume = volume_of(slices)
    stored = [np.frombuffer(s.PixelData, "<u2").reshape(5, 6).astype(float) for s in slices]
    assert (volume.voxels == np.stack([(1 + n) * stored[n] - 100 * n - 7 for n in range(4)])).all()


@pytest.mark.parametrize("empty", [[1], [0, 4], [0, 1, 2, 3, 4]])
def test_slices_of_padding_alone_have_the_smallest_value_of_the_others(empty: list[int]) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.PixelRepresentation, dataset.PixelPaddingValue = 1, -32768
        if number in empty:
            dataset.PixelData = np.full((5, 6), -32768, "<i2").tobytes()

    voxels = volume_of(along_z([0, 2, 4, 6, 8], edit=edit)).voxels
    plain = volume_of(along_z([0, 2, 4, 6, 8])).voxels
    rest = [k for k in range(5) if k not in empty]
    assert (voxels[rest] == plain[rest]).all()
    assert (voxels[empty] == (plain[rest].min() if rest else 0)).all()


def _changed(**values: Any) -> list[Dataset]:
    def edit(dataset: Dataset, _: int) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return along_z([0, 2, 4], edit=edit)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"RescaleSlope": 3, "RescaleIntercept": -7},
        {"RescaleSlope": "0.3712", "RescaleIntercept": "1.25"},
        {"RescaleSlope": 1000, "RescaleIntercept": 5},
        {"PixelRepresentation": 1},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PixelPaddingValue": 2001},
    ],
)
def test_a_slice_of_a_volume_is_the_picture_of_its_file_bit_for_bit(values: dict[str, Any]) -> None:
    slices = _changed(**values)
    if "PixelPaddingValue" in values:
        for one in slices:
            one.PixelData = (2001).to_bytes(2, "little") + one.PixelData[2:]
        assert (physical_pixels(slices[0])[0, 0] == physical_pixels(slices[0]).min()).all()
    assert (volume_of(slices).voxels == np.stack([physical_pixels(one) for one in slices])).all()


def test_an_enhanced_object_is_the_volume_of_its_classic_slices() -> None:
    def rescale(dataset: Dataset, number: int) -> None:
        dataset.RescaleIntercept = -1024 + number

    slices = along_z([4, 0, 8, 2, 6], edit=rescale)
    classic, joined = volume_of(slices), volume_of([enhanced(slices)])
    assert (classic.voxels == joined.voxels).all() and (classic.affine == joined.affine).all()


@pytest.mark.parametrize("angle", [-20.0, 12.0])
def test_a_straightened_series_shows_what_lies_at_right_angles(angle: float) -> None:
    lean = np.tan(np.radians(angle))
    places = [np.array([0.0, lean * 3 * k, 3.0 * k]) for k in range(9)]

    def smooth(dataset: Dataset, number: int) -> None:
        rows = places[number][1] + 0.8 * np.arange(40)[:, None]
        values = 20 * rows + 7 * np.arange(30) * 0.8 + 5 * places[number][2] + 1024
        dataset.PixelData = values.round().astype("<u2").tobytes()

    slices = slices_at(places, spacing=(0.8, 0.8), size=(40, 30), edit=smooth)
    volume = volume_of(slices, allow_tilt=True)
    assert volume.affine[:3, 0] == pytest.approx([0, 0, 3.0], abs=1e-9)
    where = places_of(volume)
    expected = 20 * where[..., 1] + 7 * where[..., 0] + 5 * where[..., 2]
    inside = (where[..., 1] >= np.outer([p[1] for p in places], np.ones(40))[:, :, None]) & (
        where[..., 1] <= np.outer([p[1] + 0.8 * 39 for p in places], np.ones(40))[:, :, None]
    )
    assert inside.mean() > 0.5
    assert np.abs(volume.voxels - expected)[inside].max() <= 1.0  # rounding to whole units


def test_the_affine_of_an_oblique_series_is_nibabels() -> None:
    across = np.array([0.8, 0.6, 0.0])
    down = np.cross(_unit(np.array([0.3, -0.4, 0.866])), across)
    down = _unit(down - (down @ across) * across)
    normal = np.cross(across, down)
    slices = slices_at(
        [np.array([-40.0, 12, 3]) + 2.5 * k * normal for k in range(5)], across=across, down=down
    )
    for one in slices:
        one.SpacingBetweenSlices = 2.5
    _same_as_nibabel(slices)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _same_as_nibabel(slices: list[Dataset]) -> None:
    """Compare with nibabel's affines of the single slices, which are LPS as well."""
    from nibabel.nicom.dicomwrappers import wrapper_from_data

    volume = volume_of(slices)
    (stack,) = arrange(frames_of(slices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, last = (wrapper_from_data(slices[stack.rows[end]]) for end in (0, -1))
        affines = [np.asarray(one.affine) for one in (first, last)]
    assert volume.affine[:3, 1:3] == pytest.approx(affines[0][:3, :2], abs=1e-4)  # down, across
    assert volume.affine[:3, 3] == pytest.approx(affines[0][:3, 3], abs=1e-4)
    step = (affines[1][:3, 3] - affines[0][:3, 3]) / (len(stack.rows) - 1)
    assert volume.affine[:3, 0] == pytest.approx(step, abs=1e-4)
    indicators = [float(wrapper_from_data(slices[row]).slice_indicator) for row in stack.rows]
    assert indicators in (sorted(indicators), sorted(indicators)[::-1]), "nibabel has them in the same order"


def real_series(folder: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(folder.iterdir()) if path.name != "DIRFILE"]


@pytest.mark.data
def test_a_real_head_is_where_nibabel_puts_it(real_data: Path) -> None:
    slices = real_series(real_data / "ct-volumes" / "philips-head-5mm")
    _same_as_nibabel(slices)
    volume = volume_of(slices)
    assert volume.spacing == pytest.approx((5.0, 0.4512, 0.4512), abs=1e-3)
    assert -1100 <= volume.voxels.min() and 500 < volume.voxels.max() < 4100  # air and bone, HU


@pytest.mark.data
def test_the_faults_of_a_real_tilted_head_are_named(real_data: Path) -> None:
    (left,) = volumes_of(real_series(real_data / "ct-volumes" / "ge-gantry-tilt"))
    assert isinstance(left, LeftOut) and left.reason == VolumeReason.GANTRY_TILT
    assert left.detail.startswith("18.5 degrees; also: from 1.08 to 7.00 mm")
    tilts = {
        float(one.GantryDetectorTilt) for one in real_series(real_data / "ct-volumes" / "ge-gantry-tilt")
    }
    assert {abs(tilt) for tilt in tilts} == {18.5}, "the header agrees with what the positions say"


@pytest.mark.data
def test_real_enhanced_objects_are_where_nibabel_puts_them(real_data: Path) -> None:
    from nibabel.nicom.dicomwrappers import MultiframeWrapper

    found = 0
    for path in sorted((real_data / "dicom-corpus").rglob("*")):
        if not path.is_file():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = dcmread(path, stop_before_pixels=True)
                theirs = np.asarray(MultiframeWrapper(dataset).affine)
                (stack,) = arrange(frames_of([dataset]))
            except Exception:  # noqa: S112 - not enhanced, several stacks, or something that nibabel refuses
                continue
        if isinstance(stack, LeftOut):
            continue
        assert stack.affine[:3, 1:3] == pytest.approx(theirs[:3, :2], abs=1e-4), path.name
        found += 1
    assert found >= 3


def monais_spacing(slices: list[Dataset], folder: Path) -> float:
    """Return how far apart MONAI's reader says that the slices are."""
    from monai.data import PydicomReader

    for number, one in enumerate(slices):
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = PydicomReader()
        _, meta = reader.get_data(reader.read(str(folder)))
    return float(np.linalg.norm(np.asarray(meta["affine"])[:3, 2]))


def test_the_gap_over_which_monai_stretches_is_named(tmp_path: Path) -> None:
    slices = along_z([0, 2, 4, 10, 12], edit=lambda d, number: setattr(d, "InstanceNumber", number))
    assert monais_spacing(slices, tmp_path) == pytest.approx(3.0)  # it is 2 mm, with a gap
    (left,) = volumes_of(slices)
    assert isinstance(left, LeftOut) and left.reason == VolumeReason.GAP


def test_instance_numbers_that_mislead_monai_change_nothing(tmp_path: Path) -> None:
    slices = along_z([0, 2, 4, 6, 8])
    assert monais_spacing(slices, tmp_path) == pytest.approx(1.0)  # it sorts by InstanceNumber
    assert volume_of(slices).spacing[0] == pytest.approx(2.0)


def test_faults_that_highdicom_and_panimg_do_not_tell_apart_have_names() -> None:
    leaning = slices_at([(0, 2.0 * k, 3.0 * k) for k in range(5)])
    faults = [along_z([0, 2, 4, 10]), along_z([0, 2, 2, 4]), along_z([0, 2, 5, 7, 9]), leaning]
    named = [
        part.reason.value for slices in faults for part in volumes_of(slices) if isinstance(part, LeftOut)
    ]
    assert named == ["gap", "duplicate_position", "irregular_spacing", "gantry_tilt"]
