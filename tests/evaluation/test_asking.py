"""Putting episodes to methods: padding and batching change no answer; a real bundle answers on ONNX Runtime."""

import os

import numpy as np
import pytest

from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler
from meta_dx.evaluation import asking
from meta_dx.evaluation.asking import Asked, ask, ask_with_doubt, doubting_head, from_head, methods_of
from meta_dx.evaluation.doubt import OutsideSampler
from meta_dx.evaluation.episodic import evaluate_episodes
from meta_dx.inference.predictor import Predictor
from tests.evaluation.worlds import FakePredictor, World, gaussian_world
from tests.inference.bundles import shared_bundle
from tests.inference.uncertain import uncertain_bundle

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


@pytest.fixture(scope="module")
def uncertain(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Return a bundle whose served head has a latent variable, exported once a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "uncertain_bundle"
    folder.mkdir(exist_ok=True)
    return Predictor(uncertain_bundle(folder), device="cpu", threads=1)


def test_a_head_with_samples_answers_a_batch_as_its_episodes_alone(uncertain: Predictor) -> None:
    world, plans = ragged(uncertain.bundle.embedding_size)
    sampler = OutsideSampler(world.examples, 0)
    outside = [sampler.rows(plan) for plan in plans]
    method = doubting_head(uncertain, "anp")
    together = ask_with_doubt(method, world.vectors, plans, outside)
    alone = [ask_with_doubt(method, world.vectors, [p], [r]) for p, r in zip(plans, outside, strict=True)]
    for name, part in vars(together).items():
        expected = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(part, expected, atol=2e-5)
    assert together.epistemic is not None
    assert together.epistemic.max() > 1e-3
    result = evaluate_episodes(
        uncertain,
        world.vectors,
        world.examples,
        ways=4,
        shots=3,
        queries=9,
        episodes=25,
        seed=0,
        heads=("anp", "acnp", "simpleshot"),
    )
    served = result.doubt["anp"]
    assert served.epistemic_auroc is not None
    assert served.openset_auroc is not None
    assert (result.doubt["acnp"].epistemic_auroc, result.doubt["acnp"].openset_auroc) == (None, None)


def test_a_prior_weighs_every_method_alike() -> None:
    world, plans = ragged(8)
    head = "logistic"
    methods = methods_of(FakePredictor(), world.vectors, (head,), {"shortcut": world.vectors}, [1, 3, 3, 3])
    # The head of that name is the logistic regression of the extra: both are weighed alike.
    first, second = (ask_with_doubt(*methods[name], plans).probabilities for name in (head, "shortcut"))
    np.testing.assert_allclose(first, second, atol=1e-6)
    even = methods_of(FakePredictor(), world.vectors, (head,), {})[head]
    expected = ask_with_doubt(*even, plans).probabilities * np.array([1, 3, 3, 3])
    weighed = ask_with_doubt(*methods[head], plans).probabilities
    np.testing.assert_allclose(weighed, expected / expected.sum(1, keepdims=True), atol=1e-6)


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
