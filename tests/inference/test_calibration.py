"""The fitted temperature: recovers a planted one, is a minimum, and makes probabilities honest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from meta_dx.episodes.episode import Episode
from meta_dx.errors import MetaDxError
from meta_dx.inference.calibration import Calibration, _loss, _prepared, _smoothed, calibrate, fit_temperature
from meta_dx.learners.base import Head, State, mask_absent_classes


def planted(
    seed: int,
    law: tuple[float, ...],
    n: int = 6000,
    tasks: tuple = ((1, 5), (5, 5), (1, 12), (10, 12)),
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits whose honest probabilities are softmax(z / T) with this law, padded to 12 classes."""
    generator = np.random.default_rng(seed)
    which = generator.integers(len(tasks), size=n)
    shots, ways = np.array(tasks, dtype=float)[which].T
    honest = generator.normal(0, 2, size=(n, 12))
    honest[np.arange(12) >= ways[:, None]] = -np.inf
    share = np.exp(honest - honest.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    labels = (share.cumsum(1) > generator.random((n, 1))).argmax(1)
    temperature = np.exp(law[0]) * shots ** law[1] * ways ** law[2]
    if len(law) > 3:
        temperature = temperature * (1 + 1 / shots) ** law[3]
    return honest * temperature[:, None], labels, shots, ways


slopes = st.floats(-0.5, 0.5)


@given(st.integers(0, 1000), st.floats(-1.0, 1.5), slopes, slopes, slopes)
@settings(max_examples=8, deadline=None)
def test_a_planted_temperature_is_found_again(seed: int, a: float, b: float, c: float, d: float) -> None:
    logits, labels, shots, ways = planted(seed, (a, b, c, d))
    found = fit_temperature(logits, labels, shots, ways)
    law = Calibration(a, b, c, d)
    for task in ((1, 5), (5, 5), (10, 12)):
        assert float(found.temperature(*task)) == pytest.approx(float(law.temperature(*task)), rel=0.2)


def test_probabilities_become_honest_and_the_report_says_so() -> None:
    logits, labels, shots, ways = planted(1, (1.0, -0.2, 0.1))
    found = fit_temperature(logits, labels, shots, ways)
    assert found.ece_before > 0.1
    assert found.ece_after < 0.03
    assert found.log_loss_after < found.log_loss_before
    assert (found.queries, found.shots, found.ways) == (6000, (1.0, 10.0), (5.0, 12.0))


def test_no_other_temperature_near_by_has_a_lower_log_loss() -> None:
    logits, labels, shots, ways = planted(2, (0.4, 0.2, -0.3), n=1500)
    found = fit_temperature(logits, labels, shots, ways)

    def loss(a: float, b: float, c: float, d: float) -> float:
        z = logits / Calibration(a, b, c, d).temperature(shots, ways)[:, None]
        largest = z.max(1)
        log_total = largest + np.log(np.exp(z - largest[:, None]).sum(1))
        cost = log_total - z[np.arange(len(z)), labels]
        return float(
            np.mean([cost[labels == y].mean() for y in range(12)]) + 0.5e-4 * (b * b + c * c + d * d)
        )

    best = np.array([found.a, found.b, found.c, found.d])
    for step in np.random.default_rng(0).normal(0, 0.05, size=(30, 4)):
        assert loss(*best) <= loss(*(best + step)) + 1e-9


def test_many_way_episodes_do_not_decide_alone() -> None:
    """Two sizes of task that want other temperatures than the law can give: the balance says who wins."""
    logits, labels, shots, ways = planted(6, (0.0, 0.0, 0.0), n=4000, tasks=((1, 5), (1, 5), (1, 5), (1, 5)))
    rare = np.arange(4000) < 200
    logits[rare] *= 9.0  # 200 answers of another task of the same size are much too sure
    alone = fit_temperature(logits, labels, shots, ways, balance=np.zeros(4000))
    balanced = fit_temperature(logits, labels, shots, ways, balance=rare)
    assert float(balanced.temperature(1, 5)) > 1.3 * float(alone.temperature(1, 5))


def test_what_does_not_vary_gets_no_slope() -> None:
    logits, labels, shots, ways = planted(3, (0.5, 0.0, 0.0), tasks=((5, 5),))
    found = fit_temperature(logits, labels, shots, ways)
    assert (found.b, found.c, found.d) == (0.0, 0.0, 0.0)
    two = fit_temperature(*planted(3, (0.5, 0.1, 0.0), tasks=((1, 5), (5, 5))))
    assert (two.c, two.d) == (0.0, 0.0)
    assert two.b != 0
    assert found.a == pytest.approx(0.5, abs=0.1)


def test_chance_level_logits_give_a_high_finite_temperature() -> None:
    generator = np.random.default_rng(4)
    found = fit_temperature(
        generator.normal(0, 5, (2000, 5)),
        generator.integers(5, size=2000),
        np.full(2000, 1),
        np.full(2000, 5),
    )
    assert 10 < float(found.temperature(1, 5)) < 1000
    assert found.log_loss_after == pytest.approx(np.log(5), abs=0.01)


def test_the_same_answers_give_the_same_numbers_in_any_order() -> None:
    logits, labels, shots, ways = planted(5, (0.3, 0.1, 0.1), n=800)
    order = np.random.default_rng(0).permutation(800)
    one = fit_temperature(logits, labels, shots, ways)
    other = fit_temperature(logits[order], labels[order], shots[order], ways[order])
    law = [(fit.a, fit.b, fit.c, fit.d) for fit in (one, other)]
    assert law[0] == pytest.approx(law[1], abs=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels", "shots"),
    [
        ([[0.0, -np.inf]], [1], [1]),
        ([[0.0, np.nan]], [0], [1]),
        ([[0.0, 1.0]], [0], [0]),
        ([[0.0, 1.0]], [0, 1], [1]),
    ],
)
def test_answers_that_make_no_sense_are_refused(logits: list, labels: list, shots: list) -> None:
    with pytest.raises(ValueError, match=r"class|NaN|least|want"):
        fit_temperature(logits, labels, shots, [2] * len(shots))


class Centroids(Head):
    """A tiny head: squared distance to class means, four times too sure of itself."""

    state_names = ("centroids", "class_count")

    def adapt_tensors(self, support_x: Tensor, support_onehot: Tensor) -> State:
        count = support_onehot.sum(1)
        sums = torch.einsum("esd,esn->end", support_x, support_onehot)
        return {"centroids": sums / count.clamp_min(1.0).unsqueeze(-1), "class_count": count}

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        distance = (query_x[:, :, None, :] - state["centroids"][:, None, :, :]).square().sum(-1)
        return mask_absent_classes(-4.0 * distance.unsqueeze(1), state["class_count"])


def episodes(seed: int, shots: int, ways: int) -> Episode:
    generator = torch.Generator().manual_seed(seed)
    e, q = 20, ways * 4
    centres = torch.randn(e, ways + 1, 8, generator=generator)  # one class more than takes part
    support_y = torch.arange(ways).repeat_interleave(shots).expand(e, -1).clone()
    query_y = torch.arange(ways).repeat_interleave(4).expand(e, -1).clone()
    noise = lambda n: 1.2 * torch.randn(e, n, 8, generator=generator)  # noqa: E731
    pick = lambda y: centres.gather(1, y[:, :, None].expand(-1, -1, 8))  # noqa: E731
    query_mask = torch.ones(e, q, dtype=torch.bool)
    query_mask[:, -3:] = False  # padding, full of nonsense
    query_x = pick(query_y) + noise(q)
    query_x[:, -3:] = 1e3
    class_mask = torch.ones(e, ways + 1, dtype=torch.bool)
    class_mask[:, -1] = False
    return Episode(
        pick(support_y) + noise(ways * shots),
        support_y,
        torch.ones(e, ways * shots, dtype=torch.bool),
        query_x,
        query_y,
        query_mask,
        class_mask,
    )


def test_a_head_is_calibrated_on_episodes_without_their_padding() -> None:
    drawn = [episodes(i, shots, ways) for i, (shots, ways) in enumerate([(1, 5), (5, 5), (5, 10)])]
    found = calibrate(Centroids(), drawn)
    assert found.queries == 20 * (17 + 17 + 37)
    assert (found.shots, found.ways) == ((1.0, 5.0), (5.0, 10.0))
    assert found.ece_after < 0.4 * found.ece_before
    # Better centroids justify more confidence.
    assert found.temperature(5, 5) < found.temperature(1, 5)


@pytest.mark.parametrize("margin", [1.5, 3.0, 20.0])
def test_answers_that_are_all_right_make_no_head_certain(margin: float) -> None:
    random = np.random.default_rng()
    labels = random.integers(0, 3, 60)
    logits = random.normal(0, 0.1, (60, 3))
    logits[np.arange(60), labels] += margin
    found = fit_temperature(logits, labels, np.full(60, 1.0), np.full(60, 3.0))
    assert not found.at_bound
    scaled = logits / found.temperature(1, 3)
    p = np.exp(scaled - scaled.max(1, keepdims=True))
    p = (p / p.sum(1, keepdims=True)).max(1)
    assert 0.97 < p.mean() < 0.995  # of 61 queries one was made up, right in a third


def test_a_head_whose_logits_say_nothing_is_left_alone_and_an_end_of_the_range_is_told() -> None:
    labels = np.arange(200) % 5
    level = fit_temperature(np.zeros((200, 5)), labels, np.ones(200), np.full(200, 5.0))
    assert float(level.temperature(1, 5)) == 1.0
    assert not level.at_bound
    wrong = np.zeros((200, 5))
    wrong[np.arange(200), (labels + 1) % 5] = 1e4
    assert fit_temperature(wrong, labels, np.ones(200), np.full(200, 5.0)).at_bound


def test_the_gradient_of_the_smoothed_loss_is_its_slope() -> None:
    logits, labels, _, _ = sampled(1, 2.0, n=40)
    design = np.random.default_rng(2).normal(0, 0.3, size=(40, 4))
    task = (_prepared(logits), labels, design, np.random.default_rng(3).dirichlet(np.ones(40)))
    for at in np.random.default_rng(4).normal(0, 0.7, size=(6, 4)):
        value, slope = _smoothed(at, *task)
        assert value > _loss(at, *task)[0] * 40 / 41
        expected = [
            (_smoothed(at + s, *task)[0] - _smoothed(at - s, *task)[0]) / 2e-6 for s in 1e-6 * np.eye(4)
        ]
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8)


