"""Embeddings outside the training step: of images, and of studies as the mean over their images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from meta_dx.backbones.encoder import Encoder
from meta_dx.cohort.examples import Examples

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Pictures:
    """The image store's pictures, handed out in batches on the device where they are needed.

    Parameters
    ----------
    images : array-like, shape (n, C, *spatial), uint8
        Anything that can be indexed with an array of rows.
    device : torch.device
        Where batches go. On a GPU with room the whole store moves there once.
    """

    def __init__(self, images: Any, device: torch.device) -> None:
        self._images, self.device = images, device
        self._resident: Tensor | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if int(np.prod(images.shape)) < free // 4:
                self._resident = torch.from_numpy(np.ascontiguousarray(images)).to(device)

    def take(self, rows: Rows) -> Tensor:
        """Return the images at these rows, (len(rows), C, *spatial) uint8."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self.device)]
        batch = torch.from_numpy(np.ascontiguousarray(self._images[rows]))
        return batch.to(self.device, non_blocking=True)


def memory_format(encoder: Encoder) -> torch.memory_format:
    """Return the layout in which the encoder's convolutions are fastest: channels last."""
    return torch.channels_last_3d if encoder.spatial_dims == 3 else torch.channels_last


def embed_images(
    encoder: Encoder, images: Any, *, rows: Rows | None = None, batch: int = 256, device: str = "cpu"
) -> Vectors:
    """Embed images in evaluation mode and full precision; the encoder is left as it was, on ``device``.

    Parameters
    ----------
    encoder : Encoder
        Image to embedding.
    images : array-like or Pictures, shape (n, C, *spatial), uint8
        The image store's images.
    rows : ndarray of int64, optional
        Only these rows, in this order.
    batch : int
        Images at a time.
    device : str
        Where to compute.

    Returns
    -------
    ndarray of float32, shape (n or len(rows), D)
    """
    pictures = images if isinstance(images, Pictures) else Pictures(images, torch.device(device))
    wanted = np.arange(len(images), dtype=np.int64) if rows is None else rows
    found = np.empty((len(wanted), encoder.embedding_size), np.float32)
    training = encoder.training
    encoder.eval().to(pictures.device)
    layout = memory_format(encoder)
    with torch.inference_mode():
        for start in range(0, len(wanted), batch):
            taken = pictures.take(wanted[start : start + batch]).contiguous(memory_format=layout)
            found[start : start + batch] = encoder(taken).float().cpu().numpy()
    encoder.train(training)
    return found


def embed_studies(
    encoder: Encoder, images: Any, examples: Examples, *, batch: int = 256, device: str = "cpu"
) -> Vectors:
    """Embed studies: the mean of the embeddings of each study's images.

    Parameters
    ----------
    encoder : Encoder
        Image to embedding.
    images : array-like or Pictures, shape (n, C, *spatial), uint8
        The image store's images.
    examples : Examples
        The studies.
    batch : int
        Images at a time.
    device : str
        Where to compute.

    Returns
    -------
    ndarray of float32, shape (len(examples), D)
    """
    if not len(examples):
        return np.empty((0, encoder.embedding_size), np.float32)
    rows = np.concatenate(examples.images).astype(np.int64)
    return pool_studies(embed_images(encoder, images, rows=rows, batch=batch, device=device), examples)


def pool_studies(vectors: Vectors, examples: Examples) -> Vectors:
    """Average image embeddings, given study after study (sum of images, D), to (len(examples), D)."""
    counts = np.array([len(rows) for rows in examples.images])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    pooled: Vectors = (np.add.reduceat(vectors, starts, axis=0) / counts[:, None]).astype(np.float32)
    return pooled
