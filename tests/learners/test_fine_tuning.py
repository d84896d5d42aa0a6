"""Fine-tuning against a plain loop with Adam written out, and what a baseline of this kind must not do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.body_options import FineTuningOptions
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.fine_tuning import FineTuning
from meta_dx.learners.options import LearnerOptions
from tests.learners.episodes import random_episode

SHORT = FineTuningOptions(
    classifier_steps=4, classifier_rate=0.1, network_steps=3, network_rate=0.02, views=3
)
UNEVEN = [[1, 4, 2], [3, 3], [5, 1, 1, 2]]
tight = {"rtol": 1e-9, "atol": 1e-10}


def encoder(seed: int = 0) -> nn.Module:
    """Images (B, 2, 6, 6) to five numbers, with batch norm whose running statistics are not 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d(5)
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 2.0)
        layers = [nn.Conv2d(2, 5, 3), norm, nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers).double()


def learner(options: FineTuningOptions = SHORT, **more: object) -> FineTuning:
    return FineTuning(Classifier(encoder(), 5, None), options, **more)  # type: ignore[arg-type]


def images(seed: int, shots: list[list[int]], queries: int = 3) -> Episode:
    episode = random_episode(seed, shots=shots, queries=queries, size=72)
    return episode.with_x(
        episode.support_x.unflatten(-1, (2, 6, 6)), episode.query_x.unflatten(-1, (2, 6, 6))
    )


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.3 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def adam(weights: list[Tensor], slopes: Iterator[list[Tensor]], rate: float) -> None:
    """Adam as in its paper, β 0.9 and 0.999, in place."""
    first, second = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    for step, gradients in enumerate(slopes, start=1):
        for w, g, m, v in zip(weights, gradients, first, second, strict=True):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            with torch.no_grad():
                w.sub_(rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))


