"""Answers with their uncertainty: noise by disease, priors on samples, None where nothing is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from meta_dx.inference import parts
from meta_dx.inference.answers import class_noise
from meta_dx.inference.predictor import Predictor
from meta_dx.inference.providers import open_session
from tests.inference.uncertain import SAMPLES, SIZE, cases

CODES = ["C", "A", "D", "B"]
SHOTS = [3, 1, 5, 2]


def asked(seed: int = 0, queries: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    support, onehot, query = cases(seed, SHOTS, queries)
    return support[0], onehot[0].argmax(1), query[0]


def samples_of(uncertain: Predictor, state: dict, query: np.ndarray, codes: list[str]) -> np.ndarray:
    """Calibrated samples (M, Q, N) straight from the graph."""
    session = open_session(uncertain.bundle.predict_path("anp"), "cpu")
    noise = class_noise(codes, SAMPLES, 4)[None]
    (found,) = session.run(["samples"], {"query_x": query[None], "noise": noise, **state})
    return found[0].astype(float)


def test_noise_is_normal_and_belongs_to_the_code() -> None:
    noise = class_noise(["A", "B"], 400, 50)
    assert noise.shape == (400, 2, 50)
    assert noise.dtype == np.float32
    assert kstest(noise.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.03
    turned = class_noise(["B", "new", "A"], 400, 50)
    np.testing.assert_array_equal(turned[:, [2, 0]], noise)


def test_another_process_draws_the_same_noise() -> None:
    script = (
        "from meta_dx.inference.answers import class_noise; print(class_noise(['X'], 2, 3).tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == class_noise(["X"], 2, 3).tobytes().hex()


def test_every_part_of_an_answer_is_what_its_samples_say(uncertain: Predictor) -> None:
    x, labels, query = asked()
    state = uncertain.adapt(x, labels, 4)
    answer = uncertain.answer(state, query, codes=CODES)
    p = samples_of(uncertain, dict(state.tensors), query, CODES)  # (M, Q, N)
    p /= p.sum(-1, keepdims=True)
    mean = p.mean(0)

    def nats(q: np.ndarray) -> np.ndarray:
        return -(q * np.log(np.maximum(q, 1e-300))).sum(-1)

    assert answer.epistemic is not None
    assert answer.aleatoric is not None
    assert answer.interval is not None
    assert answer.attention is not None
    np.testing.assert_allclose(answer.probabilities, mean, atol=1e-12)
    np.testing.assert_allclose(answer.aleatoric, nats(p).mean(0), atol=1e-12)
    np.testing.assert_allclose(answer.epistemic, nats(mean) - nats(p).mean(0), atol=1e-12)
    assert answer.epistemic.max() > 1e-3
    low, high = answer.interval[..., 0], answer.interval[..., 1]
    assert answer.interval.shape == (6, 4, 2)
    assert ((low <= answer.probabilities) & (answer.probabilities <= high)).all()
    inside = ((p >= low) & (p <= high)).mean(0)
    assert (inside >= 0.85).all()
    per_class = answer.attention @ np.eye(4)[labels]
    np.testing.assert_allclose(per_class, 1.0, atol=1e-5)


def test_the_same_case_gets_the_same_answer_bit_for_bit(uncertain: Predictor) -> None:
    x, labels, query = asked()
    first = uncertain.answer(uncertain.adapt(x, labels, 4), query, codes=CODES)
    again = Predictor(uncertain.bundle, device="cpu", threads=1)
    second = again.answer(again.adapt(x, labels, 4), query, codes=CODES)
    for name, part in vars(first).items():
        np.testing.assert_array_equal(part, getattr(second, name))
    np.testing.assert_array_equal(
        uncertain.predict(uncertain.adapt(x, labels, 4), query, codes=CODES), first.probabilities
    )


def test_who_else_is_asked_about_does_not_matter_to_the_last_bit(uncertain: Predictor) -> None:
    x, labels, query = asked(queries=9)
    state = uncertain.adapt(x, labels, 4)
    together = uncertain.answer(state, query, codes=CODES)
    for some in (slice(0, 1), slice(4, 6), slice(3, 9)):
        for name, part in vars(uncertain.answer(state, query[some], codes=CODES)).items():
            np.testing.assert_array_equal(part, getattr(together, name)[some])


@given(st.permutations(range(4)), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_diseases_orders_the_answer_and_nothing_else(
    uncertain: Predictor, order: list[int], seed: int
) -> None:
    x, labels, query = asked(seed)
    here = uncertain.answer(uncertain.adapt(x, labels, 4), query, codes=CODES)
    place = np.argsort(order)
    there = uncertain.answer(uncertain.adapt(x, place[labels], 4), query, codes=[CODES[i] for i in order])
    np.testing.assert_allclose(there.probabilities, here.probabilities[:, order], atol=1e-6)
    np.testing.assert_allclose(there.interval, here.interval[:, order], atol=1e-6)  # type: ignore[index]
    np.testing.assert_allclose(there.epistemic, here.epistemic, atol=1e-6)
    np.testing.assert_allclose(there.attention, here.attention, atol=1e-6)


def test_without_codes_noise_goes_by_position(uncertain: Predictor) -> None:
    x, labels, query = asked()
    state = uncertain.adapt(x, labels, 4)
    unnamed = uncertain.answer(state, query)
    assert not np.array_equal(
        unnamed.probabilities, uncertain.answer(state, query, codes=CODES).probabilities
    )
    p, epistemic = uncertain.doubt_episodes(state.tensors, query[None], samples=SAMPLES)
    np.testing.assert_array_equal(p[0], unnamed.probabilities)
    assert epistemic is not None
    np.testing.assert_allclose(epistemic[0], unnamed.epistemic, atol=1e-12)
    _, mean = uncertain.predict_episodes(state.tensors, query[None])
    np.testing.assert_allclose(mean[0], unnamed.probabilities, atol=1e-6)
    with pytest.raises(ValueError, match="3 codes for 4 classes"):
        uncertain.answer(state, query, codes=CODES[:3])


def test_the_bundle_says_how_many_samples(uncertain: Predictor) -> None:
    assert uncertain.bundle.samples == SAMPLES
    x, labels, query = asked()
    logits, _ = uncertain.predict_episodes(uncertain.adapt(x, labels, 4).tensors, query[None])
    assert logits.shape == (1, SAMPLES, 6, 4)


@given(st.integers(0, 1000), st.integers(1, 400))
@settings(max_examples=8, deadline=None)
def test_parts_of_any_size_give_the_same_answer(uncertain: Predictor, seed: int, cells: int) -> None:
    support, onehot, query = cases(seed, SHOTS, 9, episodes=3)
    state = uncertain.adapt_episodes(support, onehot)
    whole, doubt = uncertain.doubt_episodes(state, query, samples=8)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "_CELLS", cells)
        pieces, parted = uncertain.doubt_episodes(state, query, samples=8)
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    np.testing.assert_allclose(parted, doubt, atol=1e-6)  # type: ignore[arg-type]


def test_a_prior_acts_on_every_sample_so_the_interval_holds_the_probability(uncertain: Predictor) -> None:
    x, labels, query = asked(3)
    state = uncertain.adapt(x, labels, 4)
    prior = np.array([0.9, 0.02, 0.08, 0.0])
    answer = uncertain.answer(state, query, prior, CODES)
    p = samples_of(uncertain, dict(state.tensors), query, CODES) * prior
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(answer.probabilities, p.mean(0), atol=1e-12)
    assert answer.interval is not None
    assert (answer.interval[..., 0] <= answer.probabilities).all()
    assert (answer.probabilities <= answer.interval[..., 1]).all()
    assert (answer.interval[:, 3] == 0).all()
    total = -(answer.probabilities * np.log(np.maximum(answer.probabilities, 1e-300))).sum(1)
    np.testing.assert_allclose(answer.epistemic + answer.aleatoric, total, atol=1e-12)
    episodes, _ = uncertain.doubt_episodes(state.tensors, query[None], prior=7 * prior[None], samples=SAMPLES)
    np.testing.assert_allclose(episodes[0], uncertain.answer(state, query, prior).probabilities, atol=1e-12)


def test_what_a_head_cannot_give_is_none(uncertain: Predictor) -> None:
    x, labels, query = asked()
    plain = uncertain.answer(uncertain.adapt(x, labels, 4, "simpleshot"), query, codes=CODES)
    assert (plain.epistemic, plain.aleatoric, plain.interval, plain.attention) == (None, None, None, None)
    state = uncertain.adapt(x, labels, 4, "acnp")
    attentive = uncertain.answer(state, query)
    assert (attentive.epistemic, attentive.aleatoric, attentive.interval) == (None, None, None)
    assert attentive.attention is not None
    assert attentive.attention.shape == (6, 11)
    assert uncertain.doubt_episodes(state.tensors, query[None], "acnp")[1] is None


def test_no_queries_get_an_empty_answer(uncertain: Predictor) -> None:
    x, labels, _ = asked()
    nothing = uncertain.answer(uncertain.adapt(x, labels, 4), np.zeros((0, SIZE)), codes=CODES)
    assert nothing.interval is not None
    assert (nothing.probabilities.shape, nothing.interval.shape) == ((0, 4), (0, 4, 2))
