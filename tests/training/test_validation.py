"""Validation episodes: always the same, patients permitting, scored as the formula says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.interval_coverage import cohort as simulated
from meta_dx.cohort.examples import Examples
from meta_dx.errors import MetaDxError
from meta_dx.learners.neural_process import NeuralProcess
from meta_dx.learners.options import NeuralProcessOptions
from meta_dx.learners.prototypical import Prototypical
from meta_dx.training import validation
from meta_dx.training.feasibility import feasible
from meta_dx.training.options import TrainingOptions
from meta_dx.training.validation import Checked, ValidationEpisodes
from tests.training.tiny import FAST, cohort


def test_episodes_are_the_same_every_time_and_depend_on_the_seed() -> None:
    _, examples = cohort(5, 8)
    first, again, other = (ValidationEpisodes(examples, FAST, seed).plans for seed in (0, 0, 1))
    assert [p.classes for p in first[1]] == [p.classes for p in again[1]]
    assert [p.classes for p in first[1]] != [p.classes for p in other[1]]


def test_shots_and_ways_shrink_to_what_the_patients_permit() -> None:
    _, examples = cohort(3, 4)
    assert feasible(examples, 5, 5) == (3, 2)
    assert feasible(examples, 2, 1) == (2, 1)
    plans = ValidationEpisodes(examples, replace(FAST, validation_shots=(1, 2, 5)), 0).plans
    assert list(plans) == [1, 2]  # 5 becomes 2, which is there already


def test_shots_are_given_up_before_diseases() -> None:
    _, few = cohort(2, 7)
    _, many = cohort(10, 6, seed=1)
    examples = Examples(
        np.concatenate([few.study, many.study]),
        np.concatenate([few.patient, many.patient]),
        np.concatenate([few.code, many.code]),
        (*few.images, *many.images),
    )
    assert feasible(examples, 5, 5) == (5, 4)  # at 5 shots there are two diseases
    assert feasible(examples, 2, 5) == (2, 5)
    assert feasible(examples, 20, 5) == (12, 4)  # all there are, and the most that all of them bear
    plans = ValidationEpisodes(examples, replace(FAST, validation_ways=5, validation_shots=(1, 5)), 0).plans
    assert list(plans) == [1, 4]
    assert len({code for plan in plans[4] for code in plan.classes}) > 5


def test_too_few_patients_are_refused_with_their_numbers() -> None:
    _, examples = cohort(3, 2)
    with pytest.raises(MetaDxError, match=r"D00 \(2\)"):
        feasible(examples, 5, 1)


def test_only_diseases_that_can_meet_are_counted() -> None:
    _, examples = cohort(5, 8)
    ancestors = {code: ["D00"] for code in examples.diseases[1:]}
    assert feasible(examples, 5, 1, ancestors) == (4, 1)
    options = replace(FAST, validation_ways=5, validation_episodes=40)
    plans = ValidationEpisodes(examples, options, 0, ancestors).plans
    assert {len(plan.classes) for each in plans.values() for plan in each} == {4}
    every = {code: examples.diseases[:n] for n, code in enumerate(examples.diseases)}  # one above the other
    with pytest.raises(MetaDxError, match="none an ancestor of the other"):
        feasible(examples, 5, 1, every)


def test_accuracy_is_the_mean_of_class_recalls_of_the_nearest_prototype() -> None:
    _, examples = cohort(4, 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(examples), 3)).astype(np.float32)
    episodes = ValidationEpisodes(examples, replace(FAST, validation_shots=(2,)), 0)
    expected = []
    for plan in episodes.plans[2]:
        centres = np.stack([vectors[rows].mean(0) for rows in plan.support])
        each = []
        for n, rows in enumerate(plan.query):
            nearest = ((vectors[rows][:, None] - centres) ** 2).sum(-1).argmin(1)
            each.append(float((nearest == n).mean()))
        expected.append(np.mean(each))
    score = episodes.scores(Prototypical(3).eval(), vectors)[0]
    assert score.accuracy == pytest.approx(np.mean(expected))
    assert score.mc95 == pytest.approx(1.96 * np.std(expected, ddof=1) / np.sqrt(len(expected)))
    assert score.low < score.accuracy < score.high
    assert (score.shots, score.ways, score.episodes) == (2, 3, 10)


def test_one_episode_tells_nothing_of_how_much_the_draw_decides() -> None:
    _, examples = cohort(4, 7)
    vectors = np.random.default_rng(0).normal(size=(len(examples), 3)).astype(np.float32)
    episodes = ValidationEpisodes(examples, replace(FAST, validation_shots=(2,), validation_episodes=1), 0)
    assert np.isnan(episodes.scores(Prototypical(3).eval(), vectors)[0].mc95)


def test_the_log_loss_weighs_classes_of_an_episode_alike_among_few_and_among_many() -> None:
    _, examples = cohort(6, 7)
    rng = np.random.default_rng(1)
    vectors = rng.normal(scale=0.5, size=(len(examples), 3)).astype(np.float32)
    episodes = ValidationEpisodes(examples, replace(FAST, validation_shots=(1, 2)), 0)
    head = Prototypical(3, learned_scale=False).eval()
    expected = []
    assert {len(plan.classes) for plans in episodes._crowded for plan in plans} == {3, 4, 5, 6}
    for plans in (*episodes.plans.values(), *episodes._crowded):
        of_shots = []
        for plan in plans:
            centres = np.stack([vectors[rows].mean(0) for rows in plan.support])
            for n, rows in enumerate(plan.query):
                scores = -((vectors[rows][:, None] - centres) ** 2).sum(-1)
                p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
                of_shots.append(-np.log(p[:, n]).mean() / np.log(len(centres)))
        expected.append(np.average(of_shots, weights=[1 / len(p.classes) for p in plans for _ in p.classes]))
    found = episodes.check(head, vectors)
    assert found.log_loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.accuracy == pytest.approx(episodes.accuracy(head, vectors))


def test_the_best_scale_undoes_what_logits_were_multiplied_by() -> None:
    _, examples = cohort(6, 7)
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(6, 3))
    vectors = centres[np.searchsorted(examples.diseases, examples.code)] + rng.normal(size=(len(examples), 3))
    episodes = ValidationEpisodes(examples, replace(FAST, validation_shots=(2,)), 0)

    def head(scale: float) -> Prototypical:
        made = Prototypical(3, learned_scale=True).eval()
        torch.nn.init.constant_(made.log_scale, np.log(scale))  # type: ignore[arg-type]
        return made

    found = episodes.best_scale(head(0.5), vectors.astype(np.float32))
    assert episodes.best_scale(head(1.0), vectors.astype(np.float32)) == pytest.approx(found / 2)
    scores = [
        episodes.check(head(0.5 * s), vectors.astype(np.float32)).log_loss
        for s in (found / 2, found, found * 2)
    ]
    assert scores[1] == min(scores)


def test_a_learner_with_noise_is_asked_in_parts_that_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _, examples = cohort(9, 7)
    vectors = np.random.default_rng(3).normal(size=(len(examples), 8)).astype(np.float32)
    episodes = ValidationEpisodes(examples, replace(FAST, validation_shots=(2,)), 0)
    options = NeuralProcessOptions(hidden=16, heads=2, latent_size=4, decoder=8)
    head, cells = NeuralProcess(8, None, options).eval(), []
    predict = head.predict_tensors

    def counted(state: Any, query_x: torch.Tensor, noise: Any = None) -> torch.Tensor:
        found = predict(state, query_x, noise)
        cells.append(found.numel())
        return found

    monkeypatch.setattr(head, "predict_tensors", counted)
    whole = episodes.check(head, vectors)
    most = max(cells)
    cells.clear()
    monkeypatch.setattr(validation, "_CELLS", most // 3)
    found = episodes.check(head, vectors)
    assert max(cells) <= most // 3
    assert found.accuracy == pytest.approx(whole.accuracy)
    assert found.log_loss == pytest.approx(whole.log_loss, rel=1e-6)


def test_weights_are_compared_by_log_loss_where_it_was_measured() -> None:
    assert Checked(0.9).score > Checked(0.8).score
    assert Checked(0.9, 1.2).score < Checked(0.8, 1.1).score


def test_perfect_embeddings_score_one() -> None:
    _, examples = cohort(4, 7)
    vectors = np.eye(4, dtype=np.float32)[np.searchsorted(examples.diseases, examples.code)]
    episodes = ValidationEpisodes(examples, FAST, 0)
    assert episodes.accuracy(Prototypical(4).eval(), vectors) == 1.0
    assert not torch.is_inference_mode_enabled()


def test_accuracies_and_their_difference_are_held_about_as_often_as_their_intervals_say() -> None:
    random = np.random.default_rng(11)
    options = TrainingOptions(validation_shots=(5,), validation_episodes=60)
    weights = np.array([1.0, 1, 1, 1, 1, 0], dtype=np.float32)  # the second head does not see a feature

    def compared(index: int, diseases: int) -> list[tuple[float, float, float]]:
        examples, vectors = simulated(random, diseases, 5)
        episodes = ValidationEpisodes(examples, options, index)
        head = Prototypical(6, learned_scale=False).eval()
        seen = [(vectors * w).astype(np.float32) for w in (weights, np.ones(6))]
        one, other = (episodes.hits(head, x) for x in seen)
        (score,) = episodes.scored(other)
        return [episodes.difference(one, other), (score.accuracy, score.low, score.high)]

    truths = np.mean([compared(index, 40) for index in range(80)], 0)[:, 0]
    found = np.array([compared(index, 20) for index in range(60)])  # (60, 2, 3)
    low, high = found[..., 1], found[..., 2]
    assert (((low <= truths) & (truths <= high)).sum(0) >= 52).all()
    assert ((low > truths).sum(0) <= 6).all()


def test_heads_that_answer_alike_differ_by_nothing() -> None:
    _, examples = cohort(4, 7)
    vectors = np.random.default_rng(0).normal(size=(len(examples), 3)).astype(np.float32)
    episodes = ValidationEpisodes(examples, FAST, 0)
    head = Prototypical(3).eval()
    hits, scores = episodes.hits(head, vectors), episodes.scores(head, vectors)
    assert episodes.difference(hits, hits) == (0.0, 0.0, 0.0)
    never = {shots: np.zeros_like(hit) for shots, hit in hits.items()}
    expected = np.mean([score.accuracy for score in scores])
    assert episodes.difference(hits, never)[0] == pytest.approx(expected)
