"""Blocks that give the same bits leave torch's settings as they were, whatever these were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils.deterministic

from meta_dx.training.determinism import deterministic, seeded

MEMORY: Any = torch.utils.deterministic


def settings() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        MEMORY.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("filled", [True, False])
def test_a_deterministic_block_does_not_fill_new_memory_and_puts_the_settings_back(filled: bool) -> None:
    usual = MEMORY.fill_uninitialized_memory
    MEMORY.fill_uninitialized_memory = filled
    try:
        before = settings()
        with pytest.raises(RuntimeError, match="stopped"), deterministic():
            assert settings()[0]
            assert not settings()[2]
            raise RuntimeError("stopped")
        assert settings() == before
    finally:
        MEMORY.fill_uninitialized_memory = usual


def test_a_seeded_block_gives_the_same_numbers_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded(5):
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    assert torch.equal(torch.get_rng_state(), before)
