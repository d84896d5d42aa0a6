"""Putting episodes to methods: padding and batching change no answer; a real bundle answers on ONNX Runtime."""

import os

import numpy as np
import pytest

from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler
from meta_dx.evaluation import asking
from meta_dx.evaluation.asking import Asked, ask, from_head
from meta_dx.evaluation.episodic import evaluate_episodes
from meta_dx.inference.predictor import Predictor
from tests.evaluation.worlds import FakePredictor, World, gaussian_world
from tests.inference.bundles import shared_bundle

HEADS = ("simpleshot", "prototypical", "logistic")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Return the small bundle of the inference room, exported once a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared_bundle"
    folder.mkdir(exist_ok=True)
    return Predictor(shared_bundle(folder), device="cpu", threads=1)


def ragged(size: int) -> tuple[World, list[EpisodePlan]]:
    world = gaussian_world([5, 6, 8, 12, 20, 30], seed=0, distance=6.0, size=size)
    return world, list(EpisodeSampler(world.examples, 4, 3, 9, 0).plans(25))


def alone(predictor: Predictor, head: str, world: World, plan: EpisodePlan) -> np.ndarray:
    """One episode, without padding, by the predictor's plain methods."""
    labels = np.repeat(np.arange(len(plan.classes)), [len(rows) for rows in plan.support])
    state = predictor.adapt(world.vectors[np.concatenate(plan.support)], labels, len(plan.classes), head)
    return predictor.predict(state, world.vectors[np.concatenate(plan.query)])


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_gets_the_answers_of_its_episodes_alone(predictor: Predictor, head: str) -> None:
    world, plans = ragged(predictor.bundle.embedding_size)
    together = ask(from_head(predictor, head), world.vectors, plans)
    expected = np.concatenate([alone(predictor, head, world, plan) for plan in plans])
    np.testing.assert_allclose(together, expected, atol=2e-4)


def test_a_real_bundle_is_evaluated(predictor: Predictor) -> None:
    world, _ = ragged(predictor.bundle.embedding_size)
    result = evaluate_episodes(
        predictor, world.vectors, world.examples, ways=4, shots=3, queries=9, episodes=30, seed=0, heads=HEADS
    )
    assert result.comparison.serving == "simpleshot"
    assert set(result.comparison.methods) == set(HEADS)
    assert all(found.accuracy > 0.4 for found in result.comparison.methods.values())


def test_queries_are_listed_in_the_order_of_the_answers() -> None:
    world, plans = ragged(8)
    asked = Asked.of(plans, world.examples)
    method = from_head(FakePredictor(), "prototypical")
    answers = ask(method, world.vectors, plans)
    start = 0
    for e, plan in enumerate(plans):
        for n, rows in enumerate(plan.query):
            part = slice(start, start + len(rows))
            assert (asked.episode[part] == e).all()
            assert (asked.label[part] == n).all()
            assert (asked.disease[part] == plan.classes[n]).all()
            assert (asked.patient[part] == world.examples.patient[rows]).all()
            start += len(rows)
        assert asked.counts[e].tolist() == [len(rows) for rows in plan.query]
    assert start == len(answers)


def test_the_size_of_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, plans = ragged(8)
    large, small = FakePredictor(), FakePredictor()
    expected = ask(from_head(large, "prototypical"), world.vectors, plans)
    monkeypatch.setattr(asking, "_BATCH_BYTES", 4 * 8 * 100)
    found = ask(from_head(small, "prototypical"), world.vectors, plans)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(large.batches) < len(small.batches)
    assert all(e * (s + 36) <= 200 or e == 1 for e, s, _ in small.batches)
