"""From torch to ONNX: the encoder and, for each head, ``adapt.onnx`` and ``predict.onnx``.

Sizes are dynamic: episodes E, support S, ways N, queries Q and the batch of images; only the embedding size D
and the shape of one image are fixed. Every graph is run and compared with torch on inputs that the exporter
has not seen, before it may enter a bundle. This is the last module of the way to production that needs torch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from meta_dx.home import write_bytes
from meta_dx.inference.calibration import Calibration
from meta_dx.inference.providers import open_session
from meta_dx.learners.base import Head

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20  # at 23 a broadcast attention mask fails in ONNX Runtime
ENCODER_TOLERANCE = 1e-4  # largest difference of an embedding, relative to the largest value
PROBABILITY_TOLERANCE = 1e-5
ITERATIVE_TOLERANCE = 1e-4  # for a head whose answer is where a solver stopped
_COUNT = "count"  # the state's support rows of each class (E, N)
_LOUD = ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")


class ExportError(RuntimeError):
    """An exported graph does not answer as torch does: a fault of ours, never of the user's."""


@dataclass(frozen=True)
class _Task:
    """Sizes of an episode on which a graph is checked."""

    episodes: int
    shots: tuple[int, ...]
    queries: int
    padded: int = 0


#: One case of each disease; a usual episode; ragged with an absent class and padding; many classes.
_CHECKED = (
    _Task(1, (1, 1), 1),
    _Task(3, (5, 5, 5, 5, 5), 25),
    _Task(4, (1, 7, 0, 3), 6, padded=4),
    _Task(2, (2,) * 31, 1),
)


