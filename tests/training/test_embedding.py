"""Embeddings of images and studies, and their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from meta_dx.backbones import BackboneOptions, build_encoder
from meta_dx.training import features
from meta_dx.training.embedding import embed_images, embed_studies
from meta_dx.training.features import cached_features, study_features
from tests.training.tiny import cohort

IMAGES, EXAMPLES = cohort(3, 4)
ENCODER = build_encoder(BackboneOptions(), 1).eval()


def test_images_are_embedded_in_order_whatever_the_batch() -> None:
    with torch.no_grad():
        expected = ENCODER(torch.from_numpy(IMAGES)).numpy()
    for batch in (1, 4, 100):
        np.testing.assert_allclose(embed_images(ENCODER, IMAGES, batch=batch), expected, rtol=1e-4, atol=1e-5)
    rows = np.array([5, 0, 5])
    np.testing.assert_allclose(embed_images(ENCODER, IMAGES, rows=rows), expected[rows], rtol=1e-4, atol=1e-5)


def test_a_study_is_the_mean_of_its_images() -> None:
    each = embed_images(ENCODER, IMAGES)
    expected = np.stack([each[rows].mean(0) for rows in EXAMPLES.images])
    assert {len(rows) for rows in EXAMPLES.images} == {1, 2}
    np.testing.assert_allclose(embed_studies(ENCODER, IMAGES, EXAMPLES), expected, rtol=1e-4, atol=1e-5)
    assert embed_studies(ENCODER, IMAGES, EXAMPLES.with_codes(["none"])).shape == (0, 192)


def test_the_encoder_is_left_in_the_mode_that_it_was_in() -> None:
    encoder = build_encoder(BackboneOptions(), 1).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    embed_images(encoder, IMAGES)
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_cache_computes_once_for_each_encoder_and_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_features(tmp_path, ENCODER, IMAGES, "v1")
    np.testing.assert_array_equal(first, embed_images(ENCODER, IMAGES))
    calls: list[int] = []
    real = features.embed_images

    def counted(*arguments: object, **named: object) -> object:
        calls.append(1)
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "embed_images", counted)
    np.testing.assert_array_equal(cached_features(tmp_path, ENCODER, IMAGES, "v1"), first)
    assert not calls
    cached_features(tmp_path, ENCODER, IMAGES, "v2")
    cached_features(tmp_path, build_encoder(BackboneOptions(), 1).eval(), IMAGES, "v1")
    assert len(calls) == 2
    np.testing.assert_allclose(
        study_features(first, EXAMPLES), embed_studies(ENCODER, IMAGES, EXAMPLES), rtol=1e-5, atol=1e-6
    )


def test_a_cache_that_dies_half_way_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "embed_images", broken)
    with pytest.raises(Exception, match="disk is full"):
        cached_features(tmp_path, ENCODER, IMAGES, "v1")
    assert not list(tmp_path.iterdir())
