"""Figures of a comparison and of one Run: `X_data` says what is drawn, `draw_X` draws it.

To add a figure of a comparison: write both and one line in PLOTS. Everything is drawn on Figure
objects, never on pyplot's global state, so any thread may draw.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)

from orchestrator.reporting.comparison import Row, Table
from orchestrator.reporting.tables import shown
from trainables.metrics import in_percent

Item = TypeVar("Item")
Points = Sequence[tuple[int, float]]  # (epoch, value)
Pixels = npt.NDArray[np.float32]

# Okabe & Ito's palette, which colour-blind readers tell apart, without its yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES, MARKS = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v")  # of lines of one colour
FIGURES = ("loss", "accuracy", "miou", "knn_accuracy", "embedding_std", "effective_rank")
_WRAP = 48  # characters in a line of a label
_FAR = 5.0  # times the lowest loss of a panel: from there on its axis is logarithmic
_NOTES = 8  # lines of notes under a figure


class Bar(NamedTuple):
    """style: number of its colour, the same for a label in every figure of a comparison."""

    row: Row
    style: int


class Line(NamedTuple):
    """values: (seeds, epochs) float64, NaN where a seed has no finite value at the epoch."""

    label: str
    style: int
    epochs: tuple[int, ...]
    values: npt.NDArray[np.float64]
    notes: tuple[str, ...]  # values that cannot be drawn


class Panel(NamedTuple, Generic[Item]):
    """One Table as a picture."""

    title: str
    metric: str
    items: tuple[Item, ...]


def bars_data(tables: Sequence[Table]) -> list[Panel[Bar]]:
    """One panel a table, one bar a row."""
    styles = _styles(tables)
    return [
        Panel(one.title, one.rows[0].metric, tuple(Bar(row, styles[row.label]) for row in one.rows))
        for one in tables
    ]


def draw_bars(panels: Sequence[Panel[Bar]]) -> Figure:
    """Means as horizontal bars with their values, deviations, single seeds and references."""
    lines = [[_wrapped(bar.row.label).count("\n") + 1 for bar in each.items] for each in panels]
    sizes = [len(counts) * max(0.38, 0.18 * max(counts)) for counts in lines]
    figure, grid = _stack([bar.row.label for each in panels for bar in each.items], sizes)
    for axes, panel in zip(grid, panels, strict=True):
        _draw_bar_panel(axes, panel)
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid]
    marks = {label: handle for each in pairs for handle, label in each}
    if marks:
        figure.legend(marks.values(), list(marks), loc="outside lower left", ncols=3, fontsize=8)
    return figure


def curves_data(tables: Sequence[Table], beside: Sequence[Table] = ()) -> list[Panel[Line]]:
    """One panel a table, one line a row, from the Runs the row counts.

    A metric that is measured once (test/...) is shown by its validation twin, epoch by epoch.
    beside: tables of another figure, whose labels have their colours already.
    """
    styles, panels = _styles([*beside, *tables]), []
    for one in tables:
        metric, lines = _every_epoch(one), []
        for row in one.rows:
            named = [(f"{row.label} seed {run.seed}", run.history) for run in row.runs]
            series = [(name, history.get(metric, ())) for name, history in named]
            lines.append(_line(row.label, styles[row.label], series))
        panels.append(Panel(one.title, metric, tuple(lines)))
    return panels


def draw_curves(panels: Sequence[Panel[Line]]) -> Figure:
    """The metric over epochs: a line a label, a band from the lowest to the highest seed."""
    lines = [line for panel in panels for line in panel.items]
    sizes = [max(3.0, 0.18 * len(panel.items)) for panel in panels]
    figure, grid = _stack([line.label for line in lines], sizes)
    for axes, panel in zip(grid, panels, strict=True):
        _draw_curve_panel(axes, panel)
    notes = [note for line in lines for note in line.notes]
    if any(np.isnan(line.values).any() for line in lines):
        notes.insert(0, "Pale: not every seed has a value at the epoch.")
    if any(line.epochs and len(line.values) > 1 for line in lines):
        notes.insert(0, "Line: mean over seeds. Band: lowest to highest seed.")
    more = len(notes) - _NOTES
    text = "\n".join(notes[:_NOTES] + [f"... and {more} more"] * (more > 0))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, parse_math=False)
    return figure


def draw_maps(maps: Mapping[str, Pixels]) -> Figure:
    """Pictures of the same kind side by side, under their labels. Pixels: (H, W, 4)."""
    columns = min(3, max(1, len(maps)))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(6 * columns, 5.8 * max(1, rows)), layout="constrained")
    if not maps:
        figure.text(0.5, 0.5, "No compared Run has a t-SNE map.", ha="center")
        return figure
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, (label, pixels) in zip(grid, maps.items(), strict=False):
        axes.imshow(pixels)
        axes.set_title(_wrapped(label), fontsize=12)
    return figure


PLOTS: dict[str, Callable[[Sequence[Table]], Figure]] = {  # by name in a study's `compare.plots`
    "bars": lambda tables: draw_bars(bars_data(tables)),
    "curves": lambda tables: draw_curves(curves_data(tables)),
}


def run_data(history: Mapping[str, Points]) -> dict[str, Panel[Line]]:
    """One Run's panels by name, of what its history has of FIGURES."""
    panels = {}
    for name in FIGURES:
        metrics = [f"{split}/{name}" for split in ("train", "val", "test")]
        series = [(style, metric, history.get(metric)) for style, metric in enumerate(metrics)]
        lines = [_line(metric, style, [(metric, each)]) for style, metric, each in series if each]
        if lines:
            panels[name] = Panel("", name, tuple(lines))
    return panels


