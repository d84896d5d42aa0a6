"""Draws one image of the demo cohort: soft anatomy, tissue texture and lesions, as display intensities 0 … 1.

Lengths are fractions of the shorter side; body coordinates ``u`` (right) and ``v`` (down) reach -1 … 1 at the
body's border. The traits of :mod:`meta_dx.dicom.phantom.traits` decide the tissue's texture and the lesions'
shape, number, place and contrast; everything else varies freely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # float32 all through

#: Lesions per image and radius of one, by level of the family "number".
_NUMBER = {"solitary": (1, 0.175), "triple": (3, 0.135), "multiple": (7, 0.098)}
#: Centre and half width of the region of each place, in body coordinates ``(u, v, half_u, half_v)``.
_PLACE = {
    "apical": (0.0, -0.57, 0.50, 0.17),
    "basal": (0.0, 0.57, 0.50, 0.17),
    "central": (0.0, 0.0, 0.32, 0.24),
    "lateral": (0.64, 0.0, 0.12, 0.42),
}
#: Wavelength of the tissue texture in fractions of the shorter side, and its relative width.
_WAVES = {
    "granular": (0.090, 0.25),
    "mottled": (0.200, 0.25),
    "striated": (0.120, 0.15),
    "reticular": (0.250, 0.30),
}


@dataclass(frozen=True)
class Look:
    """What stays the same in all images of a patient.

    Parameters
    ----------
    levels : dict of str to str
        The patient's level in every trait family.
    body : str
        ``"CHEST"``, ``"ABDOMEN"`` or ``"HEAD"``.
    build : ndarray, shape (12,)
        Standard normal draws that make this patient's anatomy.
    direction : float
        Direction of striated tissue, radians.
    """

    levels: dict[str, str]
    body: str
    build: npt.NDArray[np.float64]
    direction: float


def draw(
    look: Look, rows: int, columns: int, rng: np.random.Generator, *, speckle: bool = False
) -> npt.NDArray[np.float32]:
    """Draw one image of a patient.

    Parameters
    ----------
    look : Look
        The patient.
    rows, columns : int
        Size of the image in pixels.
    rng : numpy.random.Generator
        Variation from image to image: position, rotation, size, lesion places, gain and noise.
    speckle : bool
        Multiplicative noise, as in ultrasound.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        Display intensities in 0 … 1, white is 1.
    """
    waves = _Waves.of(rows, columns)
    grid = _Grid.lay(look, waves, rng)
    inside = _soft(1.0 - grid.radius, 0.06)  # 1 inside the body, 0 outside
    image = _anatomy(look, grid, waves, rng)
    texture = _texture(look, waves, rng) * _soft(0.92 - grid.radius, 0.08)
    change, covered = _lesions(look, grid, rng)
    image += change * inside + texture * (1 - np.float32(0.8) * covered)  # a lesion replaces the tissue
    image = image * inside + np.float32(0.06)
    gamma = np.exp(0.08 * rng.standard_normal())
    image = np.clip(image, 0.0, 1.2) ** np.float32(gamma)
    image = _blurred(image)
    noise = rng.standard_normal((rows, columns), dtype=np.float32)
    image += noise * (np.float32(0.07) * image if speckle else np.float32(0.016))
    gain, offset = rng.uniform(0.65, 0.85), rng.uniform(0.02, 0.14)
    shown: npt.NDArray[np.float32] = np.clip(image * np.float32(gain) + np.float32(offset), 0.0, 1.0)
    return shown


@dataclass(frozen=True)
class _Grid:
    """Pixel positions: ``x``, ``y`` in the image, ``u``, ``v`` and ``radius`` in the body."""

    x: Array
    y: Array
    u: Array
    v: Array
    radius: Array
    centre: tuple[float, float]
    half: tuple[float, float]
    turn: float

    @classmethod
    def lay(cls, look: Look, waves: _Waves, rng: np.random.Generator) -> _Grid:
        """Place the body in the image, turn it a little and bend everything slightly."""
        rows, columns = waves.shape
        unit = min(rows, columns)
        y: Array = (np.arange(rows, dtype=np.float32)[:, None] + np.float32(0.5)) / np.float32(unit)
        x: Array = (np.arange(columns, dtype=np.float32)[None, :] + np.float32(0.5)) / np.float32(unit)
        x = x + np.float32(0.008) * _slow(waves.shape, 0.22, rng)
        y = y + np.float32(0.008) * _slow(waves.shape, 0.22, rng)
        wide, tall, square = look.build[:3]
        half = (
            (0.415 + 0.012 * float(np.tanh(wide))) * columns / unit,
            (0.415 + 0.012 * float(np.tanh(tall))) * rows / unit,
        )
        centre = (columns / unit / 2 + rng.uniform(-0.02, 0.02), rows / unit / 2 + rng.uniform(-0.02, 0.02))
        turn = 0.09 * float(np.clip(rng.standard_normal(), -2, 2))
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
        u, v = (dx * cos + dy * sin) / np.float32(half[0]), (dy * cos - dx * sin) / np.float32(half[1])
        power = np.float32(2.5 + 0.4 * np.tanh(square))
        radius = (np.abs(u) ** power + np.abs(v) ** power) ** (np.float32(1) / power)
        return cls(x, y, u, v, radius, centre, half, turn)

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Turn body coordinates into image coordinates."""
        a, b = u * self.half[0], v * self.half[1]
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return self.centre[0] + a * cos - b * sin, self.centre[1] + a * sin + b * cos


