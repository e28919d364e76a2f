"""Draws metrics over the epochs: the compared metric, a line per row, and the curves of one Run.

`..._data` selects what is drawn, `draw_curves` draws it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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

from orchestrator.drawing.style import (
    COLORS,
    DASHES,
    MARKERS,
    axis_label,
    label_styles,
    save,
    spans_decades,
    stacked_axes,
    wrapped,
)
from orchestrator.plots.contract import Plot, PlotData
from orchestrator.reporting.comparison import Table
from trainables.metrics import METRICS, in_percent, metric_of

Points = Sequence[tuple[int, float]]  # (epoch, value)

SPLITS = ("train", "val", "test")  # whose curves of one metric share a figure of a Run
_NOTES = 8  # lines of notes under a figure


class Line(NamedTuple):
    """One label's curve.

    style: number of its color and mark. values: (seeds, epochs) float64, NaN where a seed has no
    finite value at the epoch. notes: values that cannot be drawn.
    """

    label: str
    style: int
    epochs: tuple[int, ...]
    values: npt.NDArray[np.float64]
    notes: tuple[str, ...]


class Panel(NamedTuple):
    """The lines of one Table."""

    title: str
    metric: str
    lines: tuple[Line, ...]


def draw(data: PlotData) -> Figure:
    """Return one panel per table. A metric that is measured once is shown over the validation
    split."""
    return draw_curves(curves_data(data.tables))


def curves_data(tables: Sequence[Table], styled_as: Sequence[Table] = ()) -> list[Panel]:
    """Return one panel per table and one line per row, from the Runs that the row counts.

    A metric that is measured once (`test/...`) is replaced by the one of the same name over the
    validation split, which is measured every epoch. styled_as: tables of another figure, whose
    labels keep their colors.
    """
    styles, panels = label_styles([*styled_as, *tables]), []
    for table in tables:
        metric, lines = _metric_of_every_epoch(table), []
        for row in table.rows:
            histories = [(f"{row.label} seed {run.seed}", run.history) for run in row.runs]
            series = [(name, history.get(metric, ())) for name, history in histories]
            lines.append(_line(row.label, styles[row.label], series))
        panels.append(Panel(table.title, metric, tuple(lines)))
    return panels


def draw_curves(panels: Sequence[Panel]) -> Figure:
    """Return the metric over epochs: a line per label, a band from the lowest to the highest
    seed."""
    lines = [line for panel in panels for line in panel.lines]
    heights = [max(3.0, 0.18 * len(panel.lines)) for panel in panels]
    figure, grid = stacked_axes([line.label for line in lines], heights)
    for axes, panel in zip(grid, panels, strict=True):
        _draw_panel(axes, panel)
    notes = [note for line in lines for note in line.notes]
    if any(np.isnan(line.values).any() for line in lines):
        notes.insert(0, "Pale: not every seed has a value at the epoch.")
    if any(line.epochs and len(line.values) > 1 for line in lines):
        notes.insert(0, "Line: mean over seeds. Band: lowest to highest seed.")
    more = len(notes) - _NOTES
    text = "\n".join(notes[:_NOTES] + [f"... and {more} more"] * (more > 0))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, parse_math=False)
    return figure


def run_data(history: Mapping[str, Points]) -> dict[str, Panel]:
    """Return the panels of one Run: a registered metric → its curves over training, validation,
    test."""
    panels = {}
    for name in METRICS:
        metrics = [f"{split}/{name}" for split in SPLITS]
        series = [(style, metric, history.get(metric)) for style, metric in enumerate(metrics)]
        lines = [
            _line(metric, style, [(metric, points)]) for style, metric, points in series if points
        ]
        if lines:
            panels[name] = Panel("", name, tuple(lines))
    return panels


def run_curves(history: Mapping[str, Points], chosen_epoch: int | None) -> dict[str, Figure]:
    """Return one Run's figures by name; a dotted line marks the epoch whose checkpoint was
    chosen."""
    figures = {name: draw_curves([panel]) for name, panel in run_data(history).items()}
    for axes in (figure.axes[0] for figure in figures.values()):
        if chosen_epoch is not None:
            axes.axvline(chosen_epoch, color="black", linestyle=":", linewidth=1, zorder=1.9)
            text, place = f"chosen epoch {chosen_epoch}", axes.get_xaxis_transform()
            axes.text(chosen_epoch, 1.02, text, transform=place, ha="center", fontsize=9)
    return figures


def save_curves(history: Mapping[str, Points], chosen_epoch: int | None, folder: Path) -> None:
    """Write the figures of `run_curves` into a folder, as PNG."""
    for name, figure in run_curves(history, chosen_epoch).items():
        save(figure, folder / f"{name}.png")


def _metric_of_every_epoch(table: Table) -> str:
    """Return the table's metric; over the validation split where no Run measures it more than
    once."""
    metric = table.rows[0].metric
    validation = f"val/{metric.partition('/')[2]}"
    histories = [run.history for row in table.rows for run in row.runs]
    often = any(len(dict(history.get(metric, ()))) > 1 for history in histories)
    has_validation = any(history.get(validation) for history in histories)
    return validation if has_validation and not often else metric


def _line(label: str, style: int, series: Sequence[tuple[str, Points]]) -> Line:
    """series: (name, points) of each seed; of an epoch reported twice, the later value counts."""
    reported = [(name, dict(points)) for name, points in series if points]
    seeds, notes = [], [] if reported else [f"{label}: no values to draw"]
    for name, points in reported:
        seeds.append({epoch: value for epoch, value in points.items() if math.isfinite(value)})
        if lost := sorted(points.keys() - seeds[-1].keys()):
            notes.append(f"{name}: {len(lost)} of {len(points)} epochs not finite, first {lost[0]}")
    epochs = tuple(sorted(set().union(*seeds)))
    values = [[seed.get(epoch, math.nan) for epoch in epochs] for seed in seeds]
    return Line(label, style, epochs, np.array(values), tuple(notes))


def _draw_panel(axes: Axes, panel: Panel) -> None:
    lines = [line for line in panel.lines if line.epochs]
    lines.sort(key=lambda line: -np.nanmean(line.values[:, -1]))  # by last value
    handles = [_draw_line(axes, line) for line in lines]
    if lines:
        labels = [wrapped(line.label) for line in lines]
        axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set(xlabel="epoch", ylabel=axis_label(panel.metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if in_percent(panel.metric):
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    elif lines and metric_of(panel.metric).mode == "min":
        _use_log_scale_if_needed(axes, np.concatenate([line.values.ravel() for line in lines]))
    axes.grid(color="#DDDDDD")


def _use_log_scale_if_needed(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    """A logarithmic axis where one value is far above another: at a high learning rate the first
    epoch's loss would press all others flat."""
    known = values[~np.isnan(values)].tolist()
    if not spans_decades(known):
        return
    axes.set_yscale("log")
    axes.set_ylabel(f"{axes.get_ylabel()} (logarithmic)")
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if max(known) < 1000 * min(known) else (1,))
    )
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_line(axes: Axes, line: Line) -> Artist:
    """Draw the mean and the band of one label. Returns the line for the legend."""
    round_, color = divmod(line.style, len(COLORS))
    dash = DASHES[round_ % len(DASHES)] if len(line.epochs) > 1 else ""
    marker = {"marker": MARKERS[round_ % len(MARKERS)], "markersize": 5, "markevery": [-1]}
    style: dict[str, Any] = {"color": COLORS[color], "linestyle": dash, **marker}
    (mean,) = axes.plot(line.epochs, line.values.mean(0), **style)
    if np.isnan(line.values).any():
        axes.plot(line.epochs, np.nanmean(line.values, 0), alpha=0.4, **style)
    if len(line.values) > 1:
        low, high = np.nanmin(line.values, 0), np.nanmax(line.values, 0)
        axes.fill_between(line.epochs, low, high, color=COLORS[color], alpha=0.15, linewidth=0)
    return mean


PLOT = Plot(draw)