def export_encoder(encoder: nn.Module, sample_shape: Sequence[int], path: Path) -> None:
    """Write ``encoder.onnx``: ``images`` (B, C, *spatial) uint8 → ``embeddings`` (B, D) float32.

    Parameters
    ----------
    encoder : nn.Module
        Maps 0..255 images to embeddings, normalisation inside. It is copied to the CPU and not changed.
    sample_shape : sequence of int
        (C, *spatial) of one image.
    path : Path
        The file to write.

    Raises
    ------
    ExportError
        When ONNX Runtime's embeddings are not torch's.
    """
    model = copy.deepcopy(encoder).cpu().float().eval()
    shape = tuple(sample_shape)
    images = random_images(0, 2, shape)
    proto = to_onnx(model, (images,), ["images"], ["embeddings"], ({0: "B"},))
    data = proto.SerializeToString()
    session = open_session(data, "cpu")
    for seed, batch in enumerate((1, 3, 8), start=1):
        fresh = random_images(seed, batch, shape)
        with torch.no_grad():
            expected = model(fresh)
        (found,) = session.run(None, {"images": fresh.numpy()})
        difference = float(
            (torch.from_numpy(found) - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
        )
        if not difference <= ENCODER_TOLERANCE:  # NaN must fail too
            raise ExportError(
                f"encoder.onnx: embeddings of {batch} images differ by {difference:.1e} from torch's"
            )
    write_bytes(path, data)


def export_head(
    head: Head,
    embedding_size: int,
    adapt_path: Path,
    predict_path: Path,
    calibration: Calibration | None = None,
    tolerance: float | None = None,
) -> None:
    """Write ``adapt.onnx`` and ``predict.onnx`` of a head.

    ``adapt``: ``support_x`` (E, S, D), ``support_onehot`` (E, S, N) → the tensors named by
    ``head.state_names``. ``predict``: those tensors and ``query_x`` (E, Q, D) → ``logits`` (E, M, Q, N), as
    the head gives them, and ``probabilities`` (E, Q, N), calibrated: the temperature is inside the graph.
    Where the head needs noise, ``predict`` also takes ``noise`` (E, M, N, L) and gives ``samples``
    (E, M, Q, N), the calibrated probabilities under each, whose mean ``probabilities`` is; where it attends
    to its support, ``attention`` (E, Q, S), the weight of each case within its class.

    Parameters
    ----------
    head : Head
        Its state must hold ``count`` (E, N), on which the temperature and the absence of a class rest. It is
        copied to the CPU and not changed.
    embedding_size : int
        D.
    adapt_path, predict_path : Path
        The files to write.
    calibration : Calibration, optional
        Temperature; 1 if absent.
    tolerance : float, optional
        Largest difference of a probability or weight; 1e-5, or 1e-4 where the head or a part of it has
        ``iterations``.

    Raises
    ------
    ExportError
        When ONNX Runtime's probabilities are not torch's on episodes of several sizes, ragged ones and ones
        with an absent class.
    """
    if _COUNT not in head.state_names:
        raise ExportError(
            f"the state of {type(head).__name__} has no '{_COUNT}': temperature needs the shots"
        )
    model = copy.deepcopy(head).cpu().float().eval()
    adapt, predict = _Adapt(model).eval(), _Predict(model, calibration or Calibration()).eval()
    names = list(model.state_names)
    support, onehot, query = _episode(0, _Task(3, (2, 3, 1, 4, 1), 7), embedding_size)
    noise = predict.draw(0, onehot, samples=6)
    axes = _state_axes(adapt, embedding_size)
    with torch.no_grad():
        state = adapt(support, onehot)
        outputs = list(predict.named(query, *noise, *state))
    adapt_proto = to_onnx(
        adapt,
        (support, onehot),
        ["support_x", "support_onehot"],
        names,
        ({0: "E", 1: "S"}, {0: "E", 1: "S", 2: "N"}),
    )
    predict_proto = to_onnx(
        predict,
        (query, *noise, *state),
        ["query_x", *(["noise"] if noise else []), *names],
        outputs,
        ({0: "E", 1: "Q"}, (*({0: "E", 1: "M", 2: "N"} for _ in noise), *axes)),
    )
    adapt_data, predict_data = adapt_proto.SerializeToString(), predict_proto.SerializeToString()
    if tolerance is None:
        iterative = any(hasattr(part, "iterations") for part in head.modules())
        tolerance = ITERATIVE_TOLERANCE if iterative else PROBABILITY_TOLERANCE
    _check_head(adapt, predict, adapt_data, predict_data, embedding_size, tolerance)
    write_bytes(adapt_path, adapt_data)
    write_bytes(predict_path, predict_data)


class _Adapt(nn.Module):
    """A head's ``adapt_tensors`` with the state as a tuple."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, support_x: Tensor, support_onehot: Tensor) -> tuple[Tensor, ...]:
        state = self.head.adapt_tensors(support_x, support_onehot)
        return tuple(state[name] for name in self.head.state_names)


class _Predict(nn.Module):
    """A head's ``predict_tensors`` followed by the calibrated softmax, and its attention where it has one."""

    def __init__(self, head: Head, calibration: Calibration) -> None:
        super().__init__()
        self.head = head
        self.fitted = (calibration.a, calibration.b, calibration.c, calibration.d)

    def forward(self, query_x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(query_x, *rest).values())

    def named(self, query_x: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        """Answer from the noise, where the head needs it, and the state; outputs by name."""
        noise, values = (rest[:1], rest[1:]) if self.head.noise_size else ((), rest)
        state = dict(zip(self.head.state_names, values, strict=True))
        logits = self.head.predict_tensors(state, query_x, *noise)  # (E, M, Q, N)
        samples = (logits / self.temperature(state[_COUNT])).softmax(-1)
        found = {"logits": logits, "probabilities": samples.mean(1)}
        if noise:
            found["samples"] = samples
        attention = self.head.attention_tensors(state, query_x)
        return found if attention is None else found | {"attention": attention}

    def draw(self, seed: int, onehot: Tensor, samples: int) -> tuple[Tensor, ...]:
        """Draw noise for an episode's labels (E, S, N): one tensor (E, M, N, L), or none."""
        if not self.head.noise_size:
            return ()
        generator = torch.Generator().manual_seed(seed)
        tasks, _, ways = onehot.shape
        return (torch.randn(tasks, samples, ways, self.head.noise_size, generator=generator),)

    def temperature(self, count: Tensor) -> Tensor:
        """Return T from the support rows of each class (E, N), shape (E, 1, 1, 1)."""
        ways = (count > 0).to(count.dtype).sum(1)  # (E,)
        shots = count.sum(1) / ways
        a, b, c, d = self.fitted
        log_t = a + b * shots.log() + c * ways.log() + d * (1 + 1 / shots).log()
        return log_t.exp()[:, None, None, None]


def to_onnx(
    module: nn.Module,
    args: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
) -> ModelProto:
    """Export a module with dynamic axes, in silence and without traces of this machine.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the CPU.
    args : tuple of Tensor
        Inputs to trace with.
    inputs, outputs : list of str
        Names in the graph.
    shapes : tuple
        Dynamic axes of each input, by name.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ExportError
        When torch gives no graph.
    """
    with _silence():
        program = torch.onnx.export(
            module,
            args,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    return _without_traces(program.model_proto)


def _without_traces(proto: ModelProto) -> ModelProto:
    """Take out stack traces: they name folders of this machine, and the hash must not depend on them."""
    from onnx import AttributeProto

    def clean(graph: Any) -> None:
        for item in [graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
            item.doc_string = ""
            del item.metadata_props[:]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    clean(attribute.g)

    clean(proto.graph)
    proto.doc_string = ""
    del proto.metadata_props[:]
    for function in proto.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    return proto


def _state_axes(adapt: _Adapt, size: int) -> list[dict[int, str]]:
    """Find which axis of each state tensor follows E, S or N, by adapting to episodes of two sizes."""
    sizes = ({"E": 2, "S": 11, "N": 3}, {"E": 5, "S": 13, "N": 4})
    shapes = []
    for seed, size_of in enumerate(sizes):
        shots = (size_of["S"] - size_of["N"] + 1, *(1,) * (size_of["N"] - 1))
        support, onehot, _ = _episode(seed, _Task(size_of["E"], shots, 2), size)
        with torch.no_grad():
            shapes.append([tuple(tensor.shape) for tensor in adapt(support, onehot)])
    axes: list[dict[int, str]] = []
    for first, second in zip(*shapes, strict=True):
        moving = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        axes.append(
            {i: next(k for k in "ESN" if (first[i], second[i]) == tuple(s[k] for s in sizes)) for i in moving}
        )
    return axes


def _check_head(
    adapt: _Adapt, predict: _Predict, adapt_data: bytes, predict_data: bytes, size: int, tolerance: float
) -> None:
    adapt_session, predict_session = open_session(adapt_data, "cpu"), open_session(predict_data, "cpu")
    names = list(adapt.head.state_names)
    for seed, task in enumerate(_CHECKED, start=1):
        support, onehot, query = _episode(seed, task, size)
        noise = predict.draw(seed, onehot, samples=2 * seed)
        with torch.no_grad():
            adapted = adapt(support, onehot)
            expected = predict.named(query, *noise, *adapted)
            temperature = predict.temperature(adapted[names.index(_COUNT)])
        state = adapt_session.run(names, {"support_x": support.numpy(), "support_onehot": onehot.numpy()})
        inputs = {"query_x": query.numpy(), **dict(zip(names, state, strict=True))}
        inputs |= {"noise": noise[0].numpy()} if noise else {}
        answers = predict_session.run(list(expected), inputs)
        found = {name: torch.from_numpy(a) for name, a in zip(expected, answers, strict=True)}
        logits = expected["logits"]
        # Logits in the thousands (an unscaled distance of many features) have no more digits than this.
        sharpest = float((logits / temperature)[logits.isfinite()].abs().max())
        allowed = max(tolerance, torch.finfo(torch.float32).eps * sharpest)
        same_form = all(found[name].shape == expected[name].shape for name in expected)
        same_form = same_form and bool((found["logits"].isfinite() == logits.isfinite()).all())
        compared = [name for name in expected if name != "logits"] if same_form else []
        apart = [float((found[name] - expected[name]).abs().max()) for name in compared]
        if not (same_form and all(difference <= allowed for difference in apart)):  # NaN must fail too
            raise ExportError(
                f"{type(adapt.head).__name__}: probabilities differ by {max(apart, default=math.nan):.1e} "
                f"from torch's, more than {allowed:.0e}, on {task}"
            )


def random_images(seed: int, batch: int, shape: tuple[int, ...]) -> Tensor:
    """Draw noise as pictures, (B, C, *spatial) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, *shape), generator=generator, dtype=torch.uint8)


def _episode(seed: int, task: _Task, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw clustered embeddings: support (E, S, D), one-hot labels (E, S, N), queries (E, Q, D)."""
    generator = torch.Generator().manual_seed(seed)
    ways, e = len(task.shots), task.episodes
    centres = torch.randn(e, ways, size, generator=generator)
    labels = torch.repeat_interleave(torch.arange(ways), torch.tensor(task.shots))
    onehot = nn.functional.one_hot(labels, ways).float().expand(e, -1, -1)  # (E, S, N)
    onehot = torch.cat([onehot, torch.zeros(e, task.padded, ways)], dim=1).contiguous()
    support = onehot @ centres + torch.randn(e, onehot.shape[1], size, generator=generator)
    asked = torch.randint(ways, (e, task.queries), generator=generator)
    query = centres.gather(1, asked[:, :, None].expand(-1, -1, size))
    return support, onehot, query + torch.randn(e, task.queries, size, generator=generator)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's notes to itself: none of them is about the user's work."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
