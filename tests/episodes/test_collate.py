"""From plans to tensors: the right rows, padded, masked, and pooled to the study."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.collate import collate, collate_images, episode_images
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler

RAGGED = [
    EpisodePlan(4, ("A", "B"), (np.array([3, 1]), np.array([7])), (np.array([2]), np.array([8, 9]))),
    EpisodePlan(
        5, ("B", "C", "A"), tuple(np.array([n]) for n in (9, 5, 1)), tuple(np.array([n]) for n in (7, 6, 0))
    ),
]


def random_examples(seed: int, diseases: int = 5, patients: int = 8, most_images: int = 4) -> Examples:
    random = np.random.default_rng(seed)
    n = diseases * patients
    counts = random.integers(1, most_images + 1, n)
    images = tuple(np.split(random.permutation(counts.sum()), np.cumsum(counts)[:-1]))
    return Examples(
        np.array([f"S{row}" for row in range(n)]),
        np.array([f"P{row}" for row in range(n)]),
        np.array([f"D{row % diseases}" for row in range(n)]),
        images,
    )


def test_a_ragged_batch_is_padded_and_masked() -> None:
    vectors = np.arange(1.0, 11.0, dtype=np.float32)[:, None].repeat(2, axis=1)  # row r holds r + 1
    episode = collate(RAGGED, vectors)
    assert episode.support_x[..., 0].tolist() == [[4, 2, 8], [10, 6, 2]]
    assert episode.support_y.tolist() == [[0, 0, 1], [0, 1, 2]]
    assert episode.support_mask.all()
    assert episode.query_x[..., 1].tolist() == [[3, 9, 10], [8, 7, 1]]
    assert episode.class_mask.tolist() == [[True, True, False], [True, True, True]]
    longer = EpisodePlan(6, ("A",), (np.array([0, 1, 2, 3]),), (np.array([4]),))
    padded = collate([*RAGGED, longer], vectors)
    assert padded.support_mask.tolist() == [[True] * 3 + [False]] * 2 + [[True] * 4]
    assert padded.query_mask.sum(1).tolist() == [3, 3, 1]
    assert padded.support_x[0, 3].tolist() == [0, 0]
    assert padded.support.onehot()[0].tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_every_real_row_is_an_example_of_its_class_and_no_patient_is_on_both_sides(
    seed: int, count: int
) -> None:
    examples = random_examples(seed)
    plans = list(EpisodeSampler(examples, (2, 5), (1, 5), 4, seed).plans(count))
    episode = collate(plans, torch.arange(len(examples), dtype=torch.float64)[:, None])
    for e, plan in enumerate(plans):
        sides = []
        for x, y, mask in (
            (episode.support_x, episode.support_y, episode.support_mask),
            (episode.query_x, episode.query_y, episode.query_mask),
        ):
            rows = x[e, mask[e], 0].long().numpy()
            classes = np.array(plan.classes)[y[e, mask[e]].numpy()]
            assert (examples.code[rows] == classes).all()
            assert (x[e, ~mask[e]] == 0).all()
            sides.append(set(examples.patient[rows]))
        assert not sides[0] & sides[1]
        assert episode.class_mask[e].sum() == len(plan.classes)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_pooling_is_the_mean_over_the_images_of_the_study(seed: int) -> None:
    examples = random_examples(seed)
    plans = list(EpisodeSampler(examples, 3, 2, 3, seed).plans(3))
    store = torch.from_numpy(np.random.default_rng(seed).normal(size=(200, 6)))
    batch = episode_images(plans, examples)
    assert len(set(batch.images.tolist())) == len(batch.images)
    episode = batch.episode(store[batch.images])
    means = torch.stack([store[rows].mean(0) for rows in examples.images])
    expected = collate(plans, means)
    torch.testing.assert_close(episode.support_x, expected.support_x)
    torch.testing.assert_close(episode.query_x, expected.query_x)
    assert torch.equal(episode.query_y, expected.query_y)


def test_gradients_reach_every_image_once_and_padding_gives_none() -> None:
    examples = random_examples(1)
    batch = episode_images(list(EpisodeSampler(examples, 3, 1, 2, 0).plans(1)), examples)
    embeddings = torch.ones(len(batch.images), 2, requires_grad=True)
    torch.autograd.backward(batch.pool(embeddings).sum())
    counts = np.array([len(examples.images[row]) for row in batch.examples])
    assert embeddings.grad is not None
    np.testing.assert_allclose(embeddings.grad[:, 0], np.repeat(1 / counts, counts), rtol=1e-6)


def test_a_bad_value_in_one_study_stays_in_that_study() -> None:
    examples = random_examples(2)
    batch = episode_images(list(EpisodeSampler(examples, 3, 1, 2, 0).plans(1)), examples)
    embeddings = torch.zeros(len(batch.images), 2)
    embeddings[0] = float("nan")  # padded slots point at row 0
    assert torch.isnan(batch.pool(embeddings)).any(1).tolist() == [True] + [False] * (len(batch.examples) - 1)


def test_drawing_a_few_images_repeats_and_varies_with_the_seed() -> None:
    examples = random_examples(3)
    plans = list(EpisodeSampler(examples, 5, 2, 3, 0).plans(2))
    draws = [episode_images(plans, examples, per_example=2, seed=seed).images.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    batch = episode_images(plans, examples, per_example=2)
    assert batch.slot_mask.sum(1).tolist() == [min(2, len(examples.images[row])) for row in batch.examples]
    assert set(batch.images) <= {image for row in batch.examples for image in examples.images[row]}


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_images_of_a_study_are_those_whose_text_hashes_lowest(most: int) -> None:
    examples = random_examples(5, most_images=6)
    plans = list(EpisodeSampler(examples, 4, 2, 3, 0).plans(2, 9))
    batch = episode_images(plans, examples, per_example=most, seed=7)
    expected = []
    for row in sorted({row for plan in plans for row in plan.rows.tolist()}):
        texts = [f"7/9/image/{examples.study[row]}/{n}" for n in range(len(examples.images[row]))]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        kept = [digest in sorted(digests)[:most] for digest in digests]
        expected += examples.images[row][kept].tolist()
    assert batch.images.tolist() == expected
    embeddings = torch.from_numpy(np.random.default_rng(0).normal(size=(len(batch.images), 2)))
    own = [slots[mask] for slots, mask in zip(batch.slots, batch.slot_mask, strict=True)]
    torch.testing.assert_close(batch.pool(embeddings), torch.stack([embeddings[at].mean(0) for at in own]))


def test_image_episodes_hold_one_picture_of_each_study() -> None:
    examples = random_examples(4)
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 4, 4), dtype=np.uint8)
    plan = EpisodeSampler(examples, 2, 1, 2, 0).plan(0)
    episode = collate_images([plan], examples, images, seed=7)
    assert episode.support_x.shape == (1, 2, 3, 4, 4)
    assert episode.support_x.dtype == torch.float32
    row = plan.support[1][0]
    assert any(
        np.array_equal(episode.support_x[0, 1].numpy(), images[image]) for image in examples.images[row]
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numpy_and_torch_vectors_give_the_same_episode(kind: type) -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 3)).astype(kind)
    first, second = collate(RAGGED, vectors), collate(RAGGED, torch.from_numpy(vectors))
    assert torch.equal(first.query_x, second.query_x)
