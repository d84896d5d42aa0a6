"""Whether two pictures fit each other, after one of them was zoomed and shifted.

Pictures are compared by their *local contrast*: the deviation from the neighbourhood, in units of the
neighbourhood's own contrast. It leaves gamma, window and lighting behind, and a publisher's mark weighs no more
than any other corner. What tells a copy from another patient with the same anatomy is that a copy fits
*everywhere*: the agreement of two pictures is the lower quartile of the correlations of their 8 × 8 cells.
Input are pairs of grey pictures from :mod:`~meta_dx.cohort.copies`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from meta_dx.cohort.embedding import Floats

#: Side of the pictures that are aligned.
SIDE = 64
#: Zooms and shifts (parts of the side) that are tried; a cut of 10 % on each side is a zoom of 1.25.
ZOOMS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.06, 1.12, 1.19, 1.25)
SHIFTS = tuple(np.linspace(-0.1, 0.1, 7).tolist())

_COARSE = 32  # side for the search
_CORE, _POINTS = 0.72, 20  # the middle of a picture, which is searched for in another, and its points a side
_NOISE = 6.0  # grey levels: contrast below it is not amplified
_STEPS = {32: 4, 64: 4}  # Gauss-Newton steps at each scale
_CELLS = 8  # a side
_CONTRAST = 0.3  # of a cell's local contrast, below which it shows nothing
_FEWEST = 16  # cells that show something


def local_contrast(pictures: npt.NDArray[Any]) -> Floats:
    """Return the deviation of each pixel from its neighbourhood, relative to the neighbourhood's contrast.

    Parameters
    ----------
    pictures : ndarray, shape (n, side, side)
        Grey pictures, 0 to 255.

    Returns
    -------
    ndarray of float32, shape (n, side, side)
        About 1 in size where there is contrast, about 0 where there is none.
    """
    side = pictures.shape[-1]
    fine, wide = _blur(side, 0.7 * side / SIDE), _blur(side, 3.0)
    grey = fine @ pictures.astype(np.float32) @ fine.T if side == SIDE else pictures.astype(np.float32)
    apart = grey - wide @ grey @ wide.T
    contrast: Floats = apart / np.sqrt(wide @ (apart * apart) @ wide.T + np.float32(_NOISE**2))
    return contrast


def rough_fits(one: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Search the middle of some pictures in another one, over zooms and shifts.

    Parameters
    ----------
    one : ndarray of float32, shape (32, 32)
        Local contrast of the picture that is searched.
    others : ndarray of float32, shape (k, 32, 32)
        Local contrast of the pictures whose middles are looked for.

    Returns
    -------
    fit : ndarray of float32, shape (k,)
        The highest correlation.
    place : ndarray of float32, shape (k, 4)
        Where: zoom down, zoom across, shift down, shift across (parts of the side).
    """
    tried = len(SHIFTS)
    windows = (_WINDOWS @ one) @ _WINDOWS.transpose(0, 2, 1)  # (zooms, shifts * points, shifts * points)
    windows = windows.reshape(-1, tried, _POINTS, tried, _POINTS).swapaxes(2, 3).reshape(-1, _POINTS**2)
    middles = (_MIDDLE @ others @ _MIDDLE.T).reshape(len(others), -1)
    fits = _standardised(windows) @ _standardised(middles).T  # (zooms * shifts * shifts, k)
    best = fits.argmax(axis=0)
    zoom, down, across = np.unravel_index(best, (len(ZOOMS), tried, tried))
    zooms = np.array(ZOOMS)[zoom]
    reach = _reach(zooms) / SHIFTS[-1]
    shifts = np.array(SHIFTS)
    place = np.stack([zooms, zooms, reach * shifts[down], reach * shifts[across]], axis=1)
    return fits.max(axis=0), place.astype(np.float32)


def refined(ones: Floats, others: Floats, place: Floats) -> Floats:
    """Improve places by Gauss-Newton steps on the squared difference, shape (k, 4) as in :func:`rough_fits`.

    Parameters
    ----------
    ones, others : ndarray of float32, shape (k, side, side)
        Local contrast; each one is zoomed and shifted to fit the other.
    place : ndarray of float32, shape (k, 4)
        Where to begin.
    """
    side = ones.shape[-1]
    place = place.copy()
    along = _centred(side)
    for _ in range(_STEPS[side]):
        (rows, row_slopes), (columns, column_slopes), inside = _sampling(place, side)
        lines = ones @ columns.transpose(0, 2, 1)
        missing = (others - rows @ lines) * inside
        down = (row_slopes @ lines) * inside
        across = (rows @ (ones @ column_slopes.transpose(0, 2, 1))) * inside
        slopes = np.stack([down * along[:, None], across * along, down, across], axis=1)
        slopes = slopes.reshape(len(ones), 4, -1)
        square = slopes @ slopes.transpose(0, 2, 1)
        towards = (slopes @ missing.reshape(len(ones), -1, 1))[..., 0]
        # Damped, so that a picture without contrast in one direction does not run away in it.
        damped = square + (1e-3 * np.trace(square, axis1=1, axis2=2) + 1e-6)[:, None, None] * np.eye(4)
        place += np.linalg.solve(damped, towards[..., None])[..., 0].clip(-0.04, 0.04).astype(np.float32)
        place = place.clip([0.7, 0.7, -0.2, -0.2], [1.4, 1.4, 0.2, 0.2]).astype(np.float32)
    return place


