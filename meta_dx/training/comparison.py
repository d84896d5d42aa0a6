"""All learners side by side on the validation diseases, as a table and a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meta_dx.home import write_bytes

_CHOSEN, _OTHER, _SLOW, _QUIET = "#0b6e75", "#6b8a94", "#c98b3a", "#c9d1d9"


def ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep for each learner the weights with the highest mean accuracy, best learner first.

    Parameters
    ----------
    rows : sequence of dict
        The selection table: one row for each checkpoint, head and number of shots.

    Returns
    -------
    list of dict
        The rows that are left, one for each learner and number of shots.
    """
    best: dict[str, tuple[float, str]] = {}
    for row in rows:
        found = (row["mean"], row["checkpoint"])
        if row["head"] not in best or found[0] > best[row["head"]][0] or row["chosen"]:
            best[row["head"]] = found
    kept = [row for row in rows if best[row["head"]][1] == row["checkpoint"]]
    return sorted(kept, key=lambda row: (-best[row["head"]][0], row["head"], row["shots"]))


def plot_comparison(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw accuracy with its interval for each learner, one panel for each number of shots.

    Parameters
    ----------
    rows : sequence of dict
        The selection table.
    path : Path
        PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kept = ranked(rows)
    names = list(dict.fromkeys(row["head"] for row in kept))
    shots = sorted({row["shots"] for row in kept})
    figure = Figure(figsize=(1.6 + 3.2 * len(shots), 1.0 + 0.3 * len(names)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shots), squeeze=False, sharey=True)[0]
    for axes, k in zip(panels, shots, strict=True):
        for row in kept:
            if row["shots"] == k:
                colour = _CHOSEN if row["chosen"] else _OTHER if row["serves"] else _SLOW
                place = names.index(row["head"])
                axes.hlines(place, 100 * row["low"], 100 * row["high"], color=colour, linewidth=2, alpha=0.5)
                axes.plot(100 * row["accuracy"], place, "o", color=colour, markersize=6)
        axes.axvline(
            100 / max(row["ways"] for row in kept if row["shots"] == k), color=_QUIET, linestyle="--"
        )
        axes.set_title(f"{k} confirmed case{'s' if k > 1 else ''} each", loc="left", fontsize=10)
        axes.set_xlabel("accuracy on validation diseases, %", fontsize=9)
        axes.grid(axis="x", color=_QUIET, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0, labelsize=9)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(
        "green: serves; grey: could serve; orange: for comparison; dashed: guessing",
        fontsize=8,
        x=0.01,
        ha="left",
    )
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png")
    write_bytes(path, buffer.getvalue())