def plain(learner: FineTuning, x: Tensor, y: Tensor, ways: int, query: Tensor) -> Tensor:
    """The same in plain words: logits of the queries."""
    options, generator = learner.options, torch.Generator().manual_seed(learner.options.seed)
    conv, norm = learner.network.encoder[0], learner.network.encoder[1]
    body = [p.detach().clone().requires_grad_() for p in (conv.weight, conv.bias, norm.weight, norm.bias)]
    shots = torch.stack([(y == n).sum() for n in range(ways)]).double()

    def embed(z: Tensor, by: Tensor | None = None) -> Tensor:
        z = conv2d(z, body[0], body[1])
        mean, var = norm.running_mean, norm.running_var
        if options.batch_norm != "stored":
            seen = z if by is None else conv2d(by, body[0], body[1])
            mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3), unbiased=False)
        z = (z - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
        return relu(z * body[2][:, None, None] + body[3][:, None, None]).mean((2, 3))

    last = [torch.zeros(ways, 5).double().requires_grad_(), torch.zeros(ways).double().requires_grad_()]

    def loss(embedded: Tensor, labels: Tensor) -> Tensor:
        right = (embedded @ last[0].T + last[1]).log_softmax(-1)[torch.arange(len(labels)), labels]
        return -(right / shots[labels]).sum() / (1 / shots[labels]).sum()

    views = [x] + [learner.augment(x, generator) for _ in range(options.views - 1) if learner.augment]
    embedded = torch.cat([embed(view) for view in views]).detach()

    def classifier_slopes() -> Iterator[list[Tensor]]:
        for _ in range(options.classifier_steps):
            yield list(torch.autograd.grad(loss(embedded, y.repeat(len(views))), last))

    def network_slopes() -> Iterator[list[Tensor]]:
        for _ in range(options.network_steps):
            rows = torch.arange(len(x))
            if len(x) > options.batch_size:
                rows = torch.randperm(len(x), generator=generator)[: options.batch_size]
            seen = learner.augment(x[rows], generator) if learner.augment else x[rows]
            yield list(torch.autograd.grad(loss(embed(seen), y[rows]), [*body, *last]))

    adam(last, classifier_slopes(), options.classifier_rate)
    adam([*body, *last], network_slopes(), options.network_rate)
    by = x if options.batch_norm == "support" else None
    return (embed(query, by) @ last[0].T + last[1]).detach()


@pytest.mark.parametrize("norm", ["stored", "support", "batch"])
@pytest.mark.parametrize("augment", [None, noisy])
def test_the_answer_is_that_of_a_plain_loop(norm: str, augment: object) -> None:
    found = learner(replace(SHORT, batch_norm=norm, batch_size=5), augment=augment)
    episode = images(1, [[2, 4, 1]])
    logits = found.predict(found.adapt(episode.support), episode.query).logits[0, 0]
    expected = plain(found, episode.support_x[0], episode.support_y[0], 3, episode.query_x[0])
    torch.testing.assert_close(logits, expected, **tight)


def test_the_same_seed_gives_the_same_answer_bit_for_bit_and_no_global_randomness_is_used() -> None:
    episode, before = images(2, [[2, 2]]), torch.get_rng_state()
    one, again, other = (
        learner(replace(SHORT, seed=seed), augment=noisy).adapt(episode.support)["linear/weight"]
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_adapting_changes_neither_the_network_nor_its_running_statistics() -> None:
    for norm in ("stored", "support", "batch"):
        found = learner(replace(SHORT, batch_norm=norm), augment=noisy).train()
        before = {name: value.clone() for name, value in found.state_dict().items()}
        episode = images(3, [[2, 3]])
        state = found.adapt(episode.support)
        found.predict(state, episode.query)
        for name, value in found.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert all(p.grad is None for p in found.parameters())
        moved = state["encoder/0.weight"][0] - found.network.encoder[0].weight
        assert float(moved.detach().abs().max()) > 0.01


@pytest.mark.parametrize(("norm", "transductive"), [("stored", False), ("support", False), ("batch", True)])
def test_queries_influence_one_another_only_where_batch_norm_is_transductive(
    norm: str, transductive: bool
) -> None:
    found, episode = learner(replace(SHORT, batch_norm=norm)), images(4, [[3, 3]])
    state = found.adapt(episode.support)
    query_x = episode.query_x.clone()
    query_x[:, 1:] += 3
    here = found.predict(state, episode.query).logits[:, :, 0]
    there = found.predict(state, replace(episode, query_x=query_x).query).logits[:, :, 0]
    assert found.capabilities.transductive == transductive
    assert torch.allclose(here, there, rtol=1e-12) != transductive


def test_any_number_of_classes_ragged_and_absent() -> None:
    found, episode = learner(), images(5, UNEVEN)
    logits = found.predict(found.adapt(episode.support), episode.query).logits
    for e, counts in enumerate(UNEVEN):
        s, q = episode.support_mask[e], episode.query_mask[e]
        expected = plain(
            found, episode.support_x[e][s], episode.support_y[e][s], len(counts), episode.query_x[e][q]
        )
        torch.testing.assert_close(logits[e, 0, : len(expected), : len(counts)], expected, **tight)
        assert (logits[e, 0, : len(expected), len(counts) :] == -math.inf).all()
    assert not found.capabilities.fixed_ways


def test_permuting_the_labels_permutes_the_answer_also_with_augmentation() -> None:
    found, episode = learner(augment=noisy), images(6, [[2, 3, 2]])
    to = torch.tensor([2, 0, 1])
    renamed = replace(episode, support_y=to[episode.support_y])
    here = found.predict(found.adapt(episode.support), episode.query).logits
    there = found.predict(found.adapt(renamed.support), episode.query).logits
    torch.testing.assert_close(there[..., to], here, **tight)


def test_the_order_of_the_support_matters_with_augmentation() -> None:
    found, episode = learner(augment=noisy), images(7, [[2, 3, 2]])
    order = torch.arange(6, -1, -1)
    turned = replace(episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order])
    here, there = (found.adapt(e.support)["linear/weight"] for e in (episode, turned))
    assert not found.capabilities.order_invariant
    assert not torch.allclose(here, there)


def test_the_steps_on_the_network_lower_the_support_loss_further() -> None:
    losses = []
    for steps in (0, 30):
        found, episode = learner(replace(SHORT, network_steps=steps)), images(8, [[4, 4, 4]])
        own = replace(
            episode, query_x=episode.support_x, query_y=episode.support_y, query_mask=episode.support_mask
        )
        logits = found.predict(found.adapt(own.support), own.query).logits[0, 0]
        losses.append(float(nn.functional.cross_entropy(logits, own.query_y[0])))
    assert losses[1] < 0.7 * losses[0]


def test_meta_training_is_refused() -> None:
    with pytest.raises(MetaDxError, match="pre-trained") as told:
        learner().meta_gradients(images(9, [[2, 2]]))
    assert told.value.code == "not_meta_trained"


def test_the_classifier_reaches_the_bayes_rate_on_gaussian_tasks() -> None:
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 3, 4, generator=g)
    made = []
    for k in (30, 20):
        y = torch.arange(3).repeat_interleave(k).expand(40, -1)
        x = centres.gather(1, y.unsqueeze(-1).expand(-1, -1, 4))
        made += [x + torch.randn(x.shape, generator=g), y, torch.ones(y.shape, dtype=torch.bool)]
    episode = Episode(*made, torch.ones(40, 3, dtype=torch.bool))
    found = FineTuning(Classifier(nn.Identity(), 4, None), FineTuningOptions(classifier_rate=0.05))
    answer = found.predict(found.adapt(episode.support), episode.query).logits[:, 0].argmax(-1)
    best = torch.cdist(episode.query_x, centres).argmin(-1)  # the centres are known to it
    accuracy, bayes = (float((a == episode.query_y).double().mean()) for a in (answer, best))
    assert bayes - 0.02 < accuracy
    assert bayes < 0.9


@pytest.mark.parametrize("name", ["views", "network_rate", "batch_norm"])
def test_impossible_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(MetaDxError, match=name) as told:
        FineTuningOptions(**{name: {"batch_norm": "sorted"}.get(name, -1)})  # type: ignore[arg-type]
    assert told.value.code == "bad_value"
    assert LearnerOptions().fine_tuning.batch_norm == "stored"
