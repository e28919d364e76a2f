"""Draws each paired difference with its 95 % interval, and the differences of single seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from orchestrator.drawing.style import axis_label, stacked_axes, wrapped
from orchestrator.plots.contract import Plot, PlotData
from orchestrator.reporting.comparison import Table
from orchestrator.reporting.numbers import number
from orchestrator.reporting.verdicts import Gain, gains
from trainables.metrics import in_percent, metric_of

_ESTABLISHED, _OPEN = "#0072B2", "#777777"
_EMPTY = "The study asks for no difference: set compare.differences."


class Panel(NamedTuple):
    """The differences of one Table."""

    title: str
    metric: str
    gains: tuple[Gain, ...]


def draw(data: PlotData) -> Figure:
    """Return one panel per table with differences, one line per difference."""
    return draw_differences(differences_data(data.tables))


def differences_data(tables: Sequence[Table]) -> list[Panel]:
    """Return the differences of each table that has any."""
    return [
        Panel(table.title, table.rows[0].metric, tuple(group))
        for table, group in zip(tables, gains(tables), strict=True)
        if group
    ]


def draw_differences(panels: Sequence[Panel]) -> Figure:
    """Return means with intervals around a line at zero. Blue: established; gray: not."""
    heights = [0.5 * len(panel.gains) + 0.4 for panel in panels]
    figure, grid = stacked_axes([_label(gain) for p in panels for gain in p.gains], heights)
    if not panels:
        figure.texts[0].set_text(_EMPTY)
        return figure
    for axes, panel in zip(grid, panels, strict=True):
        _draw_panel(axes, panel)
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid]
    handles = {label: handle for pair in pairs for handle, label in pair}
    if handles:
        figure.legend(
            handles.values(), list(handles), loc="outside lower left", ncols=2, fontsize=8
        )
    return figure


def _label(gain: Gain) -> str:
    return f"{gain.difference.first.label} - {gain.difference.second.label}"


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.axvline(0, color="black", linewidth=1)
    for y, gain in enumerate(panel.gains):
        _draw_gain(axes, y, gain)
    labels = [wrapped(_label(gain)) for gain in panel.gains]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_title(panel.title, loc="left", fontsize=10)
    unit = " (percentage points)" if in_percent(panel.metric) else ""
    better = "left" if metric_of(panel.metric).mode == "min" else "right"
    axes.set_xlabel(
        f"difference in {axis_label(panel.metric)}{unit}; {better} of 0: the first is better"
    )
    if in_percent(panel.metric):
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.4g}"))
    axes.grid(axis="x", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_gain(axes: Axes, y: int, gain: Gain) -> None:
    """Interval in the middle, single seeds below it."""
    test, difference = gain.test, gain.difference
    color = _ESTABLISHED if gain.established else _OPEN
    state = "established" if gain.established else "not established"
    seeds = [value for value in difference.values if math.isfinite(value)]
    if seeds:
        axes.plot(seeds, [y + 0.25] * len(seeds), "ko", markersize=3, label="one seed")
    if test.mean is None:
        axes.annotate("nothing can be said", (0, y), xytext=(9, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
        return
    end = max(0.0, test.mean, *seeds)
    if test.interval is not None:
        low, high = test.interval
        ends, label = [[test.mean - low], [high - test.mean]], f"95 % interval, {state}"
        axes.errorbar(test.mean, y, xerr=ends, fmt="o", color=color, capsize=3, label=label)
        end = max(end, high)
    else:
        axes.plot(test.mean, y, "o", color=color, mfc="none", label="no interval")
    text = f"{number(difference.metric, test.mean, '+')}  (n={test.n})"
    axes.annotate(
        text, (end, y), xytext=(9, 0), textcoords="offset points", va="center", fontsize=9
    )


PLOT = Plot(draw)
