"""Pictures as their own window or VOI LUT shows them, held against pydicom and against hand-made numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence

from meta_dx.cohort.picture_process import prepared_frame
from meta_dx.cohort.preprocessing import ImageOptions, preprocess
from meta_dx.dicom.display import WHITE, compact, displayed_pixels, shown_pixels, window_of
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.errors import MetaDxError
from tests.dicom.builders import build_instance, picture


def shown(dataset: Dataset, frame: int = 0) -> np.ndarray:
    found = displayed_pixels(dataset, frame)
    assert found is not None
    assert found.dtype == np.float32
    return found


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(1500, 800), (-200, 1500), (0, 3)])
@pytest.mark.parametrize("rescale", [(1, 0), (2, -1024)])
def test_a_window_shows_what_pydicom_shows(
    function: str, center: int, width: int, rescale: tuple[int, int]
) -> None:
    dataset = build_instance(
        pixels=picture(1, (20, 30)),
        WindowCenter=center,
        WindowWidth=width,
        VOILUTFunction=function,
        RescaleSlope=rescale[0],
        RescaleIntercept=rescale[1],
    )
    theirs = apply_voi_lut(physical_pixels(dataset).astype(np.float64), dataset)
    low, high = (float(edge) for edge in _their_range(dataset))
    expected = (theirs - low) / (high - low) * 255
    np.testing.assert_allclose(shown(dataset), expected, atol=0.02)


def _their_range(dataset: Dataset) -> tuple[float, float]:
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return intercept, ((1 << dataset.BitsStored) - 1) * slope + intercept


@pytest.mark.parametrize("first", [0, 1000])
def test_a_voi_table_counts_before_the_window(first: int) -> None:
    item = Dataset()
    table = (np.arange(2048) ** 2 // 1024).astype(np.uint16)
    item.LUTDescriptor = [2048, first, 12]
    item.LUTData = table.tolist()
    pixels = picture(2, (16, 16))
    dataset = build_instance(pixels=pixels, WindowCenter=40, WindowWidth=10, VOILUTSequence=Sequence([item]))
    np.testing.assert_allclose(
        shown(dataset), table[np.clip(pixels.astype(int) - first, 0, 2047)] * (255 / 4095), atol=1e-3
    )


def test_monochrome1_is_turned_over() -> None:
    pixels = picture(3)
    made: dict[str, Any] = {"pixels": pixels, "WindowCenter": 2000, "WindowWidth": 3000}
    one, two = (build_instance(**made, PhotometricInterpretation=f"MONOCHROME{n}") for n in (1, 2))
    np.testing.assert_allclose(shown(one), 255 - shown(two), atol=1e-3)


@pytest.mark.parametrize("more", [{}, {"RescaleSlope": 2, "RescaleIntercept": -1000}])
def test_the_window_of_monochrome1_shows_its_turned_values_as_the_object_wants_them(
    more: dict[str, Any],
) -> None:
    pixels = picture(3) // 8 + 100
    made: dict[str, Any] = {
        "pixels": pixels,
        "WindowCenter": 300,
        "WindowWidth": 400,
        "VOILUTFunction": "LINEAR_EXACT",
    }
    dataset = build_instance(**made, **more, PhotometricInterpretation="MONOCHROME1")
    center, width, _ = window_of(dataset) or (0, 1, None)
    seen = ((physical_pixels(dataset) - center) / width + 0.5).clip(0, 1) * 255
    np.testing.assert_allclose(seen, shown(dataset), atol=1e-2)
    assert np.ptp(seen) > 50


def test_padding_is_black() -> None:
    pixels = picture(4)
    pixels[:4] = 3333
    dataset = build_instance(
        pixels=pixels,
        WindowCenter=2000,
        WindowWidth=4000,
        PixelPaddingValue=3333,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert (shown(dataset)[:4] == 0).all()


def test_what_a_frame_says_counts_before_what_all_say() -> None:
    def group(center: int) -> Dataset:
        voi, holder = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = center, 100
        holder.FrameVOILUTSequence = Sequence([voi])
        return holder

    frames = np.stack([picture(5), picture(5)])
    dataset = build_instance(
        pixels=frames,
        NumberOfFrames=2,
        WindowCenter=7,
        WindowWidth=9,
        SharedFunctionalGroupsSequence=Sequence([group(50)]),
        PerFrameFunctionalGroupsSequence=Sequence([group(1000), Dataset()]),
    )
    assert [window_of(dataset, n) for n in (0, 1)] == [(1000.0, 100.0, False), (50.0, 100.0, False)]
    assert not np.array_equal(shown(dataset, 0), shown(dataset, 1))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 40},
        {"WindowCenter": 40, "WindowWidth": 0},
        {"WindowCenter": 40, "WindowWidth": -5},
        {"WindowCenter": "", "WindowWidth": ""},
        {"VOILUTSequence": Sequence([])},
        {"VOILUTSequence": Sequence([Dataset()])},
    ],
)
def test_an_object_that_says_nothing_usable_says_nothing(tags: dict[str, Any]) -> None:
    assert displayed_pixels(build_instance(**tags)) is None


def test_of_several_windows_the_first_counts() -> None:
    assert window_of(build_instance(WindowCenter=[40, 600], WindowWidth=[80, 1600])) == (40.0, 80.0, False)


def curve(bits: int = 12) -> dict[str, Any]:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, bits]
    item.LUTData = (np.sqrt(np.arange(4096) / 4095) * ((1 << bits) - 1)).astype(np.uint16).tolist()
    return {"VOILUTSequence": Sequence([item])}


SIGMOID = {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"}


@pytest.mark.parametrize(
    "tags", [curve(), curve(16), SIGMOID, {**curve(), "WindowCenter": 9, "WindowWidth": 9}]
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_no_window_shows_is_shaped_before_it_is_windowed(tags: dict[str, Any], photometric: str) -> None:
    dataset = build_instance(pixels=picture(8), PhotometricInterpretation=photometric, Modality="MG", **tags)
    assert window_of(dataset) == (WHITE / 2, WHITE, True)
    found = shown_pixels(dataset)
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found / WHITE, shown(dataset) / 255, atol=1e-5)


@pytest.mark.parametrize("tags", [{**curve(), "WindowCenter": 40, "WindowWidth": 80}, curve(), SIGMOID])
def test_values_of_ct_stay_in_their_unit(tags: dict[str, Any]) -> None:
    found = window_of(build_instance(Modality="CT", **tags))
    assert found == ((tags["WindowCenter"], tags["WindowWidth"], False) if "WindowWidth" in tags else None)


def test_a_damaged_table_leaves_the_window() -> None:
    tags = {"VOILUTSequence": Sequence([Dataset()]), "WindowCenter": 40, "WindowWidth": 80}
    assert window_of(build_instance(Modality="MG", **tags)) == (40, 80, False)


def test_beside_shaped_pictures_one_that_says_nothing_is_shown_whole() -> None:
    dataset = build_instance(pixels=picture(9) // 4 + 300, Modality="MG")
    values, found = dataset.pixel_array.astype(float), shown_pixels(dataset)
    assert (found.min(), found.max()) == (0, WHITE)
    expected = (values - values.min()) / np.ptp(values)
    np.testing.assert_allclose(found / WHITE, expected, atol=1e-4)
    colour = build_instance(pixels=picture(6, (8, 8, 3), 8))
    np.testing.assert_array_equal(shown_pixels(colour), compact(physical_pixels(colour)))


def test_colour_has_no_window() -> None:
    colour = picture(6, (8, 8, 3), 8)
    dataset = build_instance(pixels=colour, WindowCenter=40, WindowWidth=80)
    assert displayed_pixels(dataset) is None


def test_the_look_of_the_object_prepares_pictures_and_falls_back_to_percentiles() -> None:
    look = ImageOptions(size=16, intensity="dicom")
    told = build_instance(pixels=picture(7), WindowCenter=1000, WindowWidth=200)
    silent = build_instance(pixels=picture(7))
    expected = preprocess(shown(told), look, shown=True)
    np.testing.assert_array_equal(prepared_frame(told, 0, look), expected)
    percentiles = prepared_frame(silent, 0, ImageOptions(size=16))
    np.testing.assert_array_equal(prepared_frame(silent, 0, look), percentiles)
    assert not np.array_equal(expected, percentiles)
    assert look.picture_hash() != ImageOptions(size=16).picture_hash()


def test_volumes_have_no_look_of_their_objects() -> None:
    with pytest.raises(MetaDxError, match="dicom"):
        ImageOptions(intensity="dicom", dimensions=3)
