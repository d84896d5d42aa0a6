"""A cohort so small that a whole training takes a second: each disease has a pattern of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from meta_dx.cohort.examples import Examples
from meta_dx.training.options import TrainingOptions
from meta_dx.training.task import TrainingTask

FAST = TrainingOptions(
    threads=1,
    pretrain_epochs=4,
    batch_size=8,
    episodes=20,
    ways=(2, 3),
    shots=(1, 2),
    queries=2,
    validate_every=1,
    validation_ways=3,
    validation_shots=(1, 2),
    validation_queries=3,
    validation_episodes=10,
    checkpoint_seconds=1000.0,
)


def cohort(
    diseases: int, patients: int, *, first_row: int = 0, seed: int = 0, size: int = 16
) -> tuple[np.ndarray, Examples]:
    """Images and examples; the first patient of a disease has two images, all others one."""
    rng = np.random.default_rng(seed)
    images, study, patient, code, rows = [], [], [], [], []
    for d in range(diseases):
        pattern = rng.uniform(40, 215, (1, 4, 4)).repeat(size // 4, 1).repeat(size // 4, 2)
        for p in range(patients):
            count = 2 if p == 0 else 1
            rows.append(np.arange(len(images), len(images) + count) + first_row)
            noisy = pattern + rng.normal(0, 20, (count, 1, size, size))
            images.extend(noisy.clip(0, 255).astype(np.uint8))
            name = f"{seed}.{d}.{p}"
            study.append(f"S{name}"), patient.append(f"P{name}"), code.append(f"D{seed}{d}")
    return np.stack(images), Examples(np.array(study), np.array(patient), np.array(code), tuple(rows))


def tiny_task(folder: Path, **options: Any) -> TrainingTask:
    """A training task on six common and four validation diseases."""
    common_images, common = cohort(6, 6)
    validation_images, validation = cohort(4, 6, first_row=len(common_images), seed=1)
    return TrainingTask(
        common=common,
        validation=validation,
        images=np.concatenate([common_images, validation_images]),
        folder=folder,
        options=replace(FAST, **options),
        device="cpu",
    )
