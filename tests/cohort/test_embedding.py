"""The embedding: variants without a second look at the picture, neighbours as by brute force, bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort import embedding
from meta_dx.cohort.embedding import (
    VARIANTS,
    Embedded,
    embed,
    inverse,
    lay,
    nearest,
    orientation_histograms,
    shrunk,
)
from tests.cohort.drawn_scenes import Scene


def random_vectors(n: int, seed: int) -> Embedded:
    vectors = np.random.default_rng(seed).normal(size=(n, 9, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return Embedded(vectors[:, :8], vectors[:, 8])


@pytest.mark.parametrize("variant", range(8))
def test_the_histograms_of_a_variant_are_those_of_the_laid_picture(variant: int) -> None:
    pictures = np.random.default_rng(variant).integers(0, 256, (5, 64, 64)).astype(np.uint8)
    of_laid_pictures = orientation_histograms(lay(pictures, variant)).reshape(5, -1)
    rearranged = embedding._laid_histograms(orientation_histograms(pictures))[:, variant]
    np.testing.assert_allclose(rearranged, of_laid_pictures, atol=1e-4)


@pytest.mark.parametrize("variant", range(8))
def test_the_inverse_undoes_a_variant(variant: int) -> None:
    picture = np.arange(16).reshape(4, 4)
    assert np.array_equal(lay(lay(picture, variant), inverse(variant)), picture)


def test_the_eight_variants_are_all_different() -> None:
    picture = np.arange(16).reshape(4, 4)
    assert len({lay(picture, variant).tobytes() for variant in range(len(VARIANTS))}) == 8


def test_a_slope_to_the_right_counts_as_orientation_0() -> None:
    slope = np.tile(np.arange(64, dtype=np.uint8) * 3, (1, 64, 1))
    histograms = orientation_histograms(slope)[0].sum(axis=(2, 3))  # (scales, bins)
    assert (histograms.argmax(axis=1) == 0).all()
    assert (histograms[:, 2:7] < 1e-6).all()  # 90 degrees off and more


def test_shrinking_takes_means() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    expected = pictures.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(shrunk(pictures, 16), expected, rtol=1e-5)


def test_a_copy_is_nearer_than_any_other_picture_in_every_variant() -> None:
    pictures = np.stack([Scene(seed).draw() for seed in range(40)])
    laid = np.stack([lay(Scene(seed).draw(), seed % 8) for seed in range(40)])
    embedded = embed(np.concatenate([pictures, laid])).variants
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=2), 1, rtol=1e-4)
    alike = np.einsum("nd,mvd->nmv", embedded[40:, 0], embedded[:40])
    best = alike.reshape(40, -1).argmax(axis=1)
    assert (best // 8 == np.arange(40)).all()
    assert (best % 8 == np.arange(40) % 8).all()


def test_the_middle_of_a_picture_resembles_a_copy_that_was_cut_more_than_the_whole_does() -> None:
    scenes = [Scene(seed) for seed in range(40)]
    embedded = embed(
        np.stack([scene.draw() for scene in scenes] + [scene.draw(zoom=0.82) for scene in scenes])
    )
    cut = embedded.variants[40:, 0]
    by_middle = (embedded.middles[:40] * cut).sum(axis=1)
    by_whole = (embedded.variants[:40, 0] * cut).sum(axis=1)
    assert (by_middle > by_whole).all()
    assert by_middle.min() > 0.7


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 10**6))
def test_neighbours_are_those_of_brute_force(n: int, count: int, seed: int) -> None:
    embedded = random_vectors(n, seed)
    owner = np.random.default_rng(seed).integers(0, max(2, n // 2), n)
    expected = set()
    for row in range(n):
        alike = {
            other: max(
                (float(one @ embedded.variants[other, v]), v)
                for v in range(8)
                for one in (embedded.variants[row, 0], embedded.middles[row])
            )
            for other in range(n)
            if owner[other] != owner[row]
        }
        for other in sorted(alike, key=lambda one: -alike[one][0])[:count]:
            variant = alike[other][1]
            expected.add((row, other, variant) if row < other else (other, row, inverse(variant)))
    found = nearest(embedded, owner, count)
    assert list(zip(*(part.tolist() for part in found), strict=True)) == sorted(expected)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded, owner = random_vectors(50, 3), np.arange(50) // 2
    whole = nearest(embedded, owner, 5)
    monkeypatch.setattr(embedding, "_ROWS", 7)
    for one, other in zip(whole, nearest(embedded, owner, 5), strict=True):
        assert np.array_equal(one, other)


def test_memory_grows_with_the_number_of_pictures_and_not_with_its_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding, "_ROWS", 32)
    peaks = []
    for n in (500, 2000):
        embedded = random_vectors(n, 1)
        tracemalloc.start()
        nearest(embedded, np.arange(n), 5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 6 * peaks[0]  # the square would be 16 times as much
    assert peaks[1] < 2000 * 2000 * 4 / 4  # a quarter of one matrix of all with all