@dataclass(frozen=True)
class _Waves:
    """Frequencies of the image's Fourier transform, in cycles per shorter side."""

    shape: tuple[int, int]
    fy: Array
    fx: Array
    f: Array

    @classmethod
    def of(cls, rows: int, columns: int) -> _Waves:
        unit = min(rows, columns)
        fy = (np.fft.fftfreq(rows)[:, None] * unit).astype(np.float32)
        fx = (np.fft.rfftfreq(columns)[None, :] * unit).astype(np.float32)
        return cls((rows, columns), fy, fx, np.hypot(fy, fx))

    def field(self, gain: Array, rng: np.random.Generator) -> Array:
        """Return noise of mean 0 and deviation 1 whose spectrum has this gain."""
        white = rng.standard_normal(self.shape, dtype=np.float32)
        field = np.fft.irfft2(np.fft.rfft2(white) * gain, s=self.shape).astype(np.float32)
        return _standard(field)


def _slow(shape: tuple[int, int], length: float, rng: np.random.Generator) -> Array:
    """Return a field of mean 0 and deviation 1, a sum of cosines longer than about ``length``."""
    order = np.arange(16, dtype=np.float32)
    gain = np.exp(-((0.5 * order * np.float32(length)) ** 2))
    waves = [
        np.cos(np.pi * (np.arange(n, dtype=np.float32)[:, None] + 0.5) / n * order).astype(np.float32) * gain
        for n in shape
    ]
    field: Array = waves[0] @ rng.standard_normal((16, 16), dtype=np.float32) @ waves[1].T
    return _standard(field)


def _blurred(image: Array) -> Array:
    """Smooth by the binomial filter 1 4 6 4 1, as a detector of finite sharpness does."""
    for axis in (0, 1):
        for _ in range(2):
            padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            image = (
                np.take(padded, range(0, padded.shape[axis] - 2), axis)
                + 2 * image
                + np.take(padded, range(2, padded.shape[axis]), axis)
            ) / np.float32(4)
    return image


def _standard(field: Array) -> Array:
    scaled: Array = (field - field.mean()) / (field.std() + np.float32(1e-6))
    return scaled


