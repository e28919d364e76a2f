"""Draws a search: its best trial over time, its configurations, and which parameters matter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from orchestrator.config.search_schema import Search
from orchestrator.drawing.style import COLORS, axis_label
from orchestrator.sampling.dimension import Dimension
from orchestrator.storage.trial_log import Trial
from trainables.metrics import in_percent

_TICKS = 8  # choices of one parameter that are named at its axis
_STATES = {"FINISHED": "trained to its end", "STOPPED": "stopped early"}  # whose trials are drawn


def draw_best(trials: Sequence[Trial], metric: str, mode: str) -> Figure:
    """Return every trial's figure and the best so far, over trials on the left, over time on the
    right.

    metric: full name of what was searched for; mode: `min` or `max`.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    drawn = _with_figure(trials)
    by_time = sorted((t for t in drawn if t.ended is not None), key=lambda t: t.ended or 0.0)
    _draw_best(left, drawn, [float(t.index) for t in drawn], mode)
    _draw_best(right, by_time, [(t.ended or 0.0) / 60 for t in by_time], mode)
    left.set_xlabel("trial")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("minutes since the search started")
    right.set_xlim(left=0)
    left.set_ylabel(axis_label(metric))
    if in_percent(metric):
        left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    failed = sum(trial.state == "FAILED" for trial in trials)
    handles, labels = left.get_legend_handles_labels()
    title = f"{failed} failed" if failed else None
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8, title=title)
    return figure


def _with_figure(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.figure is not None and trial.state in _STATES]


def _draw_best(axes: Axes, trials: Sequence[Trial], places: Sequence[float], mode: str) -> None:
    """A dot per trial, hollow where it was stopped early, and a step line of the best so far.

    places: x of each trial, rising.
    """
    for state, label in _STATES.items():
        points = [(x, t.figure) for x, t in zip(places, trials, strict=True) if t.state == state]
        if points:
            xs, ys = zip(*points, strict=True)
            fill = COLORS[0] if state == "FINISHED" else "none"
            axes.scatter(xs, ys, 22, facecolor=fill, edgecolor=COLORS[0], label=label)
    better = np.maximum if mode == "max" else np.minimum
    values = np.array([t.figure for t in trials], dtype=float)
    if len(values):
        line = better.accumulate(values)
        axes.step(places, line, where="post", color=COLORS[1], label="best so far", zorder=0)
    axes.grid(alpha=0.3)


def draw_parallel(trials: Sequence[Trial], search: Search) -> Figure:
    """Parallel coordinates: a line per trial through its parameters, colored by its figure."""
    names = list(search.space)
    drawn = _with_figure(trials)
    figure = Figure(figsize=(2 + 1.5 * len(names), 4.2), layout="constrained")
    axes = figure.subplots()
    values = [t.figure for t in drawn if t.figure is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    scale = Normalize(low, high if high > low else low + 1e-9)
    colors = ScalarMappable(scale, "viridis")
    worst_first = sorted(
        drawn, key=lambda t: (t.figure or 0.0) * (1 if search.mode == "max" else -1)
    )
    for trial in worst_first:
        ys = [_place(search.space[name], trial.current[name]) for name in names]
        style = "-" if trial.state == "FINISHED" else ":"
        axes.plot(
            range(len(names)), ys, style, color=colors.to_rgba(np.array(trial.figure)), alpha=0.85
        )
    for column, name in enumerate(names):
        axes.axvline(column, color="0.6", lw=0.8, zorder=0)
        for y, text in _ticks(search.space[name]):
            axes.annotate(
                text, (column, y), (3, 0), textcoords="offset points", fontsize=7, va="center",
                bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7},
            )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(names) - 0.5)
    axes.spines[["left", "right", "top"]].set_visible(False)
    bar = figure.colorbar(colors, ax=axes, label=axis_label(search.metric))
    if in_percent(search.metric):
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if any(t.state == "STOPPED" for t in drawn):
        axes.set_title("dotted: stopped early", fontsize=8, loc="left")
    return figure


def _place(axis: Dimension, value: Any) -> float:
    """Return where a value lies between the ends of its axis, in [0, 1]."""
    if axis.choice is not None:
        return axis.choice.index(value) / max(1, len(axis.choice) - 1)
    low, high = axis.bounds
    if axis.log is not None:
        return float(np.log(value / low) / np.log(high / low))
    return float((value - low) / (high - low))


def _ticks(axis: Dimension) -> list[tuple[float, str]]:
    """Return (place in [0, 1], text): some of the choices, or the ends and the middle of a
    range."""
    if axis.choice is not None:
        step = -(-len(axis.choice) // _TICKS)
        return [(_place(axis, value), str(value)) for value in axis.choice[::step]]
    low, high = axis.bounds
    middle = float(np.sqrt(low * high)) if axis.log is not None else (low + high) / 2
    return [(_place(axis, value), f"{value:.3g}") for value in (low, middle, high)]


def draw_importance(shares: Mapping[str, float], trials: Sequence[Trial], metric: str) -> Figure:
    """Return the share of the metric's variance that each parameter explains, the largest on top.

    shares: parameter → share in [0, 1]; trials: those that the shares were computed from.
    """
    figure = Figure(figsize=(6, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names, values = list(shares), list(shares.values())
    bars = axes.barh(names, values, color=COLORS[0])
    axes.bar_label(bars, [f"{100 * value:.0f} %" for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.15)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(
        f"share of the variance of {axis_label(metric)} over {len(trials)} trials (fANOVA)"
    )
    stopped = sum(trial.state == "STOPPED" for trial in trials)
    if stopped:
        title = f"stopped early: {stopped}, counted with their last figure"
        axes.set_title(title, fontsize=8, loc="left")
    axes.spines[["right", "top"]].set_visible(False)
    return figure
