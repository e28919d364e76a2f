"""Figures of a search: how the best was found, which configurations did well, what mattered."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from orchestrator.config.search_schema import Search
from orchestrator.reporting.plots import COLOURS
from orchestrator.sampling.dimension import Dimension
from orchestrator.storage.trial_log import Trial
from trainables.metrics import in_percent

_TICKS = 8  # choices of one parameter that are named
_STATES = {"FINISHED": ("o", "full"), "STOPPED": ("o", "none")}
_WORDS = {"FINISHED": "trained to its end", "STOPPED": "stopped early"}


def draw_best(trials: Sequence[Trial], metric: str, mode: str) -> Figure:
    """Every trial's figure and the best so far, over trials and over the time spent."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    fared = [t for t in trials if t.figure is not None and t.state in _STATES]
    by_time = sorted((t for t in fared if t.ended is not None), key=lambda t: t.ended or 0.0)
    _draw_best(left, fared, [float(t.index) for t in fared], mode)
    _draw_best(right, by_time, [(t.ended or 0.0) / 60 for t in by_time], mode)
    left.set_xlabel("trial")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("minutes of the search")
    right.set_xlim(left=0)
    left.set_ylabel(metric)
    if in_percent(metric):
        left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    failed = sum(trial.state == "FAILED" for trial in trials)
    handles, labels = left.get_legend_handles_labels()
    title = f"{failed} failed" if failed else None
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8, title=title)
    return figure


def _draw_best(axes: Axes, trials: Sequence[Trial], places: Sequence[float], mode: str) -> None:
    for state, (mark, fill) in _STATES.items():
        chosen = [(x, t.figure) for x, t in zip(places, trials, strict=True) if t.state == state]
        if chosen:
            xs, ys = zip(*chosen, strict=True)
            face = COLOURS[0] if fill == "full" else "none"
            axes.scatter(
                xs, ys, 22, marker=mark, facecolor=face, edgecolor=COLOURS[0], label=_WORDS[state]
            )
    better = np.maximum if mode == "max" else np.minimum
    values = np.array([t.figure for t in trials], dtype=float)
    if len(values):
        line = better.accumulate(values)
        axes.step(places, line, where="post", color=COLOURS[1], label="best so far", zorder=0)
    axes.grid(alpha=0.3)


def draw_parallel(trials: Sequence[Trial], search: Search) -> Figure:
    """Parallel coordinates: a line a trial through its parameters to its figure."""
    names = list(search.space)
    fared = [t for t in trials if t.figure is not None and t.state in _STATES]
    figure = Figure(figsize=(2 + 1.5 * len(names), 4.2), layout="constrained")
    axes = figure.subplots()
    values = [t.figure for t in fared if t.figure is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    scale = Normalize(low, high if high > low else low + 1e-9)
    colours = ScalarMappable(scale, "viridis")
    worst_first = sorted(
        fared, key=lambda t: (t.figure or 0.0) * (1 if search.mode == "max" else -1)
    )
    for trial in worst_first:
        ys = [_place(search.space[name], trial.current[name]) for name in names]
        style = "-" if trial.state == "FINISHED" else ":"
        axes.plot(
            range(len(names)), ys, style, color=colours.to_rgba(np.array(trial.figure)), alpha=0.85
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
    bar = figure.colorbar(colours, ax=axes, label=search.metric)
    if in_percent(search.metric):
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if any(t.state == "STOPPED" for t in fared):
        axes.set_title("dotted: stopped early", fontsize=8, loc="left")
    return figure


def _place(axis: Dimension, value: Any) -> float:
    """Where a value lies between the ends of its axis, in [0, 1]."""
    if axis.choice is not None:
        return axis.choice.index(value) / max(1, len(axis.choice) - 1)
    low, high = axis.bounds
    if axis.log is not None:
        return float(np.log(value / low) / np.log(high / low))
    return float((value - low) / (high - low))


def _ticks(axis: Dimension) -> list[tuple[float, str]]:
    if axis.choice is not None:
        step = -(-len(axis.choice) // _TICKS)
        return [(_place(axis, value), str(value)) for value in axis.choice[::step]]
    low, high = axis.bounds
    middle = float(np.sqrt(low * high)) if axis.log is not None else (low + high) / 2
    return [(_place(axis, value), f"{value:.3g}") for value in (low, middle, high)]


def draw_importance(shares: Mapping[str, float], trials: Sequence[Trial], metric: str) -> Figure:
    """Share of the figure's variance that each parameter explains, the largest on top. trials: of
    which the shares are."""
    figure = Figure(figsize=(6, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names, values = list(shares), list(shares.values())
    bars = axes.barh(names, values, color=COLOURS[0])
    axes.bar_label(bars, [f"{100 * value:.0f} %" for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.15)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(f"share of the variance of {metric} over {len(trials)} trials (fANOVA)")
    stopped = sum(trial.state == "STOPPED" for trial in trials)
    if stopped:
        why = f"stopped early: {stopped}, counted with what they had reached"
        axes.set_title(why, fontsize=8, loc="left")
    axes.spines[["right", "top"]].set_visible(False)
    return figure
