"""The shortcut baseline sees frame and header, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from meta_dx.cohort.examples import Examples
from meta_dx.evaluation.episodic import evaluate_episodes
from meta_dx.evaluation.shortcut import shortcut_features
from tests.evaluation.worlds import FakePredictor


def cohort(diseases: int = 8, patients: int = 12, images: int = 2) -> Examples:
    n = diseases * patients
    return Examples(
        np.array([f"S{i:04d}" for i in range(n)]),
        np.array([f"P{i:04d}" for i in range(n)]),
        np.repeat([f"D{d}" for d in range(diseases)], patients),
        tuple(np.arange(i * images, (i + 1) * images) for i in range(n)),
    )


def pictures(examples: Examples, channels: int = 1, size: int = 32) -> np.ndarray:
    count = sum(map(len, examples.images))
    return np.random.default_rng(0).integers(0, 255, (count, channels, size, size)).astype(np.uint8)


def accuracy(examples: Examples, features: np.ndarray) -> float:
    noise = np.random.default_rng(1).normal(size=(len(examples), 4))
    result = evaluate_episodes(
        FakePredictor(),
        noise.astype(np.float32),
        examples,
        ways=5,
        shots=5,
        queries=5,
        episodes=100,
        seed=0,
        heads=("prototypical",),
        extra={"shortcut": features},
    )
    return result.comparison.methods["shortcut"].accuracy


def disease_of_image(examples: Examples) -> np.ndarray:
    of_study = np.array([int(code[1:]) for code in examples.code])
    return np.repeat(of_study, [len(rows) for rows in examples.images])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_lies_in_the_middle_is_not_seen(channels: int) -> None:
    examples = cohort()
    images = pictures(examples, channels)
    before = shortcut_features(examples, images)
    images[:, :, 4:-4, 4:-4] = (disease_of_image(examples) * 30)[:, None, None, None].astype(np.uint8)
    np.testing.assert_array_equal(shortcut_features(examples, images), before)
    assert abs(accuracy(examples, before) - 0.2) < 0.06


def test_a_mark_on_the_edge_is_found() -> None:
    examples = cohort()
    images = pictures(examples)
    for image, disease in zip(images, disease_of_image(examples), strict=True):
        image[:, :3, 4 * disease : 4 * disease + 4] = 255
    assert accuracy(examples, shortcut_features(examples, images)) > 0.7


def test_a_device_that_goes_with_the_disease_is_found_and_one_that_does_not_is_not() -> None:
    examples = cohort()
    images = np.zeros((192, 1, 16, 16), dtype=np.uint8)
    names = np.array([f"maker {d}" for d in disease_of_image(examples)])
    tied = pd.DataFrame({"manufacturer": names, "rows": 512, "view": None})
    assert accuracy(examples, shortcut_features(examples, images, tied)) > 0.95
    free = tied.assign(manufacturer=np.random.default_rng(0).permutation(names))
    assert abs(accuracy(examples, shortcut_features(examples, images, free)) - 0.2) < 0.07


def test_cohorts_without_any_difference_give_features_without_nan() -> None:
    examples = cohort()
    images = np.zeros((192, 1, 16, 16), dtype=np.uint8)
    headers = pd.DataFrame({"modality": ["DX"] * 192, "rescale_slope": [np.nan] * 192})
    features = shortcut_features(examples, images, headers)
    assert features.shape[0] == len(examples)
    assert np.isfinite(features).all()


def test_few_columns_whatever_the_header_holds() -> None:
    examples = cohort()
    rng = np.random.default_rng(0)
    headers = pd.DataFrame({"model": [f"m{i}" for i in range(192)], "rows": rng.integers(100, 3000, 192)})
    features = shortcut_features(examples, pictures(examples, 3), headers)
    assert features.shape[1] <= 32
    assert features.dtype == np.float32
    assert np.mean(features.astype(np.float64) ** 2) == pytest.approx(1.0, rel=1e-3)
