"""A head's exported graphs, run without torch, beside torch itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad

from meta_dx.inference.export import export_head
from meta_dx.inference.providers import open_session
from meta_dx.learners.base import Head
from tests.learners.episodes import random_episode

#: Support counts of each episode, queries a class, padded rows: from one case of each to many classes.
SHAPES = [
    ([[1, 1]], 1, 0),
    ([[5] * 5] * 3, 4, 0),
    ([[1, 7, 3], [2, 2]], 3, 4),
    ([[0, 3, 2, 6]], 2, 1),
    ([[4] * 30], 1, 0),
]


def exported(head: Head, size: int, folder: Path) -> tuple[Path, Path]:
    paths = folder / "adapt.onnx", folder / "predict.onnx"
    export_head(head, size, *paths, tolerance=1e-5)
    return paths


def both_answers(
    head: Head, size: int, paths: tuple[Path, Path], shots: list[list[int]], queries: int, padded: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by the graphs and by torch on a fresh episode."""
    episode = random_episode(
        sum(map(sum, shots)), shots=shots, queries=queries, size=size, dtype=torch.float32
    )
    x = pad(episode.support_x, (0, 0, 0, padded), value=7.0)
    onehot = pad(episode.support.onehot(), (0, 0, 0, padded))
    with torch.no_grad():
        logits = head.predict_tensors(head.adapt_tensors(x, onehot), episode.query_x)
    adapt, predict = (open_session(path.read_bytes(), "cpu") for path in paths)
    names = list(head.state_names)
    state = adapt.run(names, {"support_x": x.numpy(), "support_onehot": onehot.numpy()})
    (found,) = predict.run(
        ["probabilities"], {"query_x": episode.query_x.numpy(), **dict(zip(names, state, strict=True))}
    )
    return found, logits.softmax(-1).mean(1).numpy()