def _soft(distance: Array, width: float) -> Array:
    """Step from 0 to 1 around distance 0, about ``width`` wide."""
    step: Array = 1 / (1 + np.exp(np.clip(distance * np.float32(-4.0 / width), -30, 30)))
    return step


def _blob(grid: _Grid, u: float, v: float, half_u: float, half_v: float, soft: float = 0.35) -> Array:
    return _soft(1.0 - np.hypot((grid.u - np.float32(u)) / half_u, (grid.v - np.float32(v)) / half_v), soft)


def _anatomy(look: Look, grid: _Grid, waves: _Waves, rng: np.random.Generator) -> Array:
    """Draw body wall, organs and slow shading; differs with the body part and from patient to patient."""
    b = np.tanh(look.build)
    image = np.float32(0.46 + 0.04 * b[3]) + np.float32(0.04) * _slow(waves.shape, 0.28, rng)
    image += np.float32(0.10 + 0.04 * b[4]) * _soft(0.10 - np.abs(grid.radius - 0.92), 0.10)  # body wall
    if look.body == "CHEST":
        for side in (-1, 1):
            image -= np.float32(0.10 + 0.02 * b[5]) * _blob(
                grid, side * (0.42 + 0.04 * b[6]), 0.02 + 0.06 * b[7 + (side > 0)], 0.30, 0.62 + 0.06 * b[9]
            )
        image += np.float32(0.07) * _blob(grid, 0.04 * b[10], 0.1, 0.13 + 0.03 * b[11], 1.1, 0.6)
    elif look.body == "ABDOMEN":
        image += np.float32(0.07 + 0.02 * b[5]) * _blob(
            grid, -0.38 + 0.08 * b[6], -0.2 + 0.1 * b[7], 0.42, 0.45
        )
        image -= np.float32(0.06) * _blob(grid, 0.4 + 0.08 * b[8], 0.25 + 0.1 * b[9], 0.34, 0.30, 0.5)
        image += np.float32(0.06) * _blob(grid, 0.05 * b[10], 0.55, 0.14, 0.2 + 0.04 * b[11])
    else:
        image += np.float32(0.10) * _soft(0.05 - np.abs(grid.radius - 0.88), 0.05)  # a second, sharper wall
        for side in (-1, 1):
            image -= np.float32(0.09) * _blob(
                grid,
                side * (0.17 + 0.03 * b[6]),
                -0.05 + 0.08 * b[7],
                0.10 + 0.02 * b[8],
                0.36 + 0.06 * b[9],
                0.6,
            )
        image += np.float32(0.06) * _blob(grid, 0.0, 0.55 + 0.05 * b[10], 0.45, 0.25)
    return image


def _texture(look: Look, waves: _Waves, rng: np.random.Generator) -> Array:
    level = look.levels["texture"]
    strength = np.float32(0.090 * np.exp(0.12 * rng.standard_normal()))
    if level == "smooth":
        rng.standard_normal(
            waves.shape, dtype=np.float32
        )  # the draws that follow stay the same at every level
        return np.zeros(waves.shape, np.float32)
    length, width = _WAVES[level]
    length *= 1.0 + 0.05 * float(np.tanh(look.build[0]))
    gain = np.exp(-0.5 * ((waves.f * np.float32(length) - 1) / np.float32(width)) ** 2)
    if level == "striated":
        across = waves.fx * np.float32(np.cos(look.direction)) + waves.fy * np.float32(np.sin(look.direction))
        along = waves.fy * np.float32(np.cos(look.direction)) - waves.fx * np.float32(np.sin(look.direction))
        gain = np.exp(-0.5 * ((np.abs(across) * np.float32(length) - 1) / np.float32(width)) ** 2)
        gain *= np.exp(-0.5 * (along * np.float32(2.5 * length)) ** 2)
    field = waves.field(gain, rng)
    if level == "reticular":  # bright lines where the field crosses zero: a net
        field = np.exp(-((field / np.float32(0.30)) ** 2))
        field = _standard(field)
    elif level == "granular":  # dark grains
        field = -_standard(np.maximum(field - np.float32(0.5), 0))
    elif level == "mottled":  # bright patches
        field = np.float32(1.2) * _standard(np.maximum(field, 0))
    return strength * field