def test_without_any_episode_a_sentence_says_what_is_missing() -> None:
    with pytest.raises(MetaDxError, match="No episode of validation diseases can be drawn"):
        calibrate(Centroids(), [])


# Heads that answer with samples


def sampled(seed: int, scale: float, n: int = 4000, m: int = 6) -> tuple[np.ndarray, ...]:
    """Logits (n, m, 8) of which softmax(z / scale), averaged over samples, is honest; labels, shots, ways."""
    generator = np.random.default_rng(seed)
    ways = generator.choice([5, 8], size=n)
    honest = generator.normal(0, 1.5, size=(n, 1, 8)) + generator.normal(0, 1.5, size=(n, m, 8))
    honest[np.broadcast_to((np.arange(8) >= ways[:, None])[:, None], honest.shape)] = -np.inf
    share = np.exp(honest - honest.max(2, keepdims=True))
    share = (share / share.sum(2, keepdims=True)).mean(1)
    labels = (share.cumsum(1) > generator.random((n, 1))).argmax(1)
    return honest * scale, labels, np.ones(n), ways.astype(float)


def test_the_gradient_is_that_of_the_mean_over_samples() -> None:
    logits, labels, _, ways = sampled(1, 2.0, n=40)
    design = np.random.default_rng(2).normal(0, 0.3, size=(40, 4))
    share = np.random.default_rng(3).dirichlet(np.ones(40))

    def loss(parameters: np.ndarray) -> float:
        z = logits / np.exp(design @ parameters)[:, None, None]
        p = np.exp(z - z.max(2, keepdims=True))
        p = (p / p.sum(2, keepdims=True)).mean(1)
        own = p[np.arange(40), labels]
        return float(-np.log(own) @ share + 0.5e-4 * (parameters[1:] ** 2).sum())

    for at in np.random.default_rng(4).normal(0, 0.7, size=(6, 4)):
        value, slope = _loss(at, _prepared(logits), labels, design, share)
        assert value == pytest.approx(loss(at), rel=1e-12)
        steps = 1e-6 * np.eye(4)
        expected = [(loss(at + step) - loss(at - step)) / 2e-6 for step in steps]
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8)
    assert (ways == 5).any()  # absent classes were among them


