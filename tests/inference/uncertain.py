"""A bundle over 8 × 8 pictures whose served head has a latent variable and attends to its support."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.inference.bundle import Bundle, BundleParts, write_bundle
from meta_dx.inference.calibration import Calibration
from meta_dx.learners.base import Head
from meta_dx.learners.baselines import SimpleShot
from meta_dx.learners.neural_process import NeuralProcess
from meta_dx.learners.options import NeuralProcessOptions

PIXELS = 8  # of a side
SIZE = 16  # D
SAMPLES = 24
#: The heads, and which of them give samples and attention.
GIVES = {"anp": (True, True), "acnp": (False, True), "simpleshot": (False, False)}


class Pixels(nn.Module):
    """Pixels as embeddings, turned by a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.turn = nn.Parameter(torch.randn(PIXELS**2, SIZE, generator=generator) / PIXELS)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float().flatten(1) / 64 - 2) @ self.turn


def heads() -> dict[str, Head]:
    """Untrained heads, moved away from their careful starts so that noise and attention matter."""
    torch.manual_seed(0)
    mean = torch.randn(SIZE) / 4
    common = {"prior_head": "simpleshot", "hidden": 16, "heads": 2, "latent_size": 4, "decoder": 8}
    served = NeuralProcess(SIZE, mean, NeuralProcessOptions(**common))
    certain = NeuralProcess(SIZE, mean, NeuralProcessOptions(**common, latent=False))
    with torch.no_grad():
        served.decoder.gain.fill_(2.0)
        for head in (served, certain):
            head.decoder.last.weight.mul_(10)
    return {"anp": served, "acnp": certain, "simpleshot": SimpleShot(SIZE, mean)}


def uncertain_parts() -> BundleParts:
    return BundleParts(
        encoder=Pixels(),
        heads=heads(),
        serving_head="anp",
        image_options=ImageOptions(size=PIXELS),
        embedding_size=SIZE,
        calibrations={
            "anp": Calibration(0.3, -0.2, 0.1, 0.4, queries=10),
            "simpleshot": Calibration(-0.5, 0.1, -0.1, queries=10),
        },
        base_mean=np.full(SIZE, 0.1, dtype=np.float32),
        cohort="uncertain",
        samples=SAMPLES,
    )


def uncertain_bundle(folder: Path) -> Bundle:
    """Export it once, also where several test processes ask for it."""
    with FileLock(folder / "bundle.lock"):
        made = [child for child in folder.iterdir() if (child / "manifest.json").exists()]
        return Bundle.load(made[0]) if made else write_bundle(folder, uncertain_parts())


def cases(
    seed: int, shots: list[int], queries: int, episodes: int = 1, padded: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clustered embeddings: support (E, S, D), one-hot (E, S, N), queries (E, Q, D), float32."""
    from tests.inference.bundles import episode

    return episode(seed, shots, queries, episodes, padded, SIZE)
