"""One adapted network on ONNX Runtime answers as its learner does in torch, and its folder is all or nothing."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meta_dx.backbones import BackboneOptions, build_encoder
from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.errors import MetaDxError
from meta_dx.inference import network_graph as graphs
from meta_dx.inference.adapted import AdaptedNetwork, AdaptedParts, ConfirmedDisease, write_adapted
from meta_dx.inference.bundle import Bundle, BundleParts, write_bundle
from meta_dx.inference.export import ExportError
from meta_dx.inference.providers import open_session
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.options import LearnerOptions
from meta_dx.learners.registry import BODY_LEARNERS, build_body_learner

WAYS, SIZE = 3, 16
OPTIONS = LearnerOptions(
    maml=replace(LearnerOptions().maml, batch_norm="per_step", test_steps=2),
    reptile=replace(LearnerOptions().reptile, test_steps=4),
    meta_lstm=replace(LearnerOptions().meta_lstm, steps=2),
    fine_tuning=replace(LearnerOptions().fine_tuning, network_steps=2),
)
DISEASES = tuple(ConfirmedDisease(f"D{n}", "99T", f"Disease {n}", 2) for n in range(WAYS))


def pictures(seed: int, n: int) -> Tensor:
    """Coarse patterns under noise, uint8."""
    drawn = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 4, 4, generator=drawn).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (200 * coarse + 55 * torch.rand(n, 1, SIZE, SIZE, generator=drawn)).to(torch.uint8)


def made(name: str) -> tuple[BodyLearner, dict[str, Tensor], nn.Module | None]:
    """A learner from random weights, adapted, and the frozen encoder in front of it where there is one."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        encoder = build_encoder(BackboneOptions(name="conv4"), channels=1).eval()
        front = encoder if name == "meta_lstm" else None
        body = nn.Identity() if front else encoder
        learner = build_body_learner(name, body, encoder.embedding_size, WAYS, OPTIONS).eval()
    x = pictures(0, 2 * WAYS).float()
    x = front(x).detach() if front else x
    state = learner.adapt_task(x, torch.arange(2 * WAYS) % WAYS, WAYS)
    state = {key: value.detach() for key, value in state.items()}
    if name == "reptile":
        state.update(support_x=x, support_mask=torch.ones(2 * WAYS, dtype=torch.bool))
    return learner, state, front


