"""The second look: mirrored, turned, cut and shifted copies are found; patients with the same anatomy stay apart."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from meta_dx.cohort import copies, embedding
from meta_dx.cohort.copies import find_copies, grey_pictures
from meta_dx.cohort.embedding import lay
from tests.cohort.drawn_scenes import Picture, Scene

OTHERS = [Scene(seed).draw() for seed in range(1000, 1020)]
WAYS = [
    "as it is",
    "turned by 90°",
    "turned by 180°",
    "turned by 270°",
    "mirrored",
    "mirrored and turned by 90°",
    "mirrored and turned by 180°",
    "mirrored and turned by 270°",
]


def jpeg(picture: Picture) -> Picture:
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=30)
    return np.asarray(Image.open(stream))


def shifted(picture: Picture, by: int) -> Picture:
    moved = np.zeros_like(picture)
    moved[by:, by:] = picture[:-by, :-by]
    return moved


CHANGES = {
    "the same": lambda scene: scene.draw(),
    "cut by 3 %": lambda scene: scene.draw(zoom=0.94),
    "cut by 6 %": lambda scene: scene.draw(zoom=0.88),
    "cut by 10 %": lambda scene: scene.draw(zoom=0.80),
    "shifted by a pixel": lambda scene: shifted(scene.draw(), 1),
    "shifted by 6 %, black comes in": lambda scene: shifted(scene.draw(), 4),
    "gamma": lambda scene: (255 * (scene.draw() / 255.0) ** 1.5).astype(np.uint8),
    "compressed": lambda scene: jpeg(scene.draw()),
    "marked": lambda scene: np.where(np.indices((64, 64)).max(0) < 8, 255, scene.draw()).astype(np.uint8),
    "cut and compressed": lambda scene: jpeg(scene.draw(zoom=0.9, shift=(0.02, -0.03))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("variant", range(8))
def test_any_variant_of_a_changed_picture_is_found_and_says_how(change: str, variant: int) -> None:
    scenes = [Scene(seed) for seed in range(4)]
    changed = [np.ascontiguousarray(lay(CHANGES[change](scene), variant)) for scene in scenes]
    pictures = np.stack([*changed, *OTHERS, *(scene.draw() for scene in scenes)])
    found = find_copies(grey_pictures(pictures[:, None]), np.arange(len(pictures)))
    assert [(copy.first, copy.second) for copy in found] == [(n, n + 4 + len(OTHERS)) for n in range(4)]
    assert {copy.how for copy in found} == {WAYS[variant]}  # lay the original like this, and it is the copy


def test_patients_with_the_same_anatomy_stay_apart() -> None:
    pictures = np.stack([Scene(seed, anatomy=7, own=0.3).draw() for seed in range(40)])
    alike = np.corrcoef(pictures.reshape(40, -1))[np.triu_indices(40, 1)]
    assert np.median(alike) > 0.85  # they do look alike
    assert find_copies(pictures, np.arange(40)) == []


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_different_pictures_stay_apart(seed: int) -> None:
    pictures = np.stack([Scene(seed + n).draw() for n in range(30)])
    assert find_copies(pictures, np.arange(30)) == []


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(18)))
def test_the_order_of_the_pictures_changes_nothing(order: list[int]) -> None:
    scenes = [Scene(seed) for seed in range(3)]
    turned = [np.ascontiguousarray(lay(scene.draw(zoom=0.9), n + 3)) for n, scene in enumerate(scenes)]
    pictures = np.stack([*(scene.draw() for scene in scenes), *turned, *OTHERS[:12]])
    owner = np.arange(18)
    expected = {(one.first, one.second, one.agreement) for one in find_copies(pictures, owner)}
    assert {pair[:2] for pair in expected} == {(0, 3), (1, 4), (2, 5)}
    place = np.array(order)
    found = find_copies(pictures[place], owner[place])
    assert {(*sorted((order[one.first], order[one.second])), one.agreement) for one in found} == expected


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [Scene(seed, anatomy=3) for seed in range(12)]
    pictures = np.stack([s.draw() for s in scenes] + [s.draw(zoom=0.9) for s in scenes])
    whole = find_copies(pictures, np.arange(24))
    assert len(whole) == 12
    monkeypatch.setattr(copies, "_BLOCK", 3)
    monkeypatch.setattr(embedding, "_ROWS", 5)
    monkeypatch.setattr(embedding, "_PICTURES", 7)
    parts = find_copies(pictures, np.arange(24))
    assert [(c.first, c.second, c.how) for c in parts] == [(c.first, c.second, c.how) for c in whole]
    np.testing.assert_allclose([c.agreement for c in parts], [c.agreement for c in whole], atol=1e-4)


def test_pictures_of_one_patient_are_no_copies_of_one_another() -> None:
    picture = Scene(1).draw()
    assert find_copies(np.stack([picture, picture]), np.array([0, 0])) == []
    found = find_copies(np.stack([picture, picture, picture]), np.array([0, 0, 1]))
    assert [(copy.first, copy.second) for copy in found] == [(0, 2), (1, 2)]


def test_no_picture_and_a_single_one_have_no_copies() -> None:
    for n in (0, 1):
        assert find_copies(np.zeros((n, 64, 64), dtype=np.uint8), np.arange(n)) == []


def test_padding_is_cut_off_also_with_a_text_in_it() -> None:
    scene = Scene(2)
    whole = grey_pictures(scene.draw(96)[None, None])[0].astype(float)
    padded = np.zeros((96, 96), dtype=np.uint8)
    padded[:, 20:76] = np.asarray(Image.fromarray(scene.draw(96)).resize((56, 96), Image.Resampling.BILINEAR))
    texted = padded.copy()
    texted[90, 2:12] = 150
    for picture in (padded, texted):
        cut = grey_pictures(picture[None, None])[0].astype(float)
        assert np.corrcoef(cut.ravel(), whole.ravel())[0, 1] > 0.97


def test_colour_becomes_grey_and_blank_pictures_stay_whole() -> None:
    colour = np.stack([np.full((32, 32), level, dtype=np.uint8) for level in (10, 20, 60)])
    assert (grey_pictures(colour[None]) == 30).all()
