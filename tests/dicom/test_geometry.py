"""Slices become stacks, or the fault has its name: whatever the order of the files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from meta_dx.dicom import geometry
from meta_dx.dicom.geometry import LeftOut, Stack, arrange
from meta_dx.dicom.volume_reasons import VolumeReason
from meta_dx.dicom.volumes import frames_of
from tests.dicom.series import along_z, enhanced, slices_at

EVEN = [0.0, 2.5, 5.0, 7.5, 10.0, 12.5]


def sorted_out(slices: list[Dataset], **options: Any) -> list[Stack | LeftOut]:
    found = arrange(frames_of(slices), **options)
    counted = np.concatenate([part.rows for part in found])
    assert sorted(counted.tolist()) == list(range(len(frames_of(slices)))), "each frame in exactly one part"
    return list(found)


def only(slices: list[Dataset], **options: Any) -> Stack | LeftOut:
    (part,) = sorted_out(slices, **options)
    return part


def reason(slices: list[Dataset], **options: Any) -> tuple[VolumeReason, str]:
    part = only(slices, **options)
    assert isinstance(part, LeftOut)
    return part.reason, part.detail


def test_slices_lie_in_the_order_of_their_positions_whatever_their_numbers() -> None:
    part = only(along_z([5.0, 0.0, 10.0, 2.5, 7.5]))
    assert isinstance(part, Stack)
    assert part.rows.tolist() == [1, 3, 0, 4, 2]
    assert part.spacing == pytest.approx((2.5, 1.0, 1.0))
    assert part.affine == pytest.approx(
        np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    )


@given(
    turn=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(v * v for v in q) > 0.1),
    gap=st.floats(0.3, 12),
    pixel=st.tuples(st.floats(0.2, 4), st.floats(0.2, 4)),
    count=st.integers(3, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_an_oblique_stack_has_its_affine_and_shuffling_changes_no_bit(
    turn: tuple[float, ...], gap: float, pixel: tuple[float, float], count: int, seed: int
) -> None:
    axes = _rotation(np.array(turn))
    across, down, normal = axes.T
    origin = np.array([-12.5, 40.0, 7.25])
    slices = slices_at(
        [origin + k * gap * normal for k in range(count)], across=across, down=down, spacing=pixel
    )
    part = only(slices)
    assert isinstance(part, Stack)
    expected = np.stack([gap * normal, pixel[0] * down, pixel[1] * across, origin], axis=1)
    assert part.affine[:3] == pytest.approx(expected, abs=1e-6)
    order = np.random.default_rng(seed).permutation(count)
    again = only([slices[k] for k in order])
    assert isinstance(again, Stack)
    assert again.affine.tobytes() == part.affine.tobytes()
    assert order[again.rows].tolist() == part.rows.tolist()


def _rotation(q: np.ndarray) -> np.ndarray:
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_a_gap_is_told_from_uneven_spacing_and_its_place_is_said() -> None:
    assert reason(along_z([0, 2, 4, 10, 12, 14])) == (
        VolumeReason.GAP,
        "2 missing, the first after 4.00 mm, where 6.00 mm follow instead of 2.00",
    )
    code, detail = reason(along_z([0, 2, 4, 7, 9, 11]))
    assert code == VolumeReason.IRREGULAR_SPACING
    assert detail == "from 2.00 to 3.00 mm, usually 2.00; most unusual after 4.00 mm"


@given(missing=st.integers(1, 38), gap=st.floats(0.5, 10))
@settings(max_examples=30, deadline=None)
def test_one_slice_of_forty_that_is_missing_is_always_a_gap(missing: int, gap: float) -> None:
    code, detail = reason(along_z([k * gap for k in range(40) if k != missing]))
    assert code == VolumeReason.GAP and detail.startswith("1 missing")
    assert f"after {(missing - 1) * gap:.2f} mm" in detail


def test_positions_written_with_one_digit_are_no_uneven_spacing() -> None:
    part = only(along_z([round(0.625 * k, 1) for k in range(30)]))
    assert isinstance(part, Stack)
    assert part.spacing[0] == pytest.approx(18.1 / 29)  # of the ends, not of two neighbours


def test_spacing_is_even_up_to_the_tolerance_and_no_further() -> None:
    def moved(part: float) -> list[Dataset]:
        return along_z([0, 10, 20 + 10 * part, 30, 40])

    assert isinstance(only(moved(0.95 * geometry.SPACING_TOLERANCE)), Stack)
    assert reason(moved(1.05 * geometry.SPACING_TOLERANCE))[0] == VolumeReason.IRREGULAR_SPACING


def test_slices_at_one_position_are_duplicates() -> None:
    code, detail = reason(along_z([*EVEN, 5.0]))
    assert (code, detail) == (VolumeReason.DUPLICATE_POSITION, "1 slices too many, the first at 5.00 mm")
    assert reason(along_z([3.0] * 5))[0] == VolumeReason.DUPLICATE_POSITION


@pytest.mark.parametrize("angle", [-25.0, -3.0, 4.0, 18.5])
@pytest.mark.parametrize("sideways", ["down", "across"])
def test_a_tilted_gantry_has_its_angle_and_a_sheared_affine_on_request(angle: float, sideways: str) -> None:
    aside = np.tan(np.radians(angle)) * np.array([0.0, 1, 0] if sideways == "down" else [1.0, 0, 0])
    slices = slices_at([k * 5.0 * (np.array([0, 0, 1.0]) + aside) for k in range(8)])
    code, detail = reason(slices)
    assert code == VolumeReason.GANTRY_TILT and detail == f"{abs(angle):.1f} degrees"
    part = only(slices, allow_tilt=True)
    assert isinstance(part, Stack) and part.tilt == pytest.approx(abs(angle), abs=1e-6)
    assert part.affine[:3, 0] == pytest.approx(5.0 * (np.array([0, 0, 1.0]) + aside), abs=1e-6)
    assert part.spacing[0] == pytest.approx(5.0)


def test_half_a_pixel_aside_is_no_tilt_and_zigzag_is_no_stack() -> None:
    def leaning(pixels: float) -> list[Dataset]:
        return slices_at([(pixels * k / 5, 0, 2.0 * k) for k in range(6)])

    assert isinstance(only(leaning(0.95 * geometry.SIDEWAYS_TOLERANCE)), Stack)
    assert reason(leaning(1.05 * geometry.SIDEWAYS_TOLERANCE))[0] == VolumeReason.GANTRY_TILT
    zigzag = slices_at([(3.0 * (k % 2), 0, 2.0 * k) for k in range(6)])
    code, detail = reason(zigzag)
    assert code == VolumeReason.SCATTERED_POSITIONS and "mm beside the line" in detail


def test_tilt_and_uneven_spacing_are_both_said() -> None:
    code, detail = reason(slices_at([(0, 0.3 * z, z) for z in (0, 4, 8, 12, 19, 26, 33)]))
    assert code == VolumeReason.GANTRY_TILT
    assert re.fullmatch(r"16\.7 degrees; also: from 4\.00 to 7\.00 mm, usually .*", detail)


def edited(keyword: str, value: Any, which: int = 2) -> Any:
    def edit(dataset: Dataset, number: int) -> None:
        if number == which:
            setattr(dataset, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PixelSpacing", [1.1, 1.1], VolumeReason.MIXED_PIXEL_SPACING),
        ("ImageOrientationPatient", [0, 1, 0, 1, 0, 0], VolumeReason.MIXED_ORIENTATION),
        ("ImageOrientationPatient", [0.9998, 0.02, 0, -0.02, 0.9998, 0], VolumeReason.MIXED_ORIENTATION),
        ("FrameOfReferenceUID", "1.2.3", VolumeReason.MIXED_FRAME_OF_REFERENCE),
        ("Rows", 3, VolumeReason.MIXED_SIZE),
    ],
)
def test_one_slice_that_differs_is_named_by_what_differs(
    keyword: str, value: Any, expected: VolumeReason
) -> None:
    assert reason(along_z(EVEN, edit=edited(keyword, value)))[0] == expected
    everywhere = along_z(EVEN, edit=lambda dataset, _: setattr(dataset, keyword, value))
    assert isinstance(only(everywhere), Stack), "what all slices have is no difference"


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], VolumeReason.LOCALISER),
        ("PhotometricInterpretation", "PALETTE COLOR", VolumeReason.COLOUR),
        ("ImagePositionPatient", None, VolumeReason.NO_GEOMETRY),
        ("ImageOrientationPatient", [], VolumeReason.NO_GEOMETRY),
        ("PixelSpacing", [0.0, 1.0], VolumeReason.NO_PIXEL_SPACING),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], VolumeReason.IMPOSSIBLE_ORIENTATION),
        ("ImageOrientationPatient", [2, 0, 0, 0, 1, 0], VolumeReason.IMPOSSIBLE_ORIENTATION),
    ],
)
def test_a_frame_that_cannot_belong_is_left_out_by_itself(
    keyword: str, value: Any, expected: VolumeReason
) -> None:
    stack, left = sorted_out(along_z([0, 2, 77, 4, 6], edit=edited(keyword, value)))
    assert isinstance(stack, Stack) and stack.rows.tolist() == [0, 1, 3, 4]
    assert isinstance(left, LeftOut) and (left.reason, left.rows.tolist()) == (expected, [2])


def test_two_slices_are_too_few() -> None:
    assert reason(along_z([0, 2]))[0] == VolumeReason.TOO_FEW_SLICES
    assert isinstance(only(along_z([0, 2, 4])), Stack)


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("AcquisitionNumber", "acquisition_number"),
        ("TemporalPositionIdentifier", "temporal_position"),
        ("EchoNumbers", "echo_number"),
        ("EchoTime", "echo_time"),
        ("DiffusionBValue", "b_value"),
        ("TriggerTime", "trigger_time"),
    ],
)
def test_phases_at_the_same_positions_are_separated(keyword: str, name: str) -> None:
    def phase(dataset: Dataset, number: int) -> None:
        setattr(dataset, keyword, 10 + number // 6)

    parts = sorted_out(along_z(EVEN * 3, edit=phase))
    assert [part.phase for part in parts] == [f"{name} {n}" for n in (10, 11, 12)]
    assert [part.rows.tolist() for part in parts] == [list(range(k, k + 6)) for k in (0, 6, 12)]
    assert all(isinstance(part, Stack) for part in parts)


def test_phases_that_only_two_attributes_tell_apart_are_separated() -> None:
    def phase(dataset: Dataset, number: int) -> None:
        dataset.AcquisitionNumber, dataset.EchoNumbers = 1 + number // 12, 1 + number // 6 % 2

    parts = sorted_out(along_z(EVEN * 4, edit=phase))
    assert len(parts) == 4 and all(isinstance(part, Stack) for part in parts)
    assert parts[3].phase == "acquisition_number 2, echo_number 2"


def test_real_and_phase_images_of_one_acquisition_are_separated_by_their_type() -> None:
    def kind(dataset: Dataset, number: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M" if number < 6 else "P"]

    assert len([part for part in sorted_out(along_z(EVEN * 2, edit=kind)) if isinstance(part, Stack)]) == 2


def test_an_acquisition_number_of_each_slice_separates_nothing() -> None:
    slices = along_z([*EVEN, 5.0], edit=lambda d, number: setattr(d, "AcquisitionNumber", number))
    assert reason(slices)[0] == VolumeReason.DUPLICATE_POSITION


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime"])
def test_phases_whose_slices_lie_evenly_between_one_another_are_no_single_stack(keyword: str) -> None:
    between = [place + 1.25 for place in EVEN]
    slices = along_z([*EVEN, *between], edit=lambda d, number: setattr(d, keyword, 10 + number // 6))
    parts = sorted_out(slices)
    assert [part.rows.tolist() for part in parts] == [list(range(6)), list(range(6, 12))]
    assert [part.spacing[0] for part in parts if isinstance(part, Stack)] == pytest.approx([2.5, 2.5])
    assert isinstance(only(along_z([*EVEN, *between])), Stack)  # nothing tells them apart


def test_rotations_behind_one_another_and_slices_excited_in_turns_stay_one_stack() -> None:
    places = np.arange(12) * 2.5
    for edit in (
        lambda d, number: setattr(d, "AcquisitionNumber", number // 6),
        lambda d, number: setattr(d, "TriggerTime", number % 4),
    ):
        assert isinstance(only(along_z(places.tolist(), edit=edit)), Stack)


def test_attributes_that_differ_everywhere_are_not_tried_slice_by_slice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []
    inner = geometry._stack_or_reason

    def counted(*those: Any) -> Stack | LeftOut:
        tried.append(len(those[1]))
        return inner(*those)

    monkeypatch.setattr(geometry, "_stack_or_reason", counted)
    assert reason(along_z(EVEN * 2, edit=_all_differ))[0] == VolumeReason.DUPLICATE_POSITION
    assert tried == [12]


def _all_differ(dataset: Dataset, number: int) -> None:
    dataset.TriggerTime, dataset.EchoTime, dataset.AcquisitionNumber = number, 50 - number, number


def test_two_regions_in_one_series_are_two_volumes_not_one_with_a_gap() -> None:
    def acquisition(dataset: Dataset, number: int) -> None:
        dataset.AcquisitionNumber = 1 + number // 4

    places = [0, 2, 4, 6, 50, 53, 56, 59]
    parts = sorted_out(along_z(places, edit=acquisition))
    assert [part.spacing[0] for part in parts if isinstance(part, Stack)] == pytest.approx([2.0, 3.0])
    assert reason(along_z(places))[0] == VolumeReason.IRREGULAR_SPACING


def test_a_gap_is_not_talked_away_by_leaving_the_slices_beyond_it_out() -> None:
    slices = along_z([0, 2, 4, 6, 50], edit=lambda d, n: setattr(d, "AcquisitionNumber", 1 + n // 4))
    assert reason(slices)[0] == VolumeReason.GAP


def test_a_phase_that_was_broken_off_does_not_take_the_complete_ones_with_it() -> None:
    def phase(dataset: Dataset, number: int) -> None:
        dataset.TemporalPositionIdentifier = 1 + number // 6

    first, second, rest = sorted_out(along_z(EVEN * 2 + EVEN[:1], edit=phase))
    assert isinstance(first, Stack) and isinstance(second, Stack) and isinstance(rest, LeftOut)
    assert (rest.reason, rest.rows.tolist()) == (VolumeReason.TOO_FEW_SLICES, [12])


def test_an_enhanced_object_is_sorted_as_its_classic_slices_are() -> None:
    places = [5.0, 0.0, 10.0, 2.5, 7.5]
    classic, joined = only(along_z(places)), only([enhanced(along_z(places))])
    assert isinstance(classic, Stack) and isinstance(joined, Stack)
    assert joined.rows.tolist() == classic.rows.tolist()
    assert joined.affine.tobytes() == classic.affine.tobytes()


def test_phases_and_stacks_of_an_enhanced_object_are_separated() -> None:
    slices = along_z(EVEN * 2)
    parts = sorted_out([enhanced(slices, TemporalPositionIndex=[1] * 6 + [2] * 6)])
    assert [part.phase for part in parts] == ["temporal_position 1", "temporal_position 2"]
    parts = sorted_out([enhanced(slices, StackID=["B"] * 6 + ["A"] * 6)])
    assert [part.rows.tolist() for part in parts] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_ct_slices_are_no_volume_if_and_only_if_some_lost_their_rescale(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 8))
    lost = data.draw(
        st.lists(st.sampled_from(["no", "absent", "empty", "1 and 0"]), min_size=count, max_size=count)
    )
    intercepts = data.draw(st.lists(st.integers(-8192, -1), min_size=count, max_size=count))
    modality = data.draw(st.sampled_from(["CT", "MR"]))

    def edit(dataset: Dataset, number: int) -> None:
        dataset.Modality, dataset.RescaleIntercept = modality, intercepts[number]
        if lost[number] == "absent":
            del dataset.RescaleSlope, dataset.RescaleIntercept
        elif lost[number] != "no":
            dataset.RescaleSlope, dataset.RescaleIntercept = (
                (1, 0) if lost[number] == "1 and 0" else (None, None)
            )

    slices, bare = along_z([2.0 * k for k in range(count)], edit=edit), count - lost.count("no")
    parts = [only(slices)]
    if modality == "CT" and "absent" not in lost:
        parts.append(only([enhanced(slices)]))
    for part in parts:
        if modality == "CT" and 0 < bare < count:
            assert isinstance(part, LeftOut) and part.reason == VolumeReason.MIXED_RESCALE
            assert part.detail == f"{bare} of {count} slices have none"
        else:
            assert isinstance(part, Stack)


def test_a_phase_without_a_rescale_is_told_from_the_others() -> None:
    def phase(dataset: Dataset, number: int) -> None:
        dataset.AcquisitionNumber = 1 + number % 2
        if number % 2:
            del dataset.RescaleSlope, dataset.RescaleIntercept

    assert [part.rows.tolist() for part in sorted_out(along_z(EVEN, edit=phase))] == [[0, 2, 4], [1, 3, 5]]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_shuffling_files_of_any_series_changes_nothing(data: st.DataObject) -> None:
    places = data.draw(st.lists(st.sampled_from([0, 2, 2.0001, 4, 6, 9, 30]), min_size=1, max_size=8))
    numbers = data.draw(st.lists(st.integers(1, 2), min_size=len(places), max_size=len(places)))
    aside = data.draw(st.sampled_from([0.0, 0.2]))
    slices = slices_at(
        [(0, aside * z, z) for z in places],
        edit=lambda dataset, number: setattr(dataset, "AcquisitionNumber", numbers[number]),
    )
    order = data.draw(st.permutations(range(len(places))))

    def named(parts: list[Stack | LeftOut], files: list[Dataset]) -> list[tuple[Any, ...]]:
        return [
            (
                type(part).__name__,
                part.phase,
                [str(files[row].SOPInstanceUID) for row in part.rows],
                part.affine.tobytes() if isinstance(part, Stack) else (part.reason, part.detail),
            )
            for part in parts
        ]

    shuffled = [slices[k] for k in order]
    assert named(sorted_out(shuffled), shuffled) == named(sorted_out(slices), slices)


def test_the_page_lists_every_reason_with_its_sentence() -> None:
    page = (Path(__file__).parents[2] / "docs" / "volumes.md").read_text()
    listed = re.findall(r"^\| `([a-z_]+)` \| (.*?) \|$", page, re.M)
    assert listed == [(code.value, code.sentence) for code in VolumeReason]
