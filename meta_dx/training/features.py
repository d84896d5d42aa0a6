"""Cached embeddings of a whole image store, one file for each pair of encoder and store.

Heads, baselines and evaluation read the same embeddings again and again; the network runs once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from meta_dx.backbones.encoder import Encoder, weights_hash
from meta_dx.cohort.examples import Examples
from meta_dx.home import fingerprint_of, new_folder, write_json
from meta_dx.progress import Progress, silent
from meta_dx.training.embedding import Rows, Vectors, embed_images, pool_studies

_FILE = "features.npy"


def cached_features(
    root: Path,
    encoder: Encoder,
    images: Any,
    version: str,
    *,
    batch: int = 256,
    device: str = "cpu",
    progress: Progress = silent,
) -> Vectors:
    """Return the embeddings of all images of a store, from the cache or computed once and kept.

    Parameters
    ----------
    root : Path
        Folder of the cache, ``<home>/features``.
    encoder : Encoder
        Image to embedding; its weights name the cache entry.
    images : array-like, shape (n, C, *spatial), uint8
        The image store's images.
    version : str
        Version of the image store; names the cache entry too.
    batch : int
        Images at a time.
    device : str
        Where to compute.
    progress : Progress
        Called with the number of images done.

    Returns
    -------
    ndarray of float32, shape (n, D)
        Memory-mapped, read-only.
    """
    key = {"encoder": weights_hash(encoder), "images": version, "shape": list(images.shape)}
    folder = root / fingerprint_of(key)
    if not (folder / _FILE).exists():
        shape = (len(images), encoder.embedding_size)
        with new_folder(folder) as beside:
            vectors = np.lib.format.open_memmap(beside / _FILE, mode="w+", dtype=np.float32, shape=shape)
            for start in range(0, len(images), 8 * batch):
                rows: Rows = np.arange(start, min(start + 8 * batch, len(images)), dtype=np.int64)
                vectors[rows] = embed_images(encoder, images, rows=rows, batch=batch, device=device)
                progress(int(rows[-1]) + 1, len(images), "embedding")
            vectors.flush()
            write_json(beside / "key.json", key)
    stored: Vectors = np.load(folder / _FILE, mmap_mode="r")
    return stored


def study_features(features: Vectors, examples: Examples) -> Vectors:
    """Average cached image embeddings (n, D) to one vector a study, (len(examples), D)."""
    if not len(examples):
        return np.empty((0, features.shape[1]), np.float32)
    return pool_studies(features[np.concatenate(examples.images)], examples)
