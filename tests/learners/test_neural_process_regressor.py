"""The papers' regressor against torch.distributions and plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from meta_dx.learners.neural_process_regressor import DotProductAttention, NeuralProcessRegressor

FORMS: dict[str, dict[str, Any]] = {
    "cnp": {"latent": False, "attention": False},
    "np": {"latent": True, "attention": False},
    "anp": {"latent": True, "attention": True},
    "anp with self-attention": {"latent": True, "attention": True, "self_attention": 2},
}
each_form = pytest.mark.parametrize("name", FORMS)
HIDDEN = 8


def model(name: str) -> NeuralProcessRegressor:
    torch.manual_seed(0)
    return NeuralProcessRegressor(**FORMS[name], hidden=HIDDEN, heads=2).double()


def functions(seed: int, targets: int = 6, context: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = 4 * torch.rand(2, targets, 1, generator=torch.Generator().manual_seed(seed)).double() - 2
    return x[:, :context], x[:, :context].sin(), x, x.sin()


@pytest.mark.parametrize("name", ["np", "anp", "anp with self-attention"])
def test_the_loss_is_the_negative_bound_for_each_target(name: str) -> None:
    net, (context_x, context_y, x, y) = model(name), functions(1)
    noise = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(2)).double()
    loss, kl = net.loss(context_x, context_y, x, y, noise)
    prior, posterior = net.encode_latent(context_x, context_y), net.encode_latent(x, y)
    divergence = kl_divergence(Normal(posterior.mean, posterior.sd), Normal(prior.mean, prior.sd)).sum(-1)
    r = net.encode_deterministic(context_x, context_y, x)
    answer = net.decode(x, r, posterior.mean + posterior.sd * noise)
    log_p = Normal(answer.mean, answer.sd).log_prob(y).sum((1, 2))
    torch.testing.assert_close(loss, ((divergence - log_p) / 6).mean())
    torch.testing.assert_close(kl, divergence.mean())
    assert float(kl.detach()) > 0


def test_a_conditional_process_is_the_mean_of_the_context_and_a_decoder() -> None:
    net, (context_x, context_y, x, y) = model("cnp"), functions(3)
    r = net.deterministic(torch.cat([context_x, context_y], -1)).mean(1)
    for e in range(2):
        for t in range(6):
            mean, raw = net.decoder(torch.cat([r[e], x[e, t]]))
            found = net.predict(context_x, context_y, x)
            torch.testing.assert_close(found.mean[0, e, t, 0], mean)
            torch.testing.assert_close(found.sd[0, e, t, 0], 0.1 + 0.9 * (1 + raw.exp()).log())
    answer = net.predict(context_x, context_y, x)
    loss, kl = net.loss(context_x, context_y, x, y)
    torch.testing.assert_close(loss, -Normal(answer.mean, answer.sd).log_prob(y).mean())
    assert float(kl) == 0


def test_attention_is_that_of_torch_with_the_same_weights() -> None:
    ours = DotProductAttention(HIDDEN, 2).double()
    theirs = torch.nn.MultiheadAttention(HIDDEN, 2, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.out_proj.weight.copy_(ours.output.weight)
    query, key, value = (torch.randn(3, n, HIDDEN).double() for n in (4, 5, 5))
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value)[0])


@each_form
def test_the_order_of_the_context_changes_nothing_and_a_target_never_influences_another(name: str) -> None:
    net, (context_x, context_y, x, _) = model(name), functions(4)
    noise = torch.randn(5, 2, HIDDEN).double()
    found = net.predict(context_x, context_y, x, noise).mean
    torch.testing.assert_close(net.predict(context_x.flip(1), context_y.flip(1), x, noise).mean, found)
    torch.testing.assert_close(net.predict(context_x, context_y, x[:, 2:4], noise).mean, found[:, :, 2:4])


def test_only_attention_lets_the_weight_of_the_context_depend_on_the_target() -> None:
    context_x, context_y, x, _ = functions(5)
    for name, differs in (("np", False), ("anp", True)):
        r = model(name).encode_deterministic(context_x, context_y, x)
        assert bool((r.diff(dim=1).abs() > 1e-6).any()) is differs


@each_form
def test_the_likelihood_of_a_function_is_the_mean_over_samples_of_the_product_over_targets(name: str) -> None:
    net, (context_x, context_y, x, y) = model(name), functions(6)
    noise = torch.randn(4, 2, HIDDEN).double() if net.noise_size else None
    answer = net.predict(context_x, context_y, x, noise)
    density = Normal(answer.mean, answer.sd).log_prob(y).exp()  # (M, B, T, 1)
    expected = density.prod(2).mean(0).log().squeeze(-1) / 6
    torch.testing.assert_close(net.log_likelihood(context_x, context_y, x, y, noise), expected)


def test_the_same_noise_gives_the_same_answer_and_none_is_the_mean() -> None:
    net, (context_x, context_y, x, _) = model("anp"), functions(7)
    zero = torch.zeros(1, 2, HIDDEN).double()
    found = net.predict(context_x, context_y, x)
    assert torch.equal(found.mean, net.predict(context_x, context_y, x, zero).mean)
    noise = torch.randn(3, 2, HIDDEN).double()
    first = net.predict(context_x, context_y, x, noise).mean
    assert torch.equal(first, net.predict(context_x, context_y, x, noise).mean)
    assert not torch.equal(first[0], first[1])


@each_form
def test_standard_deviations_are_bounded_as_in_the_paper(name: str) -> None:
    net, (context_x, context_y, x, _) = model(name), functions(8)
    with torch.no_grad():
        net.decoder[-1].bias[1] = -1e4
        torch.testing.assert_close(
            net.predict(context_x, context_y, x).sd, torch.full((1, 2, 6, 1), 0.1).double()
        )
        if net.latent is not None:
            for value, expected in ((-1e4, 0.1), (1e4, 1.0)):
                net.latent.sd.bias.fill_(value)
                sd = net.encode_latent(context_x, context_y).sd
                torch.testing.assert_close(sd, torch.full_like(sd, expected))


def test_a_short_training_lowers_the_error_below_that_of_the_best_constant() -> None:
    torch.manual_seed(0)
    net = NeuralProcessRegressor(hidden=32, heads=4)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)

    def waves(count: int) -> tuple[Tensor, Tensor]:
        x = 4 * torch.rand(16, count, 1, generator=generator) - 2
        return x, (x + 6 * torch.rand(16, 1, 1, generator=generator)).sin()

    for _ in range(150):
        x, y = waves(20)
        loss, _ = net.loss(x[:, :8], y[:, :8], x, y, torch.randn(16, 32, generator=generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, y = waves(200)
    noise = torch.randn(16, 16, 32, generator=generator)
    found = net.log_likelihood(x[:, :8], y[:, :8], x, y, noise).mean()
    constant = -0.5 * math.log(2 * math.pi * math.e * 0.5)  # a sine has variance 1/2
    assert float(found.detach()) > constant + 0.3
