"""Where ONNX Runtime runs: CPU or CUDA, and never believing that a provider works because it is listed.

ONNX Runtime falls back to the CPU in silence when CUDA cannot start, and says so on stdout and stderr. Here a
session on CUDA is either really on CUDA or an error (``device="cuda"``), and nothing else speaks.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Providers = list[str | tuple[str, dict[str, str]]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_FATAL_ONLY = 4  # log severity: an error reaches the user as an exception, not as a line on stderr
_CUDA_OPTIONS = {
    # An exhaustive search costs hundreds of milliseconds for every new shape, and shapes change all the time.
    "cudnn_conv_algo_search": "HEURISTIC",
    # Growing by powers of two wastes memory when shapes vary.
    "arena_extend_strategy": "kSameAsRequested",
    # TF32 keeps 10 bits of the mantissa: machines would differ by more than the bundle promises.
    "use_tf32": "0",
}
_quiet = threading.Lock()  # stdout is redirected for the whole process: one at a time


def choose_providers(device: str) -> Providers:
    """Choose the execution providers to ask for.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes CUDA where it really runs and the CPU elsewhere.

    Returns
    -------
    list
        For :class:`onnxruntime.InferenceSession`.

    Raises
    ------
    MetaDxError
        ``no_cuda`` when CUDA is demanded and does not run; ``bad_value`` for another device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise MetaDxError("bad_value", f"device is '{device}': allowed are auto, cpu and cuda.")
    if device == "cpu" or (device == "auto" and not runs(CUDA)):
        return [CPU]
    if not runs(CUDA):
        raise _no_cuda()
    return [(CUDA, dict(_CUDA_OPTIONS)), CPU]


def open_session(model: Path | bytes, device: str = "auto", threads: int = 0) -> InferenceSession:
    """Open a model on the device asked for.

    Parameters
    ----------
    model : Path or bytes
        An ONNX file or its content.
    device : {"auto", "cpu", "cuda"}
        See :func:`choose_providers`.
    threads : int
        Threads within one operator on the CPU; 0 lets ONNX Runtime take one a core.

    Returns
    -------
    onnxruntime.InferenceSession

    Raises
    ------
    MetaDxError
        ``no_cuda`` when CUDA is demanded and the session does not run on it; ``bad_model`` when the file is
        no model.
    """
    asked = choose_providers(device)
    session = _open(model, asked, threads)
    if asked[0] != CPU and session.get_providers()[0] != CUDA:
        if device == "cuda":
            raise _no_cuda()
        session = _open(model, [CPU], threads)
    return session


def working_providers() -> list[str]:
    """List ONNX Runtime's names of the providers on which a small graph really runs, the fastest first."""
    return [name for name in (CUDA, CPU) if runs(name)]


@cache
def runs(provider: str) -> bool:
    """Run a small graph on a provider and say whether it ran there; asked once a process."""
    import onnxruntime as ort

    if provider not in ort.get_available_providers():
        return False
    options: Providers = [(provider, dict(_CUDA_OPTIONS)) if provider == CUDA else provider]
    try:
        session = _open(_small_graph(), options, threads=1)
        (answer,) = session.run(None, {"x": np.ones((2, 3), dtype=np.float32)})
    except Exception:  # whatever a driver throws, the answer is no
        return False
    return bool(session.get_providers()[0] == provider and np.array_equal(answer, np.full((2, 2), 3.0)))


def _open(model: Path | bytes, providers: Providers, threads: int) -> InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    source: Any = model if isinstance(model, bytes) else str(model)
    wants_cuda = providers[0] != CPU
    with _silence() if wants_cuda else contextlib.nullcontext():
        ort.set_default_logger_severity(_FATAL_ONLY)
        if wants_cuda and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        try:
            return ort.InferenceSession(source, options, providers=providers)
        except Exception as fault:
            if isinstance(model, Path) and not model.is_file():
                raise MetaDxError("bad_model", f"{model} is missing: the bundle is not complete.") from fault
            if type(fault).__name__ not in (
                "InvalidProtobuf",
                "InvalidGraph",
                "NoSuchFile",
                "InvalidArgument",
            ):
                raise
            name = model.name if isinstance(model, Path) else "the model"
            raise MetaDxError(
                "bad_model", f"ONNX Runtime cannot read {name}: export the bundle again."
            ) from fault


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # ONNX Runtime prints its fallbacks with print(), which would break the one JSON object on stdout.
    with _quiet, contextlib.redirect_stdout(io.StringIO()):
        yield


def _no_cuda() -> MetaDxError:
    return MetaDxError(
        "no_cuda",
        "CUDA was asked for, but ONNX Runtime cannot run on it here: check the driver with nvidia-smi and "
        "the CUDA and cuDNN libraries with 'meta-dx doctor', or use device = \"auto\".",
    )


@cache
def _small_graph() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "ones"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones((3, 2), dtype=np.float32), "ones")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())
