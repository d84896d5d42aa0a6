"""The network that learners adapt: an encoder and a last layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from meta_dx.errors import MetaDxError
from meta_dx.learners.classifier import Classifier


def test_logits_are_the_last_layer_of_the_embeddings() -> None:
    network = Classifier(nn.Linear(3, 4), 4, 2).double()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = dict(network.named_parameters())
    embeddings = x @ weights["encoder.weight"].T + weights["encoder.bias"]
    expected = embeddings @ weights["linear.weight"].T + weights["linear.bias"]
    torch.testing.assert_close(network(x), expected)
    assert weights["linear.weight"].shape == (2, 4)


def test_without_a_number_of_classes_there_is_no_last_layer_and_no_answer() -> None:
    network = Classifier(nn.Identity(), 4, None)
    assert not list(network.parameters())
    with pytest.raises(MetaDxError, match="without a last layer") as told:
        network(torch.zeros(1, 4))
    assert told.value.code == "no_last_layer"
