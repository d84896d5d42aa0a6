"""Which studies a step of pre-training sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.training.drawing import Batches, class_shares, epoch_order
from tests.training.tiny import cohort

counts = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def codes_of(numbers: list[int]) -> np.ndarray:
    return np.repeat([f"D{i}" for i in range(len(numbers))], numbers)


@settings(max_examples=50, deadline=None)
@given(numbers=counts, balance=st.floats(0, 1))
def test_a_disease_is_drawn_in_proportion_to_a_power_of_its_studies(
    numbers: list[int], balance: float
) -> None:
    shares = class_shares(codes_of(numbers), balance)
    codes = codes_of(numbers)
    drawn = np.array([shares[codes == f"D{i}"].sum() for i in range(len(numbers))])
    expected = np.array(numbers, dtype=float) ** (1 - balance)
    np.testing.assert_allclose(drawn, expected / expected.sum(), rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(numbers=counts, balance=st.floats(0, 1), extra=st.integers(0, 20), epoch=st.integers(0, 99))
def test_every_study_comes_as_often_as_it_should_rounded(
    numbers: list[int], balance: float, extra: int, epoch: int
) -> None:
    shares = class_shares(codes_of(numbers), balance)
    draws = len(shares) + extra
    order = epoch_order(shares, draws, 0, epoch)
    found = np.bincount(order, minlength=len(shares))
    assert len(order) == draws
    assert (found >= np.floor(shares * draws - 1e-9)).all()
    assert (found <= np.ceil(shares * draws + 1e-9)).all()


def test_epochs_and_seeds_differ_and_repeat() -> None:
    shares = class_shares(codes_of([40]), 0.5)
    first = epoch_order(shares, 40, 0, 0)
    np.testing.assert_array_equal(first, epoch_order(shares, 40, 0, 0))
    assert sorted(first) == list(range(40))
    assert (first != epoch_order(shares, 40, 0, 1)).any()
    assert (first != epoch_order(shares, 40, 1, 0)).any()


@pytest.mark.parametrize("size", [5, 7])
def test_a_batch_depends_on_its_number_only_and_an_epoch_covers_the_cohort(size: int) -> None:
    _, examples = cohort(4, 5, first_row=100)
    forward, backward = Batches(examples, size, 0.0, seed=3), Batches(examples, size, 0.0, seed=3)
    steps = list(range(2 * forward.per_epoch))
    seen = {step: forward.draw(step) for step in steps}
    for step in reversed(steps):
        studies, images = backward.draw(step)
        np.testing.assert_array_equal(studies, seen[step][0])
        np.testing.assert_array_equal(images, seen[step][1])
        assert len(studies) == size
        for study, image in zip(studies, images, strict=True):
            assert image in examples.images[study]
    epoch = np.concatenate([seen[step][0] for step in range(forward.per_epoch)])
    assert set(epoch) == set(range(len(examples)))


def test_all_images_of_a_study_are_drawn_in_time() -> None:
    _, examples = cohort(2, 2)
    batches = Batches(examples, 4, 0.0, seed=0)
    drawn = {int(image) for step in range(20) for image in batches.draw(step)[1]}
    assert drawn == set(np.concatenate(examples.images).tolist())
