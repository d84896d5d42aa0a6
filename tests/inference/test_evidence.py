"""Evidence: weights of confirmed cases that sum to one, and the picture of each that looks most like the query."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances

from meta_dx.inference.answers import Answer
from meta_dx.inference.evidence import EmbeddedStudies, evidence, remoteness
from meta_dx.inference.predictor import Predictor
from tests.inference.uncertain import PIXELS, cases


def drawn(
    seed: int, shots: list[int], queries: int = 3
) -> tuple[Answer, np.ndarray, np.ndarray, EmbeddedStudies]:
    """Random answers, labels, queries and cases of one to three pictures."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(shots)), shots)
    attention = random.gamma(0.5, size=(queries, len(labels)))
    attention /= attention @ np.equal.outer(labels, labels)
    study = np.repeat(np.arange(len(labels)), random.integers(1, 4, len(labels)))
    pictures = random.normal(size=(len(study), 5)).astype(np.float32)
    x = np.stack([pictures[study == case].mean(0) for case in range(len(labels))])
    names = np.array([f"image {i}" for i in range(len(study))])
    answer = Answer(random.dirichlet(np.ones(len(shots)), queries), attention=attention)
    return answer, labels, random.normal(size=(queries, 5)), EmbeddedStudies(x, pictures, study, names)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 6), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_weights_are_probability_times_attention_heaviest_first(seed: int, shots: list[int]) -> None:
    answer, labels, query, support = drawn(seed, shots)
    mean = np.full(5, 0.3)
    found = evidence(answer, labels, query, support, mean)
    assert found is not None
    distance = cdist(query - mean, support.pictures - mean, "cosine")
    for q, cases_of in enumerate(found):
        weight = {
            case: answer.probabilities[q, labels[case]] * answer.attention[q, case]
            for case in range(len(labels))
        }
        shown = [one.case for one in cases_of]
        assert shown == sorted(weight, key=lambda case: -weight[case])[: len(shown)]
        np.testing.assert_allclose([one.weight for one in cases_of], [weight[c] for c in shown])
        assert sum(weight.values()) > 0.999999
        assert 0.999 <= sum(one.weight for one in cases_of) <= 1.000001
        assert sum(one.weight for one in cases_of[:-1]) < 0.999  # nothing that is not needed
        for one in cases_of:
            own = np.flatnonzero(support.study == one.case)
            assert one.picture == f"image {own[distance[q, own].argmin()]}"


def test_no_more_than_a_hundred_cases_are_listed() -> None:
    answer, labels, query, support = drawn(0, [60, 60, 60])
    even = Answer(np.full((3, 3), 1 / 3), attention=np.full((3, 180), 1 / 60))
    found = evidence(even, labels, query, support, np.zeros(5))
    assert found is not None
    assert [len(cases_of) for cases_of in found] == [100] * 3
    assert [one.case for one in found[0]] == list(range(100))  # the earlier one where two weigh the same
    assert evidence(Answer(answer.probabilities), labels, query, support, np.zeros(5)) is None


def test_chosen_and_joined_studies_keep_their_pictures() -> None:
    _, _, _, first = drawn(1, [3, 2])
    _, _, _, second = drawn(2, [2, 2])
    both = first.joined(second)
    for study in range(9):
        part, at = (first, study) if study < 5 else (second, study - 5)
        alone = both.take([study])
        np.testing.assert_array_equal(alone.x[0], part.x[at])
        np.testing.assert_array_equal(alone.pictures, part.pictures[part.study == at])
        np.testing.assert_array_equal(alone.name, part.name[part.study == at])
    turned = both.take([7, 0])
    assert turned.study.tolist() == sorted(turned.study.tolist())
    np.testing.assert_array_equal(turned.pictures[turned.study == 1], first.pictures[first.study == 0])
    assert both.take([]).pictures.shape == (0, 5)


def test_pictures_of_studies_have_their_names_and_means(uncertain: Predictor) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, size=(6, 1, PIXELS, PIXELS), dtype=np.uint8)
    rows = [np.array([4]), np.array([0, 5, 2])]
    found = uncertain.embed_cases(pictures, rows, names=[f"i{n}" for n in range(6)])
    assert found.name.tolist() == ["i4", "i0", "i5", "i2"]
    assert found.study.tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(found.x, uncertain.embed_studies(pictures, rows))
    np.testing.assert_allclose(found.pictures, uncertain.embed_images(pictures)[[4, 0, 5, 2]], atol=1e-6)


def test_a_real_answer_rests_on_its_cases(uncertain: Predictor) -> None:
    support, onehot, query = cases(0, [3, 1, 5], 4)
    labels = onehot[0].argmax(1)
    answer = uncertain.answer(uncertain.adapt(support[0], labels, 3), query[0], codes=list("ABC"))
    one_each = EmbeddedStudies(support[0], support[0], np.arange(9), np.arange(9).astype(str))
    found = evidence(answer, labels, query[0], one_each, uncertain.bundle.embedding_mean)
    assert found is not None
    for q, cases_of in enumerate(found):
        held = np.zeros(3)
        for one in cases_of:
            held[labels[one.case]] += one.weight
        np.testing.assert_allclose(held, answer.probabilities[q], atol=2e-3)


def test_remoteness_is_the_share_of_cases_that_lie_nearer_to_another_one() -> None:
    rng = np.random.default_rng(3)
    support, queries = rng.normal(size=(40, 8)), rng.normal(size=(25, 8))
    found = remoteness(support, queries)
    assert found is not None
    distance = pairwise_distances(support, metric="cosine")
    own = [np.delete(row, n).min() for n, row in enumerate(distance)]
    nearest = pairwise_distances(queries, support, metric="cosine").min(1)
    assert found == pytest.approx([np.mean([each < query for each in own]) for query in nearest])
    assert 0.2 < found.mean() < 0.8  # drawn alike


def test_what_lies_apart_is_remote_a_confirmed_case_is_not_and_few_cases_say_nothing() -> None:
    rng = np.random.default_rng(4)
    support = np.array([1.0, 0, 0, 0]) + rng.normal(0, 0.1, (30, 4))
    assert remoteness(support, [[-1.0, 0, 0, 0]]) == [1.0]
    assert remoteness(support, support[:3]) == pytest.approx([0, 0, 0])
    assert remoteness(support[:19], support[:1]) is None
