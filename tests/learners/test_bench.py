"""The shared bench: what every learner promises holds for each; what it does not promise fails on an example."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Head
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.body_options import (
    FineTuningOptions,
    MamlOptions,
    MetaLstmOptions,
    ProtoMamlOptions,
    ReptileOptions,
)
from meta_dx.learners.fine_tuning import FineTuning
from meta_dx.learners.options import LearnerOptions, MannOptions, NeuralProcessOptions, PrototypicalOptions
from meta_dx.learners.registry import (
    BODY_LEARNERS,
    HEADS,
    build_body_learner,
    build_head,
    build_mann,
    head_from_payload,
    head_payload,
)
from tests.learners.episodes import only, random_episode

SIZE, WAYS = 8, 3
SMALL = LearnerOptions(
    anp=NeuralProcessOptions(hidden=16, heads=2, latent_size=4, decoder=8),
    mann=MannOptions(controller=16, rows=8, width=8, heads=2),
    maml=MamlOptions(steps=2, test_steps=2),
    anil=MamlOptions(steps=2, test_steps=2),
    proto_maml=ProtoMamlOptions(steps=2, test_steps=2),
    reptile=ReptileOptions(steps=2, test_steps=4, inner_rate=0.05),
    meta_lstm=MetaLstmOptions(steps=2),
    fine_tuning=FineTuningOptions(
        classifier_steps=5, classifier_rate=0.1, network_steps=3, network_rate=0.05, batch_size=4
    ),
)
close = {"rtol": 1e-5, "atol": 1e-5}
same = {"rtol": 0.0, "atol": 0.0}


class _Normed(nn.Module):
    """An encoder with batch norm, so that its modes differ."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(SIZE, SIZE), nn.BatchNorm1d(SIZE), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (B, D)."""
        return self.layers(x)


@dataclass(frozen=True)
class Case:
    """A learner on the bench, by name, and how to make it."""

    name: str
    make: Callable[[], Head | BodyLearner]

    def __str__(self) -> str:
        return self.name

    def learner(self) -> Head | BodyLearner:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return self.make().double().eval()


def _head(name: str, variant: str = "", **options: Any) -> Case:
    mean = torch.randn(SIZE, generator=torch.Generator().manual_seed(5))
    chosen = replace(SMALL, **options)
    return Case(f"{name} {variant}".strip(), lambda: build_head(name, SIZE, base_mean=mean, options=chosen))


def _body(name: str, **options: Any) -> Case:
    chosen = replace(SMALL, **{name: replace(getattr(SMALL, name), **options)})
    label = " ".join([name, *map(str, options.values())])
    return Case(label, lambda: build_body_learner(name, _Normed(), SIZE, WAYS, chosen))


CASES = [
    *map(_head, HEADS),
    _head("prototypical", "cosine", prototypical=PrototypicalOptions(distance="cosine")),
    _head("anp", "on ridge", anp=replace(SMALL.anp, prior_head="ridge")),
    _head("anp", "on cosine", anp=replace(SMALL.anp, prior_head="cosine")),
    _head("anp", "without latent", anp=replace(SMALL.anp, latent=False)),
    _head("anp", "without attention", anp=replace(SMALL.anp, attention=False)),
    *map(_body, BODY_LEARNERS),
    _body("maml", batch_norm="batch"),
    _body("maml", batch_norm="stored"),
    _body("anil", batch_norm="batch"),
    _body("reptile", transductive=True),
    _body("meta_lstm", batch_norm="batch"),
    Case("mann", lambda: build_mann(SIZE, WAYS, SMALL)),
    _body("fine_tuning", batch_norm="batch"),
    _body("fine_tuning", batch_norm="support"),
    _body("proto_maml", batch_norm="batch"),
    _body("maml", batch_norm="per_step"),
    _body("maml", order="first"),
    _body("maml", learned_rates=True, multi_step_loss=True),
    _body("meta_lstm", batch_norm="stored"),
]
each = pytest.mark.parametrize("case", CASES, ids=str)


def counts(learner: Head | BodyLearner) -> list[list[int]]:
    """Ragged support counts that the learner accepts: other N in each episode, where it takes any."""
    fixed = [[1, 4, 2], [3, 3, 1], [5, 1, 1]]
    return fixed if learner.capabilities.fixed_ways else [[1, 4, 2], [3, 3], [5, 1, 1, 2]]


def noise_of(learner: Head | BodyLearner, episode: Episode, samples: int = 3) -> Tensor | None:
    if not isinstance(learner, Head):
        return None
    drawn = learner.draw_noise(episode, samples, torch.Generator().manual_seed(11))
    return drawn


