"""The neural process as ONNX graphs, noise and evidence included, equals torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from meta_dx.learners.neural_process import NeuralProcess
from meta_dx.learners.options import NeuralProcessOptions

SIZE = 24
#: Support rows of each class, queries, episodes, samples, padded rows.
FRESH = [
    ((1, 1), 1, 1, 1, 0),
    ((5, 5, 5, 5, 5), 11, 2, 7, 0),
    ((1, 7, 0, 3), 6, 4, 2, 4),  # ragged, one class absent, padding
    ((2,) * 31, 1, 2, 3, 0),
    ((20, 3, 0, 0, 8, 1), 9, 2, 5, 2),
]


class Adapt(nn.Module):
    def __init__(self, head: NeuralProcess) -> None:
        super().__init__()
        self.head = head

    def forward(self, support_x: Tensor, support_onehot: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.head.adapt_tensors(support_x, support_onehot).values())


class Predict(nn.Module):
    def __init__(self, head: NeuralProcess) -> None:
        super().__init__()
        self.head = head

    def forward(self, query_x: Tensor, noise: Tensor, *state: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(self.head.state_names, state, strict=True))
        attention = self.head.attention_tensors(named, query_x)
        assert attention is not None
        return self.head.predict_tensors(named, query_x, noise), attention


def drawn(
    seed: int, shots: tuple[int, ...], queries: int, tasks: int, samples: int, padded: int
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    ways = len(shots)
    labels = torch.arange(ways).repeat_interleave(torch.tensor(shots))
    onehot = torch.cat([nn.functional.one_hot(labels, ways).float(), torch.zeros(padded, ways)])
    onehot = onehot.expand(tasks, -1, -1).contiguous()
    centres = torch.randn(tasks, ways, SIZE, generator=generator)
    support = onehot @ centres + torch.randn(tasks, onehot.shape[1], SIZE, generator=generator)
    query = centres[:, :1] + torch.randn(tasks, queries, SIZE, generator=generator)
    return support, onehot, query, torch.randn(tasks, samples, ways, 32, generator=generator)


def exported(
    module: nn.Module, args: tuple[Tensor, ...], inputs: list[str], outputs: list[str], shapes: Any
) -> onnxruntime.InferenceSession:
    program = torch.onnx.export(
        module.eval(),
        args,
        dynamo=True,
        opset_version=20,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    data = program.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.mark.filterwarnings("ignore")
def test_exported_graphs_equal_torch_on_fresh_episodes_of_five_shapes() -> None:
    torch.manual_seed(0)
    head = NeuralProcess(SIZE, torch.randn(SIZE) / 4, NeuralProcessOptions(hidden=32, heads=4)).eval()
    head.requires_grad_(False)
    head.decoder.last.weight.mul_(10)
    names = list(head.state_names)
    support, onehot, query, noise = drawn(0, (2, 3, 1, 4, 1), 7, 3, 6, 0)
    adapt = exported(
        Adapt(head),
        (support, onehot),
        ["support_x", "support_onehot"],
        names,
        ({0: "E", 1: "S"}, {0: "E", 1: "S", 2: "N"}),
    )
    of = {
        "context_key": {0: "E", 1: "S"},
        "context_value": {0: "E", 1: "S"},
        "context_onehot": {0: "E", 1: "S", 2: "N"},
    }
    state_axes = tuple(of.get(name, {0: "E", 1: "N"}) for name in names)
    predict = exported(
        Predict(head),
        (query, noise, *Adapt(head)(support, onehot)),
        ["query_x", "noise", *names],
        ["logits", "attention"],
        ({0: "E", 1: "Q"}, {0: "E", 1: "M", 2: "N"}, state_axes),
    )
    for seed, shape in enumerate(FRESH, start=1):
        support, onehot, query, noise = drawn(seed, *shape)
        logits, attention = Predict(head)(query, noise, *Adapt(head)(support, onehot))
        state = adapt.run(names, {"support_x": support.numpy(), "support_onehot": onehot.numpy()})
        given = {"query_x": query.numpy(), "noise": noise.numpy(), **dict(zip(names, state, strict=True))}
        found_logits, found_attention = predict.run(["logits", "attention"], given)
        found = torch.from_numpy(found_logits).softmax(-1)
        assert found.shape == logits.shape
        torch.testing.assert_close(found, logits.softmax(-1), rtol=0, atol=1e-5)
        assert (torch.from_numpy(found_logits).isinf() == logits.isinf()).all()
        np.testing.assert_allclose(found_attention, attention.numpy(), rtol=0, atol=1e-5)