def agreement(ones: Floats, others: Floats, place: Floats) -> Floats:
    """Return how well each one, zoomed and shifted, fits the other everywhere, shape (k,).

    The lower quartile of the correlations of the 8 × 8 cells where both pictures are and either shows something;
    -1 where fewer than 16 cells do.
    """
    side = ones.shape[-1]
    (rows, _), (columns, _), inside = _sampling(place, side)
    parts = [_cells(part) for part in (rows @ ones @ columns.transpose(0, 2, 1), others, inside)]
    moved, fixed, within = parts
    count = within.sum(axis=2)
    moved, fixed = (_deviations(part, within, count) for part in (moved, fixed))
    squares = np.stack([(moved**2).sum(axis=2), (fixed**2).sum(axis=2)])
    shown = squares.max(axis=0) > _CONTRAST**2 * count
    shown &= count > within.shape[2] / 2
    correlation = (moved * fixed).sum(axis=2) / np.sqrt(squares.prod(axis=0) + 1e-6)
    ordered = np.sort(np.where(shown, correlation, np.inf), axis=1)
    cells = shown.sum(axis=1)
    quartile = ordered[np.arange(len(ordered)), np.maximum(cells - 1, 0) // 4]
    return np.where(cells >= _FEWEST, quartile, -1).astype(np.float32)


def _deviations(cells: Floats, within: Floats, count: Floats) -> Floats:
    """Return the deviations from each cell's mean, 0 outside."""
    mean = (cells * within).sum(axis=2) / np.maximum(count, 1)
    deviations: Floats = (cells - mean[..., None]) * within
    return deviations


def _cells(pictures: Floats) -> Floats:
    """Cut pictures to cells, shape (k, cells, pixels)."""
    step = pictures.shape[-1] // _CELLS
    cut = pictures.reshape(-1, _CELLS, step, _CELLS, step).transpose(0, 1, 3, 2, 4)
    return cut.reshape(len(pictures), _CELLS**2, step**2)


def _sampling(place: Floats, side: int) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats], Floats]:
    """Return what samples rows and columns where a place says, with its slopes, and where that is inside."""
    along = _centred(side)
    middle = np.float32((side - 1) / 2)
    taps, within = [], []
    for zoom, shift in ((0, 2), (1, 3)):
        at = middle + side * (place[:, zoom, None] * along + place[:, shift, None])  # (k, side), in pixels
        away = at[:, :, None] - np.arange(side, dtype=np.float32)
        # The slope over a whole pixel: that of linear interpolation is undefined at the pixels themselves.
        taps.append((_hat(away), side * (_hat(away + 0.5) - _hat(away - 0.5))))
        within.append((at >= 0) & (at <= side - 1))
    inside = (within[0][:, :, None] & within[1][:, None]).astype(np.float32)
    return taps[0], taps[1], inside


def _centred(side: int) -> Floats:
    """Return where the pixels of a line lie, in parts of the side from its middle."""
    return ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)


def _blur(side: int, sigma: float) -> Floats:
    """Return the matrix that smooths lines by a Gaussian; at the ends it takes what is there."""
    apart = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-0.5 * (apart / sigma) ** 2)
    matrix: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _reach(zooms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how far the middle part can be shifted without leaving the picture."""
    reach: npt.NDArray[np.float64] = np.minimum(SHIFTS[-1], (1 - _CORE * zooms) / 2)
    return reach


def _taps(at: npt.NDArray[np.float64], side: int) -> Floats:
    """Return what samples a line linearly at places in parts of the side, shape (..., side)."""
    return _hat((at * side - 0.5)[..., None] - np.arange(side)).astype(np.float32)


def _hat(away: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the weights of linear interpolation."""
    weights: npt.NDArray[Any] = np.maximum(0, 1 - np.abs(away))
    return weights


def _windows() -> Floats:
    """Return what samples the middle part, zoomed and shifted, shape (zooms, shifts * points, side)."""
    points = _CORE * ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5)
    zooms = np.array(ZOOMS)
    shifts = _reach(zooms)[:, None] * np.array(SHIFTS) / SHIFTS[-1]  # (zooms, shifts)
    places = 0.5 + zooms[:, None, None] * points + shifts[..., None]
    return _taps(places.reshape(len(zooms), -1), _COARSE)


def _standardised(rows: Floats) -> Floats:
    """Return rows of mean 0 and length 1, so that their products are correlations."""
    ones = np.full((rows.shape[1], 1), 1 / rows.shape[1], dtype=np.float32)
    centred = rows - rows @ ones  # as a product: a mean over short rows is slow
    length = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    unit: Floats = centred / np.maximum(length, 1e-6)[:, None]
    return unit


_WINDOWS = _windows()
_MIDDLE = _taps(0.5 + _CORE * ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5), _COARSE)
