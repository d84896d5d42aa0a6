"""States are kept per bundle, head and support set, and a broken file costs nothing but time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from meta_dx.home import Home
from meta_dx.inference import support
from meta_dx.inference.predictor import Predictor, State
from meta_dx.inference.support import adapted_state, support_fingerprint
from tests.inference.bundles import episode


class Counting:
    """A predictor that counts how often it adapts."""

    def __init__(self, predictor: Predictor) -> None:
        self.bundle = predictor.bundle
        self.calls = 0
        self._inner = predictor

    def adapt(self, *args: object) -> State:
        self.calls += 1
        return self._inner.adapt(*args)  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def counting(predictor: Predictor) -> Counting:
    return Counting(predictor)


def cases(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, onehot, _ = episode(seed, [2, 3, 1], 1)
    return x[0], onehot[0].argmax(1)


def same(one: State, other: State) -> bool:
    return (one.head, one.ways, set(one.tensors)) == (other.head, other.ways, set(other.tensors)) and all(
        np.array_equal(one.tensors[k], other.tensors[k]) for k in one.tensors
    )


def test_the_second_time_the_state_comes_from_the_file(
    home: Home, counting: Counting, predictor: Predictor
) -> None:
    first = adapted_state(home, counting, *cases(), 3)  # type: ignore[arg-type]
    again = adapted_state(home, counting, *cases(), 3)  # type: ignore[arg-type]
    assert counting.calls == 1
    assert same(first, again)
    assert same(first, predictor.adapt(*cases(), 3))
    assert [f.suffix for f in (home.states / counting.bundle.id).iterdir()] == [".npz"]


def test_another_embedding_label_number_of_ways_or_head_is_another_state(
    home: Home, counting: Counting
) -> None:
    x, labels = cases()
    moved = x.copy()
    moved[0, 0] += 1e-3
    other_labels = labels.copy()
    other_labels[0] = 2
    for variant in (
        (x, labels, 3),
        (moved, labels, 3),
        (x, other_labels, 3),
        (x, labels, 4),
        (x, labels, 3, "logistic"),
    ):
        adapted_state(home, counting, *variant)  # type: ignore[arg-type]
    assert counting.calls == 5


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "another", "text"])
def test_a_broken_file_is_made_anew(
    damage: str, home: Home, counting: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    expected = adapted_state(home, counting, *cases(), 3)  # type: ignore[arg-type]
    (file,) = (home.states / counting.bundle.id).iterdir()
    content = file.read_bytes()
    middle = len(content) // 2
    broken = {
        "truncated": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "empty": b"",
        "text": b"not an archive",
    }
    if damage == "another":
        adapted_state(home, counting, *cases(1), 3)  # type: ignore[arg-type]
        (other,) = (f for f in file.parent.iterdir() if f != file)
        broken["another"] = other.read_bytes()
    file.write_bytes(broken[damage])
    calls = counting.calls
    assert same(adapted_state(home, counting, *cases(), 3), expected)  # type: ignore[arg-type]
    assert counting.calls == calls + 1
    assert "adapting again" in caplog.text
    assert same(adapted_state(home, counting, *cases(), 3), expected)  # type: ignore[arg-type]
    assert counting.calls == calls + 1


def test_a_write_that_dies_leaves_no_file(
    home: Home, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(support, "write_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        adapted_state(home, counting, *cases(), 3)  # type: ignore[arg-type]
    assert not [f for f in home.states.rglob("*") if f.is_file()]


def test_a_fingerprint_depends_on_content_alone() -> None:
    x, labels = cases()
    assert support_fingerprint(x, labels, 3) == support_fingerprint(x.copy(), labels.copy(), 3)
    assert support_fingerprint(x, labels, 3) != support_fingerprint(x, labels, 4)
    assert support_fingerprint(x, labels, 3) != support_fingerprint(x[::-1].copy(), labels, 3)
