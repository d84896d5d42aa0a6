"""Random changes of images: seeded, bounded, and what each option says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from meta_dx.training.augmentation import augment, mixed
from meta_dx.training.options import TrainingOptions

STILL = TrainingOptions(rotate=0, shift=0, zoom=0, gain=0, cutout=0, flip="none")
LIVELY = TrainingOptions(rotate=20, shift=0.1, zoom=0.2, gain=0.3, cutout=0.3, flip="both")
IMAGES = torch.randint(0, 256, (6, 2, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def changed(options: TrainingOptions, images: torch.Tensor = IMAGES, seed: int = 0) -> torch.Tensor:
    return augment(images, options, torch.Generator().manual_seed(seed))


def test_nothing_asked_for_changes_nothing() -> None:
    torch.testing.assert_close(changed(STILL), IMAGES.float(), rtol=0, atol=1e-2)


def test_the_same_generator_gives_the_same_pictures_and_another_does_not() -> None:
    assert torch.equal(changed(LIVELY), changed(LIVELY))
    assert not torch.equal(changed(LIVELY), changed(LIVELY, seed=1))


def test_pictures_stay_in_range_and_differ_from_one_another() -> None:
    found = changed(LIVELY, IMAGES[:1].expand(8, -1, -1, -1))
    assert found.min() >= 0
    assert found.max() <= 255
    assert len({tuple(picture.flatten().tolist()) for picture in found}) == 8


@pytest.mark.parametrize(("flip", "axes"), [("horizontal", {(), (3,)}), ("vertical", {(), (2,)})])
def test_mirroring_turns_the_named_axis_only(flip: str, axes: set[tuple[int, ...]]) -> None:
    image = IMAGES[:1].expand(16, -1, -1, -1)
    found = changed(replace(STILL, flip=flip), image)  # type: ignore[arg-type]
    kinds = {
        axis: image[:1].float().flip(axis) if axis else image[:1].float() for axis in [(), (2,), (3,), (2, 3)]
    }
    seen = set()
    for picture in found:
        match = [axis for axis, kind in kinds.items() if torch.allclose(picture, kind[0], atol=1e-2)]
        assert len(match) == 1
        seen.add(match[0])
    assert seen == axes


def test_shift_moves_by_no_more_than_its_share() -> None:
    dot = torch.zeros(32, 1, 40, 40, dtype=torch.uint8)
    dot[:, :, 20, 20] = 255
    found = changed(replace(STILL, shift=0.1), dot).squeeze(1)  # 4 pixels
    place = torch.arange(40.0)
    for axis in (1, 2):
        centre = (found.sum(3 - axis) * place).sum(1) / found.sum((1, 2))
        assert (centre - 20).abs().max() <= 4.01
        assert (centre - 20).abs().max() > 2


def test_rotation_keeps_the_centre_and_turns_both_ways() -> None:
    bar = torch.zeros(32, 1, 41, 41, dtype=torch.uint8)
    bar[:, :, 20, 20:] = 255  # points right
    found = changed(replace(STILL, rotate=30), bar).squeeze(1)
    place = torch.arange(41.0) - 20
    down = (found.sum(2) * place).sum(1)
    right = (found.sum(1) * place).sum(1)
    angle = torch.atan2(down, right).rad2deg()
    assert angle.abs().max() <= 31
    assert angle.min() < -10
    assert angle.max() > 10


def test_cutout_hides_a_box_of_its_share() -> None:
    flat = torch.zeros(8, 1, 20, 20, dtype=torch.uint8)
    flat[..., ::2] = 200  # mean 100
    hidden = changed(replace(STILL, cutout=0.5), flat) == 100
    share = hidden.float().mean((1, 2, 3))
    assert share.max() <= 0.25 + 1e-6
    assert share.min() > 0


def test_volumes_are_augmented_too() -> None:
    volume = torch.randint(0, 256, (2, 1, 8, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(changed(STILL, volume), volume.float(), rtol=0, atol=1e-2)
    assert changed(LIVELY, volume).shape == volume.shape


def test_mixing_blends_with_the_partner() -> None:
    partner = torch.tensor([1, 0, 2, 3, 4, 5])
    blend = mixed(IMAGES.float(), partner, 0.75)
    torch.testing.assert_close(blend[0], 0.75 * IMAGES[0].float() + 0.25 * IMAGES[1].float())
    torch.testing.assert_close(blend[2], IMAGES[2].float())
