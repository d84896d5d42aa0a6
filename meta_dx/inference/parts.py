"""Ask a head's graph in parts that fit in memory, with the noise that it needs, and join the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meta_dx.inference.answers import Answer, Floats, Vectors, class_noise, first_queries, joined

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

#: From probabilities, samples, attention and prior to an answer.
Reading = Callable[[Vectors, Vectors | None, Vectors | None, Floats | None], Answer]
#: From names of outputs and inputs by name to the outputs.
Running = Callable[[list[str], dict[str, Any]], list[Any]]

_CELLS = 250_000  # M · Q · N at once: a neural process holds some hundred bytes for each


def answered_in_parts(
    session: InferenceSession,
    run: Running,
    reading: Reading,
    state: Mapping[str, Vectors],
    query_x: Vectors,
    prior: Floats | None,
    codes: Sequence[str] | None,
    samples: int,
) -> Answer:
    """Answer E episodes of Q queries; of a head without noise and attention, all at once.

    Parameters
    ----------
    session : InferenceSession
        ``predict.onnx``.
    run : Running
        Runs it.
    reading : Reading
        What to make of its outputs: :func:`~meta_dx.inference.answers.answer_of` or ``doubt_of``.
    state : mapping of str to ndarray
        From ``adapt.onnx``.
    query_x : ndarray, shape (E, Q, D)
        Embeddings.
    prior : ndarray, shape (E, N), optional
        Class frequencies up to a factor.
    codes : sequence of str, optional
        Disease code of each class, for its noise.
    samples : int
        M.

    Returns
    -------
    Answer
        Each part with a leading axis E. A query gets the same answer to the last bit whatever is asked with it.
    """
    outputs = [output.name for output in session.get_outputs() if output.name != "logits"]
    tasks, queries, ways = query_x.shape[0], query_x.shape[1], ways_of(state)
    noise = graph_noise(session, codes, samples, 1, ways)
    cells = ways * (samples if noise else 1)
    large = len(outputs) > 1  # samples or attention
    found = []
    for few in _slices(tasks, _CELLS // (cells * queries) if large else tasks):
        fixed = {name: plain(tensor[few]) for name, tensor in state.items()}
        fixed |= {name: np.repeat(tensor, query_x[few].shape[0], axis=0) for name, tensor in noise.items()}
        weights = None if prior is None else prior[few, None]
        parts = []
        for some in _slices(queries, _CELLS // cells if large else queries):
            x = plain(query_x[few, some])
            # One query alone goes another way through a matrix product, with other last bits: never alone.
            inputs = {"query_x": np.repeat(x, 2, axis=1) if x.shape[1] == 1 else x, **fixed}
            given = dict(zip(outputs, run(outputs, inputs), strict=True))
            part = reading(given["probabilities"], given.get("samples"), given.get("attention"), weights)
            parts.append(first_queries(part, x.shape[1]))
        found.append(joined(parts, axis=1))
    return joined(found, axis=0)


def graph_noise(
    session: InferenceSession, codes: Sequence[str] | None, samples: int, tasks: int, ways: int
) -> dict[str, Vectors]:
    """Return the graph's noise (E, M, N, L) under its name, the same for all E; empty where it takes none."""
    size = next((tensor.shape[3] for tensor in session.get_inputs() if tensor.name == "noise"), 0)
    if not size:
        return {}
    drawn = class_noise(codes or [f"class {n}" for n in range(ways)], samples, size)
    return {"noise": np.repeat(drawn[None], tasks, axis=0)}


def ways_of(state: Mapping[str, Vectors]) -> int:
    """Return N of a state: every exported head counts its cases, (E, N)."""
    return int(state["count"].shape[1])


def plain(tensor: npt.NDArray[Any]) -> Vectors:
    """Return a tensor as ONNX Runtime takes it."""
    return np.ascontiguousarray(tensor, dtype=np.float32)


def _slices(total: int, at_once: int) -> Iterator[slice]:
    """Cut 0 … total into pieces."""
    step = max(1, at_once)
    return (slice(start, start + step) for start in range(0, total, step))
