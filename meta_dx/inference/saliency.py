"""Which part of a picture moved a probability: occlusion, on the graphs that serve.

A bundle holds ONNX graphs, which have no gradients; so a window is moved over the picture, what lies under it is made
grey, and the picture goes through encoder and adapted head again. Method: M. D. Zeiler and R. Fergus, *Visualizing and
Understanding Convolutional Networks*, ECCV 2014, section 4.2, in captum's implementation. Whether a map has anything to
do with what the network has learned is asked as J. Adebayo and others do (*Sanity Checks for Saliency Maps*, NeurIPS
2018): with random weights the map has to be another one (``tests/inference/test_saliency.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    from torch import Tensor

    from meta_dx.inference.predictor import Predictor

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

Asked = Callable[[npt.NDArray[np.float32]], Floats]
"""Embeddings of studies (B, D) to the probability of one disease (B,)."""

_WINDOWS = {2: 8, 3: 4}  # windows side by side along an axis, by the picture's dimensions
_AT_ONCE = 16


@dataclass(frozen=True)
class SaliencyMap:
    """What hiding each place of a picture does to a probability.

    Parameters
    ----------
    picture : ndarray of uint8, shape (C, *spatial)
        The picture, as the network sees it.
    fall : ndarray of float64, shape (*spatial)
        By how much the probability falls when this place is hidden: negative where it rises. The mean over the
        windows that cover the place.
    probability : float
        With nothing hidden.
    """

    picture: Pictures
    fall: Floats
    probability: float


def require_captum() -> None:
    """Raise ``no_captum`` where the library that moves the windows is not installed."""
    from importlib.util import find_spec

    if find_spec("captum") is None:
        raise MetaDxError(
            "no_captum",
            "[review] saliency needs captum: run 'pip install meta-dx[saliency]', or set it to false.",
        )


def occlusion(
    predictor: Predictor, pictures: Pictures, which: int, asked: Asked, seconds: float = 20.0
) -> SaliencyMap:
    """Hide one place of a picture after another, and see what becomes of a probability.

    Windows are an eighth of a side wide in pictures and a quarter in volumes, and overlap by half; a hidden place has
    the mean grey of the picture.

    Parameters
    ----------
    predictor : Predictor
        The bundle at work.
    pictures : ndarray of uint8, shape (n, C, *spatial)
        All pictures of a study; the others stay as they are.
    which : int
        The picture.
    asked : callable
        The adapted head.
    seconds : float
        After which to give up.

    Returns
    -------
    SaliencyMap

    Raises
    ------
    MetaDxError
        ``saliency_too_slow``, or ``no_captum``.
    """
    require_captum()
    import torch
    from captum.attr import Occlusion

    picture = np.asarray(pictures[which], dtype=np.uint8)  # (C, *spatial)
    others = predictor.embed_images(np.delete(pictures, which, axis=0)).sum(axis=0)  # (D,)
    until = time.monotonic() + seconds

    def probability(hidden: Tensor) -> Tensor:
        if time.monotonic() > until:
            raise MetaDxError(
                "saliency_too_slow", f"The map was not ready within {seconds:.0f} seconds, and was given up."
            )
        embedded = predictor.embed_images(hidden.round().clamp(0, 255).numpy().astype(np.uint8), _AT_ONCE)
        study = np.asarray((embedded + others) / len(pictures), dtype=np.float32)  # (B, D)
        return torch.from_numpy(asked(study))

    shown = torch.from_numpy(picture.astype(np.float32))[None]
    windows = _WINDOWS[picture.ndim - 1]
    window = tuple(max(1, round(side / windows)) for side in picture.shape[1:])
    stride = tuple(max(1, side // 2) for side in window)
    channels = picture.shape[0]
    grey = shown.mean(dim=tuple(range(2, shown.ndim)), keepdim=True).expand_as(shown)
    fall = Occlusion(probability).attribute(
        shown, (channels, *window), (channels, *stride), grey, perturbations_per_eval=_AT_ONCE
    )
    return SaliencyMap(picture, fall[0, 0].numpy().astype(np.float64), float(probability(shown)[0]))
