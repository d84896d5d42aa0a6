"""The learned update rule against numpy, plain gradient descent and finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.body_options import MetaLstmOptions
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.meta_lstm import MetaLstm, UpdateRule, preprocess, sgd_twin
from tests.learners.episodes import only, random_episode

SIZE, WAYS = 8, 3


def linear_learner(seed: int = 0, steps: int = 3, wild: bool = True) -> MetaLstm:
    torch.manual_seed(seed)
    options = MetaLstmOptions(steps=steps, units=4)
    learner = MetaLstm(Classifier(nn.Identity(), SIZE, WAYS), WAYS, options).double()
    if wild:  # far from the start, where the rule is almost gradient descent and much would go unseen
        for parameter in learner.rule.parameters():
            nn.init.normal_(parameter, std=0.7)
    return learner


def as_descent(learner: MetaLstm, rate: float) -> MetaLstm:
    """The rule with f = 1 and i = rate, whatever it sees."""
    for gate, bias in ((learner.rule.keep, 50.0), (learner.rule.move, math.log(rate / (1 - rate)))):
        nn.init.zeros_(gate.weight)
        nn.init.constant_(gate.bias, bias)
    return learner


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def pair(x: float) -> list[float]:
    if abs(x) >= math.exp(-10):
        return [math.log(abs(x)) / 10, math.copysign(1.0, x)]
    return [-1.0, math.exp(10) * x]


def test_preprocessing_has_the_logarithm_and_sign_of_large_numbers_and_scales_small_ones() -> None:
    edge = math.exp(-10)
    x = torch.tensor([2.0, -0.5, 3e-5, -3e-5, 0.0, 1.0, 1.01 * edge, 0.99 * edge], dtype=torch.float64)
    expected = [
        [math.log(2) / 10, 1.0],
        [math.log(0.5) / 10, -1.0],
        [-1.0, 3e-5 * math.exp(10)],
        [-1.0, -3e-5 * math.exp(10)],
        [-1.0, 0.0],
        [0.0, 1.0],
        [math.log(1.01 * edge) / 10, 1.0],
        [-1.0, 0.99],
    ]
    torch.testing.assert_close(preprocess(x), torch.tensor(expected, dtype=torch.float64))


def test_two_steps_on_a_linear_layer_are_those_of_the_equations() -> None:
    learner, episode = linear_learner(1, steps=2), random_episode(1, shots=[[2, 1, 3]])
    p = {name: value.detach().numpy() for name, value in learner.rule.named_parameters()}
    x, y = episode.support_x[0].numpy(), np.eye(WAYS)[episode.support_y[0].numpy()]
    weight = learner.network.linear.weight.detach().numpy().copy()
    bias = learner.network.linear.bias.detach().numpy().copy()
    count = weight.size + bias.size
    hidden, cell, keep, move = np.zeros((count, 4)), np.zeros((count, 4)), np.zeros(count), np.zeros(count)
    for _ in range(2):
        logits = x @ weight.T + bias
        prob = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -np.log((prob * y).sum(1)).mean()
        gradient = np.concatenate([((prob - y).T @ x / len(x)).ravel(), (prob - y).mean(0)])
        theta = np.concatenate([weight.ravel(), bias])
        for j in range(count):  # each coordinate by itself
            told = np.array(pair(loss) + pair(gradient[j]))
            pre = p["first.weight_ih"] @ told + p["first.bias_ih"] + p["first.weight_hh"] @ hidden[j]
            i, f, g, o = np.split(pre + p["first.bias_hh"], 4)
            cell[j] = sigmoid(f) * cell[j] + sigmoid(i) * np.tanh(g)
            hidden[j] = sigmoid(o) * np.tanh(cell[j])
            for name, gate in (("keep", keep), ("move", move)):
                seen = np.concatenate([hidden[j], [theta[j], gate[j]]])
                gate[j] = sigmoid(p[f"{name}.weight"][0] @ seen + p[f"{name}.bias"][0])
            theta[j] = keep[j] * theta[j] - move[j] * gradient[j]
        weight, bias = theta[: weight.size].reshape(WAYS, SIZE), theta[weight.size :]
    state = learner.adapt(episode.support)
    np.testing.assert_allclose(state["linear.weight"][0].numpy(), weight, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state["linear.bias"][0].numpy(), bias, rtol=1e-10, atol=1e-12)
    found = learner.predict(state, episode.query).logits[0, 0]
    expected = episode.query_x[0].numpy() @ weight.T + bias
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_with_all_kept_and_a_constant_gate_the_rule_is_gradient_descent_at_that_rate() -> None:
    learner, episode = as_descent(linear_learner(2, steps=5), 0.2), random_episode(2, shots=[[2, 1, 3]])
    weight, bias = (p.detach().clone().requires_grad_() for p in learner.network.parameters())
    for _ in range(5):
        loss = cross_entropy(episode.support_x[0] @ weight.T + bias, episode.support_y[0])
        slopes = torch.autograd.grad(loss, (weight, bias))
        weight, bias = (
            (p - 0.2 * g).detach().requires_grad_() for p, g in zip((weight, bias), slopes, strict=True)
        )
    state = learner.adapt(episode.support)
    torch.testing.assert_close(state["linear.weight"][0], weight.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(state["linear.bias"][0], bias.detach(), rtol=1e-12, atol=1e-13)
    twin = sgd_twin(learner.network, learner.options, rate=0.2, learned_rates=False).double()
    for name, value in twin.adapt(episode.support).items():
        torch.testing.assert_close(state[name], value, rtol=1e-12, atol=1e-13)


def test_the_twin_takes_as_many_steps_from_the_same_start_and_shares_no_weight() -> None:
    learner = linear_learner(3, steps=4)
    twin = sgd_twin(learner.network, learner.options, rate=0.3)
    assert (twin.options.steps, twin.options.test_steps, twin.options.order) == (4, 4, "first")
    torch.testing.assert_close(twin.network.linear.weight, learner.network.linear.weight, rtol=0, atol=0)
    assert twin.network.linear.weight is not learner.network.linear.weight
    rates = [p for name, p in twin.named_parameters() if not name.startswith("network.")]
    assert [(p == 0.3).all().item() for p in rates] == [True]


def query_loss(learner: MetaLstm, episode: Episode, frozen: list[tuple[Tensor, Tensor]] | None) -> Tensor:
    """Query loss after all steps; with gradients and losses from ``frozen`` where given."""
    theta = torch.cat([p.flatten() for p in learner.network.parameters()])
    state = learner.rule.start(theta)

    def loss_of(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        weight, bias = theta[: SIZE * WAYS].view(WAYS, SIZE), theta[SIZE * WAYS :]
        return cross_entropy(x @ weight.T + bias, y)

    for step in range(learner.options.steps):
        at = theta.detach().requires_grad_()
        loss = loss_of(at, episode.support_x[0], episode.support_y[0])
        told = (torch.autograd.grad(loss, at)[0], loss.detach()) if frozen is None else frozen[step]
        theta, state = learner.rule(theta, *told, state)
    return loss_of(theta, episode.query_x[0], episode.query_y[0])


def told_at_each_step(learner: MetaLstm, episode: Episode) -> list[tuple[Tensor, Tensor]]:
    told: list[tuple[Tensor, Tensor]] = []
    hook = learner.rule.register_forward_pre_hook(lambda _, args: told.append((args[1], args[2])))
    learner.adapt(episode.support)
    hook.remove()
    return told


def test_meta_gradients_take_the_gradients_of_the_learner_as_constants_and_follow_all_else() -> None:
    learner, episode = linear_learner(4), random_episode(4, shots=[[1, 2, 1]])
    frozen = told_at_each_step(learner, episode)
    assert len(frozen) == 3
    found, metrics = learner.meta_gradients(episode)
    assert set(found) == {name for name, _ in learner.named_parameters()}
    true_slopes = []
    for name, parameter in learner.named_parameters():
        at, slopes = int(found[name].abs().argmax()), []
        for fixed in (frozen, None):
            ends = []
            for bend in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.view(-1)[at] += bend
                ends.append(float(query_loss(learner, episode, fixed).detach()))
                with torch.no_grad():
                    parameter.view(-1)[at] -= bend
            slopes.append((ends[0] - ends[1]) / 2e-6)
        assert float(found[name].view(-1)[at]) == pytest.approx(slopes[0], rel=1e-5), name
        true_slopes.append(slopes[1] == pytest.approx(slopes[0], rel=1e-3))
    assert not all(true_slopes)  # the example is one where the assumption does cut something off
    expected = query_loss(learner, episode, None).detach()
    torch.testing.assert_close(metrics["loss"], expected, rtol=1e-10, atol=1e-12)


def test_as_gradient_descent_the_start_gets_the_query_gradient_at_the_adapted_weights() -> None:
    learner, episode = as_descent(linear_learner(5), 0.4), random_episode(5, shots=[[1, 2, 1]])
    state = learner.adapt(episode.support)
    weight = state["linear.weight"][0].requires_grad_()
    loss = cross_entropy(episode.query_x[0] @ weight.T + state["linear.bias"][0], episode.query_y[0])
    found, _ = learner.meta_gradients(episode)
    torch.testing.assert_close(
        found["network.linear.weight"], torch.autograd.grad(loss, weight)[0], rtol=1e-10, atol=1e-12
    )


def test_all_coordinates_share_one_rule() -> None:
    rule, generator = linear_learner(6).rule, torch.Generator().manual_seed(6)
    told = [torch.randn(11, generator=generator, dtype=torch.float64) for _ in range(3)]
    loss, order = told[0].square().mean(), torch.randperm(11, generator=generator)

    def run(perm: Tensor) -> Tensor:
        theta, state = told[0][perm], rule.start(told[0][perm])
        for gradient in told[1:]:
            theta, state = rule(theta, gradient[perm], loss, state)
        return theta

    straight = run(torch.arange(11))
    torch.testing.assert_close(run(order), straight[order], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(run(order[:4]), straight[order[:4]], rtol=1e-12, atol=1e-13)


def test_a_new_rule_is_close_to_gradient_descent_with_small_steps() -> None:
    torch.manual_seed(0)
    rule = UpdateRule()
    theta, gradient = torch.randn(500), torch.randn(500)
    with torch.no_grad():
        _, state = rule(theta, gradient, torch.tensor(1.6), rule.start(theta))
    assert 0.98 < float(state.keep.min()) <= float(state.keep.max()) < 0.995
    assert 0.005 < float(state.move.min()) <= float(state.move.max()) < 0.02
    weights = torch.cat([p.detach().flatten() for name, p in rule.named_parameters() if name[5:] != "bias"])
    assert weights.abs().max() <= 0.01
    assert weights.std() > 0.005


def test_adapting_changes_nothing_in_the_learner_and_gives_the_same_again() -> None:
    learner, episode = linear_learner(7), random_episode(7, shots=[[1, 2, 1], [3, 1, 1]])
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    first, second = learner.adapt(episode.support), learner.adapt(episode.support)
    learner.meta_gradients(episode)
    for name, value in first.items():
        assert value.shape[0] == 2
        assert not value.requires_grad
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_ragged_episodes_together_equal_each_alone() -> None:
    learner, episode = linear_learner(8), random_episode(8, shots=[[1, 4, 2], [3, 1, 1]])
    found = learner.predict(learner.adapt(episode.support), episode.query).logits
    gradients, _ = learner.meta_gradients(episode)
    alone = [only(episode, e) for e in range(2)]
    for e in range(2):
        expected = learner.predict(learner.adapt(alone[e].support), alone[e].query).logits
        torch.testing.assert_close(found[e : e + 1], expected, rtol=1e-12, atol=1e-12)
    each = [learner.meta_gradients(one)[0] for one in alone]
    for name, value in gradients.items():
        torch.testing.assert_close(value, (each[0][name] + each[1][name]) / 2, rtol=1e-12, atol=1e-13)


def test_the_order_of_the_support_changes_nothing_but_the_names_of_the_classes_do() -> None:
    learner, episode = linear_learner(9), random_episode(9, shots=[[2, 2, 2]])
    found = learner.predict(learner.adapt(episode.support), episode.query).probabilities()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    shuffled = replace(episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order])
    again = learner.predict(learner.adapt(shuffled.support), episode.query).probabilities()
    torch.testing.assert_close(again, found, rtol=1e-8, atol=1e-10)
    to = torch.tensor([1, 2, 0])
    renamed = replace(episode, support_y=to[episode.support_y])
    other = learner.predict(learner.adapt(renamed.support), episode.query).probabilities()[..., to]
    assert (other - found).abs().max() > 1e-4
    told = learner.capabilities
    assert (told.fixed_ways, told.order_invariant, told.label_equivariant) == (True, True, False)
    assert not told.serves_from_state
    assert not told.transductive


@pytest.mark.parametrize("shots", [[[1, 2]], [[1, 2, 1, 1]], [[1, 2, 1], [2, 2]]])
def test_another_number_of_classes_is_refused(shots: list[list[int]]) -> None:
    learner, episode = linear_learner(10), random_episode(10, shots=shots)
    for call in (lambda: learner.adapt(episode.support), lambda: learner.meta_gradients(episode)):
        with pytest.raises(MetaDxError, match="built for 3 classes") as told:
            call()
        assert told.value.code == "other_ways"


def image_learner(mode: str) -> tuple[MetaLstm, Episode]:
    torch.manual_seed(11)
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5))
    options = MetaLstmOptions(steps=2, batch_norm=mode, move_bias=-1.0)  # type: ignore[arg-type]
    learner = MetaLstm(Classifier(encoder, 16, WAYS), WAYS, options).double().train()
    episode = random_episode(11, shots=[[2, 1, 2]], size=16)
    x, asked = (t.view(1, -1, 1, 4, 4) for t in (episode.support_x, episode.query_x))
    return learner, episode.with_x(x, asked)


@pytest.mark.parametrize("mode", ["support", "batch", "stored"])
def test_on_images_queries_influence_one_another_only_in_the_transductive_mode(mode: str) -> None:
    learner, episode = image_learner(mode)
    state = learner.adapt(episode.support)
    assert ("mean/encoder.1" in state) == (mode == "support")
    found = learner.predict(state, episode.query).logits[:, :, :1]
    other = torch.cat([episode.query_x[:, :1], 5 * episode.query_x[:, 1:]], 1)
    again = learner.predict(state, replace(episode.query, x=other)).logits[:, :, :1]
    assert learner.capabilities.transductive == (mode == "batch")
    assert torch.allclose(again, found, rtol=1e-10, atol=1e-12) == (mode != "batch")
    gradients, _ = learner.meta_gradients(episode)
    assert all(value.isfinite().all() for value in gradients.values())
    assert all(gradients[f"network.{name}"].abs().max() > 0 for name in ("encoder.1.weight", "linear.weight"))


def test_on_images_support_statistics_are_those_of_the_adapted_network() -> None:
    learner, episode = image_learner("support")
    state = {name: value[0] for name, value in learner.adapt(episode.support).items()}

    def maps(x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, state["encoder.0.weight"], state["encoder.0.bias"])

    seen, asked = maps(episode.support_x[0]), maps(episode.query_x[0])
    normal = (asked - seen.mean((0, 2, 3), keepdim=True)) / (
        seen.var((0, 2, 3), keepdim=True, correction=0) + 1e-5
    ).sqrt()
    normal = normal * state["encoder.1.weight"].view(1, -1, 1, 1) + state["encoder.1.bias"].view(1, -1, 1, 1)
    expected = normal.relu().flatten(1) @ state["linear.weight"].T + state["linear.bias"]
    found = learner.predict(learner.adapt(episode.support), episode.query).logits[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_meta_gradients_are_shortened_together_and_only_when_too_long() -> None:
    learner = linear_learner(12)
    gradients = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor(4.0)}
    short = learner.clipped(gradients)
    torch.testing.assert_close(short["a"], torch.tensor([0.15, 0.0]))
    torch.testing.assert_close(short["b"], torch.tensor(0.2))
    for name, value in learner.clipped(short).items():
        torch.testing.assert_close(value, short[name])


def family(generator: torch.Generator, tasks: int) -> Episode:
    """Four small coordinates tell the class, four large ones are noise: one rate for all cannot do."""
    size = torch.tensor([3.0] * 4 + [0.3] * 4)
    centres = torch.cat(
        [torch.zeros(tasks, WAYS, 4), 3 * torch.randn(tasks, WAYS, 4, generator=generator)], -1
    )

    def drawn(shots: int) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.arange(WAYS).repeat_interleave(shots).expand(tasks, -1)
        noise = torch.randn(tasks, WAYS * shots, SIZE, generator=generator)
        return (centres[torch.arange(tasks)[:, None], y] + noise) * size, y, torch.ones_like(y) > 0

    return Episode(*drawn(3), *drawn(10), torch.ones(tasks, WAYS) > 0)


def test_it_learns_faster_than_gradient_descent_with_as_many_steps() -> None:
    torch.manual_seed(0)
    network, options = Classifier(nn.Identity(), SIZE, WAYS), MetaLstmOptions(steps=3, move_bias=-2.0)
    nn.init.zeros_(network.linear.weight)
    nn.init.zeros_(network.linear.bias)
    rates = (0.01, 0.03, 0.1, 0.3, 1.0)
    twins = [sgd_twin(network, options, rate=rate, learned_rates=False) for rate in rates]
    learner, generator = MetaLstm(network, WAYS, options), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(learner.parameters(), 3e-2)
    for _ in range(60):
        gradients, _ = learner.meta_gradients(family(generator, 6))
        for name, gradient in learner.clipped(gradients).items():
            learner.get_parameter(name).grad = gradient
        optimiser.step()
    asked = family(generator, 100)

    def loss_and_accuracy(one: BodyLearner) -> tuple[float, float]:
        logits = one.predict(one.adapt(asked.support), asked.query).logits[:, 0]
        loss = cross_entropy(logits.flatten(0, 1), asked.query_y.flatten())
        return float(loss), float((logits.argmax(-1) == asked.query_y).double().mean())

    loss, accuracy = loss_and_accuracy(learner)
    descents = [loss_and_accuracy(twin) for twin in twins]
    assert loss < min(told for told, _ in descents) - 0.2
    assert accuracy > max(told for _, told in descents) + 0.1


def test_options_that_make_no_learner_are_refused() -> None:
    for wrong in ({"steps": 0}, {"units": 0}, {"clip_norm": 0.0}, {"batch_norm": "per_step"}):
        with pytest.raises(MetaDxError, match=next(iter(wrong))) as told:
            MetaLstmOptions(**wrong)  # type: ignore[arg-type]
        assert told.value.code == "bad_value"
