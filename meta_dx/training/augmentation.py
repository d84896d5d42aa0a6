"""Random changes of training images, for a whole batch at once, from one seeded generator.

A step's changes depend on its generator only, so a resumed run sees the same pictures as one that was never
stopped.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from meta_dx.training.options import TrainingOptions


def augment(images: Tensor, options: TrainingOptions, generator: torch.Generator) -> Tensor:
    """Rotate, shift, zoom and mirror images, change their contrast and brightness, hide a square.

    Parameters
    ----------
    images : Tensor, shape (B, C, *spatial), uint8
        Training images, two or three spatial axes; volumes are rotated in the plane of their last two axes.
    options : TrainingOptions
        How much.
    generator : torch.Generator
        Source of randomness, on the device of the images.

    Returns
    -------
    Tensor, shape (B, C, *spatial), float32
        Still in 0 … 255, clipped.
    """
    moved = _move(images.float(), options, generator)
    if options.gain:
        moved = _gain(moved, options.gain, generator)
    if options.cutout:
        moved = _cutout(moved, options.cutout, generator)
    return moved


def mixed(images: Tensor, partner: Tensor, share: float) -> Tensor:
    """Blend ``share`` of each image with the rest of the image that ``partner`` (B,) points at."""
    return share * images + (1 - share) * images[partner]


def _uniform(count: int, reach: float, generator: torch.Generator) -> Tensor:
    """Return ``count`` draws from -reach … reach."""
    return (torch.rand(count, generator=generator, device=generator.device) * 2 - 1) * reach


def _move(images: Tensor, options: TrainingOptions, generator: torch.Generator) -> Tensor:
    count, axes = len(images), images.dim() - 2
    size = torch.exp(_uniform(count, math.log1p(options.zoom), generator))
    angle = _uniform(count, math.radians(options.rotate), generator)
    where = torch.zeros(count, axes, axes + 1, device=images.device)  # theta of affine_grid: x, y, then z
    for axis in range(axes):
        where[:, axis, axis] = size
        where[:, axis, axes] = _uniform(count, 2 * options.shift, generator)  # the picture spans -1 … 1
    where[:, 0, 0], where[:, 0, 1] = size * angle.cos(), -size * angle.sin()
    where[:, 1, 0], where[:, 1, 1] = size * angle.sin(), size * angle.cos()
    for column, kinds in ((0, ("horizontal", "both")), (1, ("vertical", "both"))):
        if options.flip in kinds:
            where[:, :, column] *= (_uniform(count, 1.0, generator).sign())[:, None]
    grid = torch.nn.functional.affine_grid(where, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _gain(images: Tensor, reach: float, generator: torch.Generator) -> Tensor:
    shape = (len(images), *[1] * (images.dim() - 1))
    contrast = 1 + _uniform(len(images), reach, generator).reshape(shape)
    brightness = 255 * 0.5 * _uniform(len(images), reach, generator).reshape(shape)
    middle = images.mean(tuple(range(1, images.dim())), keepdim=True)
    return ((images - middle) * contrast + middle + brightness).clamp(0, 255)


def _cutout(images: Tensor, side: float, generator: torch.Generator) -> Tensor:
    """Replace a box by the image's mean; its sides are ``side`` of the picture's."""
    hidden = torch.ones(len(images), *[1] * (images.dim() - 1), dtype=torch.bool, device=images.device)
    for axis in range(2, images.dim()):
        length = images.shape[axis]
        centre = torch.rand(len(images), generator=generator, device=generator.device) * length
        place = torch.arange(length, device=images.device) + 0.5
        inside = (place - centre[:, None]).abs() < side * length / 2  # (B, length)
        shape = [len(images), *[1] * (images.dim() - 1)]
        shape[axis] = length
        hidden = hidden & inside.reshape(shape)
    middle = images.mean(tuple(range(1, images.dim())), keepdim=True)
    return torch.where(hidden, middle, images)
