"""Draws the compared means as bars, with 95 % intervals, single seeds and reference figures."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from orchestrator.drawing.style import COLORS, axis_label, label_styles, stacked_axes, wrapped
from orchestrator.plots.contract import Plot, PlotData
from orchestrator.reporting.comparison import Row, Table
from orchestrator.reporting.numbers import number
from orchestrator.reporting.sample import finite
from orchestrator.reporting.tables import shown
from trainables.metrics import in_percent


class Bar(NamedTuple):
    """style: number of its color, the same for a label in every figure of a comparison."""

    row: Row
    style: int


class Panel(NamedTuple):
    """The bars of one Table."""

    title: str
    metric: str
    bars: tuple[Bar, ...]


def draw(data: PlotData) -> Figure:
    """Return one panel per table, one bar per row."""
    return draw_bars(bars_data(data.tables))


def bars_data(tables: Sequence[Table]) -> list[Panel]:
    """Return one panel per table, one bar per row."""
    styles = label_styles(tables)
    return [
        Panel(
            table.title,
            table.rows[0].metric,
            tuple(Bar(row, styles[row.label]) for row in table.rows),
        )
        for table in tables
    ]


def draw_bars(panels: Sequence[Panel]) -> Figure:
    """Horizontal bars with their means in figures; one legend for all panels."""
    lines = [[wrapped(bar.row.label).count("\n") + 1 for bar in panel.bars] for panel in panels]
    heights = [len(counts) * max(0.38, 0.18 * max(counts)) for counts in lines]
    figure, grid = stacked_axes([bar.row.label for panel in panels for bar in panel.bars], heights)
    for axes, panel in zip(grid, panels, strict=True):
        _draw_panel(axes, panel)
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid]
    handles = {label: handle for pair in pairs for handle, label in pair}
    if handles:
        figure.legend(
            handles.values(), list(handles), loc="outside lower left", ncols=3, fontsize=8
        )
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for y, bar in enumerate(panel.bars):
        _draw_bar(axes, y, bar.row, COLORS[bar.style % len(COLORS)])
    labels = [wrapped(bar.row.label) for bar in panel.bars]
    axes.set_yticks(range(len(labels)), labels)
    axes.set(ylim=(len(labels) - 0.5, -0.5), xlabel=axis_label(panel.metric), axisbelow=True)
    axes.set_title(panel.title, loc="left", fontsize=10)
    if in_percent(panel.metric):
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.set_xlim(left=0)
    axes.grid(axis="x", color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_bar(axes: Axes, y: int, row: Row, color: str) -> None:
    """Reference above, interval in the middle, seeds below, so that no mark hides another."""
    mean = row.mean if row.mean is not None and math.isfinite(row.mean) else None
    seeds = [value for value in row.values if math.isfinite(value)]
    high = row.interval.high if row.interval else 0.0
    end = max(0.0, mean or 0.0, high, *seeds, finite(row.reference) or 0.0)
    axes.barh(y, mean or 0.0, height=0.8, color=color, alpha=0.55)
    if row.interval is not None and mean is not None:
        ends = [[mean - row.interval.low], [row.interval.high - mean]]
        axes.errorbar(mean, y, xerr=ends, fmt="k", capsize=3, label="95 % interval of the mean")
    if seeds and row.n > 1:
        axes.plot(seeds, [y + 0.32] * len(seeds), "ko", markersize=3, label="one seed")
    if row.reference is not None:
        axes.plot(row.reference, y - 0.32, "wD", mec="black", ms=5, label="reference figure")
    offset = "offset points"  # to the right of every mark
    axes.annotate(_caption(row), (end, y), xytext=(9, 0), textcoords=offset, va="center")


def _caption(row: Row) -> str:
    """Return `48.41 % [43.3, 53.5]  (n=3)`: mean, interval and n."""
    percent = in_percent(row.metric) and finite(row.mean) is not None
    text = f"{shown(row)}{' %' if percent else ''}"
    if row.interval is not None:
        text += f"  [{', '.join(number(row.metric, end) for end in row.interval)}]"
    return text + (f"  (n={row.n})" if row.n else "")


PLOT = Plot(draw)
