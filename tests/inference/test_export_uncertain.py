"""Graphs of heads with noise and attention, and of the solvers inside heads, answer as torch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from meta_dx.inference.export import ExportError, export_head
from meta_dx.inference.predictor import Predictor
from meta_dx.inference.providers import open_session
from meta_dx.learners.base import State
from meta_dx.learners.baselines import SimpleShot
from meta_dx.learners.prototypical import Prototypical
from tests.inference.uncertain import GIVES, SIZE, cases, heads

HEADS = heads()
#: Support counts, queries, episodes, padded rows, samples.
FRESH = [
    ([1, 1], 1, 1, 0, 1),
    ([5, 5, 5, 5, 5], 9, 3, 0, 7),
    ([1, 7, 0, 3], 6, 2, 4, 3),
    ([0, 0, 4, 2], 2, 4, 1, 16),
    ([2] * 23, 1, 2, 0, 5),
]


@pytest.mark.parametrize("name", GIVES)
@pytest.mark.parametrize("shape", FRESH, ids=str)
def test_every_output_is_torchs_on_fresh_episodes_with_fresh_noise(
    name: str, shape: tuple, uncertain: Predictor
) -> None:
    shots, queries, episodes, padded, m = shape
    support, onehot, query = cases(sum(shots), shots, queries, episodes, padded)
    samples, attends = GIVES[name]
    head = HEADS[name].eval()
    noise = np.random.default_rng(m).normal(size=(episodes, m, len(shots), 4)).astype(np.float32)
    given = (torch.from_numpy(noise),) if samples else ()
    with torch.no_grad():
        state = head.adapt_tensors(torch.from_numpy(support), torch.from_numpy(onehot))
        logits = head.predict_tensors(state, torch.from_numpy(query), *given).double()
        attention = head.attention_tensors(state, torch.from_numpy(query))
    present = [k for k in shots if k]
    temperature = uncertain.bundle.calibration(name).temperature(np.mean(present), len(present))
    expected = (logits / float(temperature)).softmax(-1).numpy()  # (E, M, Q, N)

    session = open_session(uncertain.bundle.predict_path(name), "cpu")
    outputs = [output.name for output in session.get_outputs()]
    optional = ["samples"] * samples + ["attention"] * attends
    assert outputs == ["logits", "probabilities", *optional]
    inputs = {"query_x": query, **uncertain.adapt_episodes(support, onehot, name)}
    inputs |= {"noise": noise} if samples else {}
    found = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    assert np.abs(found["probabilities"] - expected.mean(1)).max() <= 1e-5
    if samples:
        assert found["samples"].shape == (episodes, m, queries, len(shots))
        assert np.abs(found["samples"] - expected).max() <= 1e-5
        assert (found["samples"][..., [k == 0 for k in shots]] == 0).all()
        assert m == 1 or np.ptp(expected, axis=1).max() > 0.05  # the noise matters
    if attends:
        assert attention is not None
        assert np.abs(found["attention"] - attention.numpy()).max() <= 1e-5
        per_class = found["attention"] @ onehot  # (E, Q, N)
        np.testing.assert_allclose(per_class, np.broadcast_to(np.sign(shots), per_class.shape), atol=1e-5)


class Noisy(Prototypical):
    """Prototypes that move with the noise; every case of a class counts the same."""

    state_names = ("prototypes", "onehot", "count")
    noise_size = SIZE

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        return super().adapt_tensors(support_x, support_onehot) | {"onehot": support_onehot}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        logits = super().predict_tensors(state, query_x)
        return logits if noise is None else logits + (noise @ query_x.unsqueeze(1).mT).mT / SIZE

    def attention_tensors(self, state: State, query_x: Tensor) -> Tensor | None:
        within = (state["onehot"] / state["count"].clamp_min(1).unsqueeze(1)).sum(-1)  # (E, S)
        return within.unsqueeze(1) + 0 * query_x[..., :1]


class Inconstant(Noisy):
    """Attends otherwise in the exported graph than in torch."""

    def attention_tensors(self, state: State, query_x: Tensor) -> Tensor | None:
        found = super().attention_tensors(state, query_x)
        return 0.5 * found if found is not None and torch.compiler.is_exporting() else found


class Deaf(Noisy):
    """Hears only half of its noise in the exported graph."""

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None and torch.compiler.is_exporting():
            noise = 0.5 * noise
        return super().predict_tensors(state, query_x, noise)


def test_attention_or_samples_that_are_not_torchs_are_refused(tmp_path: Path) -> None:
    paths = tmp_path / "adapt.onnx", tmp_path / "predict.onnx"
    for head in (Inconstant(SIZE), Deaf(SIZE)):
        with pytest.raises(ExportError, match=f"{type(head).__name__}: probabilities differ"):
            export_head(head, SIZE, *paths)
        assert not list(tmp_path.iterdir())
    export_head(Noisy(SIZE), SIZE, *paths)  # the honest one is written
    assert all(path.exists() for path in paths)


class Stopped(Noisy):
    """A part of it is where a solver stopped, and its graph is off by 5e-5."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.part = SimpleShot(size)
        self.part.iterations = 3

    def attention_tensors(self, state: State, query_x: Tensor) -> Tensor | None:
        found = super().attention_tensors(state, query_x)
        return found + 5e-5 if found is not None and torch.compiler.is_exporting() else found


def test_a_head_with_a_solver_inside_is_held_to_what_solvers_reach(tmp_path: Path) -> None:
    paths = tmp_path / "adapt.onnx", tmp_path / "predict.onnx"
    export_head(Stopped(SIZE), SIZE, *paths)
    with pytest.raises(ExportError, match="more than 1e-05"):
        export_head(Stopped(SIZE), SIZE, *paths, tolerance=1e-5)
