"""Learners of both kinds train on volumes (C, D, H, W) as they do on pictures, and what they adapt is exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_dx.learners.body_options import MamlOptions
from meta_dx.learners.options import LearnerOptions, NeuralProcessOptions
from meta_dx.training.selection import TrainingResult
from meta_dx.training.task import TrainingTask
from meta_dx.training.train import train
from tests.training.tiny import tiny_task


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingTask, TrainingResult]:
    quick = {"pretrain_epochs": 1, "episodes": 2, "head_steps": 2, "body_validation_episodes": 1}
    flat = tiny_task(tmp_path_factory.mktemp("volumes"), **quick)
    learner = LearnerOptions(
        name="anp",
        compare=("maml",),
        anp=NeuralProcessOptions(hidden=16, heads=2, latent_size=4, decoder=8),
        maml=MamlOptions(steps=1, test_steps=1),
    )
    volumes = np.repeat(flat.images[:, :, None], 8, axis=2)  # (n, 1, 8, 16, 16)
    task = replace(flat, images=volumes, learner=learner)
    return task, train(task)


def test_a_learner_on_embeddings_and_one_of_whole_networks_stand_in_the_table(
    trained: tuple[TrainingTask, TrainingResult],
) -> None:
    task, result = trained
    assert {"anp", "maml"} <= {row["head"] for row in result.rows}
    assert result.encoder().spatial_dims == 3
    kept = torch.load(task.folder / "maml" / "best.pt", weights_only=True)["learner"]
    kernels = [value for name, value in kept.items() if name.endswith("conv1.weight")]
    assert kernels and all(kernel.dim() == 5 for kernel in kernels)


def test_a_network_that_takes_volumes_is_exported(tmp_path: Path) -> None:
    import onnx

    from meta_dx.backbones import BackboneOptions, build_encoder
    from meta_dx.inference.network_graph import network_graph

    encoder = build_encoder(BackboneOptions(name="resnet10-small"), 1, 3).eval()
    network = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.embedding_size, 3)).eval()
    data = network_graph(network, (1, 8, 16, 16), 3)
    graph = onnx.load_from_string(data).graph
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim][1:] == [1, 8, 16, 16]
