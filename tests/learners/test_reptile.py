"""Reptile against torch.optim.Adam on plain copies of the network."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.batch_norm import statistics
from meta_dx.learners.body_options import ReptileOptions
from meta_dx.learners.reptile import InnerAdam, Reptile, mini_batches
from tests.learners.episodes import only, random_episode
from tests.learners.test_maml import classifier, gaussian_tasks, pictures

exact = {"rtol": 1e-10, "atol": 1e-10}
SMALL = {"inner_rate": 0.02, "inner_batch": 4, "steps": 3, "test_batch": 5, "test_steps": 6}


def learner(**options: Any) -> Reptile:
    return Reptile(classifier(3), 3, ReptileOptions(**{**SMALL, **options})).double()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(network: nn.Module, x: Tensor, y: Tensor, batches: Tensor, adam: Any = None) -> Any:
    """Train a network of torch's own layers in place: batch statistics, torch's Adam."""
    adam = adam or torch.optim.Adam(network.parameters(), 0.02, betas=(0.0, 0.999))
    network.train()
    network.encoder[3].p = 0.0  # dropout is off in the learner
    for batch in batches:
        adam.zero_grad()
        nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
        adam.step()
    return adam


def rows(episode: Episode, e: int) -> tuple[Tensor, Tensor]:
    one = only(episode, e)
    return (
        torch.cat([one.support_x[0], one.query_x[0]]),
        torch.cat([one.support_y[0], one.query_y[0]]),
    )


def apply(made: Reptile, rate: float, episode: Episode, generator: torch.Generator) -> None:
    """One outer step as the training loop makes it."""
    sgd = torch.optim.SGD(made.parameters(), made.learning_rate * rate)
    gradients, _ = made.meta_gradients(episode, generator=generator)
    for name, parameter in made.named_parameters():
        parameter.grad = gradients[name]
    sgd.step()
    sgd.zero_grad()


def test_the_inner_optimizer_is_torchs_adam_with_beta1_zero() -> None:
    generator = seeded()
    weights = [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(2)]
    theirs = [nn.Parameter(w.clone()) for w in weights]
    torchs = torch.optim.Adam(theirs, 0.1, betas=(0.0, 0.999))
    ours = InnerAdam(tuple(torch.zeros_like(w) for w in weights), torch.ones(()).double())
    for _ in range(7):
        gradients = tuple(torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        torchs.step()
        weights, ours = ours.step(weights, gradients, 0.1)
        for one, other in zip(weights, theirs, strict=True):
            torch.testing.assert_close(one, other.detach(), **exact)


def test_the_meta_gradient_is_where_the_weights_are_minus_the_mean_of_where_tasks_end() -> None:
    made, episode, shots = learner(), pictures(0, [[2, 2, 1], [3, 1, 2]]), seeded(5)
    found, metrics = made.meta_gradients(episode, generator=seeded(5))
    start, ends = classifier(3), []
    for e in range(2):
        x, y = rows(episode, e)
        network = copy.deepcopy(start)
        trained(network, x, y, mini_batches(len(x), 4, 3, shots))
        ends.append(dict(network.named_parameters()))
    for name, parameter in start.named_parameters():
        mean = (ends[0][name] + ends[1][name]) / 2
        torch.testing.assert_close(found[f"network.{name}"], (parameter - mean).detach(), **exact)
    assert set(found) == {name for name, _ in made.named_parameters()}
    assert 0 < float(metrics["loss"]) < 10
    assert 0 <= float(metrics["accuracy"]) <= 1


def test_one_task_at_outer_rate_one_is_plain_training_with_adam_that_goes_on_from_task_to_task() -> None:
    made, plain, adam = learner(), classifier(3), None
    drawn, again = seeded(6), seeded(6)
    for step in range(3):
        episode = pictures(step, [[2, 2, 2]])
        x, y = rows(episode, 0)
        apply(made, 1.0, episode, drawn)
        adam = trained(plain, x, y, mini_batches(len(x), 4, 3, again), adam)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(made.network.get_parameter(name), parameter, **exact)


def test_the_corrected_moment_stays_a_weighted_mean_of_squared_gradients_at_any_outer_rate() -> None:
    made = Reptile(nn.Linear(2, 2).double(), 2, ReptileOptions(inner_batch=4, steps=2)).double()
    missing = 0.999**10  # ten steps so far, in each of which every gradient was 2
    made.missing.data.fill_(missing)
    for moment in made.moments:
        moment.data.fill_(4 * (1 - missing))
    blank = gaussian_tasks(0, 3, 2, 2)
    blank = blank.with_x(0 * blank.support_x, 0 * blank.query_x)  # two steps with gradients of zero
    apply(made, 0.3, blank, seeded())
    told = 0.7 * missing + 0.3 * missing * 0.999**2
    assert made.missing.item() == pytest.approx(told, rel=1e-12)
    # What is not missing is weight of the ten gradients or of the two.
    ten, two = (1 - missing) * (0.7 + 0.3 * 0.999**2), 0.3 * (1 - 0.999**2)
    assert ten + two == pytest.approx(1 - told, rel=1e-12)
    corrected = made.moments[0] / (1 - made.missing)
    torch.testing.assert_close(corrected, torch.full_like(corrected, 4 * ten / (ten + two)), **exact)


def test_inner_batches_are_shuffled_passes_cut_into_pieces() -> None:
    found = mini_batches(7, 3, 5, seeded(1))
    assert found.shape == (5, 3)
    stream = found.flatten().tolist()
    assert sorted(stream[:7]) == sorted(stream[7:14]) == list(range(7))
    assert stream[:7] != stream[7:14]
    assert torch.equal(found, mini_batches(7, 3, 5, seeded(1)))
    assert not torch.equal(found, mini_batches(7, 3, 5, seeded(2)))
    assert mini_batches(2, 5, 1, seeded()).shape == (1, 5)
    assert mini_batches(4, 2, 0, seeded()).shape == (0, 2)


@pytest.mark.parametrize("transductive", [False, True])
def test_adapted_weights_and_answers_are_those_of_plain_training(transductive: bool) -> None:
    made, episode = learner(transductive=transductive), pictures(1, [[2, 1, 1], [3, 2, 2]])
    with torch.no_grad():
        for index, moment in enumerate(made.moments):
            moment.fill_(0.01 * (index + 1))
        made.missing.fill_(0.5)
    found = made.predict(made.adapt(episode.support), episode.query).logits[:, 0]
    for e in range(2):
        one, network = only(episode, e), classifier(3)
        adam = torch.optim.Adam(network.parameters(), 0.02, betas=(0.0, 0.999))
        for index, parameter in enumerate(network.parameters()):  # the same state as torch keeps it
            steps = torch.tensor(math.log(0.5) / math.log(0.999), dtype=torch.float64)
            adam.state[parameter] = {
                "step": steps,
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.full_like(parameter, 0.01 * (index + 1)),
            }
        x, y, q = one.support_x[0], one.support_y[0], one.query_x[0]
        trained(network, x, y, mini_batches(len(x), 5, 6, seeded(0)), adam)
        expected = (
            network(q) if transductive else torch.cat([network(torch.cat([x, r[None]]))[-1:] for r in q])
        )
        torch.testing.assert_close(found[e], expected.detach(), **exact)


@pytest.mark.parametrize("transductive", [False, True])
def test_a_query_influences_another_only_where_the_mode_is_transductive(transductive: bool) -> None:
    made, episode = learner(transductive=transductive), pictures(2, [[2, 2, 2]])
    query_x = episode.query_x.clone()
    query_x[:, 1:] = 2 * query_x[:, 1:] + 1
    state = made.adapt(episode.support)
    asked = (episode, replace(episode, query_x=query_x))
    before, after = (made.predict(state, e.query).logits[:, :, 0] for e in asked)
    assert made.capabilities.transductive == transductive
    assert torch.allclose(before, after, rtol=1e-12, atol=1e-12) != transductive


def test_without_batch_norm_nothing_is_transductive_and_no_support_is_kept() -> None:
    made = Reptile(nn.Linear(8, 3).double(), 3, ReptileOptions(**SMALL, transductive=True)).double()
    episode = random_episode(3, shots=[[1, 2, 3], [2, 2, 1]])
    state = made.adapt(episode.support)
    assert not made.capabilities.transductive
    assert set(state) == {"weight", "bias"}
    expected = episode.query_x @ state["weight"].transpose(1, 2) + state["bias"][:, None]
    torch.testing.assert_close(made.predict(state, episode.query).logits[:, 0], expected)


def test_ragged_tasks_give_what_each_gives_alone() -> None:
    made, episode = learner(), pictures(4, [[1, 3, 2], [2, 1, 1], [4, 1, 1]])
    together = made.predict(made.adapt(episode.support), episode.query).logits
    for e in range(3):
        one = only(episode, e)
        alone = made.predict(made.adapt(one.support), one.query).logits
        torch.testing.assert_close(together[e : e + 1, :, : alone.shape[2]], alone, **exact)


def test_memory_is_bounded_by_pieces_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, episode = learner(), pictures(5, [[2, 2, 2]])
    state = made.adapt(episode.support)
    expected = made.predict(state, episode.query).logits
    monkeypatch.setattr("meta_dx.learners.reptile._ROWS_AT_ONCE", 15)
    torch.testing.assert_close(made.predict(state, episode.query).logits, expected, **exact)


def test_neither_order_nor_labels_are_free() -> None:
    made, episode, to = learner(), pictures(6, [[2, 3, 2]]), torch.tensor([2, 0, 1])
    order = torch.randperm(7, generator=seeded(3))
    before = made.predict(made.adapt(episode.support), episode.query).probabilities()
    shuffled = replace(episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order])
    assert not torch.allclose(
        made.predict(made.adapt(shuffled.support), episode.query).probabilities(), before
    )
    renamed = replace(episode, support_y=to[episode.support_y])
    found = made.predict(made.adapt(renamed.support), episode.query).probabilities()
    assert not torch.allclose(found[..., to], before)
    assert not made.capabilities.order_invariant
    assert not made.capabilities.label_equivariant


def test_another_number_of_classes_is_refused() -> None:
    made, episode = learner(), pictures(7, [[2, 2]])
    for call in (lambda: made.adapt(episode.support), lambda: made.meta_gradients(episode)):
        with pytest.raises(MetaDxError, match="built for 3 classes"):
            call()


def test_adapting_works_without_gradients_draws_nothing_and_changes_nothing_in_the_learner() -> None:
    made, episode = learner(), pictures(8, [[2, 2, 2]])
    before = {name: value.clone() for name, value in made.state_dict().items()}
    seen = torch.random.get_rng_state()
    expected = made.predict(made.adapt(episode.support), episode.query).logits
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            loaned = replace(episode, support_x=episode.support_x + 0)
            found = made.predict(made.adapt(loaned.support), loaned.query).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    made.meta_gradients(episode, generator=seeded())
    with torch.no_grad():
        made.meta_gradients(episode)
    for name, value in made.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), seen)


def test_gradients_come_under_the_names_asked_for() -> None:
    made, episode = learner(), pictures(9, [[2, 2, 2]])
    alone = nn.Parameter(torch.ones(2, dtype=torch.float64))
    found, _ = made.meta_gradients(
        episode, parameters={"a": made.network.linear.bias, "b": alone}, generator=seeded()
    )
    whole, _ = made.meta_gradients(episode, generator=seeded())
    torch.testing.assert_close(found["a"], whole["network.linear.bias"], rtol=0, atol=0)
    assert not found["b"].any()


@pytest.mark.parametrize("wrong", [{"inner_rate": 0.0}, {"steps": 0}, {"test_steps": -1}, {"test_batch": 0}])
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MetaDxError) as told:
        ReptileOptions(**wrong)
    assert told.value.code == "bad_value"


def test_the_defaults_are_the_papers_for_omniglot_5_way() -> None:
    o = ReptileOptions()
    assert (o.inner_rate, o.inner_batch, o.steps, o.train_shots, o.test_steps) == (1e-3, 10, 5, 10, 50)
    assert (Reptile.optimizer, Reptile.learning_rate) == ("sgd", 1.0)


def test_a_trained_learner_comes_near_the_bayes_rate_and_an_untrained_one_does_not() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).double()
    options = ReptileOptions(inner_rate=0.05, inner_batch=20, steps=4, test_batch=20, test_steps=4)
    made, test = Reptile(network, 2, options).double(), gaussian_tasks(999, 60, 20, 50)

    def accuracy() -> float:
        answer = made.predict(made.adapt(test.support), test.query).probabilities().argmax(-1)
        return float((answer == test.query_y).double().mean())

    before, drawn, steps = accuracy(), seeded(), 100
    for step in range(steps):
        apply(made, 1 - step / steps, gaussian_tasks(step, 3, 20, 20), drawn)
    bayes = 0.5 * (1 + math.erf(1.5 / math.sqrt(2)))
    after = accuracy()
    assert before < bayes - 0.03, (before, after, bayes)
    assert bayes - 0.02 < after < bayes + 0.02, (before, after, bayes)


def test_the_inner_loop_sees_batch_statistics_even_where_the_network_has_running_ones() -> None:
    made, x = learner(), pictures(10, [[2, 2, 2]]).support_x[0]
    plain = classifier(3).train()
    plain.encoder[3].p = 0.0
    with statistics(made.network, fused=True):
        torch.testing.assert_close(made.network(x), plain(x), **exact)
