"""LEO against plain loops with autograd and an explicit table of pairs, and against its known errors."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.leo import Leo, correlation_penalty
from meta_dx.learners.options import LearnerOptions, LeoOptions
from tests.learners.episodes import only, random_episode
from tests.learners.exports import SHAPES, both_answers, exported
from tests.learners.plain_leo import paper_code, plain_loss

SIZE = 8
# Penalties large enough to be seen in a gradient, a rate at which sampled weights do not diverge.
SMALL = LeoOptions(latent_size=6, latent_rate=0.4, dropout=0.25, encoder_penalty=0.3, l2_penalty=0.02)
EQUAL, UNEVEN = [[3, 3, 3]], [[1, 4, 2], [3, 3], [5, 1, 1, 2]]
tight = {"rtol": 1e-10, "atol": 1e-10}
close = {"rtol": 1e-5, "atol": 1e-5}


def leo(options: LeoOptions = SMALL, seed: int = 0) -> Leo:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Leo(SIZE, options, torch.randn(SIZE)).double()
    with torch.no_grad():  # learned rates differ from one dimension to the next
        head.latent_rate.mul_(torch.linspace(0.5, 1.5, options.latent_size))
        head.finetuning_rate.add_(torch.linspace(0.1, 0.4, SIZE))
    return head


def gradients(head: Leo, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*head.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("shots", [EQUAL, UNEVEN])
@pytest.mark.parametrize("stochastic", [True, False])
def test_second_order_meta_gradients_are_those_of_the_plain_loop(shots: list, stochastic: bool) -> None:
    head, episode = leo(), random_episode(1, shots=shots, size=SIZE)
    draws = head.draw(episode, torch.Generator().manual_seed(3)) if stochastic else None
    loss, _ = head.train().meta_loss(episode, draws)
    expected, _ = plain_loss(head, episode, draws)
    torch.testing.assert_close(loss, expected, **tight)
    found, wanted = gradients(head, loss), gradients(head, expected)
    assert set(found) == {
        "encoder", "relation_first", "relation_second", "relation_third", "decoder",
        "latent_rate", "finetuning_rate",
    }  # fmt: skip
    for name, value in found.items():
        assert value.abs().max() > 1e-9, name
        torch.testing.assert_close(value, wanted[name], **tight)


def test_meta_gradients_are_not_first_order() -> None:
    # Known error: the inner gradient detached. Then the loss is the same, and its slope is not.
    head, episode = leo().train(), random_episode(2, shots=EQUAL, size=SIZE)
    parameter, bend = head.decoder, torch.zeros_like(head.decoder)
    bend[2, 3] = 1e-5

    def loss_at(sign: int) -> float:
        with torch.no_grad():
            parameter.add_(sign * bend)
            loss = float(head.meta_loss(episode, None)[0])
            parameter.sub_(sign * bend)
        return loss

    # The stop-gradient of the encoder penalty is no true slope, so it is left out here.
    head.options = replace(SMALL, encoder_penalty=0.0)
    found, _ = head.meta_gradients(episode)
    assert float(found["decoder"][2, 3]) == pytest.approx((loss_at(1) - loss_at(-1)) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("shots", [EQUAL, UNEVEN])
def test_analytic_inner_steps_are_those_of_autograd_in_training_and_evaluation_alike(shots: list) -> None:
    head, episode = leo(), random_episode(4, shots=shots, size=SIZE)
    _, expected = plain_loss(head, episode, None)
    for mode in (head.train(), head.eval()):
        state = mode.adapt(episode.support)
        for e, weight in enumerate(expected):
            torch.testing.assert_close(state["weight"][e, : len(weight)], weight, **tight)


def test_the_inner_loop_lowers_the_support_loss() -> None:
    head, episode = (
        leo(LeoOptions(latent_size=6, finetuning_rate=0.0)),
        random_episode(5, shots=EQUAL, size=SIZE),
    )
    with torch.no_grad():
        head.finetuning_rate.zero_()
    x, onehot = head.normalised(episode.support_x), episode.support.onehot()
    found = head.inner_loop(x, onehot)
    before = cross_entropy(
        (x @ (found.start @ head.decoder[:SIZE].T).transpose(1, 2))[0], episode.support_y[0]
    )
    after = cross_entropy((x @ found.weight.transpose(1, 2))[0], episode.support_y[0])
    assert float(after.detach()) < float(before.detach()) - 0.01


def test_codes_are_spread_by_the_standard_deviation_and_not_by_the_variance() -> None:
    head, episode = leo(), random_episode(6, shots=EQUAL, size=SIZE)
    with torch.no_grad():  # a standard deviation far from 1, where its square is another number
        head.relation_third.abs_()
    x, onehot = head.normalised(episode.support_x), episode.support.onehot()
    draws = head.draw(episode, torch.Generator().manual_seed(0))
    draws = replace(draws, latent=torch.full_like(draws.latent, 2.0), encoder=torch.ones_like(draws.encoder))
    found = head.inner_loop(x, onehot, draws)
    mean, std = paper_code(head, x[0], episode.support_y[0], 3)
    assert float((std - std.square()).detach().abs().max()) > 0.01
    torch.testing.assert_close(found.start[0], mean + 2 * std, **tight)


def test_adapting_samples_nothing_and_drops_nothing() -> None:
    head, episode = leo(), random_episode(7, shots=UNEVEN, size=SIZE)
    answers = []
    for seed, mode in enumerate((head.train(), head.train(), head.eval())):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            answers.append(mode.predict(mode.adapt(episode.support), episode.query).logits)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    assert answers[0].shape[1] == 1


def test_the_same_generator_gives_the_same_meta_gradient_and_another_gives_another() -> None:
    head, episode = leo().train(), random_episode(8, shots=UNEVEN, size=SIZE)
    one, again, other = (
        head.meta_gradients(episode, generator=torch.Generator().manual_seed(seed))[0]["encoder"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_dropout_hides_the_named_share_and_keeps_the_mean() -> None:
    head = leo(replace(SMALL, dropout=0.3))
    episode = random_episode(9, shots=[[40] * 4], size=SIZE)
    draws = head.draw(episode, torch.Generator().manual_seed(0))
    assert set(np.round(np.unique(draws.support.numpy()), 6)) == {0.0, round(1 / 0.7, 6)}
    assert float((draws.support == 0).double().mean()) == pytest.approx(0.3, abs=0.02)
    assert draws.support.shape == (10, 1, 160, SIZE)
    assert draws.weight.shape == (6, 1, 4, SIZE)


def test_evaluation_mode_has_the_query_loss_alone() -> None:
    head, episode = leo().eval(), random_episode(10, shots=UNEVEN, size=SIZE)
    loss, metrics = head.loss(episode, generator=torch.Generator().manual_seed(0))
    p = head.predict(head.adapt(episode.support), episode.query).probabilities()
    true = p.gather(-1, episode.query_y.unsqueeze(-1)).squeeze(-1)[episode.query_mask]
    assert float(loss.detach()) == pytest.approx(float(-true.log().mean().detach()))
    assert set(metrics) == {"loss", "accuracy"}


def test_metrics_name_the_query_loss_and_each_penalty() -> None:
    head, episode = leo().train(), random_episode(11, shots=EQUAL, size=SIZE)
    loss, metrics = head.loss(episode, generator=torch.Generator().manual_seed(0))
    layers = (head.encoder, head.relation_first, head.relation_second, head.relation_third, head.decoder)
    size = sum(float(layer.detach().square().sum()) for layer in layers) / 2
    told = float(metrics["loss"]) + SMALL.kl_weight * float(metrics["kl"]) + SMALL.l2_penalty * size
    told += SMALL.encoder_penalty * float(metrics["encoder_penalty"])
    told += SMALL.orthogonality_penalty * float(metrics["orthogonality"])
    assert float(loss.detach()) == pytest.approx(told)
    assert all(not value.requires_grad for value in metrics.values())


def test_orthogonal_rows_have_no_penalty_and_equal_rows_all_of_it() -> None:
    assert float(correlation_penalty(torch.diag(torch.tensor([3.0, 0.5])))) == 0
    # C is all ones: two of four entries are off by one.
    assert float(correlation_penalty(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))) == pytest.approx(0.5)


def test_ragged_and_absent_classes_are_answered_as_if_alone() -> None:
    head, episode = leo().eval(), random_episode(12, shots=UNEVEN, size=SIZE)
    filled = torch.where(episode.support_mask[..., None], episode.support_x, 1e3)
    state = head.adapt(replace(episode, support_x=filled).support)
    for e, counts in enumerate(UNEVEN):
        alone = head.adapt(only(episode, e).support)["weight"][0]
        torch.testing.assert_close(state["weight"][e, : len(counts)], alone, **tight)
        assert (state["weight"][e, len(counts) :] == 0).all()
    # A class without support in the middle, as a support set in use may have.
    onehot = episode.support.onehot()[:1]
    between = torch.cat([onehot[..., :1], torch.zeros_like(onehot[..., :1]), onehot[..., 1:]], dim=-1)
    moved = head.adapt_tensors(episode.support_x[:1], between)["weight"]
    torch.testing.assert_close(moved[:, [0, 2, 3]], state["weight"][:1, :3], **tight)
    logits = head.predict_tensors(head.adapt_tensors(episode.support_x[:1], between), episode.query_x[:1])
    assert (logits[..., 1] == -math.inf).all()
    assert logits[..., 0].isfinite().all()


def test_more_cases_of_one_class_do_not_outweigh_another() -> None:
    # The same cases twice: means over pairs and the support loss stay what they were.
    head, episode = leo().eval(), random_episode(13, shots=[[2, 3, 1]], size=SIZE)
    y = episode.support_y[0]
    rows = torch.cat([torch.arange(6), torch.where(y == 1)[0]])
    onehot = one_hot(y[rows], 3).double()[None]
    torch.testing.assert_close(
        head.adapt_tensors(episode.support_x[:, rows], onehot)["weight"],
        head.adapt(episode.support)["weight"],
        **tight,
    )


def test_the_pair_table_in_blocks_is_the_table_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    head, episode = leo().eval(), random_episode(14, shots=[[9, 4, 7], [3, 8, 2]], size=SIZE)
    whole = head.adapt(episode.support)["weight"]
    monkeypatch.setattr("meta_dx.learners.leo._PAIRS_AT_ONCE", 2 * 20 * 12 * 3)  # three rows at a time
    torch.testing.assert_close(head.adapt(episode.support)["weight"], whole, **tight)


def test_gradients_are_clipped_by_value_and_then_each_by_its_own_norm() -> None:
    head = leo()
    found = head.clipped({"a": torch.tensor([3.0, -0.05]), "b": torch.tensor([0.03, 0.04])})
    by_value = np.array([0.1, -0.05])
    np.testing.assert_allclose(found["a"], 0.1 * by_value / np.linalg.norm(by_value), rtol=1e-6)
    np.testing.assert_allclose(found["b"], [0.03, 0.04], rtol=1e-6)


def test_a_diverged_inner_loop_gives_weight_decay_and_the_metrics_of_the_means() -> None:
    head, episode = leo(replace(SMALL, latent_steps=40)).train(), random_episode(15, shots=EQUAL, size=SIZE)
    with torch.no_grad():
        head.latent_rate.fill_(1e3)
    assert not head.loss(episode, generator=torch.Generator().manual_seed(0))[0].isfinite()
    found, metrics = head.meta_gradients(episode, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["decoder"], 1e-4 * head.decoder.detach())
    assert not found["latent_rate"].any()
    assert metrics["loss"].isfinite()


def gaussian_tasks(seed: int, tasks: int, *, shots: int = 5, queries: int = 10) -> Episode:
    """Three ways, centres N(0, 4 I) and cases N(centre, I) in three dimensions.

    A fourth feature is always 3: scaling to unit length then loses nothing, and a classifier without an
    intercept has one.
    """
    g = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(tasks, 3, 3, generator=g)
    made = []
    for k in (shots, queries):
        y = torch.arange(3).repeat_interleave(k).expand(tasks, -1)
        x = centres.gather(1, y.unsqueeze(-1).expand(-1, -1, 3))
        x = x + torch.randn(x.shape, generator=g)
        made += [torch.cat([x, torch.full((*y.shape, 1), 3.0)], -1), y, torch.ones(y.shape, dtype=torch.bool)]
    return Episode(*made, torch.ones(tasks, 3, dtype=torch.bool))


def bayes_accuracy(episode: Episode, shots: int) -> float:
    """Accuracy of the posterior predictive: centre N(4K x̄ / (4K + 1), 4 / (4K + 1)) plus unit noise."""
    x, query = episode.support_x[..., :3], episode.query_x[..., :3]
    mean = x.reshape(len(x), 3, shots, 3).mean(2) * (4 * shots / (4 * shots + 1))
    return float((torch.cdist(query, mean).argmin(-1) == episode.query_y).double().mean())


def accuracy(head: Leo, episode: Episode) -> float:
    with torch.no_grad():
        return float(head.eval().loss(episode)[1]["accuracy"])


@pytest.fixture(scope="module")
def trained() -> tuple[Leo, float]:
    """A head after 200 steps on Gaussian tasks, and its accuracy before them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = Leo(4, LeoOptions(latent_size=8, latent_rate=0.3, dropout=0.0, kl_weight=1e-3))
    before = accuracy(head, gaussian_tasks(10**6, 300))
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        found, _ = head.train().meta_gradients(gaussian_tasks(step, 12), generator=generator)
        for name, gradient in head.clipped(found).items():
            head.get_parameter(name).grad = gradient
        optimiser.step()
    return head.eval(), before


def test_meta_training_reaches_the_bayes_rate_on_gaussian_tasks(trained: tuple[Leo, float]) -> None:
    head, before = trained
    test = gaussian_tasks(10**6, 300)
    best = bayes_accuracy(test, 5)
    assert before < best - 0.05
    assert accuracy(head, test) > best - 0.012


@pytest.fixture(scope="module")
def graphs(trained: tuple[Leo, float], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return exported(trained[0], 4, tmp_path_factory.mktemp("leo"))


@pytest.mark.parametrize(("shots", "queries", "padded"), SHAPES)
def test_the_exported_graph_adapts_as_torch_does(
    trained: tuple[Leo, float], graphs: tuple[Path, Path], shots: list, queries: int, padded: int
) -> None:
    found, expected = both_answers(trained[0], 4, graphs, shots, queries, padded)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.2


@pytest.mark.parametrize("name", ["latent_size", "dropout", "clip_norm", "kl_weight"])
def test_impossible_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(MetaDxError, match=name) as told:
        LeoOptions(**{name: {"dropout": 1.0}.get(name, -1)})
    assert told.value.code == "bad_value"
    assert LearnerOptions().own("leo")["latent_steps"] == 5
