"""The predictor: embeddings, states and answers by independent formulas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import entropy as scipy_entropy

from meta_dx.errors import MetaDxError
from meta_dx.inference.bundle import Bundle
from meta_dx.inference.evidence import entropy, nearest_support
from meta_dx.inference.predictor import Predictor
from tests.inference.bundles import episode, images


def single(seed: int, shots: list[int], queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    support, onehot, query = episode(seed, shots, queries)
    return support[0], onehot[0].argmax(1), query[0]


def test_the_size_of_a_batch_does_not_matter(predictor: Predictor) -> None:
    pictures = images(0, 11)
    whole = predictor.embed_images(pictures)
    assert whole.shape == (11, 192)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(predictor.embed_images(pictures, batch=3), whole, atol=1e-5)
    assert predictor.embed_images(pictures[:0]).shape == (0, 192)


def test_pictures_may_lie_in_a_memory_map(predictor: Predictor, tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", images(1, 5))
    mapped = np.load(tmp_path / "pictures.npy", mmap_mode="r")
    np.testing.assert_array_equal(predictor.embed_images(mapped), predictor.embed_images(images(1, 5)))


def test_a_study_is_the_mean_of_its_pictures_each_embedded_once(predictor: Predictor) -> None:
    pictures = images(2, 9)
    rows = [np.array([3]), np.array([0, 8, 2]), np.array([3, 4])]
    reports: list[tuple[int, int]] = []
    found = predictor.embed_studies(
        pictures, rows, batch=2, progress=lambda done, total, _="": reports.append((done, total))
    )
    alone = predictor.embed_images(pictures)
    np.testing.assert_allclose(found, [alone[r].mean(0) for r in rows], atol=1e-5)
    assert reports == [(2, 5), (4, 5), (5, 5)]
    assert predictor.embed_studies(pictures, []).shape == (0, 192)


def test_a_study_without_pictures_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="1 of 2 studies"):
        predictor.embed_studies(images(0, 2), [np.array([0]), np.array([], dtype=np.int64)])


def test_pictures_of_another_shape_are_one_clear_sentence(predictor: Predictor) -> None:
    with pytest.raises(MetaDxError, match=r"\(1, 16, 16\), not \(3, 16, 16\)") as fault:
        predictor.embed_images(np.zeros((2, 3, 16, 16), dtype=np.uint8))
    assert fault.value.code == "bundle_pictures"


@given(st.integers(0, 10_000), st.lists(st.integers(0, 5), min_size=2, max_size=6).filter(any))
@settings(max_examples=15, deadline=None)
def test_one_support_set_is_one_episode(predictor: Predictor, seed: int, shots: list[int]) -> None:
    support, onehot, query = episode(seed, shots, 4)
    state = predictor.adapt(support[0], onehot[0].argmax(1), len(shots))
    found = predictor.predict(state, query[0])
    _, expected = predictor.predict_episodes(predictor.adapt_episodes(support, onehot), query)
    np.testing.assert_allclose(found, expected[0], atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-12)
    assert (found[:, [k == 0 for k in shots]] == 0).all()


def test_the_serving_head_answers_unless_another_is_named(predictor: Predictor) -> None:
    x, labels, query = single(3, [2, 2, 2], 3)
    assert predictor.adapt(x, labels, 3).head == "simpleshot"
    other = predictor.predict(predictor.adapt(x, labels, 3, head="logistic"), query)
    assert not np.allclose(other, predictor.predict(predictor.adapt(x, labels, 3), query))
    with pytest.raises(MetaDxError, match="maml"):
        predictor.adapt(x, labels, 3, head="maml")


def test_a_prior_is_bayes_rule(predictor: Predictor) -> None:
    x, labels, query = single(4, [3, 1, 2], 5)
    state = predictor.adapt(x, labels, 3)
    even = predictor.predict(state, query)
    prior = np.array([0.9, 0.1, 0.0])
    expected = np.array([[p * w for p, w in zip(row, prior, strict=True)] for row in even])
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(predictor.predict(state, query, prior=prior), expected)
    np.testing.assert_allclose(predictor.predict(state, query, prior=[7.0, 7.0, 7.0]), even)
    for wrong in ([1.0, 1.0], [1.0, -1.0, 1.0], [np.nan, 1.0, 1.0]):
        with pytest.raises(ValueError, match="prior"):
            predictor.predict(state, query, prior=wrong)
    absent = predictor.adapt(x, labels, 4)
    with pytest.raises(ValueError, match="prior"):
        predictor.predict(absent, query, prior=[0.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("x", "labels", "ways"),
    [
        (np.zeros((0, 192)), [], 2),
        (np.zeros((2, 191)), [0, 1], 2),
        (np.zeros((2, 192)), [0, 2], 2),
        (np.zeros((2, 192)), [0, -1], 2),
        (np.zeros((2, 192)), [0], 2),
    ],
)
def test_a_support_set_that_makes_no_sense_is_refused(
    predictor: Predictor, x: np.ndarray, labels: list[int], ways: int
) -> None:
    with pytest.raises(ValueError, match="labels"):
        predictor.adapt(x, labels, ways)


def test_no_queries_get_no_answers(predictor: Predictor) -> None:
    x, labels, _ = single(5, [1, 1], 1)
    assert predictor.predict(predictor.adapt(x, labels, 2), np.zeros((0, 192))).shape == (0, 2)


def test_threads_may_share_a_predictor(bundle: Bundle) -> None:
    shared = Predictor(bundle, device="cpu", threads=1)  # a fresh one: its sessions open while threads race

    def ask(seed: int) -> np.ndarray:
        x, labels, query = single(seed, [2, 3, 1], 4)
        head = shared.bundle.heads[seed % 3]
        return np.concatenate(
            [
                shared.predict(shared.adapt(x, labels, 3, head), query).ravel(),
                shared.embed_images(images(seed, 3)).ravel(),
            ]
        )

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, range(24)))
    for seed, found in enumerate(together):
        np.testing.assert_array_equal(found, ask(seed))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_entropy_is_that_of_scipy(seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(6, 0.3), size=(4, 3))
    np.testing.assert_allclose(entropy(p), scipy_entropy(p, axis=-1), atol=1e-12)


def test_entropy_runs_from_certain_to_uniform() -> None:
    assert entropy([0.0, 1.0, 0.0]) == 0.0
    assert entropy(np.full(8, 1 / 8)) == pytest.approx(np.log(8))


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_the_nearest_cases_are_those_of_smallest_cosine_distance(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    support, query = generator.normal(size=(9, 5)), generator.normal(size=(4, 5))
    rows, similarity = nearest_support(support, query, k)
    distance = cdist(query, support, "cosine")
    assert rows.shape == similarity.shape == (4, min(k, 9))
    np.testing.assert_array_equal(rows, np.argsort(distance, axis=1)[:, :k])
    np.testing.assert_allclose(similarity, 1 - np.sort(distance, axis=1)[:, :k], atol=1e-12)


def test_equally_similar_cases_keep_their_order_and_a_zero_vector_is_similar_to_nothing() -> None:
    rows, similarity = nearest_support([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [0.0, 0.0]], 3)
    assert rows.tolist() == [[0, 2, 1], [0, 1, 2]]
    assert similarity.tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_centring_takes_out_the_mean_of_the_common_diseases(predictor: Predictor) -> None:
    x = np.random.default_rng(0).normal(size=(3, 192)).astype(np.float32)
    np.testing.assert_array_equal(predictor.centred(x), x - predictor.bundle.embedding_mean)