def test_the_mean_over_samples_becomes_honest_and_not_the_mean_of_the_logits() -> None:
    logits, labels, shots, ways = sampled(5, 3.0)
    found = fit_temperature(logits, labels, shots, ways)
    assert float(found.temperature(1, 8)) == pytest.approx(3.0, rel=0.1)
    assert found.ece_after < 0.03
    assert found.ece_before > 0.08
    of_mean_logits = fit_temperature(logits.mean(1), labels, shots, ways)
    assert float(of_mean_logits.temperature(1, 8)) > 3.5


def test_equal_samples_are_one_sample() -> None:
    logits, labels, shots, ways = planted(7, (0.6, -0.2, 0.1, 0.2), n=1500)
    one = fit_temperature(logits, labels, shots, ways)
    assert one == fit_temperature(logits[:, None], labels, shots, ways)
    three = fit_temperature(np.repeat(logits[:, None], 3, axis=1), labels, shots, ways)
    law = [(fit.a, fit.b, fit.c, fit.d) for fit in (one, three)]
    assert law[0] == pytest.approx(law[1], abs=1e-4)


class Uncertain(Centroids):
    """Centroids that are known up to a noise of standard deviation 1 / sqrt(count)."""

    noise_size = 8
    asked: tuple[tuple[int, ...], ...] = ()

    def predict_tensors(self, state: State, query_x: Tensor, noise: Tensor | None = None) -> Tensor:
        centroids = state["centroids"].unsqueeze(1)  # (E, 1, N, D)
        if noise is not None:
            self.asked = (*self.asked, tuple(noise.shape))
            centroids = centroids + noise / state["class_count"].clamp_min(1).sqrt()[:, None, :, None]
        distance = (query_x[:, None, :, None] - centroids.unsqueeze(2)).square().sum(-1)  # (E, M, Q, N)
        return mask_absent_classes(-4.0 * distance, state["class_count"])


def test_a_head_with_samples_is_calibrated_on_their_mean_from_a_fixed_seed() -> None:
    drawn = [episodes(i, shots, ways) for i, (shots, ways) in enumerate([(1, 5), (5, 5), (5, 10)])]
    head = Uncertain()
    found = calibrate(head, drawn)
    ways_of = [6] * 10 + [11] * 5  # four tasks at once, and one class that does not take part
    assert all(shape[1:] == (16, ways, 8) for shape, ways in zip(head.asked, ways_of, strict=True))
    assert calibrate(Uncertain(), drawn) == found
    assert found.ece_after < 0.5 * found.ece_before
    # 20 tasks: up to 20 evenly spaced queries of each, less the padding at the end.
    assert found.queries == 20 * (17 + 17 + 18)