def run_curves(history: Mapping[str, Points], chosen_epoch: int | None) -> dict[str, Figure]:
    """One Run's figures by name; a dotted line marks the epoch whose checkpoint was chosen."""
    figures = {name: draw_curves([panel]) for name, panel in run_data(history).items()}
    for axes in (figure.axes[0] for figure in figures.values()):
        if chosen_epoch is not None:
            axes.axvline(chosen_epoch, color="black", linestyle=":", linewidth=1, zorder=1.9)
            text, place = f"chosen epoch {chosen_epoch}", axes.get_xaxis_transform()
            axes.text(chosen_epoch, 1.02, text, transform=place, ha="center", fontsize=9)
    return figures


def save(figure: Figure, path: Path) -> None:
    """As the path's ending says, png or svg, nothing cut at the figure's edge. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _styles(tables: Iterable[Table]) -> dict[str, int]:
    labels = dict.fromkeys(row.label for one in tables for row in one.rows)
    return {label: number for number, label in enumerate(labels)}


def _draw_bar_panel(axes: Axes, panel: Panel[Bar]) -> None:
    for y, bar in enumerate(panel.items):
        _draw_bar(axes, y, bar.row, COLOURS[bar.style % len(COLOURS)])
    labels = [_wrapped(bar.row.label) for bar in panel.items]
    axes.set_yticks(range(len(labels)), labels)
    axes.set(ylim=(len(labels) - 0.5, -0.5), xlabel=panel.metric, axisbelow=True)
    axes.set_title(panel.title, loc="left", fontsize=10)
    if in_percent(panel.metric):
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.set_xlim(left=0)
    axes.grid(axis="x", color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_bar(axes: Axes, y: int, row: Row, colour: str) -> None:
    """Three lanes, so that nothing hides another: reference above, deviation, seeds below."""
    mean = row.mean if row.mean is not None and math.isfinite(row.mean) else None
    seeds = [value for value in row.values if math.isfinite(value)]
    end = max([0.0, (mean or 0.0) + (row.std or 0.0), *seeds])
    axes.barh(y, mean or 0.0, height=0.8, color=colour, alpha=0.55)
    if row.std is not None and mean is not None:
        axes.errorbar(mean, y, xerr=row.std, fmt="k", capsize=3, label="± one standard deviation")
    if seeds and row.n > 1:
        axes.plot(seeds, [y + 0.32] * len(seeds), "ko", markersize=3, label="one seed")
    if row.reference is not None:
        axes.plot(row.reference, y - 0.32, "wD", mec="black", ms=5, label="reference figure")
    unit = " %" if in_percent(row.metric) and mean is not None else ""
    text = f"{shown(row)}{unit}" + (f"  (n={row.n})" if row.n else "")
    axes.annotate(text, (end, y), xytext=(7, 0), textcoords="offset points", va="center")


def _every_epoch(table: Table) -> str:
    """The metric, or val/... for a test/... metric that no Run measures more than once."""
    metric = table.rows[0].metric
    twin = metric.replace("test/", "val/")
    histories = [run.history for row in table.rows for run in row.runs]
    often = any(len(dict(history.get(metric, ()))) > 1 for history in histories)
    return twin if not often and any(history.get(twin) for history in histories) else metric


def _line(label: str, style: int, series: Sequence[tuple[str, Points]]) -> Line:
    """series: (name, points) of each seed; of an epoch reported twice, the later value counts."""
    given = [(name, dict(points)) for name, points in series if points]
    seeds, notes = [], [] if given else [f"{label}: no values to draw"]
    for name, points in given:
        seeds.append({epoch: value for epoch, value in points.items() if math.isfinite(value)})
        if lost := sorted(points.keys() - seeds[-1].keys()):
            notes.append(f"{name}: {len(lost)} of {len(points)} epochs not finite, first {lost[0]}")
    epochs = tuple(sorted(set().union(*seeds)))
    values = [[seed.get(epoch, math.nan) for epoch in epochs] for seed in seeds]
    return Line(label, style, epochs, np.array(values), tuple(notes))


def _draw_curve_panel(axes: Axes, panel: Panel[Line]) -> None:
    lines = [line for line in panel.items if line.epochs]
    lines.sort(key=lambda line: -np.nanmean(line.values[:, -1]))  # as the ends stand, top down
    handles = [_draw_line(axes, line) for line in lines]
    if lines:
        labels = [_wrapped(line.label) for line in lines]
        axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set(xlabel="epoch", ylabel=panel.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if in_percent(panel.metric):
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    elif panel.metric.endswith("loss") and lines:
        _spread_out(axes, np.concatenate([line.values.ravel() for line in lines]))
    axes.grid(color="#DDDDDD")


def _spread_out(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    """A logarithmic axis where one loss is far above another: a first epoch at a high rate would
    press all others flat."""
    low, high = np.nanmin(values), np.nanmax(values)
    if low <= 0 or high < _FAR * low:
        return
    axes.set_yscale("log")
    axes.set_ylabel(f"{axes.get_ylabel()} (logarithmic)")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_line(axes: Axes, line: Line) -> Artist:
    number, colour = divmod(line.style, len(COLOURS))
    dash = DASHES[number % len(DASHES)] if len(line.epochs) > 1 else ""
    mark = {"marker": MARKS[number % len(MARKS)], "markersize": 5, "markevery": [-1]}
    drawing: dict[str, Any] = {"color": COLOURS[colour], "linestyle": dash, **mark}
    (drawn,) = axes.plot(line.epochs, line.values.mean(0), **drawing)
    if np.isnan(line.values).any():
        axes.plot(line.epochs, np.nanmean(line.values, 0), alpha=0.4, **drawing)
    if len(line.values) > 1:
        low, high = np.nanmin(line.values, 0), np.nanmax(line.values, 0)
        axes.fill_between(line.epochs, low, high, color=COLOURS[colour], alpha=0.15, linewidth=0)
    return drawn


def _stack(labels: Sequence[str], sizes: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Axes one over the other, heights in inches, wide enough for the longest label."""
    width = 7.5 + 0.08 * max((min(len(label), _WRAP) for label in labels), default=0)
    figure = Figure(figsize=(width, sum(sizes) + 0.75 * len(sizes) + 0.3), layout="constrained")
    if not sizes:
        figure.text(0.5, 0.5, "No Run of the compared stages reports the metric.", ha="center")
        return figure, []
    grid = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=sizes)
    return figure, list(grid[:, 0])


def _wrapped(label: str) -> str:
    """The label in lines of at most _WRAP characters, broken after a separator if it has one."""
    lines = re.findall(rf".{{1,{_WRAP}}}(?:(?<=[\[,/ ])|$)|.+", label)
    return "\n".join(lines).replace("$", r"\$")  # no formula
