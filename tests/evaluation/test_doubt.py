"""Doubt against errors and against diseases outside: the draw, the figures, and worlds where they are known."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler
from meta_dx.evaluation.asking import Answers, Asked, ask_with_doubt, doubting_head
from meta_dx.evaluation.doubt import OutsideSampler, doubt_result
from meta_dx.evaluation.episodic import evaluate_episodes
from tests.evaluation.worlds import FakePredictor, World, gaussian_world, reordered

PATIENTS = (5, 6, 7, 9, 12, 20, 3, 2)


def drawn(world: World, episodes: int = 30, ancestors: dict | None = None) -> list:
    sampler = EpisodeSampler(world.examples, 4, 3, 5, 0, ancestors=ancestors)
    return list(sampler.plans(episodes))


def test_outside_queries_are_as_many_as_inside_and_of_other_diseases_and_patients() -> None:
    examples = gaussian_world(PATIENTS, seed=0, distance=3.0).examples
    sampler = OutsideSampler(examples, 0)
    seen: set[str] = set()
    for plan in drawn(World(examples, np.zeros((len(examples), 1)))):
        rows = sampler.rows(plan)
        inside = sum(map(len, plan.query))
        others = ~np.isin(examples.code, plan.classes)
        assert len(rows) == min(inside, int(others.sum()))
        assert len(set(examples.patient[rows])) == len(rows)
        assert not set(examples.code[rows]) & set(plan.classes)
        # Diseases take turns: nobody's second patient before everybody's first.
        counts = Counter(examples.code[rows].tolist())
        free = Counter(examples.code[others].tolist())
        assert set(counts) == set(free)
        most = max(counts.values())
        assert all(n >= min(most - 1, free[code]) for code, n in counts.items())
        seen |= set(examples.code[rows])
    assert seen == set(examples.diseases)  # also those with too few patients for an episode


def test_outside_diseases_give_their_patients_in_turn_by_hash() -> None:
    examples = gaussian_world(PATIENTS, seed=5, distance=3.0).examples
    code, patient = examples.code.tolist(), examples.patient.tolist()

    def by_hash(plan: EpisodePlan, what: str, names: set[str]) -> list[str]:
        texts = {name: f"4/{plan.index}/outside {what}/{name}" for name in names}
        return sorted(names, key=lambda name: hashlib.sha256(texts[name].encode()).hexdigest())

    sampler = OutsideSampler(examples, 4)
    for plan in drawn(World(examples, np.zeros((len(examples), 1)))):
        queues = [
            by_hash(plan, "patient", {p for p, c in zip(patient, code, strict=True) if c == disease})
            for disease in by_hash(plan, "class", set(code) - set(plan.classes))
        ]
        turns = [who for turn in zip_longest(*queues) for who in turn if who is not None]
        found = examples.patient[sampler.rows(plan)].tolist()
        assert found == turns[: sum(map(len, plan.query))]


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    world = gaussian_world(PATIENTS, seed=1, distance=3.0)
    turned = reordered(world, seed=3)

    def studies(of: World, seed: int) -> list[list[str]]:
        sampler = OutsideSampler(of.examples, seed)
        return [of.examples.study[sampler.rows(plan)].tolist() for plan in drawn(of)]

    assert studies(world, 0) == studies(turned, 0)
    assert studies(world, 0) != studies(world, 1)


def test_relatives_of_an_offered_disease_and_its_patients_are_not_outside() -> None:
    world = gaussian_world(PATIENTS, seed=2, distance=3.0)
    ancestors = {"D00": ["D01"], "D03": ["D01"]}
    code, patient = world.examples.code, world.examples.patient.copy()
    twice = [np.flatnonzero(code == "D06")[0], np.flatnonzero(code == "D05")[0]]
    patient[twice[1]] = patient[twice[0]]  # one patient with two diseases
    examples = replace(world.examples, patient=patient)
    sampler = OutsideSampler(examples, 0, ancestors)
    related = {"D00": {"D01"}, "D01": {"D00", "D03"}, "D03": {"D01"}}
    for plan in drawn(World(examples, world.vectors), 60, ancestors):
        rows = sampler.rows(plan)
        forbidden = set(plan.classes).union(*(related.get(c, set()) for c in plan.classes))
        assert not set(examples.code[rows]) & forbidden
        if "D05" in plan.classes:
            assert twice[0] not in rows
        assert not set(examples.patient[rows]) & set(examples.patient[np.isin(examples.code, plan.classes)])


def test_figures_are_weighted_aurocs_of_sklearn() -> None:
    world = gaussian_world((6, 9, 14, 30, 8, 11), seed=3, distance=2.0)
    plans = drawn(world, 12)
    asked = Asked.of(plans, world.examples)
    sampler = OutsideSampler(world.examples, 0)
    rows = [sampler.rows(plan) for plan in plans]
    outside, strangers = sampler.whose(rows)
    answers = ask_with_doubt(doubting_head(FakePredictor(), "prototypical"), world.vectors, plans, rows)
    found = doubt_result(asked, answers, (outside, strangers), 0)

    def weights(disease: np.ndarray) -> np.ndarray:
        counts = Counter(disease.tolist())
        return np.array([1 / (len(counts) * counts[d]) for d in disease.tolist()])

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(np.maximum(p, 1e-300))).sum(1)

    wrong = answers.probabilities.argmax(1) != asked.label
    weight = weights(asked.disease)
    beyond = np.r_[np.zeros(len(weight)), np.ones(len(outside))]
    both = np.r_[weight, weights(outside)]
    inner, outer = entropy(answers.probabilities), entropy(answers.outside_probabilities)
    assert found.entropy_auroc == pytest.approx(roc_auc_score(wrong, inner, sample_weight=weight))
    assert found.epistemic_auroc == pytest.approx(
        roc_auc_score(wrong, answers.epistemic, sample_weight=weight)
    )
    assert found.openset_entropy_auroc == pytest.approx(
        roc_auc_score(beyond, np.r_[inner, outer], sample_weight=both)
    )
    assert found.openset_auroc == pytest.approx(
        roc_auc_score(beyond, np.r_[answers.epistemic, answers.outside_epistemic], sample_weight=both)
    )


def test_every_figure_has_an_interval_that_contains_it_or_neither_is_there() -> None:
    world = gaussian_world((12, 9, 14, 30, 8, 11), seed=3, distance=2.0)
    result = evaluate_episodes(
        FakePredictor(), world.vectors, world.examples, ways=4, shots=3, queries=5, episodes=40, seed=0
    )
    for found in result.doubt.values():
        for value, ends in found.figures:
            assert (value is None) == (ends is None)
            if value is not None and ends is not None:
                assert 0 <= ends[0] < value < ends[1] <= 1
    assert [value for value, _ in result.doubt["prototypical"].figures].count(None) == 0


def test_asking_outside_changes_no_answer_inside() -> None:
    world = gaussian_world(PATIENTS, seed=4, distance=3.0)
    plans = drawn(world)
    sampler = OutsideSampler(world.examples, 0)
    method = doubting_head(FakePredictor(), "prototypical")
    alone = ask_with_doubt(method, world.vectors, plans)
    beside = ask_with_doubt(method, world.vectors, plans, [sampler.rows(plan) for plan in plans])
    np.testing.assert_allclose(beside.probabilities, alone.probabilities, atol=1e-9)
    assert len(alone.outside_probabilities) == 0
    # Each outside answer is that of its own episode.
    plan = plans[7]
    own = ask_with_doubt(method, world.vectors, [plan], [sampler.rows(plan)])
    before = sum(len(sampler.rows(p)) for p in plans[:7])
    np.testing.assert_allclose(
        beside.outside_probabilities[before : before + len(sampler.rows(plan))],
        own.outside_probabilities,
        atol=1e-6,
    )


def test_distance_finds_strangers_that_entropy_does_not() -> None:
    """Strangers far from every centre, on the far side of one of them: sure of themselves, and far away."""
    world = gaussian_world([40] * 8, seed=5, distance=4.0)
    result = evaluate_episodes(
        FakePredictor(), world.vectors, world.examples, ways=4, shots=5, queries=10, episodes=60, seed=0
    )
    found = result.doubt["prototypical"]
    assert result.outside == 60 * 40
    assert found.openset_auroc is not None
    assert found.openset_auroc > 0.9
    for head in ("simpleshot", "logistic"):
        assert (result.doubt[head].epistemic_auroc, result.doubt[head].openset_auroc) == (None, None)
        assert result.doubt[head].openset_entropy_auroc is not None
    assert found.entropy_auroc is not None
    assert found.entropy_auroc > 0.7


def test_what_cannot_be_compared_is_none() -> None:
    world = gaussian_world([9] * 4, seed=6, distance=40.0)
    result = evaluate_episodes(
        FakePredictor(), world.vectors, world.examples, ways=4, shots=3, queries=4, episodes=5, seed=0
    )
    assert result.outside == 0
    assert set(vars(result.doubt["prototypical"]).values()) == {None}  # all right, and nobody outside


def test_coins_find_nothing() -> None:
    world = gaussian_world([30] * 8, seed=7, distance=2.0)
    plans = drawn(world, 60)
    asked = Asked.of(plans, world.examples)
    rows = [OutsideSampler(world.examples, 0).rows(plan) for plan in plans]
    random = np.random.default_rng(0)
    t, u = len(asked.label), sum(map(len, rows))
    answers = Answers(
        random.dirichlet(np.ones(4), t), random.random(t), random.dirichlet(np.ones(4), u), random.random(u)
    )
    found = doubt_result(asked, answers, OutsideSampler(world.examples, 0).whose(rows), 0)
    assert [value == pytest.approx(0.5, abs=0.05) for value, _ in found.figures] == [True] * 4
    assert all(ends is not None and ends[0] < 0.5 < ends[1] for _, ends in found.figures)


def test_rows_without_a_diagnosis_are_never_asked() -> None:
    world = gaussian_world([9] * 6, seed=8, distance=3.0)
    code = world.examples.code.copy()
    code[::3] = ""
    old = world.examples
    blank = World(Examples(old.study, old.patient, code, old.images), world.vectors)
    sampler = OutsideSampler(blank.examples, 0)
    for plan in EpisodeSampler(blank.examples, 3, 2, 3, 0).plans(10):
        assert all(blank.examples.code[sampler.rows(plan)])