def _lesions(look: Look, grid: _Grid, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the change of intensity by the lesions, and how far they cover the tissue."""
    count, size = _NUMBER[look.levels["number"]]
    size *= float(np.exp(0.08 * rng.standard_normal()))
    turn = rng.uniform(0, 2 * np.pi)
    mask, halo, tail = (np.zeros(grid.x.shape, np.float32) for _ in range(3))
    for u, v in _centres(look.levels["place"], count, size, grid, rng):
        radius = size * float(np.exp(0.08 * np.clip(rng.standard_normal(), -2, 2)))
        x, y = grid.at(u, v)
        dx, dy = (grid.x - np.float32(x)) / np.float32(radius), (grid.y - np.float32(y)) / np.float32(radius)
        outline = _outline(look.levels["shape"], dx, dy, turn + rng.uniform(-0.25, 0.25))
        mask = np.maximum(mask, _soft(1.0 - outline, 0.45))
        around = np.hypot(dx, dy)
        halo = np.maximum(halo, _soft(1.85 - around, 0.4))
        tail = np.maximum(tail, _soft(0.75 - np.abs(dx), 0.5) * _soft(dy - 0.6, 0.6) * _soft(3.4 - dy, 1.2))
    strength = np.float32(0.55 * np.exp(0.10 * rng.standard_normal()))
    change = {
        "dense": mask,
        "lucent": -mask,
        "haloed": mask - np.float32(0.65) * halo * (1 - mask),
        "shadowed": mask - np.float32(0.75) * tail * (1 - mask),
    }[look.levels["contrast"]]
    return strength * change, mask


def _centres(
    place: str, count: int, size: float, grid: _Grid, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Place lesions in a region, each as far from the others as the best of a few draws allows."""
    u0, v0, half_u, half_v = _PLACE[place]
    du, dv = rng.uniform(-0.06, 0.06, 2)
    first_side = int(rng.integers(2))
    spread = 0.75 + 0.09 * count
    half_u, half_v = half_u * spread, half_v * spread
    centres: list[tuple[float, float]] = []
    for i in range(count):
        side = (1 if (i + first_side) % 2 else -1) if place == "lateral" else 1
        u = side * u0 + du + half_u * rng.uniform(-1, 1, 40)
        v = v0 + dv + half_v * rng.uniform(-1, 1, 40)
        if centres:
            known = np.array(centres)
            apart = np.hypot(
                (u[:, None] - known[:, 0]) * grid.half[0], (v[:, None] - known[:, 1]) * grid.half[1]
            )
            nearest = apart.min(axis=1)
            best = (
                int(np.argmax(nearest >= 2.3 * size))
                if (nearest >= 2.3 * size).any()
                else int(nearest.argmax())
            )
        else:
            best = 0
        centres.append((float(u[best]), float(v[best])))
    return centres


def _outline(shape: str, dx: Array, dy: Array, turn: float) -> Array:
    """Return a field that is below 1 inside the lesion's outline, in units of its radius."""
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    a, b = dx * cos + dy * sin, dy * cos - dx * sin
    rho = np.hypot(a, b)
    if shape == "round":
        return rho
    if shape == "annular":
        return 1 + np.abs(rho - np.float32(0.95)) - np.float32(0.33)
    if shape == "linear":
        return np.hypot(a / np.float32(2.0), b / np.float32(0.38))
    angle = np.arctan2(b, a)  # stellate
    spikes = np.abs(np.cos(3.5 * angle)) ** 3 * (1 + np.float32(0.3) * np.sin(2 * angle + turn))
    star: Array = rho / (np.float32(0.42) + np.float32(1.2) * spikes)
    return star