def probabilities(learner: Head | BodyLearner, episode: Episode, noise: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        noise = noise_of(learner, episode) if noise is None else noise
        return learner.predict(learner.adapt(episode.support), episode.query, noise=noise).probabilities()


def holds(claimed: bool, difference: Callable[[int], float]) -> None:
    """A claim holds on every example; what is not claimed fails on one."""
    found = [difference(seed) for seed in range(4 if claimed else 20)]
    if claimed:
        assert max(found) < 1e-5, found
    else:
        assert max(found) > 1e-4, "not claimed, and true on every example"


@each
def test_probabilities_of_the_classes_present_sum_to_one_and_the_absent_have_none(case: Case) -> None:
    learner = case.learner()
    episode = random_episode(0, shots=counts(learner))
    found = probabilities(learner, episode)
    real = episode.query_mask
    torch.testing.assert_close(found.sum(-1)[real], torch.ones_like(found[..., 0])[real])
    absent = ~episode.class_mask[:, None].expand_as(found) & real[..., None]
    assert (found.masked_select(absent) == 0).all()


@each
def test_whether_the_order_of_the_support_matters(case: Case) -> None:
    learner = case.learner()

    def difference(seed: int) -> float:
        episode = random_episode(seed, shots=[[3, 2, 4]])
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        shuffled = replace(
            episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order]
        )
        return float((probabilities(learner, shuffled) - probabilities(learner, episode)).abs().max())

    holds(learner.capabilities.order_invariant, difference)


@each
def test_whether_permuting_the_labels_permutes_the_probabilities(case: Case) -> None:
    learner = case.learner()

    def difference(seed: int) -> float:
        episode = random_episode(seed, shots=[[3, 2, 4]])
        to = torch.randperm(WAYS, generator=torch.Generator().manual_seed(seed))
        renamed = replace(episode, support_y=to[episode.support_y])
        noise = noise_of(learner, episode)  # of each class, so it goes where its class goes
        moved = None if noise is None else noise[:, :, to.argsort()]
        return float(
            (probabilities(learner, renamed, moved)[..., to] - probabilities(learner, episode, noise))
            .abs()
            .max()
        )

    holds(learner.capabilities.label_equivariant, difference)


@each
def test_whether_a_query_influences_another(case: Case) -> None:
    learner = case.learner()

    def difference(seed: int) -> float:
        episode = random_episode(seed, shots=[[2, 2, 2]])
        query_x = episode.query_x.clone()
        query_x[:, 1:] = 5 * torch.randn(query_x[:, 1:].shape, generator=torch.Generator().manual_seed(seed))
        changed = probabilities(learner, replace(episode, query_x=query_x))
        return float((changed - probabilities(learner, episode))[:, 0].abs().max())

    holds(not learner.capabilities.transductive, difference)


@each
def test_whether_another_number_of_ways_is_accepted(case: Case) -> None:
    learner = case.learner()
    for shots in ([[2, 3]], [[1, 2, 2, 1]]):
        episode = random_episode(1, shots=shots)
        if learner.capabilities.fixed_ways:
            with pytest.raises(MetaDxError) as told:
                probabilities(learner, episode)
            assert told.value.code == "other_ways"
        else:
            assert probabilities(learner, episode).shape[-1] == len(shots[0])


@each
def test_whether_the_state_is_small_enough_to_live_in_a_bundle(case: Case) -> None:
    learner = case.learner()
    state = learner.adapt(random_episode(2, shots=[[2, 2, 2]]).support)
    names = set(dict(getattr(learner, "network", nn.Module()).named_parameters()))
    holds_network = (
        any(name.removeprefix("encoder/") in n for name in state for n in names) if names else False
    )
    assert learner.capabilities.serves_from_state != holds_network
    if isinstance(learner, Head):
        assert tuple(state) == learner.state_names


@each
def test_padded_episodes_together_equal_each_one_alone_without_padding(case: Case) -> None:
    learner = case.learner()
    episode = random_episode(2, shots=counts(learner))
    noise = noise_of(learner, episode)
    together = probabilities(learner, episode, noise)
    for e, each_count in enumerate(counts(learner)):
        mine = None if noise is None else noise[e : e + 1, :, : len(each_count)]
        alone = probabilities(learner, only(episode, e), mine)
        torch.testing.assert_close(together[e : e + 1, : alone.shape[1], : len(each_count)], alone, **close)


@each
def test_what_stands_in_padded_rows_is_ignored(case: Case) -> None:
    learner = case.learner()
    episode = random_episode(3, shots=counts(learner))
    filled = torch.where(episode.support_mask[..., None], episode.support_x, 1e3)
    real = episode.query_mask
    torch.testing.assert_close(
        probabilities(learner, replace(episode, support_x=filled))[real],
        probabilities(learner, episode)[real],
    )


@each
def test_adapting_changes_nothing_in_the_learner_and_gives_the_same_state_again(case: Case) -> None:
    learner = case.learner()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    support = random_episode(4, shots=counts(learner)).support
    random_state = torch.random.get_rng_state()
    first, second = learner.adapt(support), learner.adapt(support)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    for name, value in first.items():
        assert value.shape[0] == len(counts(learner))
        torch.testing.assert_close(value, second[name], **same)
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(value, before[name], **same)


