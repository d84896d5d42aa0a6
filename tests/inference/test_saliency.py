"""Saliency: hiding what a head looks at lowers its number, and random weights give another map."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.stats import spearmanr

from meta_dx.errors import MetaDxError
from meta_dx.inference.bundle import Bundle
from meta_dx.inference.predictor import Predictor
from meta_dx.inference.saliency import occlusion
from tests.inference.bundles import SIZE


class Brightness:
    """A network whose embedding is the mean grey of one corner of the picture."""

    def __init__(self) -> None:
        self.pictures = 0

    def embed_images(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        assert images.dtype == np.uint8
        self.pictures += len(images)
        corner = images[(slice(None), slice(None), *[slice(0, side // 4) for side in images.shape[2:]])]
        return corner.mean(axis=tuple(range(1, images.ndim)), dtype=np.float32)[:, None] / np.float32(255)


def bright(x: np.ndarray) -> np.ndarray:
    return x[:, 0].astype(np.float64)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 48), (1, 16, 16, 16)])
def test_the_map_lights_up_where_the_number_comes_from_and_nowhere_else(shape: tuple[int, ...]) -> None:
    picture = np.zeros(shape, np.uint8)
    corner = tuple(slice(0, side // 4) for side in shape[1:])
    picture[(slice(None), *corner)] = 255
    found = occlusion(Brightness(), picture[None], 0, bright)  # type: ignore[arg-type]
    assert found.fall.shape == shape[1:]
    assert found.probability == pytest.approx(1.0)
    assert found.fall[corner].min() > 0
    far = tuple(slice(side // 2, None) for side in shape[1:])
    assert not found.fall[far].any()


def test_a_place_that_speaks_against_the_disease_is_negative() -> None:
    picture = np.full((1, 32, 32), 255, np.uint8)
    picture[0, :8, :8] = 0
    found = occlusion(Brightness(), picture[None], 0, bright)  # type: ignore[arg-type]
    assert found.fall[:8, :8].max() < 0


def test_the_other_pictures_of_a_study_stay_as_they_are() -> None:
    pictures = np.zeros((2, 1, 32, 32), np.uint8)
    pictures[0, 0, :8, :8] = 255
    one = occlusion(Brightness(), pictures[:1], 0, bright)  # type: ignore[arg-type]
    both = occlusion(Brightness(), pictures, 0, bright)  # type: ignore[arg-type]
    assert both.fall == pytest.approx(one.fall / 2)
    assert not occlusion(Brightness(), pictures, 1, bright).fall.any()  # type: ignore[arg-type]


def test_what_takes_too_long_is_given_up() -> None:
    network = Brightness()
    with pytest.raises(MetaDxError) as fault:
        occlusion(network, np.zeros((1, 1, 32, 32), np.uint8), 0, bright, seconds=-1.0)  # type: ignore[arg-type]
    assert fault.value.code == "saliency_too_slow"
    assert network.pictures == 0


def with_random_weights(bundle: Bundle, folder: Path, seed: int) -> Bundle:
    """Return the bundle with the weights of its encoder shuffled, each tensor within itself."""
    shutil.copytree(bundle.path, folder)
    path = folder / "models" / "encoder.onnx"
    model, rng = onnx.load(path), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            mixed = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
    onnx.save(model, path)
    return Bundle(folder, bundle.id, bundle.metadata, bundle.preprocessing)


def test_with_random_weights_the_map_is_another_one(bundle: Bundle, tmp_path: Path) -> None:
    # J. Adebayo and others, Sanity Checks for Saliency Maps, NeurIPS 2018.
    rng = np.random.default_rng(5)
    support = rng.integers(0, 256, (6, 1, SIZE, SIZE), dtype=np.uint8)
    pictures = rng.integers(0, 256, (4, 1, 1, SIZE, SIZE), dtype=np.uint8)

    def maps(made: Bundle) -> list[np.ndarray]:
        predictor = Predictor(made, "cpu", 1)
        state = predictor.adapt(predictor.embed_images(support), [0, 0, 0, 1, 1, 1], 2)
        return [
            occlusion(predictor, one, 0, lambda x: predictor.predict(state, x)[:, 0]).fall for one in pictures
        ]

    ours, again = maps(bundle), maps(bundle)
    assert all(np.array_equal(one, other) for one, other in zip(ours, again, strict=True))
    likeness = [
        spearmanr(one.ravel(), other.ravel()).statistic
        for seed in range(3)
        for one, other in zip(
            ours, maps(with_random_weights(bundle, tmp_path / str(seed), seed)), strict=True
        )
    ]
    assert abs(float(np.mean(likeness))) < 0.3
    assert max(np.abs(likeness)) < 0.9
