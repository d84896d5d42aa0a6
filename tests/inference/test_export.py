"""Exported graphs answer as torch does, at every size, and say nothing about where they were made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from meta_dx.inference.bundle import Bundle, BundleParts
from meta_dx.inference.calibration import Calibration
from meta_dx.inference.export import ExportError, export_encoder, export_head
from meta_dx.inference.predictor import Predictor
from meta_dx.inference.providers import open_session
from meta_dx.learners.base import Head, State
from meta_dx.learners.prototypical import Prototypical
from tests.inference.bundles import SIZE, episode, images

HEADS = {"prototypical": 1e-5, "simpleshot": 1e-5, "logistic": 1e-4}
sizes = st.tuples(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(0, 6),
)


def softmax(x: np.ndarray) -> np.ndarray:
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.mark.parametrize("head", HEADS)
@given(size=sizes)
@settings(max_examples=12, deadline=None)
def test_a_head_answers_as_in_torch_at_any_size_ragged_and_with_absent_classes(
    head: str, size: tuple, parts: BundleParts, bundle: Bundle, predictor: Predictor
) -> None:
    seed, shots, queries, episodes, padded = size
    support, onehot, query = episode(seed, shots, queries, episodes, padded)
    model = parts.heads[head].eval()
    with torch.no_grad():
        state = model.adapt_tensors(torch.from_numpy(support), torch.from_numpy(onehot))
        expected = model.predict_tensors(state, torch.from_numpy(query)).numpy().astype(np.float64)
    logits, probabilities = predictor.predict_episodes(
        predictor.adapt_episodes(support, onehot, head), query, head
    )
    assert logits.shape == expected.shape == (episodes, 1, queries, len(shots))
    assert probabilities.shape == (episodes, queries, len(shots))
    np.testing.assert_array_equal(np.isinf(logits), np.isinf(expected))
    # The calibrated softmax, from the temperature's definition and not from the graph's.
    present = [k for k in shots if k]
    temperature = bundle.calibration(head).temperature(np.mean(present), len(present))
    calibrated = softmax(expected / float(temperature)).mean(1)
    assert np.abs(probabilities - calibrated).max() <= HEADS[head]
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=1e-5)
    assert (probabilities[..., [k == 0 for k in shots]] == 0).all()


@pytest.mark.parametrize("head", HEADS)
def test_permuting_the_labels_permutes_the_probabilities(head: str, predictor: Predictor) -> None:
    support, onehot, query = episode(1, [3, 1, 0, 5, 2], 8, 2)
    order = np.array([4, 2, 0, 3, 1])
    state = predictor.adapt_episodes(support, onehot, head)
    permuted = predictor.adapt_episodes(support, onehot[..., order], head)
    _, here = predictor.predict_episodes(state, query, head)
    _, there = predictor.predict_episodes(permuted, query, head)
    np.testing.assert_allclose(there, here[..., order], atol=HEADS[head])


@pytest.mark.parametrize("head", HEADS)
def test_padding_and_the_order_of_cases_change_nothing(head: str, predictor: Predictor) -> None:
    support, onehot, query = episode(2, [3, 4, 2], 5)
    order = np.random.default_rng(0).permutation(9)
    padding = np.full((1, 3, 192), 1e3, dtype=np.float32)
    longer = np.concatenate([support[:, order], padding], axis=1)
    labels = np.concatenate([onehot[:, order], np.zeros((1, 3, 3), dtype=np.float32)], axis=1)
    _, here = predictor.predict_episodes(predictor.adapt_episodes(support, onehot, head), query, head)
    _, there = predictor.predict_episodes(predictor.adapt_episodes(longer, labels, head), query, head)
    np.testing.assert_allclose(there, here, atol=HEADS[head])


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_encoder_embeds_as_in_torch(batch: int, parts: BundleParts, predictor: Predictor) -> None:
    pictures = images(batch, batch)
    with torch.no_grad():
        expected = parts.encoder(torch.from_numpy(pictures)).numpy()
    found = predictor.embed_images(pictures)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.ptp(expected) > 0.1  # the pictures are not all alike to it


class Liar(Prototypical):
    """Answers otherwise in the exported graph than in torch."""

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        factor = 1.1 if torch.compiler.is_exporting() else 1.0
        return factor * super().predict_tensors(state, query_x)


class LyingEncoder(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1) + (3.0 if torch.compiler.is_exporting() else 0.0)


def test_a_graph_that_answers_otherwise_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Liar: probabilities differ"):
        export_head(Liar(8), 8, tmp_path / "adapt.onnx", tmp_path / "predict.onnx")
    with pytest.raises(ExportError, match="embeddings of 1 images differ"):
        export_encoder(LyingEncoder(), (1, 4, 4), tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())


def test_logits_in_the_thousands_are_not_held_to_digits_that_they_do_not_have(tmp_path: Path) -> None:
    unscaled = Prototypical(1024, learned_scale=False)
    export_head(unscaled, 1024, tmp_path / "adapt.onnx", tmp_path / "predict.onnx", Calibration(a=-0.7))
    assert (tmp_path / "predict.onnx").exists()


class WithoutCount(Head):
    state_names = ("mean",)

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        return {"mean": support_x.mean(1)}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        return query_x[:, None]


def test_a_head_whose_state_has_no_count_of_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="count"):
        export_head(WithoutCount(), 8, tmp_path / "adapt.onnx", tmp_path / "predict.onnx")


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.float())


def test_what_is_exported_is_a_copy_in_evaluation_mode(tmp_path: Path) -> None:
    encoder = Dropping().train()
    export_encoder(encoder, (1, 4, 4), tmp_path / "encoder.onnx")
    assert encoder.training
    session = open_session(tmp_path / "encoder.onnx", "cpu")
    (found,) = session.run(None, {"images": np.full((2, 1, 4, 4), 9, np.uint8)})
    assert (found == 9).all()  # nothing was dropped


def test_another_process_exports_the_same_bytes_and_nothing_is_printed(
    bundle: Bundle, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.inference.bundles import SIZE, small_parts\n"
        "from meta_dx.inference.export import export_encoder, export_head\n"
        "parts, out = small_parts(), Path(sys.argv[1])\n"
        "export_encoder(parts.encoder, (1, SIZE, SIZE), out / 'encoder.onnx')\n"
        "export_head(parts.heads['prototypical'], parts.embedding_size, out / 'adapt.onnx',\n"
        "            out / 'predict.onnx', parts.calibrations['prototypical'])\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name, place in {
        "encoder.onnx": bundle.encoder_path,
        "adapt.onnx": bundle.adapt_path("prototypical"),
        "predict.onnx": bundle.predict_path("prototypical"),
    }.items():
        assert (tmp_path / name).read_bytes() == place.read_bytes(), name


def test_graphs_name_no_folder_of_the_machine(bundle: Bundle) -> None:
    for graph in bundle.path.rglob("*.onnx"):
        content = graph.read_bytes()
        for trace in (str(Path(__file__).parents[2]), sys.prefix, "site-packages", "stack_trace", 'File "'):
            assert trace.encode() not in content, (graph.name, trace)


def test_only_the_embedding_size_and_the_picture_are_fixed(predictor: Predictor) -> None:
    def axes(session: object) -> dict[str, list]:
        both = [*session.get_inputs(), *session.get_outputs()]  # type: ignore[attr-defined]
        return {tensor.name: tensor.shape for tensor in both}

    assert axes(predictor._encoder) == {"images": ["B", 1, SIZE, SIZE], "embeddings": ["B", 192]}
    predictor.adapt_episodes(*episode(0, [1, 2], 1)[:2], "logistic")
    assert axes(predictor._session("logistic", "adapt")) == {
        "support_x": ["E", "S", 192],
        "support_onehot": ["E", "S", "N"],
        "weight": ["E", "N", 192],
        "bias": ["E", "N"],
        "count": ["E", "N"],
    }
    found = axes(predictor._session("logistic", "predict"))
    assert found["query_x"] == ["E", "Q", 192]
    assert found["probabilities"] == ["E", "Q", "N"]
