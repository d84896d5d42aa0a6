"""The ``Predictor``: a bundle at work on ONNX Runtime, without torch.

Pictures become embeddings, confirmed cases a state, and the state answers queries. Everything that serves,
evaluates or reviews reaches a model only through this class.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from meta_dx.errors import MetaDxError
from meta_dx.inference.answers import Answer, answer_of, doubt_of
from meta_dx.inference.bundle import Bundle
from meta_dx.inference.evidence import EmbeddedStudies
from meta_dx.inference.parts import Reading, answered_in_parts, graph_noise, plain, ways_of
from meta_dx.inference.providers import CPU, open_session
from meta_dx.progress import Progress, silent

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Images(Protocol):
    """Prepared pictures or volumes (n, C, *spatial), uint8: an array, a memory map, or the rows of an image store."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, C, *spatial)."""

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
        images : array_like of uint8, shape (n, C, *spatial)
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
        """Return the studies (n, D) of :meth:`embed_cases`, which takes the same arguments."""
        return self.embed_cases(images, rows, batch, progress).x

    def embed_cases(
        self,
        images: Images,
        rows: Sequence[Ints],
        batch: int = 64,
        progress: Progress = silent,
        names: Sequence[str] | npt.NDArray[np.str_] | None = None,
    ) -> EmbeddedStudies:
        """Embed studies, each the mean of the embeddings of its pictures, and the pictures.

        Parameters
        ----------
        images : array_like of uint8, shape (m, C, *spatial)
            All pictures.
        rows : sequence of ndarray of int64, length n
            Rows of each study's pictures; at least one each. A picture is embedded once however often it
            occurs.
        batch : int
            Pictures at once.
        progress : Progress
            Called after each batch.
        names : sequence of str, length m, optional
            Identifier of each picture; empty if absent.

        Returns
        -------
        EmbeddedStudies
        """
        if not len(rows):
            nothing = np.zeros((0, self.bundle.embedding_size), dtype=np.float32)
            return EmbeddedStudies(nothing, nothing, np.zeros(0, np.int64), np.zeros(0, dtype=np.str_))
        sizes = np.array([len(r) for r in rows])
        if not sizes.all():
            raise ValueError(f"{int((sizes == 0).sum())} of {len(rows)} studies have no picture")
        row = np.concatenate(rows)
        needed, place = np.unique(row, return_inverse=True)
        pictures = self._embed_rows(images, needed, batch, progress)[place]  # (P, D)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        total = np.add.reduceat(pictures, starts, axis=0)  # (n, D)
        mean = np.asarray(total / sizes[:, None], dtype=np.float32)
        named = np.full(len(row), "") if names is None else np.asarray(names, dtype=np.str_)[row]
        return EmbeddedStudies(mean, pictures, np.repeat(np.arange(len(rows)), sizes), named)

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

    def predict(
        self,
        state: State,
        x: npt.ArrayLike,
        prior: npt.ArrayLike | None = None,
        codes: Sequence[str] | None = None,
    ) -> Floats:
        """Return the probabilities (Q, N) of :meth:`answer`, which takes the same arguments."""
        return self.answer(state, x, prior, codes).probabilities

    def answer(
        self,
        state: State,
        x: npt.ArrayLike,
        prior: npt.ArrayLike | None = None,
        codes: Sequence[str] | None = None,
    ) -> Answer:
        """Answer queries from an adapted state, with everything that the head can say about its answer.

        Parameters
        ----------
        state : State
            From :meth:`adapt`.
        x : array_like, shape (Q, D)
            Embeddings of the queries.
        prior : array_like, shape (N,), optional
            How frequent each class is, up to a factor. The heads answer as if all were equally frequent; a
            prior multiplies their probabilities, those of each sample where there are samples, which are then
            scaled to sum to 1.
        codes : sequence of str, length N, optional
            Disease code of each class, from which its noise is drawn; its position if absent.

        Returns
        -------
        Answer
            Memory does not grow with the number of queries beyond the answer's own.
        """
        vectors = np.asarray(x, dtype=np.float32)
        if codes is not None and len(codes) != state.ways:
            raise ValueError(f"{len(codes)} codes for {state.ways} classes")
        if not len(vectors):  # no graph takes nothing: ask anything, and keep none of it
            return self.answer(state, self._mean[None], prior, codes).changed(lambda part: part[:0])
        weights = None if prior is None else _checked_prior(prior, state.ways)[None]
        found = self._in_parts(
            answer_of, state.tensors, vectors[None], state.head, weights, codes, self.bundle.samples
        )
        return found.changed(lambda part: part[0])

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
        inputs = {"support_x": plain(support_x), "support_onehot": plain(support_onehot)}
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
            Calibrated; the mean over M where the head has a latent variable. All samples are held at once:
            :meth:`doubt_episodes` is for many episodes.
        """
        session = self._session(head, "predict")
        inputs = {"query_x": plain(query_x), **{name: plain(tensor) for name, tensor in state.items()}}
        inputs |= graph_noise(session, None, self.bundle.samples, query_x.shape[0], ways_of(state))
        logits, probabilities = self._run(session, ["logits", "probabilities"], inputs)
        return logits, probabilities

    def doubt_episodes(
        self,
        state: Mapping[str, Vectors],
        query_x: Vectors,
        head: str | None = None,
        prior: npt.ArrayLike | None = None,
        samples: int = 32,
    ) -> tuple[Floats, Floats | None]:
        """Answer the queries of E episodes at once, and say how unsure the head is of what it knows.

        Parameters
        ----------
        state : mapping of str to ndarray
            From :meth:`adapt_episodes`.
        query_x : ndarray, shape (E, Q, D)
            Embeddings.
        head : str, optional
            The bundle's serving head if absent.
        prior : array_like, shape (E, N), optional
            Class frequencies of each episode, up to a factor.
        samples : int
            M. Class n has the same noise in every episode.

        Returns
        -------
        probabilities : ndarray of float64, shape (E, Q, N)
        epistemic : ndarray of float64, shape (E, Q), or None
            Nats; None where the head has no latent variable.
        """
        weights = None if prior is None else np.asarray(prior, dtype=np.float64)
        found = self._in_parts(doubt_of, state, query_x, head, weights, None, samples)
        return found.probabilities, found.epistemic

    def _in_parts(
        self,
        reading: Reading,
        state: Mapping[str, Vectors],
        query_x: Vectors,
        head: str | None,
        prior: Floats | None,
        codes: Sequence[str] | None,
        samples: int,
    ) -> Answer:
        session = self._session(head, "predict")
        run = partial(self._run, session)
        return answered_in_parts(session, run, reading, state, query_x, prior, codes, samples)

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
            pictures = np.ascontiguousarray(images[part], dtype=np.uint8)  # (B, C, *spatial)
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


def _checked_prior(prior: npt.ArrayLike, ways: int) -> Floats:
    weights = np.asarray(prior, dtype=np.float64)
    if weights.shape != (ways,) or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"prior {weights.shape} must hold {ways} finite numbers of at least 0")
    return weights
