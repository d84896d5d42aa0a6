"""The shared bench: what every head promises, shown for each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.episodes.episode import Episode, Support
from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Head
from meta_dx.learners.options import LearnerOptions, PrototypicalOptions
from meta_dx.learners.registry import HEADS, build_head, head_from_payload, head_payload
from tests.learners.episodes import only, random_episode

SIZE = 8
UNEVEN = [[1, 4, 2], [3, 3], [5, 1, 1, 2]]
close = {"rtol": 1e-5, "atol": 1e-5}


def head_named(name: str, **options: Any) -> Head:
    mean = torch.randn(SIZE, generator=torch.Generator().manual_seed(5))
    return build_head(name, SIZE, base_mean=mean, options=LearnerOptions(**options)).double().eval()


HEADS_AND_OPTIONS = [(name, {}) for name in HEADS] + [
    ("prototypical", {"prototypical": PrototypicalOptions(distance="cosine")})
]
each_head = pytest.mark.parametrize(
    "head", [head_named(name, **options) for name, options in HEADS_AND_OPTIONS], ids=str
)


def probabilities(head: Head, episode: Episode) -> torch.Tensor:
    with torch.no_grad():
        return head.predict(head.adapt(episode.support), episode.query).probabilities()


@each_head
def test_probabilities_of_the_classes_present_sum_to_one_and_the_absent_have_none(head: Head) -> None:
    episode = random_episode(0, shots=UNEVEN)
    found = probabilities(head, episode)
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
    assert (found.masked_select(~episode.class_mask[:, None].expand_as(found)) == 0).all()


@each_head
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_support_changes_nothing(head: Head, seed: int) -> None:
    episode = random_episode(seed, shots=[[3, 2, 4]])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    shuffled = replace(episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order])
    assert head.capabilities.order_invariant
    torch.testing.assert_close(probabilities(head, shuffled), probabilities(head, episode), **close)


@each_head
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_permuting_the_labels_permutes_the_probabilities(head: Head, seed: int) -> None:
    episode = random_episode(seed, shots=[[3, 2, 4]])
    to = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    renamed = replace(episode, support_y=to[episode.support_y])
    assert head.capabilities.label_equivariant
    torch.testing.assert_close(probabilities(head, renamed)[..., to], probabilities(head, episode), **close)


@each_head
def test_a_query_never_influences_another(head: Head) -> None:
    episode = random_episode(1, shots=[[2, 2, 2]])
    query_x = episode.query_x.clone()
    query_x[:, 1:] = torch.randn_like(query_x[:, 1:])
    assert not head.capabilities.transductive
    torch.testing.assert_close(
        probabilities(head, replace(episode, query_x=query_x))[:, 0], probabilities(head, episode)[:, 0]
    )


@each_head
def test_padded_episodes_together_equal_each_one_alone_without_padding(head: Head) -> None:
    episode = random_episode(2, shots=UNEVEN)
    together = probabilities(head, episode)
    for e, counts in enumerate(UNEVEN):
        alone = probabilities(head, only(episode, e))
        torch.testing.assert_close(together[e : e + 1, : alone.shape[1], : len(counts)], alone, **close)


@each_head
def test_what_stands_in_padded_rows_is_ignored(head: Head) -> None:
    episode = random_episode(3, shots=UNEVEN)
    filled = torch.where(episode.support_mask[..., None], episode.support_x, 1e3)
    torch.testing.assert_close(
        probabilities(head, replace(episode, support_x=filled)), probabilities(head, episode)
    )


@each_head
def test_adapting_changes_nothing_in_the_head_and_gives_the_same_state_again(head: Head) -> None:
    before = {name: value.clone() for name, value in head.state_dict().items()}
    support: Support = random_episode(4, shots=UNEVEN).support
    first, second = head.adapt(support), head.adapt(support)
    assert tuple(first) == head.state_names
    for name, value in first.items():
        assert value.shape[0] == len(UNEVEN)
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@each_head
def test_the_loss_is_the_mean_negative_log_probability_of_the_real_queries(head: Head) -> None:
    episode = random_episode(5, shots=UNEVEN)
    loss, metrics = head.loss(episode)
    found = probabilities(head, episode)
    told = [
        (float(found[e, q, episode.query_y[e, q]]), int(found[e, q].argmax()) == int(episode.query_y[e, q]))
        for e in range(len(UNEVEN))
        for q in range(int(episode.query_mask[e].sum()))
    ]
    expected = -torch.tensor([p for p, _ in told]).double().log().mean()
    torch.testing.assert_close(loss.detach(), expected, **close)
    assert float(metrics["accuracy"]) == pytest.approx(sum(right for _, right in told) / len(told))


def test_gradients_stay_finite_when_classes_are_absent_and_reach_the_embeddings() -> None:
    head = head_named("prototypical")
    episode = random_episode(6, shots=UNEVEN)
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


@each_head
def test_a_stored_head_answers_as_before(head: Head) -> None:
    name = type(head).__name__.lower()
    options = LearnerOptions(prototypical=PrototypicalOptions(getattr(head, "distance", "euclidean")))
    again = head_from_payload(head_payload(name, head, SIZE, options)).double()
    episode = random_episode(7, shots=UNEVEN)
    torch.testing.assert_close(probabilities(again, episode), probabilities(head, episode), **close)


def test_an_unknown_learner_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(MetaDxError, match="prototypical, simpleshot, logistic") as told:
        build_head("protonet", 4)
    assert told.value.code == "unknown_learner"
