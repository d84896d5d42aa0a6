"""The adapted network by itself answers as its learner does, each picture alone, and shares nothing with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from meta_dx.errors import MetaDxError
from meta_dx.learners.adapted import fixed_network
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.body_options import (
    FineTuningOptions,
    MamlOptions,
    MetaLstmOptions,
    ProtoMamlOptions,
    ReptileOptions,
)
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.fine_tuning import FineTuning
from meta_dx.learners.maml import Anil, Maml, ProtoMaml
from meta_dx.learners.meta_lstm import MetaLstm
from meta_dx.learners.reptile import Reptile

WAYS = 3
MODES = ("support", "stored")


def encoder() -> nn.Module:
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    )
    for module in made:
        if isinstance(module, nn.BatchNorm2d):  # what was learned before is not what a new layer has
            for values in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(values, 1.0, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return nn.Sequential(made, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def network(ways: int | None = WAYS) -> Classifier:
    return Classifier(encoder(), 5, ways)


def per_step(learner: Maml) -> Maml:
    """With statistics that differ from step to step, as after training."""
    assert learner.step_norm is not None
    for values in [*learner.step_norm.parameters(), *learner.step_norm.buffers()]:
        values.data += torch.rand_like(values)
    return learner


MADE: dict[str, Callable[[], BodyLearner]] = {
    **{f"maml {m}": lambda m=m: Maml(network(), MamlOptions(batch_norm=m, test_steps=2)) for m in MODES},
    "maml per_step": lambda: per_step(Maml(network(), MamlOptions(batch_norm="per_step", test_steps=2))),
    "anil": lambda: Anil(network(), MamlOptions(test_steps=2)),
    "proto_maml": lambda: ProtoMaml(network(None), ProtoMamlOptions(test_steps=2)),
    "meta_lstm": lambda: MetaLstm(network(), WAYS, MetaLstmOptions(steps=2)),
    "meta_lstm stored": lambda: MetaLstm(network(), WAYS, MetaLstmOptions(steps=2, batch_norm="stored")),
    **{
        f"fine_tuning {m}": lambda m=m: FineTuning(
            network(None),
            FineTuningOptions(batch_norm=m, classifier_steps=9, classifier_rate=0.3, network_steps=3),
        )
        for m in MODES
    },
}


def adapted(make: Callable[[], BodyLearner]) -> tuple[BodyLearner, dict[str, Tensor], Tensor, Tensor]:
    """A learner in double precision, its state for random pictures, those pictures, and others to be asked."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        learner = make().double().eval()
    drawn = torch.Generator().manual_seed(2)
    x = torch.randn(6, 1, 8, 8, generator=drawn, dtype=torch.float64)
    asked = torch.randn(5, 1, 8, 8, generator=drawn, dtype=torch.float64)
    with torch.enable_grad():
        state = learner.adapt_task(x, torch.tensor([0, 1, 2, 0, 1, 2]), WAYS)
    state = {name: value.detach() for name, value in state.items()}
    if isinstance(learner, Reptile):
        state.update(support_x=x, support_mask=torch.ones(6, dtype=torch.bool))
    return learner, state, x, asked


@pytest.mark.parametrize("name", MADE)
def test_it_answers_as_the_learner_does_and_each_picture_alone(name: str) -> None:
    learner, state, _, asked = adapted(MADE[name])
    alone = learner.adapted_network(state)
    with torch.no_grad():
        expected = learner.predict_task(state, asked)
        torch.testing.assert_close(alone(asked), expected, rtol=0, atol=1e-10)
        one_by_one = torch.cat([alone(picture[None]) for picture in asked])
    torch.testing.assert_close(one_by_one, expected, rtol=0, atol=1e-10)
    assert (expected.softmax(-1).max(0).values - expected.softmax(-1).min(0).values).max() > 1e-3


@pytest.mark.parametrize("name", MADE)
def test_it_shares_nothing_with_the_learner(name: str) -> None:
    learner, state, _, asked = adapted(MADE[name])
    with torch.no_grad():
        before = learner.predict_task(state, asked)
        alone = learner.adapted_network(state)
        answer = alone(asked)
        for values in [*alone.parameters(), *alone.buffers()]:
            values.add_(3.0)
        torch.testing.assert_close(learner.predict_task(state, asked), before, rtol=0, atol=0)
        again = learner.adapted_network(state)
        for values in [*learner.parameters(), *learner.buffers(), *state.values()]:
            values.add_(1)
    torch.testing.assert_close(again(asked), answer, rtol=0, atol=0)


def test_reptile_alone_is_normalised_with_the_support_set() -> None:
    learner, state, x, asked = adapted(lambda: Reptile(network(), WAYS, ReptileOptions(test_steps=2)))
    w = {name.rpartition("encoder.0.")[2]: value for name, value in state.items()}

    def normalised(pictures: Tensor, support: Tensor, layer: str) -> Tensor:
        mean, var = support.mean((0, 2, 3)), support.var((0, 2, 3), unbiased=False)
        shaped = [v[None, :, None, None] for v in (mean, var, w[f"{layer}.weight"], w[f"{layer}.bias"])]
        return (pictures - shaped[0]) / (shaped[1] + 1e-5).sqrt() * shaped[2] + shaped[3]

    first, first_support = (nn.functional.conv2d(p, w["0.weight"], w["0.bias"]) for p in (asked, x))
    hidden, hidden_support = (normalised(p, first_support, "1").relu() for p in (first, first_support))
    second, second_support = (
        nn.functional.conv2d(p, w["3.weight"], w["3.bias"]) for p in (hidden, hidden_support)
    )
    pooled = normalised(second, second_support, "4").mean((2, 3))
    expected = pooled @ state["linear.weight"].T + state["linear.bias"]
    alone = learner.adapted_network(state)
    torch.testing.assert_close(alone(asked), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(alone(asked[2:3]), expected[2:3], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: Maml(network(), MamlOptions(batch_norm="batch")), 'batch_norm = "batch"'),
        (lambda: Reptile(network(), WAYS, ReptileOptions(transductive=True)), "transductive = true"),
        (lambda: FineTuning(network(None), FineTuningOptions(batch_norm="batch")), 'batch_norm = "batch"'),
    ],
)
def test_a_transductive_learner_has_no_such_network_and_the_option_is_named(
    make: Callable[[], BodyLearner], option: str
) -> None:
    with pytest.raises(MetaDxError) as caught:
        make().adapted_network({})
    assert caught.value.code == "transductive"
    assert option in str(caught.value)


def test_weights_of_another_network_are_no_adapted_network() -> None:
    learner, state, _, _ = adapted(MADE["maml support"])
    del state["linear.bias"]
    with pytest.raises(ValueError, match=r"linear\.bias"):
        fixed_network(learner.network, {n: v for n, v in state.items() if "/" not in n}, None)
