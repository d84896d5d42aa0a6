"""Adapted states, kept: a support set is adapted to once for each bundle, not once for each prediction."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_dx.home import Home, write_bytes
from meta_dx.inference.predictor import Predictor, State

log = logging.getLogger(__name__)

_DIGITS = 24
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def adapted_state(
    home: Home,
    predictor: Predictor,
    support_x: npt.ArrayLike,
    labels: npt.ArrayLike,
    ways: int,
    head: str | None = None,
) -> State:
    """Return the state of a support set, from the home's cache or freshly adapted.

    Parameters
    ----------
    home : Home
        Its ``states`` hold one file for each bundle, head and content of a support set.
    predictor : Predictor
        The bundle at work.
    support_x : array_like, shape (S, D)
        Embeddings of the confirmed cases.
    labels : array_like of int, shape (S,)
        Class of each, 0 … ways-1.
    ways : int
        N.
    head : str, optional
        The bundle's serving head if absent.

    Returns
    -------
    State
        A file that cannot be read is made anew.
    """
    x = np.ascontiguousarray(support_x, dtype=np.float32)
    y = np.ascontiguousarray(labels, dtype=np.int64)
    name = head or predictor.bundle.serving_head
    content = support_fingerprint(x, y, ways)
    path = home.states / predictor.bundle.id / f"{name}-{content}.npz"
    kept = _read(path, name, ways, content)
    if kept is not None:
        return kept
    state = predictor.adapt(x, y, ways, name)
    stream = io.BytesIO()
    kept_arrays: dict[str, Any] = {f"state_{k}": v for k, v in state.tensors.items()}
    np.savez(stream, content=np.array(content), **kept_arrays)
    write_bytes(path, stream.getvalue())
    return state


def support_fingerprint(support_x: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], ways: int) -> str:
    """Hash what a state rests on: every embedding, every label and the number of classes."""
    digest = hashlib.sha256(f"{support_x.shape}/{ways}/".encode())
    digest.update(support_x.astype("<f4").tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()[:_DIGITS]


def _read(path: Path, head: str, ways: int, content: str) -> State | None:
    if not path.exists():
        return None
    try:
        # Each member of the archive has a checksum: a flipped bit is an error here, no wrong answer later.
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["content"]) != content:
                raise ValueError("the file holds another support set")
            tensors = {k.removeprefix("state_"): kept[k] for k in kept.files if k.startswith("state_")}
    except _UNREADABLE as fault:
        log.warning("The kept state %s cannot be read (%s): adapting again.", path.name, type(fault).__name__)
        return None
    return State(head, ways, tensors)
