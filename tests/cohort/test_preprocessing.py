"""The prepared picture: right grey levels, right geometry, no aliasing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from meta_dx.cohort.preprocessing import ImageOptions, preprocess
from meta_dx.errors import MetaDxError


def ramp(height: int = 40, width: int = 40) -> np.ndarray:
    return np.linspace(-1000, 3000, height * width, dtype=np.float32).reshape(height, width)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.one_of(
            st.tuples(st.integers(1, 40), st.integers(1, 40)),
            st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)),
        ),
        elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf]),
    ),
    st.sampled_from(["crop", "pad", "stretch"]),
    st.sampled_from(["percentile", "window", "range"]),
    st.sampled_from([1, 3]),
    st.sampled_from([8, 17]),
)
def test_any_pixels_become_a_picture_of_the_right_shape_always_the_same(
    pixels: np.ndarray, fit: Any, intensity: Any, channels: int, size: int
) -> None:
    options = ImageOptions(
        size=size, channels=channels, fit=fit, intensity=intensity, window_center=40.0, window_width=400.0
    )
    before = pixels.copy()
    picture = preprocess(pixels, options)
    assert picture.shape == options.shape == (channels, size, size)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(picture, preprocess(pixels, options))


def test_the_window_is_in_physical_units() -> None:
    pixels = np.array([[-161, -160, -60, 40, 140, 240, 241, 5000]] * 8, dtype=np.float32)
    options = ImageOptions(size=8, intensity="window", window_center=40.0, window_width=400.0)
    assert preprocess(pixels, options)[0, 0].tolist() == [0, 0, 64, 128, 191, 255, 255, 255]


def test_percentiles_ignore_a_few_extreme_pixels_and_the_range_does_not() -> None:
    pixels = ramp(64, 64)
    pixels[0, 0], pixels[63, 63] = -1e6, 1e6
    by_range = preprocess(pixels, ImageOptions(intensity="range"))
    by_percentile = preprocess(pixels, ImageOptions(low=1.0, high=99.0))[0]
    assert np.ptp(by_range[0, 1:-1]) <= 1
    black, white = np.percentile(pixels, [1, 99])
    expected = ((pixels - black) / (white - black)).clip(0, 1) * 255
    assert np.abs(by_percentile - expected).max() <= 0.51


def test_one_single_value_and_no_finite_value_become_black() -> None:
    for pixels in (np.full((20, 30), 7.0), np.full((20, 30), np.nan)):
        for intensity in ("percentile", "range"):
            assert not preprocess(pixels.astype(np.float32), ImageOptions(intensity=intensity)).any()


def test_grey_levels_do_not_depend_on_scale_or_offset() -> None:
    pixels = np.random.default_rng(0).normal(size=(50, 70)).astype(np.float32)
    first, second = (preprocess(pixels * a + b, ImageOptions(size=32)) for a, b in ((1, 0), (37.5, -1024)))
    assert np.abs(first.astype(int) - second).max() <= 1


def test_crop_takes_the_middle_pad_keeps_everything_and_stretch_fills() -> None:
    pixels = np.zeros((20, 40), dtype=np.float32)
    pixels[:, :10], pixels[:, 10:30], pixels[:, 30:] = 1, 2, 3
    made = {f: preprocess(pixels, ImageOptions(size=40, fit=f, intensity="range"))[0] for f in FITS}
    assert (made["crop"] == 128).all()
    assert (made["pad"][:10] == 0).all() and (made["pad"][30:] == 0).all()
    assert made["pad"][20, [2, 20, 37]].tolist() == [0, 128, 255]
    assert (made["stretch"] == made["stretch"][0]).all()
    assert made["stretch"][0, [2, 20, 37]].tolist() == [0, 128, 255]


FITS: tuple[Any, ...] = ("crop", "pad", "stretch")


def test_reduction_averages_fine_texture_away() -> None:
    board = (np.indices((256, 256)).sum(0) % 2).astype(np.float32)
    picture = preprocess(board, ImageOptions(size=32, intensity="range"))
    assert np.abs(picture.astype(int) - 128).max() <= 2


def test_enlarging_and_reducing_keep_a_smooth_picture_in_place() -> None:
    y, x = np.mgrid[0:90, 0:90] / 89
    made = [
        preprocess((x + 2 * y).astype(np.float32), ImageOptions(size=s, intensity="range"))[0]
        for s in (30, 180)
    ]
    up_and_down = made[1].reshape(30, 6, 30, 6).mean((1, 3))
    assert np.abs(up_and_down - made[0])[2:-2, 2:-2].max() < 1.5


def test_colour_becomes_luminance_and_grey_is_copied() -> None:
    colour = np.zeros((16, 16, 3), dtype=np.float32)
    colour[..., 0], colour[..., 1], colour[..., 2] = 200, 100, 50
    window: dict[str, Any] = {
        "size": 16,
        "intensity": "window",
        "window_center": 127.5,
        "window_width": 255.0,
    }
    assert preprocess(colour, ImageOptions(channels=3, **window))[:, 0, 0].tolist() == [200, 100, 50]
    assert preprocess(colour, ImageOptions(channels=1, **window))[0, 0, 0] == round(0.299 * 200 + 58.7 + 5.7)
    assert preprocess(colour[..., 0], ImageOptions(channels=3, **window))[:, 3, 3].tolist() == [200] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 4},
        {"channels": 2},
        {"fit": "fill"},
        {"intensity": "log"},
        {"low": 99.9},
        {"high": 101.0},
        {"intensity": "window"},
        {"intensity": "window", "window_center": 40.0, "window_width": 0.0},
        {"max_images": 0},
    ],
)
def test_impossible_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(MetaDxError, match="allowed is") as fault:
        ImageOptions(**wrong)
    assert fault.value.code == "bad_value"


def test_only_what_changes_a_picture_changes_its_name() -> None:
    name = ImageOptions().picture_hash()
    same = [{"max_images": 9}, {"modalities": ("CT",)}, {"window_center": 1.0}]
    other = [{"size": 65}, {"channels": 3}, {"fit": "pad"}, {"low": 1.0}, {"intensity": "range"}]
    assert {ImageOptions(**changed).picture_hash() for changed in same} == {name}
    assert name not in {ImageOptions(**changed).picture_hash() for changed in other}