@each
def test_the_same_noise_gives_the_same_answer_bit_for_bit_and_other_noise_another(case: Case) -> None:
    learner = case.learner()
    episode = random_episode(5, shots=[[2, 1, 3]])
    noise = noise_of(learner, episode)
    assert (noise is None) == (getattr(learner, "noise_size", 0) == 0)
    torch.testing.assert_close(
        probabilities(learner, episode, noise), probabilities(copy.deepcopy(learner), episode, noise), **same
    )
    if noise is not None:
        with torch.no_grad():
            state = learner.adapt(episode.support)
            one = learner.predict(state, episode.query, noise=noise).logits
            other = learner.predict(state, episode.query, noise=noise.flip(1)).logits
        torch.testing.assert_close(other, one.flip(1), **close)
        assert not torch.equal(other, one)


@each
def test_attention_sums_to_one_over_the_support_of_each_class(case: Case) -> None:
    learner = case.learner()
    episode = random_episode(6, shots=counts(learner))
    with torch.no_grad():
        found = learner.predict(learner.adapt(episode.support), episode.query).attention
    if found is None:
        return
    sums = found @ episode.support.onehot()  # (E, Q, N)
    torch.testing.assert_close(sums, episode.class_mask[:, None].expand_as(sums).to(sums), **close)
    assert (found >= 0).all()


@each
def test_meta_gradients_are_finite_named_and_leave_the_learner_as_it_was(case: Case) -> None:
    learner = case.learner().train()
    parameters = dict(learner.named_parameters())
    if isinstance(learner, FineTuning) or not parameters:
        return
    before = {name: value.detach().clone() for name, value in parameters.items()}
    episode = random_episode(7, shots=counts(learner))
    generator = torch.Generator().manual_seed(0)
    gradients, metrics = learner.meta_gradients(episode, generator=generator)
    assert set(gradients) == set(parameters)
    for name, value in parameters.items():
        assert gradients[name].shape == value.shape
        assert gradients[name].isfinite().all(), name
        torch.testing.assert_close(value.detach(), before[name], **same)
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())
    assert {"loss", "accuracy"} <= set(metrics)
    again, _ = learner.meta_gradients(episode, generator=torch.Generator().manual_seed(0))
    for name, value in gradients.items():
        torch.testing.assert_close(again[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
@each
def test_a_gpu_answers_as_the_cpu_does(case: Case) -> None:
    learner = case.learner()
    episode = random_episode(8, shots=counts(learner))
    noise = noise_of(learner, episode)
    expected = probabilities(learner, episode, noise)
    moved = None if noise is None else noise.cuda()
    found = probabilities(copy.deepcopy(learner).cuda(), episode.to("cuda"), moved).cpu()
    real = episode.query_mask
    torch.testing.assert_close(found[real], expected[real], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("anp", "leo")])
def test_the_loss_of_a_plain_head_is_the_mean_negative_log_probability_of_the_real_queries(name: str) -> None:
    head = _head(name).learner()
    assert isinstance(head, Head)
    episode = random_episode(5, shots=counts(head))
    loss, metrics = head.loss(episode)
    found = probabilities(head, episode)
    told = [
        (float(found[e, q, episode.query_y[e, q]]), int(found[e, q].argmax()) == int(episode.query_y[e, q]))
        for e in range(len(found))
        for q in range(int(episode.query_mask[e].sum()))
    ]
    expected = -torch.tensor([p for p, _ in told]).double().log().mean()
    torch.testing.assert_close(loss.detach(), expected, **close)
    assert float(metrics["accuracy"]) == pytest.approx(sum(right for _, right in told) / len(told))


def test_gradients_stay_finite_when_classes_are_absent_and_reach_the_embeddings() -> None:
    head = _head("prototypical").learner()
    assert isinstance(head, Head)
    episode = random_episode(6, shots=counts(head))
    weight = torch.nn.Parameter(torch.eye(SIZE, dtype=torch.float64))
    embedded = episode.with_x(episode.support_x @ weight, episode.query_x @ weight)
    parameters = {"weight": weight, **dict(head.named_parameters())}
    gradients, _ = head.meta_gradients(embedded, parameters=parameters)
    assert set(gradients) == {"weight", "log_scale"}

    def loss_at(bend: float) -> float:
        moved = weight.detach().clone()
        moved[1, 2] += bend
        return float(
            head.loss(episode.with_x(episode.support_x @ moved, episode.query_x @ moved))[0].detach()
        )

    slope = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5
    assert float(gradients["weight"][1, 2]) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_a_stored_head_answers_as_before(name: str) -> None:
    head = _head(name).learner()
    assert isinstance(head, Head)
    again = head_from_payload(head_payload(name, head, SIZE, SMALL)).double()
    episode = random_episode(7, shots=counts(head))
    torch.testing.assert_close(probabilities(again, episode), probabilities(head, episode), **close)


def test_an_unknown_learner_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(MetaDxError, match="prototypical, anp, leo, simpleshot, logistic") as told:
        build_head("protonet", 4)
    assert told.value.code == "unknown_learner"
    with pytest.raises(MetaDxError, match="maml, anil, proto_maml, reptile, meta_lstm, fine_tuning"):
        build_body_learner("mamml", nn.Identity(), 4, 5)
