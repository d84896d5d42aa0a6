"""A volume that came under two patients is found; two patients with the same anatomy are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from meta_dx.cohort.duplicates import near_duplicate_groups
from meta_dx.cohort.volume_duplicates import similar_volumes


def heads(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    """Draw volumes of one anatomy, each with a texture and noise of its own, (n, 1, D, H, W) uint8."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    volumes = []
    for _ in range(count):
        half = rng.uniform(0.78, 0.9, 3)
        head = sum((axis / h) ** 2 for axis, h in zip(axes, half, strict=True)) < 1
        texture = gaussian_filter(rng.standard_normal(head.shape), side / 24)
        texture *= 15 / texture.std()
        volumes.append(20 + head * (120 + texture) + rng.normal(0, 2, head.shape))
    return np.clip(np.rint(volumes), 0, 255).astype(np.uint8)[:, None]


def resent(volume: np.ndarray, seed: int = 9) -> np.ndarray:
    """Return a copy under another window and with noise, as after lossy compression."""
    changed = 0.85 * volume + 10 + np.random.default_rng(seed).normal(0, 2, volume.shape)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [16, 32, 50])
def test_a_copy_is_found_and_strangers_are_not(side: int) -> None:
    volumes = heads(12, side=side)
    volumes = np.concatenate([volumes, resent(volumes[4])[None]])
    (pair,) = similar_volumes(volumes, np.arange(13), most=8)
    assert pair[:2] == (4, 12)


def test_patients_of_a_copy_are_one_group_and_pairs_say_why() -> None:
    volumes = np.concatenate([heads(5), resent(heads(5)[1])[None]])
    groups, pairs = near_duplicate_groups(volumes, ["a", "b", "c", "d", "e", "f"])
    assert groups == {"a": "a", "b": "b", "c": "c", "d": "d", "e": "e", "f": "b"}
    assert pairs["reason"].iloc[0].startswith("volume: local contrasts correlate with 0.9")


def test_one_patients_own_volumes_and_empty_ones_are_no_copies() -> None:
    volumes = np.concatenate([heads(2), resent(heads(2)[0])[None], np.full((2, 1, 32, 32, 32), 7, np.uint8)])
    assert similar_volumes(volumes, np.array([0, 1, 0, 2, 3]), most=8) == []


def test_a_test_object_of_many_patients_joins_nobody() -> None:
    same = np.stack([resent(heads(1)[0], seed) for seed in range(6)])
    assert len(similar_volumes(same, np.arange(6), most=8)) == 15
    assert similar_volumes(same, np.arange(6), most=4) == []
