"""A small real bundle: MONAI encoder, all three heads, uncommon calibrations; exported once a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from meta_dx.backbones import BackboneOptions, build_encoder
from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.inference.bundle import Bundle, BundleParts, write_bundle
from meta_dx.inference.calibration import Calibration
from meta_dx.learners.baselines import Logistic, SimpleShot
from meta_dx.learners.prototypical import Prototypical

SIZE = 16  # pixels


def small_parts(seed: int = 0) -> BundleParts:
    """Random weights, but the same ones in every process."""
    torch.manual_seed(seed)
    encoder = build_encoder(BackboneOptions(), channels=1).eval()
    size = encoder.embedding_size
    generator = np.random.default_rng(seed)
    mean = torch.from_numpy(generator.normal(0, 0.1, size).astype(np.float32))
    return BundleParts(
        encoder=encoder,
        heads={
            "prototypical": Prototypical(size),
            "simpleshot": SimpleShot(size, mean),
            "logistic": Logistic(size, mean),
        },
        serving_head="simpleshot",
        image_options=ImageOptions(size=SIZE, modalities=("CT", "MR")),
        embedding_size=size,
        calibrations={
            "prototypical": Calibration(0.4, -0.3, 0.2, 0.5, queries=100, shots=(1.0, 5.0), ways=(5.0, 9.0)),
            "simpleshot": Calibration(-0.5, 0.1, -0.1, queries=90, ece_before=0.2, ece_after=0.03),
        },
        base_mean=mean.numpy(),
        backbone={"name": "resnet10-small", "weights": "/somewhere/private/start.pt"},
        learner={"name": "prototypical", "distance": "euclidean"},
        seed=3,
        cohort="small",
        data_version="d0",
        split_version=1,
        fingerprint={"studies": 10},
        diseases={"C2": "common", "C1": "common", "V1": "validation", "R1": "rare"},
        validation={
            "accuracy": 0.7,
            "candidates": [{"head": "simpleshot", "loss": 0.512345}, {"head": "logistic", "loss": 0.6}],
        },
    )


def shared_bundle(folder: Path) -> Bundle:
    """Export the small bundle once, also where several test processes ask for it."""
    with FileLock(folder / "bundle.lock"):
        made = [child for child in folder.iterdir() if (child / "manifest.json").exists()]
        return Bundle.load(made[0]) if made else write_bundle(folder, small_parts())


def images(seed: int, n: int) -> np.ndarray:
    """Random pictures (n, 1, 16, 16)."""
    return np.random.default_rng(seed).integers(0, 256, size=(n, 1, SIZE, SIZE), dtype=np.uint8)


def episode(
    seed: int, shots: list[int], queries: int, episodes: int = 1, padded: int = 0, size: int = 192
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clustered embeddings: support (E, S, D), one-hot (E, S, N), queries (E, Q, D), float32."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(episodes, len(shots), size))
    labels = np.concatenate([np.repeat(np.arange(len(shots)), shots), np.full(padded, -1)])
    onehot = np.tile(labels[:, None] == np.arange(len(shots)), (episodes, 1, 1))
    support = onehot @ centres + generator.normal(size=(episodes, len(labels), size))
    query = centres[:, generator.integers(len(shots), size=queries)]
    query = query + generator.normal(size=(episodes, queries, size))
    return support.astype(np.float32), onehot.astype(np.float32), query.astype(np.float32)
