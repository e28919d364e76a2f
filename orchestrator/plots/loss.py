"""Draws the validation loss over the epochs, also of stages that are not compared."""

from matplotlib.figure import Figure

from orchestrator.plots.contract import Plot, PlotData
from orchestrator.plots.curves import curves_data, draw_curves

METRIC = "val/loss"


def draw(data: PlotData) -> Figure:
    """Return one panel per table. Labels that are compared have the colors of the other figures."""
    return draw_curves(curves_data(data.tables_of(METRIC), data.tables))


PLOT = Plot(draw, histories=(METRIC,))
