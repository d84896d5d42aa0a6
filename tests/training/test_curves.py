"""Learning curves: a picture of every stage, also of one that was never validated."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from meta_dx.training.curves import _kept, plot_curves


def point(step: int, loss: float | None, accuracy: float) -> dict[str, float | None]:
    return {"step": step, "loss": loss, "training_accuracy": None, "accuracy": accuracy, "learning_rate": 0.1}


def test_one_column_a_stage_small_enough_for_the_event_log(tmp_path: Path) -> None:
    stages = {
        "pretrain": [point(0, None, 0.2), point(50, 2.1, 0.5), point(100, 1.4, 0.6)],
        "prototypical": [point(0, None, 0.6), point(50, 0.9, 0.62)],
    }
    sizes = {}
    for count in (1, 2):
        path = tmp_path / f"{count}.png"
        plot_curves(dict(list(stages.items())[:count]), path)
        assert path.stat().st_size < 75_000  # base64 of it stays under 100 kB
        with Image.open(path) as picture:
            sizes[count] = picture.size
    assert sizes[2][0] > sizes[1][0]


def test_an_empty_history_is_drawn_as_empty_axes(tmp_path: Path) -> None:
    plot_curves({"pretrain": []}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


@pytest.mark.parametrize(
    ("accuracies", "log_losses", "kept"),
    [
        ([0.2, 0.6, 0.5, 0.6], [None] * 4, 3),  # of level ones the last
        ([0.6, 0.5, 0.6, 0.3], [None] * 4, 0),  # the untouched start has to be beaten
        ([0.2, 0.6, 0.5, 0.9], [2.0, 1.5, 1.2, 1.4], 2),
    ],
)
def test_the_weights_that_were_kept_are_marked(
    accuracies: list[float], log_losses: list[float | None], kept: int
) -> None:
    history = [
        {**point(10 * place, 1.0, accuracy), "log_loss": log_loss}
        for place, (accuracy, log_loss) in enumerate(zip(accuracies, log_losses, strict=True))
    ]
    assert _kept(history) == kept
