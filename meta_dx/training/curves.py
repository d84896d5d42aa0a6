"""Learning curves as a picture: loss above, accuracy on the validation diseases below, one column a stage."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meta_dx.home import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: One entry a validation: ``step``, ``loss``, ``training_accuracy``, ``accuracy``, ``log_loss``, ``learning_rate``, and
#: ``kl`` where the learner reports it.
Curve = list[dict[str, Any]]

_LOSS, _VALIDATION, _QUIET = "#5b6b7b", "#0b6e8a", "#c9d1d9"


def plot_curves(histories: Mapping[str, Curve], path: Path) -> None:
    """Draw the learning curves of one or more stages.

    Parameters
    ----------
    histories : mapping of str to list
        Stage → its validations, in order.
    path : Path
        PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.8 + 4.2 * len(histories), 4.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(histories), squeeze=False, sharex="col")
    for column, (stage, history) in enumerate(histories.items()):
        _loss(axes[0, column], stage, history)
        _accuracy(axes[1, column], history)
        axes[1, column].sharey(axes[1, 0])  # accuracies compare across stages, losses do not
    axes[0, 0].set_ylabel("training loss (nats)")
    axes[1, 0].set_ylabel("validation accuracy (%)")
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def _loss(axes: Axes, stage: str, history: Curve) -> None:
    told = [point for point in history if point["loss"] is not None]
    axes.plot([p["step"] for p in told], [p["loss"] for p in told], color=_LOSS, marker="o", markersize=3)
    axes.set_title(stage, loc="left", fontsize=11)
    _quiet(axes)


def _accuracy(axes: Axes, history: Curve) -> None:
    steps = [point["step"] for point in history]
    percent = [100 * point["accuracy"] for point in history]
    axes.plot(steps, percent, color=_VALIDATION, marker="o", markersize=3)
    if percent:
        kept = _kept(history)
        axes.plot(steps[kept], percent[kept], "o", color=_VALIDATION, markersize=7, fillstyle="none")
        axes.annotate(
            f"kept {percent[kept]:.1f}",
            (steps[kept], percent[kept]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="right" if kept > len(percent) / 2 else "left",
            fontsize=9,
            color=_VALIDATION,
        )
    axes.set_xlabel("step")
    axes.margins(y=0.2)
    _quiet(axes)


def _kept(history: Curve) -> int:
    """Return the place of the weights that were kept: of level ones the last, but for the untouched start."""
    scores = _scores(history)
    level = [place for place, score in enumerate(scores) if score == max(scores)]
    return level[-1] if history[level[0]]["step"] else level[0]


def _scores(history: Curve) -> list[float]:
    """Return what weights are kept by: minus the log loss where it was measured, never where it was not finite."""
    losses = [point.get("log_loss") for point in history]
    if all(loss is None for loss in losses):
        return [float(point["accuracy"]) for point in history]
    return [-math.inf if loss is None else -loss for loss in losses]


def _quiet(axes: Axes) -> None:
    axes.grid(color=_QUIET, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
