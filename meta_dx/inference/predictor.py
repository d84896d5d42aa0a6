"""The ``Predictor``: a bundle at work on ONNX Runtime, without torch.

Pictures become embeddings, confirmed cases a state, and the state answers queries. Everything that serves,
evaluates or reviews reaches a model only through this class.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from meta_dx.errors import MetaDxError
from meta_dx.inference.bundle import Bundle
from meta_dx.inference.providers import CPU, open_session
from meta_dx.progress import Progress, silent

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LENGTH_FLOOR = 1e-12  # a vector shorter than this has no direction, and is similar to nothing


class Images(Protocol):
    """Prepared pictures (n, C, H, W), uint8: an array, a memory map, or the rows of an image store."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, C, H, W)."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]:
        """Return the pictures at these rows."""


@dataclass(frozen=True)
class State:
    """A head adapted to one support set.

    Parameters
    ----------
    head : str
        Whose state it is.
    ways : int
        N; classes without a case are among them, with probability 0.
    tensors : mapping of str to ndarray
        What ``adapt.onnx`` gave, leading axis E = 1.
    """

    head: str
    ways: int
    tensors: Mapping[str, Vectors]


class Predictor:
    """A bundle on ONNX Runtime.

    Several threads may share a predictor; on CUDA they take turns.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    device : {"auto", "cpu", "cuda"}
        Where to run; ``auto`` takes CUDA where it really runs.
    threads : int
        Threads on the CPU; 0 takes one a core.

    Raises
    ------
    MetaDxError
        ``no_cuda`` when CUDA is demanded and does not run.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int = 0) -> None:
        self.bundle = bundle
        self._device = device
        self._threads = threads
        self._sessions: dict[tuple[str, str], InferenceSession] = {}
        self._opening = threading.Lock()
        self._encoder = open_session(bundle.encoder_path, self._device, threads)
        self._mean = bundle.embedding_mean
        on_cpu = self._encoder.get_providers()[0] == CPU
        self._turn: Any = contextlib.nullcontext() if on_cpu else threading.Lock()

    @property
    def device(self) -> str:
        """Where it runs: ``"cpu"`` or ``"cuda"``."""
        return "cpu" if self._encoder.get_providers()[0] == CPU else "cuda"

    def embed_images(self, images: Images, batch: int = 64, progress: Progress = silent) -> Vectors:
        """Embed prepared pictures.

        Parameters
        ----------
        images : array_like of uint8, shape (n, C, H, W)
            Pictures as the bundle's ``image_options`` prepare them; read ``batch`` at a time.
        batch : int
            Pictures at once.
        progress : Progress
            Called after each batch.

        Returns
        -------
        ndarray of float32, shape (n, D)

        Raises
        ------
        MetaDxError
            ``bundle_pictures`` when the pictures are not of the shape that the encoder takes.
        """
        return self._embed_rows(images, np.arange(images.shape[0]), batch, progress)

    def embed_studies(
        self, images: Images, rows: Sequence[Ints], batch: int = 64, progress: Progress = silent
    ) -> Vectors:
        """Embed studies: the mean of the embeddings of a study's pictures.

        Parameters
        ----------
        images : array_like of uint8, shape (m, C, H, W)
            All pictures.
        rows : sequence of ndarray of int64, length n
            Rows of each study's pictures; at least one each. A picture is embedded once however often it
            occurs.
        batch : int
            Pictures at once.
        progress : Progress
            Called after each batch.

        Returns
        -------
        ndarray of float32, shape (n, D)
        """
        if not len(rows):
            return np.zeros((0, self.bundle.embedding_size), dtype=np.float32)
        sizes = np.array([len(r) for r in rows])
        if not sizes.all():
            raise ValueError(f"{int((sizes == 0).sum())} of {len(rows)} studies have no picture")
        needed, place = np.unique(np.concatenate(rows), return_inverse=True)
        vectors = self._embed_rows(images, needed, batch, progress)  # (u, D)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        total = np.add.reduceat(vectors[place], starts, axis=0)  # (n, D)
        return np.asarray(total / sizes[:, None], dtype=np.float32)

    def centred(self, x: npt.ArrayLike) -> Vectors:
        """Subtract the mean embedding of the common diseases from embeddings (n, D)."""
        return np.asarray(x, dtype=np.float32) - self._mean

    def adapt(self, x: npt.ArrayLike, labels: npt.ArrayLike, ways: int, head: str | None = None) -> State:
        """Adapt to one support set.

        Parameters
        ----------
        x : array_like, shape (S, D)
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
        """
        vectors, y = np.asarray(x, dtype=np.float32), np.asarray(labels, dtype=np.int64)
        if not len(y) or vectors.shape != (len(y), self.bundle.embedding_size):
            size = self.bundle.embedding_size
            raise ValueError(
                f"embeddings {vectors.shape}, {len(y)} labels: want (S, {size}) and S labels, S > 0"
            )
        if y.min() < 0 or y.max() >= ways:
            raise ValueError(f"labels run from {y.min()} to {y.max()}, classes from 0 to {ways - 1}")
        onehot = np.eye(ways, dtype=np.float32)[y]  # (S, N)
        name = head or self.bundle.serving_head
        return State(name, ways, self.adapt_episodes(vectors[None], onehot[None], name))

    def predict(self, state: State, x: npt.ArrayLike, prior: npt.ArrayLike | None = None) -> Floats:
        """Answer queries from an adapted state.

        Parameters
        ----------
        state : State
            From :meth:`adapt`.
        x : array_like, shape (Q, D)
            Embeddings of the queries.
        prior : array_like, shape (N,), optional
            How frequent each class is, up to a factor. The heads answer as if all were equally frequent; a
            prior multiplies their probabilities, which are then scaled to sum to 1.

        Returns
        -------
        ndarray of float64, shape (Q, N)
            Calibrated probabilities; each row sums to 1.
        """
        vectors = np.asarray(x, dtype=np.float32)
        if not len(vectors):
            return np.zeros((0, state.ways))
        _, answers = self.predict_episodes(state.tensors, vectors[None], state.head)
        probabilities = answers[0].astype(np.float64)
        if prior is not None:
            probabilities = probabilities * _checked_prior(prior, state.ways)
        total = probabilities.sum(1, keepdims=True)
        if not (total > 0).all():
            raise ValueError("the prior is 0 for every class that has a case")
        shares: Floats = probabilities / total
        return shares

    def adapt_episodes(
        self, support_x: Vectors, support_onehot: Vectors, head: str | None = None
    ) -> dict[str, Vectors]:
        """Adapt to E support sets at once.

        Parameters
        ----------
        support_x : ndarray, shape (E, S, D)
            Embeddings; padded rows may hold anything finite.
        support_onehot : ndarray, shape (E, S, N)
            Labels; all zero where padded. A class without any row does not take part.
        head : str, optional
            The bundle's serving head if absent.

        Returns
        -------
        dict of str to ndarray
            The state, each tensor with leading axis E.
        """
        session = self._session(head, "adapt")
        names = [output.name for output in session.get_outputs()]
        inputs = {"support_x": _plain(support_x), "support_onehot": _plain(support_onehot)}
        return dict(zip(names, self._run(session, names, inputs), strict=True))

    def predict_episodes(
        self, state: Mapping[str, Vectors], query_x: Vectors, head: str | None = None
    ) -> tuple[Vectors, Vectors]:
        """Answer the queries of E episodes at once.

        Parameters
        ----------
        state : mapping of str to ndarray
            From :meth:`adapt_episodes`.
        query_x : ndarray, shape (E, Q, D)
            Embeddings.
        head : str, optional
            The bundle's serving head if absent.

        Returns
        -------
        logits : ndarray of float32, shape (E, M, Q, N)
            As the head gives them; -inf for classes that do not take part.
        probabilities : ndarray of float32, shape (E, Q, N)
            Calibrated.
        """
        session = self._session(head, "predict")
        inputs = {"query_x": _plain(query_x), **{name: _plain(tensor) for name, tensor in state.items()}}
        logits, probabilities = self._run(session, ["logits", "probabilities"], inputs)
        return logits, probabilities

    def _embed_rows(self, images: Images, rows: Ints, batch: int, progress: Progress) -> Vectors:
        wanted = tuple(self._encoder.get_inputs()[0].shape[1:])
        if tuple(images.shape[1:]) != wanted:
            raise MetaDxError(
                "bundle_pictures",
                f"Bundle {self.bundle.id} takes pictures of shape {wanted}, not {tuple(images.shape[1:])}: "
                "prepare them with the bundle's own options (configs/preprocessing.json).",
            )
        vectors = np.zeros((len(rows), self.bundle.embedding_size), dtype=np.float32)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            pictures = np.ascontiguousarray(images[part], dtype=np.uint8)  # (B, C, H, W)
            (vectors[start : start + batch],) = self._run(self._encoder, ["embeddings"], {"images": pictures})
            progress(min(start + batch, len(rows)), len(rows))
        return vectors

    def _session(self, head: str | None, graph: str) -> InferenceSession:
        key = (head or self.bundle.serving_head, graph)
        with self._opening:
            if key not in self._sessions:
                path = self.bundle.adapt_path if graph == "adapt" else self.bundle.predict_path
                self._sessions[key] = open_session(path(key[0]), self._device, self._threads)
            return self._sessions[key]

    def _run(self, session: InferenceSession, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        with self._turn:
            return list(session.run(names, inputs))


def entropy(probabilities: npt.ArrayLike) -> Floats:
    """Return the entropy of probabilities (…, N) in nats, shape (…)."""
    p = np.asarray(probabilities, dtype=np.float64)
    nats: Floats = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return nats


def nearest_support(support_x: npt.ArrayLike, query_x: npt.ArrayLike, k: int) -> tuple[Ints, Floats]:
    """Find the support cases that look most like each query.

    Parameters
    ----------
    support_x : array_like, shape (S, D)
        Embeddings of the confirmed cases, centred (:meth:`Predictor.centred`).
    query_x : array_like, shape (Q, D)
        Embeddings of the queries, centred.
    k : int
        How many; all of them where there are fewer.

    Returns
    -------
    indices : ndarray of int64, shape (Q, k)
        Rows of ``support_x``, the most similar first; the earlier row where two are equally similar.
    similarity : ndarray of float64, shape (Q, k)
        Cosine, -1 … 1.
    """
    cosine = _unit(query_x) @ _unit(support_x).T  # (Q, S)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, axis=1)


def _unit(x: npt.ArrayLike) -> Floats:
    vectors = np.asarray(x, dtype=np.float64)
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LENGTH_FLOOR)
    return unit


def _plain(tensor: npt.NDArray[Any]) -> Vectors:
    return np.ascontiguousarray(tensor, dtype=np.float32)


def _checked_prior(prior: npt.ArrayLike, ways: int) -> Floats:
    weights = np.asarray(prior, dtype=np.float64)
    if weights.shape != (ways,) or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"prior {weights.shape} must hold {ways} finite numbers of at least 0")
    return weights
