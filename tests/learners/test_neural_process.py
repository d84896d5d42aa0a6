"""The attentive neural process against loops, torch.distributions and the behaviour that its uncertainty promises."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.learners.base import query_loss
from meta_dx.learners.class_attention import ClassAttention
from meta_dx.learners.neural_process import NeuralProcess, gaussian_kl
from meta_dx.learners.options import LearnerOptions, NeuralProcessOptions, PrototypicalOptions
from meta_dx.learners.registry import build_head, head_from_payload, head_payload
from meta_dx.metrics.uncertainty import uncertainty
from tests.learners.episodes import only, random_episode

SIZE = 8
UNEVEN = [[1, 4, 2], [3, 3], [5, 1, 2]]
SMALL: dict[str, Any] = {
    "hidden": 12,
    "heads": 3,
    "latent_size": 5,
    "decoder": 10,
    "prior_head": "simpleshot",
}
FORMS = [
    {},
    {"attention": False},
    {"latent": False},
    {"latent": False, "attention": False},
    {"aggregation": "mean"},
    {"prior_head": "logistic"},
    {"prior_head": "prototypical"},
]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form) or "anp")
exact = {"rtol": 1e-9, "atol": 1e-9}
#: The logistic head's solver stops where the gradient is 1e-5 long.
close = {"rtol": 1e-4, "atol": 1e-5}


def learner(seed: int = 0, **options: Any) -> NeuralProcess:
    """Double precision, with a decoder whose residual is large enough to be seen."""
    torch.manual_seed(seed)
    head = (
        NeuralProcess(SIZE, torch.randn(SIZE) / 4, NeuralProcessOptions(**{**SMALL, **options}))
        .double()
        .eval()
    )
    with torch.no_grad():
        head.decoder.last.weight.mul_(10)
    return head


def noise_for(head: NeuralProcess, episode: Episode, samples: int = 3, seed: int = 0) -> Tensor | None:
    return head.draw_noise(episode, samples, torch.Generator().manual_seed(seed))


def logits(head: NeuralProcess, episode: Episode, noise: Tensor | None) -> Tensor:
    with torch.no_grad():
        return head.predict(head.adapt(episode.support), episode.query, noise=noise).logits


# Attention


def test_a_query_between_two_rows_weighs_them_by_the_cosine_worked_by_hand() -> None:
    attention = ClassAttention(2, 1).double()
    query = torch.tensor([[[3.0, 0.0]]]).double()
    key = torch.tensor([[[2.0, 0.0], [0.0, 7.0], [-1.0, 0.0]]]).double()  # cosines 1, 0, -1
    onehot = torch.tensor([[[1.0, 0], [1, 0], [0, 1]]]).double()
    value = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 6.0]]]).double()
    first = math.exp(5) / (math.exp(5) + 1)  # the temperature starts at 5
    found = attention(query, key, value, onehot)
    torch.testing.assert_close(found, torch.tensor([[[[first, 1 - first], [5.0, 6.0]]]]).double())
    torch.testing.assert_close(
        attention.evidence(query, key, onehot), torch.tensor([[[first, 1 - first, 1.0]]]).double()
    )


def test_attention_is_a_softmax_of_cosines_over_the_rows_of_each_class_and_head() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, n, 12, generator=generator).double() for n in (4, 7, 7))
    labels = torch.tensor([0, 2, 2, 0, 0, 2, 2])  # class 1 is absent
    onehot = nn.functional.one_hot(labels, 3).double().expand(2, -1, -1).clone()
    onehot[1, 5:] = 0  # padding
    attention = ClassAttention(12, 3).double()
    attention.sharpness.data = torch.tensor([-2.0, 0.0, 3.0]).double()
    found, within = attention(query, key, value, onehot), attention.within(key, key, value, onehot)
    evidence = attention.evidence(query, key, onehot)
    expected, own, shares = torch.zeros_like(found), torch.zeros_like(within), torch.zeros_like(evidence)

    def weights(one: Tensor, rows: Tensor, h: int) -> Tensor:
        cosine = nn.functional.cosine_similarity(one[4 * h : 4 * h + 4], rows[:, 4 * h : 4 * h + 4], dim=-1)
        return (20 / (1 + math.exp(-[-2, 0, 3][h])) * cosine).softmax(0)

    for e in range(2):
        for h in range(3):
            part = slice(4 * h, 4 * h + 4)
            for n in (0, 2):
                rows = onehot[e, :, n] > 0
                for q in range(4):
                    share = weights(query[e, q], key[e, rows], h)
                    expected[e, q, n, part] = share @ value[e, rows][:, part]
                    shares[e, q, rows] += share / 3
                for s in rows.nonzero().flatten():
                    own[e, s, part] = weights(key[e, s], key[e, rows], h) @ value[e, rows][:, part]
    torch.testing.assert_close(found, expected, **exact)
    torch.testing.assert_close(within, own, **exact)
    torch.testing.assert_close(evidence, shares, **exact)


def test_the_sharpest_attention_stays_finite_in_single_precision() -> None:
    attention = ClassAttention(4, 1)
    attention.sharpness.data.fill_(1e3)
    ones = torch.ones(1, 500, 4)
    for sign in (1, -1):
        found = attention(ones, sign * ones, ones, torch.ones(1, 500, 1))
        torch.testing.assert_close(found, torch.ones(1, 500, 1, 4))


# The latent path and the bound


def test_the_divergence_is_that_of_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(2)
    mean, prior_mean = torch.randn(2, 3, 4, 5, generator=generator).double()
    sd, prior_sd = torch.rand(2, 3, 4, 5, generator=generator).double() + 0.1
    expected = kl_divergence(Normal(mean, sd), Normal(prior_mean, prior_sd)).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, sd, prior_mean, prior_sd), expected, **exact)


@pytest.mark.parametrize("free_nats", [0.0, 3.0])
def test_the_loss_is_the_bound_of_the_paper_over_the_number_of_targets(free_nats: float) -> None:
    head = learner(kl_weight=0.7, free_nats=free_nats, predictive_weight=0.0)
    episode = random_episode(0, shots=UNEVEN)
    log_p, divergence, floored, targets, classes = torch.zeros(()).double(), 0.0, 0.0, 0, 0
    for e, counts in enumerate(UNEVEN):
        alone = only(episode, e)
        prior = head.adapt(alone.support)
        both = replace(
            alone,
            support_x=torch.cat([alone.support_x, alone.query_x], 1),
            support_y=torch.cat([alone.support_y, alone.query_y], 1),
            support_mask=torch.cat([alone.support_mask, alone.query_mask], 1),
        )
        posterior = head.adapt(both.support)
        kl = kl_divergence(
            Normal(posterior["latent_mean"], posterior["latent_sd"]),
            Normal(prior["latent_mean"], prior["latent_sd"]),
        ).sum(-1)
        divergence += float(kl.detach().sum())
        floored += float(kl.detach().clamp_min(free_nats).sum())
        known = {**prior, "latent_mean": posterior["latent_mean"]}
        answer = head.predict_tensors(known, alone.query_x)[0, 0]
        log_p = log_p + Categorical(logits=answer).log_prob(alone.query_y[0]).sum()
        targets, classes = targets + alone.query_y.numel(), classes + len(counts)
    loss, metrics = head.loss(episode)
    assert float(loss.detach()) == pytest.approx((-float(log_p.detach()) + 0.7 * floored) / targets, rel=1e-8)
    assert float(metrics["kl"]) == pytest.approx(divergence / classes, rel=1e-8)
    assert float(metrics["cross_entropy"]) == pytest.approx(-float(log_p.detach()) / targets, rel=1e-8)
    assert set(metrics) == {"loss", "accuracy", "kl", "cross_entropy"}


def test_the_likelihood_is_averaged_over_samples_of_the_posterior() -> None:
    head = learner(kl_weight=0.0, free_nats=0.0, predictive_weight=0.0, rotate=False, pull=0.0, samples=6)
    episode = random_episode(3, shots=[[2, 3, 1]])
    found, _ = head.loss(episode, generator=torch.Generator().manual_seed(4))
    noise = torch.randn(1, 6, 3, 5, generator=torch.Generator().manual_seed(4)).double()
    mean, sd = head._posterior(episode)
    state = head.adapt(episode.support)
    each = []
    for m in range(6):
        known = {**state, "latent_mean": mean + sd * noise[:, m]}
        answer = head.predict_tensors(known, episode.query_x)[0, 0]
        each.append(nn.functional.cross_entropy(answer, episode.query_y[0]))
    torch.testing.assert_close(found, torch.stack(each).mean(), **exact)


def test_the_prediction_term_is_the_error_of_samples_of_the_prior() -> None:
    episode = random_episode(3, shots=[[2, 3, 1]])
    bound, both = (
        learner(predictive_weight=w, rotate=False, pull=0.0).loss(
            episode, generator=torch.Generator().manual_seed(1)
        )[0]
        for w in (0.0, 0.5)
    )
    head = learner()
    generator = torch.Generator().manual_seed(1)
    head.draw_noise(episode, 4, generator)  # the posterior's
    noise = head.draw_noise(episode, 4, generator)
    expected, _ = query_loss(logits(head, episode, noise), episode)
    torch.testing.assert_close(both - bound, 0.5 * expected, **exact)


def test_accuracy_does_not_see_the_labels_of_the_queries() -> None:
    head = learner()
    episode = random_episode(5, shots=[[2, 2, 2]])
    for y in (episode.query_y, (episode.query_y + 1) % 3):
        asked = replace(episode, query_y=y)
        answer = logits(head, asked, None).softmax(-1).mean(1).argmax(-1)
        _, metrics = head.loss(asked)
        assert float(metrics["accuracy"]) == pytest.approx(float((answer == y).double().mean()))


def test_gradients_of_the_first_step_reach_both_ends_of_the_latent_path_and_are_finite() -> None:
    torch.manual_seed(0)
    head = NeuralProcess(SIZE, None, NeuralProcessOptions(**SMALL)).double()
    gradients, _ = head.meta_gradients(
        random_episode(6, shots=UNEVEN), generator=torch.Generator().manual_seed(0)
    )
    assert all(g.isfinite().all() for g in gradients.values())
    for name in ("latent.gaussian.weight", "latent.project.weight", "decoder.gain", "decoder.project.weight"):
        assert float(gradients[name].abs().max()) > 1e-4, name


def test_the_standard_deviation_lies_between_a_tenth_and_one() -> None:
    head = learner(aggregation="mean")
    for value, expected in ((-1e3, 0.1), (1e3, 1.0)):
        head.latent.gaussian.bias.data[5:] = value  # type: ignore[union-attr]
        sd = head.adapt(random_episode(7, shots=UNEVEN).support)["latent_sd"]
        torch.testing.assert_close(sd, torch.full_like(sd, expected))


def test_every_case_makes_the_latent_surer_as_a_product_of_gaussians_does() -> None:
    head = learner(attention=False)  # without attention a case's own Gaussian does not depend on the others
    episode = random_episode(7, shots=[[1, 4, 2], [3, 5, 1]])
    path = head.latent
    assert path is not None
    state = head.adapt(episode.support)
    rows = path.encoder(head.features(episode.support_x), episode.support.onehot())
    for e, n in ((0, 0), (0, 1), (1, 1), (1, 2)):
        mean, variance = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
        for s in torch.nonzero((episode.support_y[e] == n) & episode.support_mask[e]).flatten():
            correction, raw = path.gaussian(path.hidden(rows[e, s]).relu()).chunk(2)
            own = path.project(head.features(episode.support_x)[e, s]) + correction
            spread = (0.1 + 0.9 / (1 + (-raw).exp())) ** 2
            # The product of two Gaussians, one case after another.
            mean = (mean * spread + own * variance) / (variance + spread)
            variance = variance * spread / (variance + spread)
        torch.testing.assert_close(state["latent_mean"][e, n], mean, **exact)
        torch.testing.assert_close(state["latent_sd"][e, n], variance.sqrt(), **exact)


# What every head promises, with noise


@each_form
def test_permuting_the_labels_and_the_noise_permutes_the_logits(form: dict[str, Any]) -> None:
    head, episode = learner(**form), random_episode(8, shots=[[3, 1, 4, 2]])
    noise, to = noise_for(head, episode), torch.tensor([2, 0, 3, 1])
    moved = None if noise is None else torch.empty_like(noise).index_copy_(2, to, noise)
    renamed = logits(head, replace(episode, support_y=to[episode.support_y]), moved)
    torch.testing.assert_close(renamed[..., to], logits(head, episode, noise), **close)


@each_form
def test_the_order_of_the_support_and_what_stands_in_padded_rows_change_nothing(form: dict[str, Any]) -> None:
    head, episode = learner(**form), random_episode(9, shots=UNEVEN)
    noise = noise_for(head, episode)
    order = torch.randperm(episode.support_y.shape[1], generator=torch.Generator().manual_seed(0))
    filled = torch.where(episode.support_mask[..., None], episode.support_x, 1e3)
    shuffled = replace(
        episode,
        support_x=filled[:, order],
        support_y=episode.support_y[:, order],
        support_mask=episode.support_mask[:, order],
    )
    torch.testing.assert_close(logits(head, shuffled, noise), logits(head, episode, noise), **close)


@each_form
def test_padded_episodes_equal_each_one_alone_and_absent_classes_have_no_probability(
    form: dict[str, Any],
) -> None:
    head, episode = learner(**form), random_episode(10, shots=UNEVEN)
    noise = noise_for(head, episode)
    together = logits(head, episode, noise)
    assert (together[1, :, :, 2] == -torch.inf).all()
    for e, counts in enumerate(UNEVEN):
        own = None if noise is None else noise[e : e + 1, :, : len(counts)]
        alone = logits(head, only(episode, e), own)
        torch.testing.assert_close(together[e : e + 1, :, : alone.shape[2], : len(counts)], alone, **close)


@each_form
def test_a_query_never_influences_another(form: dict[str, Any]) -> None:
    head, episode = learner(**form), random_episode(11, shots=[[2, 2, 2]])
    noise, other = noise_for(head, episode), episode.query_x.clone()
    other[:, 1:] = torch.randn_like(other[:, 1:])
    found = logits(head, replace(episode, query_x=other), noise)
    torch.testing.assert_close(found[:, :, 0], logits(head, episode, noise)[:, :, 0], **exact)


def test_the_same_noise_gives_the_same_answer_bit_for_bit_and_none_is_the_mean() -> None:
    head, episode = learner().float(), random_episode(12, shots=UNEVEN, dtype=torch.float32)
    noise = noise_for(head, episode, samples=5)
    first = logits(head, episode, noise)
    assert torch.equal(first, logits(head, episode, noise.clone()))  # type: ignore[union-attr]
    assert not torch.equal(first[:, 0], first[:, 1])
    zero = torch.zeros_like(noise[:, :1])  # type: ignore[index]
    assert torch.equal(logits(head, episode, None), logits(head, episode, zero))


def test_a_class_is_encoded_from_its_own_rows_alone_and_knows_how_many_they_are() -> None:
    head, episode = learner(), random_episode(13, shots=[[2, 3, 1]])
    state = head.adapt(episode.support)
    other = torch.where((episode.support_y == 0)[..., None], episode.support_x, episode.support_x + 1)
    moved = head.adapt(replace(episode, support_x=other).support)
    for name in ("latent_mean", "latent_sd"):
        torch.testing.assert_close(moved[name][:, 0], state[name][:, 0], **exact)
        assert (moved[name][:, 1:] - state[name][:, 1:]).abs().max() > 1e-3
    twice = replace(
        episode, **{n: torch.cat([v, v], 1) for n, v in vars(episode).items() if n.startswith("support")}
    )
    assert (head.adapt(twice.support)["latent_sd"] - state["latent_sd"]).abs().min() > 0


@each_form
def test_the_state_is_what_it_is_declared_to_be_and_survives_a_reload(form: dict[str, Any]) -> None:
    head, episode = learner(**form), random_episode(14, shots=UNEVEN)
    state = head.adapt(episode.support)
    assert tuple(state) == head.state_names
    assert state["count"].tolist() == [[1, 4, 2], [3, 3, 0], [5, 1, 2]]
    again = NeuralProcess(SIZE, None, head.options).double().eval()
    again.load_state_dict(head.state_dict())
    noise = noise_for(head, episode)
    torch.testing.assert_close(logits(again, episode, noise), logits(head, episode, noise), **exact)


def test_evidence_sums_to_one_over_each_class_present_and_mean_aggregation_has_none() -> None:
    episode = random_episode(15, shots=UNEVEN)
    head = learner()
    found = head.predict(head.adapt(episode.support), episode.query).attention
    assert found is not None
    sums = found @ episode.support.onehot()  # (E, Q, N)
    torch.testing.assert_close(sums, episode.class_mask[:, None].expand_as(sums).double())
    assert (found.masked_select(~episode.support_mask[:, None].expand_as(found)) == 0).all()
    plain = learner(attention=False)
    assert plain.predict(plain.adapt(episode.support), episode.query).attention is None


def test_it_starts_as_good_as_its_plain_head() -> None:
    torch.manual_seed(0)
    head = NeuralProcess(SIZE, None, NeuralProcessOptions()).double()
    episode = random_episode(16, shots=[[1, 2, 3, 4]] * 20)
    plain = head.plain.predict(head.plain.adapt(episode.support), episode.query).logits
    expected, _ = query_loss(plain, episode)
    found, _ = query_loss(logits(head, episode, noise_for(head, episode, 32)), episode)
    assert float(found) < 1.05 * float(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prior_head": "svm"},
        {"aggregation": "max"},
        {"hidden": 100},
        {"pull": 1.0},
        {"kl_weight": -1},
        {"samples": 0},
    ],
    ids=str,
)
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MetaDxError, match=next(iter(wrong))) as told:
        NeuralProcessOptions(**wrong)
    assert told.value.code == "bad_value"


# Behaviour after a short training on Gaussian tasks: class means N(0, 1), examples around them N(0, 1).


def gaussian_tasks(seed: int, tasks: int, ways: int, shots: int, queries: int, outside: int = 0) -> Episode:
    """Tasks of ``ways`` classes; the queries of the last ``outside`` come from classes without support."""
    generator = torch.Generator().manual_seed(seed)
    size = 16
    centres = torch.randn(tasks, ways + outside, size, generator=generator)
    support_y = torch.arange(ways).repeat_interleave(shots).expand(tasks, -1)
    query_y = torch.arange(ways + outside).repeat_interleave(queries).expand(tasks, -1)

    def rows(y: Tensor) -> Tensor:
        own = centres.gather(1, y[..., None].expand(-1, -1, size))
        return own + torch.randn(*y.shape, size, generator=generator)

    return Episode(
        rows(support_y),
        support_y,
        torch.ones_like(support_y, dtype=torch.bool),
        rows(query_y),
        query_y,
        torch.ones_like(query_y, dtype=torch.bool),
        torch.ones(tasks, ways, dtype=torch.bool),
    )


SHOTS = (1, 2, 5, 10, 20)


@pytest.fixture(scope="module")
def trained() -> tuple[NeuralProcess, np.ndarray]:
    """The learner after 300 steps, and the divergences (20, 5) of the last hundred by number of shots."""
    torch.manual_seed(0)
    sizes = {"hidden": 32, "heads": 4, "latent_size": 16, "decoder": 32}
    # Nothing is pulled together: these tasks are as hard as those of the test.
    head = NeuralProcess(16, None, NeuralProcessOptions(**{**SMALL, **sizes, "pull": 0.0}))
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    generator, divergences = torch.Generator().manual_seed(0), []
    for step in range(300):
        episode = gaussian_tasks(step, 8, 5, SHOTS[step % len(SHOTS)], 5)
        gradients, metrics = head.meta_gradients(episode, generator=generator)
        for name, parameter in head.named_parameters():
            parameter.grad = gradients[name]
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        divergences.append(float(metrics["kl"]))
    return head.eval(), np.array(divergences[-100:]).reshape(-1, len(SHOTS))


def epistemic(head: NeuralProcess, episode: Episode, samples: int = 32) -> np.ndarray:
    p = logits(head, episode, noise_for(head, episode, samples)).softmax(-1).transpose(1, 2)  # (E, Q, M, N)
    return uncertainty(p.numpy()).epistemic


def test_the_divergence_stays_above_zero_and_falls_with_shots(trained: Any) -> None:
    by_shots = trained[1].mean(0)
    assert by_shots[0] > 0.5
    assert (trained[1] > 0).all()
    assert (np.diff(by_shots[1:]) < 0).all()  # one case leaves much to the standard normal z, for both
    assert by_shots[-1] < by_shots[0]


def test_epistemic_uncertainty_falls_with_shots(trained: Any) -> None:
    one, five, twenty = (
        epistemic(trained[0], gaussian_tasks(1000, 40, 5, shots, 5)).mean() for shots in (1, 5, 20)
    )
    assert one > 1.5 * five
    assert five > 1.2 * twenty > 0


@pytest.mark.parametrize("shots", [1, 5, 20])
def test_epistemic_uncertainty_rises_for_classes_outside_the_support(trained: Any, shots: int) -> None:
    episode = gaussian_tasks(2000, 40, 5, shots, 5, outside=1)
    found, outside = epistemic(trained[0], episode), (episode.query_y == 5).numpy()
    assert found[outside].mean() > 1.3 * found[~outside].mean()


@pytest.mark.parametrize("shots", [1, 5, 20])
def test_the_log_loss_is_not_worse_than_the_plain_heads(trained: Any, shots: int) -> None:
    head, episode = trained[0], gaussian_tasks(3000, 60, 5, shots, 5)
    found, _ = query_loss(logits(head, episode, noise_for(head, episode, 32)), episode)
    plain, _ = query_loss(
        head.plain.predict(head.plain.adapt(episode.support), episode.query).logits, episode
    )
    # Where the plain head happens to be calibrated (5 and 20 shots) there is nothing to win.
    assert float(found) < float(plain) + (0.01 if shots > 1 else -0.1)


@pytest.mark.parametrize("shots", [1, 5, 20])
def test_accuracy_comes_within_three_points_of_the_rule_of_bayes(trained: Any, shots: int) -> None:
    head, episode = trained[0], gaussian_tasks(4000, 100, 5, shots, 5)
    # Prior N(0, 1) and K examples: the mean is N(K x̄ / (K + 1), 1 / (K + 1)); all variances are equal.
    means = episode.support.onehot().mT @ episode.support_x / (shots + 1)
    best = torch.cdist(episode.query_x, means).argmin(-1)
    found = logits(head, episode, noise_for(head, episode, 32)).softmax(-1).mean(1).argmax(-1)
    truth = episode.query_y
    assert float((found == truth).float().mean()) > float((best == truth).float().mean()) - 0.03


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("learned_scale", [True, False])
def test_prototypes_below_the_neural_process_have_the_options_of_prototypical_networks(
    distance: Any, learned_scale: bool
) -> None:
    chosen = PrototypicalOptions(distance=distance, learned_scale=learned_scale)
    anp = NeuralProcessOptions(**{**SMALL, "prior_head": "prototypical"})
    options = LearnerOptions(name="anp", prototypical=chosen, anp=anp)
    head, alone = (build_head(name, SIZE, options=options).eval() for name in ("anp", "prototypical"))
    assert isinstance(head, NeuralProcess)
    episode = random_episode(3, shots=[[2, 1, 3]], size=SIZE, dtype=torch.float32)
    logits = [one.predict(one.adapt(episode.support), episode.query).logits for one in (head.plain, alone)]
    torch.testing.assert_close(*logits)
    again = head_from_payload(head_payload("anp", head, SIZE, options))
    torch.testing.assert_close(
        again.predict(again.adapt(episode.support), episode.query).logits,
        head.predict(head.adapt(episode.support), episode.query).logits,
    )
    # Another distance is another stage; the usual options were part of none.
    assert ("prototypical" in options.own("anp")) == (chosen != PrototypicalOptions())
    assert "prototypical" not in replace(options, anp=NeuralProcessOptions(**SMALL)).own("anp")
