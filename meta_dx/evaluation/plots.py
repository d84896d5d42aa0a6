"""Pictures of the report, as SVG that goes into the page and takes its fonts from there."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meta_dx.evaluation.figures import Ends, MethodResult
from meta_dx.home import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, LINE = "#1d2b33", "#6b7b84", "#d9e0e3"
_SIZES = (re.compile(r'(<svg[^>]*?) width="[^"]*"'), re.compile(r'(<svg[^>]*?) height="[^"]*"'))
SERVED, BASELINE, SHORTCUT = "#0b6e75", "#9aa9b1", "#c98b3a"


_FEW = 0.01  # share of cases below which a bin says nothing


@dataclass(frozen=True)
class Bar:
    """One method under one protocol: a label, an accuracy with its interval, and a colour."""

    label: str
    accuracy: float
    ends: Ends
    colour: str


@dataclass(frozen=True)
class Panel:
    """One protocol: its title, its methods, and the accuracy of guessing."""

    title: str
    bars: tuple[Bar, ...]
    chance: float


def accuracy_bars(panels: Sequence[Panel]) -> str:
    """Draw the accuracy of every method, protocol beside protocol, with intervals and the line of guessing.

    Parameters
    ----------
    panels : sequence of Panel
        All with the same methods in the same order.

    Returns
    -------
    str
        SVG.
    """
    figure = _figure(10.4, 0.42 * len(panels[0].bars) + 1.25)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        for at, bar in enumerate(panel.bars):
            low, high = (100 * end for end in bar.ends)
            axis.barh(at, 100 * bar.accuracy, height=0.56, color=bar.colour, zorder=2)
            axis.plot([low, high], [at, at], color=INK, linewidth=1.3, zorder=4, solid_capstyle="butt")
            for end in (low, high):
                axis.plot([end, end], [at - 0.12, at + 0.12], color=INK, linewidth=1.3, zorder=4)
            axis.text(102, at, f"{100 * bar.accuracy:.1f}", va="center", fontsize=9.5, color=INK)
        axis.axvline(100 * panel.chance, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=3)
        axis.set_title(_narrow(panel.title), loc="left", fontsize=10, color=INK, pad=9)
        axis.set_xlim(0, 100)
        axis.set_xticks([0, 25, 50, 75, 100])
        axis.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
        axis.set_ylim(len(panel.bars) - 0.45, -0.55)
        _quiet(axis)
        axis.grid(axis="x", color=LINE, linewidth=0.8, zorder=0)
    axes[0].tick_params(axis="y", labelsize=10, labelcolor=INK)
    return _svg(figure, "accuracy")


def reliability_curves(results: Sequence[tuple[str, MethodResult]]) -> str:
    """Draw how often the answer was right against how sure the model was.

    Parameters
    ----------
    results : sequence of (title, MethodResult)
        One panel each.

    Returns
    -------
    str
        SVG.
    """
    return _svg(_reliability(results), "reliability")


def write_reliability(results: Sequence[tuple[str, MethodResult]], path: Path) -> Path:
    """Write the same drawing as a PNG file, for pages that show no SVG."""
    buffer = io.BytesIO()
    _reliability(results).savefig(buffer, format="png", dpi=90, facecolor="white")
    write_bytes(path, buffer.getvalue())
    return path


def _reliability(results: Sequence[tuple[str, MethodResult]]) -> Figure:
    figure = _figure(3.3 * len(results) + 0.5, 3.4)
    axes = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for (title, found), axis in zip(results, axes, strict=True):
        confidence, accuracy, weight = zip(*found.reliability, strict=True)
        axis.plot([0, 100], [0, 100], color=QUIET, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
        sure, right = ([100 * v for v in values] for values in (confidence, accuracy))
        axis.vlines(sure, sure, right, color=SERVED, linewidth=0.9, alpha=0.5, zorder=2)
        held = [i for i, share in enumerate(weight) if share >= _FEW]  # the line skips bins of a few cases
        axis.plot([sure[i] for i in held], [right[i] for i in held], color=SERVED, linewidth=1.2, zorder=3)
        axis.scatter(
            sure, right, s=[14 + 420 * w for w in weight], color=SERVED, alpha=0.85, zorder=4, linewidths=0
        )
        axis.set_title(_narrow(title), loc="left", fontsize=10, color=INK, pad=8)
        axis.set_xlim(0, 103)
        axis.set_ylim(0, 103)
        axis.set_xticks([0, 25, 50, 75, 100])
        axis.set_yticks([0, 25, 50, 75, 100])
        axis.set_aspect("equal")
        axis.set_xlabel("how sure the model was, %", fontsize=9, color=QUIET)
        _quiet(axis)
        axis.grid(color=LINE, linewidth=0.8, zorder=0)
    axes[0].set_ylabel("how often it was right, %", fontsize=9, color=QUIET)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _narrow(title: str) -> str:
    # The reader's font may be wider than the one that is measured here.
    return "\n".join(textwrap.wrap(title, 24))


def _quiet(axis: Any) -> None:
    for side in axis.spines.values():
        side.set_visible(False)
    axis.tick_params(length=0, labelsize=9, labelcolor=QUIET)
    axis.set_axisbelow(True)


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an <svg> element without prolog, metadata or fixed size."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), io.StringIO() as stream:
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Two pictures in one page must not share the names that clip paths and markers are found by.
    text = re.sub(r'id="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', text)
    for size in _SIZES:
        text = size.sub(r"\1", text, count=1)
    return text
