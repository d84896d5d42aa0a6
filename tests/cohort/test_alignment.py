"""Alignment: known zooms and shifts are recovered, and agreement is the lower quartile of the cells' correlations."""

from __future__ import annotations

import numpy as np
import pytest

from meta_dx.cohort.alignment import ZOOMS, agreement, local_contrast, refined, rough_fits
from meta_dx.cohort.embedding import shrunk
from tests.cohort.drawn_scenes import Picture, Scene

IN_PLACE = np.array([[1, 1, 0, 0]], dtype=np.float32)


def aligned(one: Picture, other: Picture) -> tuple[float, np.ndarray, float]:
    """Return the rough fit, the place and the agreement."""
    small = [local_contrast(shrunk(each[None], 32)) for each in (one, other)]
    full = [local_contrast(each[None]) for each in (one, other)]
    fit, place = rough_fits(small[0][0], small[1])
    place = refined(*full, refined(*small, place))
    return float(fit[0]), place[0], float(agreement(*full, place)[0])


@pytest.mark.parametrize("zoom", [0.8, 0.88, 0.94, 1.0])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.03, -0.02), (1 / 64, 0.0), (-0.06, 0.06)])
def test_a_cut_and_shifted_picture_is_put_in_its_place(zoom: float, shift: tuple[float, float]) -> None:
    for seed in range(4):
        scene = Scene(seed)
        fit, place, value = aligned(scene.draw(), scene.draw(zoom=zoom, shift=shift))
        np.testing.assert_allclose(place, [zoom, zoom, *shift], atol=0.01)
        assert fit > 0.6
        assert value > 0.9


def test_a_picture_may_also_show_less_than_the_other() -> None:
    scene = Scene(5)
    _, place, value = aligned(scene.draw(zoom=0.85), scene.draw())
    np.testing.assert_allclose(place, [1 / 0.85, 1 / 0.85, 0, 0], atol=0.02)
    assert value > 0.9


def test_zooms_reach_a_cut_of_10_percent_on_each_side_both_ways() -> None:
    assert min(ZOOMS) <= 0.8
    assert max(ZOOMS) >= 1 / 0.8


def test_agreement_is_the_lower_quartile_of_the_correlations_of_the_cells() -> None:
    one, other = (local_contrast(Scene(seed, anatomy=1).draw()[None]) for seed in (1, 2))
    cells = [
        np.corrcoef(one[0, y : y + 8, x : x + 8].ravel(), other[0, y : y + 8, x : x + 8].ravel())[0, 1]
        for y in range(0, 64, 8)
        for x in range(0, 64, 8)
    ]
    assert agreement(one, other, IN_PLACE)[0] == pytest.approx(sorted(cells)[63 // 4], abs=1e-3)


def test_a_mark_in_a_corner_does_not_count_and_a_difference_in_a_third_does() -> None:
    scene, stranger = Scene(1).draw(), Scene(2).draw()
    marked, half = scene.copy(), scene.copy()
    marked[:12, -12:] = 255
    half[:24] = stranger[:24]
    contrast = local_contrast(np.stack([scene, marked, half]))
    values = [float(agreement(contrast[:1], contrast[n : n + 1], IN_PLACE)[0]) for n in (1, 2)]
    assert values[0] > 0.95
    assert values[1] < 0.6


def test_pictures_that_show_hardly_anything_do_not_agree() -> None:
    blank = np.full((1, 64, 64), 90, dtype=np.uint8)
    spot = blank.copy()
    spot[0, 28:36, 28:36] = 255
    for picture in (blank, spot):
        contrast = local_contrast(picture)
        assert agreement(contrast, contrast, IN_PLACE)[0] == -1


def test_local_contrast_leaves_gain_lighting_and_gamma_behind() -> None:
    picture = Scene(3).draw().astype(np.float64)
    light = np.linspace(0, 60, 64)[:, None]
    others = [picture * 0.6 + 20, picture * 0.7 + light, 255 * (picture / 255) ** 1.5]
    contrast = local_contrast(np.stack([picture, *others]))
    for other in contrast[1:]:
        assert np.corrcoef(contrast[0].ravel(), other.ravel())[0, 1] > 0.97


def test_refinement_does_not_run_away_from_a_picture_without_contrast() -> None:
    contrast = local_contrast(np.full((1, 64, 64), 90, dtype=np.uint8))
    np.testing.assert_allclose(refined(contrast, contrast, IN_PLACE), IN_PLACE, atol=1e-3)
