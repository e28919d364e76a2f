"""Draws the compared metric over the epochs, a line per row."""

from matplotlib.figure import Figure

from orchestrator.plots.contract import Plot, PlotData
from orchestrator.reporting.curve_plots import curves_data, draw_curves


def draw(data: PlotData) -> Figure:
    """One panel per table. A metric that is measured once is shown over the validation split."""
    return draw_curves(curves_data(data.tables))


PLOT = Plot(draw)