def parts_of(network: nn.Module, pools_logits: bool = False) -> AdaptedParts:
    return AdaptedParts(network, DISEASES, ImageOptions(size=SIZE), pools_logits, "support", {"name": "maml"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    learner, state, _ = made("maml")
    where = tmp_path_factory.mktemp("adapted") / "maml"
    write_adapted(where, parts_of(learner.adapted_network(state)))
    return where


@pytest.mark.parametrize("name", BODY_LEARNERS)
def test_onnx_runtime_gives_torchs_probabilities_on_fresh_pictures(name: str, tmp_path: Path) -> None:
    learner, state, front = made(name)
    network = learner.adapted_network(state)
    network = nn.Sequential(front, network) if front else network
    write_adapted(tmp_path / "out", parts_of(network, front is not None))
    session = open_session(tmp_path / "out" / "network.onnx", "cpu")
    for seed, count in ((7, 1), (8, 9)):
        fresh = pictures(seed, count)
        with torch.no_grad():
            if name == "reptile":  # the learner itself takes its support pictures along with each query
                expected = network(fresh.float())
            else:
                expected = learner.predict_task(state, front(fresh) if front else fresh.float())
        found = dict(
            zip(
                ("logits", "probabilities"),
                session.run(["logits", "probabilities"], {"images": fresh.numpy()}),
                strict=True,
            )
        )
        np.testing.assert_allclose(found["probabilities"], expected.softmax(-1).numpy(), atol=1e-5)
        np.testing.assert_allclose(found["logits"], expected.numpy(), rtol=1e-4, atol=1e-4)
        pooled = expected.mean(0).softmax(-1) if front else expected.softmax(-1).mean(0)
        answered = AdaptedNetwork.load(tmp_path / "out").study(fresh.numpy())
        np.testing.assert_allclose(answered, pooled.numpy(), atol=1e-5)
    assert expected.softmax(-1).std(0).max() > 1e-4


def test_it_loads_without_torch_and_says_what_it_is(folder: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from meta_dx.inference.adapted import AdaptedNetwork\n"
        f"made = AdaptedNetwork.load({str(folder)!r})\n"
        f"p = made.study(np.zeros((2, 1, {SIZE}, {SIZE}), np.uint8))\n"
        "assert not {'torch', 'monai'} & set(sys.modules)\n"
        "print(made.codes, round(float(p.sum()), 6))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "('D0', 'D1', 'D2') 1.0\n"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "Research use only" in manifest["use"]
    assert manifest["calibrated"] is False
    assert manifest["diseases"][1] == {
        "code": "D1",
        "scheme": "99T",
        "meaning": "Disease 1",
        "confirmed": 2,
    }
    assert manifest["preprocessing"]["options"]["size"] == SIZE
    assert manifest["network"]["sha256"] == hashlib.sha256((folder / "network.onnx").read_bytes()).hexdigest()
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "network.onnx"]


def test_the_example_in_the_docs_runs_and_says_what_meta_dx_says(folder: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "learners.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    ours = (
        "\nimport sys\nassert not {'meta_dx', 'torch'} & set(sys.modules)\n"
        "from meta_dx.inference.adapted import AdaptedNetwork\n"
        "made = AdaptedNetwork.load('adapted')\n"
        "print({c: round(float(p), 3) for c, p in zip(made.codes, made.study(pictures))})\n"
    )
    for pooled in ("mean of probabilities", "mean of logits"):
        where = folder.parent / pooled / "adapted"
        where.mkdir(parents=True)
        about = json.loads((folder / "manifest.json").read_text()) | {"several_images": pooled}
        (where / "manifest.json").write_text(json.dumps(about))
        (where / "network.onnx").write_bytes((folder / "network.onnx").read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", example + ours],
            cwd=where.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        first, second = done.stdout.splitlines()
        assert first == second
        assert "D2" in first


def test_a_graph_that_is_not_torchs_is_no_export_and_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Transductive(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            means = x.mean((1, 2, 3))
            return torch.stack([means - means.mean(), means, -means], 1) / 50

    with pytest.raises(ExportError, match="differ"):
        write_adapted(tmp_path / "out", parts_of(Transductive()))
    with pytest.raises(ExportError, match="not of 3 classes"):
        write_adapted(
            tmp_path / "out", parts_of(nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 2)).eval())
        )
    real = graphs.open_session
    other = (folder / "network.onnx").read_bytes()
    monkeypatch.setattr(graphs, "open_session", lambda _data, device: real(other, device))
    with pytest.raises(ExportError, match="differ"):
        write_adapted(
            tmp_path / "out", parts_of(nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 3)).eval())
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_with_anything_in_it_is_not_written_to(tmp_path: Path) -> None:
    learner = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, WAYS)).eval()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(MetaDxError) as caught:
            write_adapted(tmp_path / name, parts_of(learner))
        assert caught.value.code == "not_empty"
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["letter.txt"]
    (tmp_path / "empty").mkdir()
    assert write_adapted(tmp_path / "empty", parts_of(learner)).codes == ("D0", "D1", "D2")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_a_changed_or_missing_network_is_found(folder: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "network.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with (tmp_path / "network.onnx").open("ab") as stream:
        stream.write(b"x")
    manifest = json.loads((tmp_path / "manifest.json").read_text())

    def forgets_the_network() -> None:
        (tmp_path / "network.onnx").write_bytes((folder / "network.onnx").read_bytes())
        left = {name: value for name, value in manifest.items() if name != "network"}
        (tmp_path / "manifest.json").write_text(json.dumps(left))

    for prepare in (lambda: None, (tmp_path / "network.onnx").unlink, forgets_the_network):
        prepare()
        with pytest.raises(MetaDxError) as caught:
            AdaptedNetwork.load(tmp_path)
        assert caught.value.code == "adapted_network_damaged"


def test_it_is_no_bundle_and_a_bundle_is_none(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(MetaDxError, match="export-adapted") as caught:
        Bundle.load(folder)
    assert caught.value.code == "adapted_network"
    for other in (bundle.path, tmp_path):
        with pytest.raises(MetaDxError) as caught:
            AdaptedNetwork.load(other)
        assert caught.value.code == "no_adapted_network"


def test_a_learner_that_serves_from_no_state_is_kept_out_of_bundles(
    parts: BundleParts, tmp_path: Path
) -> None:
    learner, _, _ = made("maml")
    heads = {**parts.heads, "maml": learner}
    with pytest.raises(MetaDxError, match="export-adapted --learner maml") as caught:
        write_bundle(tmp_path, replace(parts, heads=heads))
    assert caught.value.code == "serves_from_no_state"
    assert not list(tmp_path.iterdir())
