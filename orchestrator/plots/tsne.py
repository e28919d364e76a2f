"""Draws the t-SNE maps of all compared rows side by side."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from orchestrator.drawing.style import Pixels, wrapped
from orchestrator.plots.contract import Plot, PlotData


def draw(data: PlotData) -> Figure:
    """Return each row's map after its last epoch, of the first seed that has one."""
    return draw_maps(data.tsne_maps())


def draw_maps(maps: Mapping[str, Pixels]) -> Figure:
    """Return the pictures of one kind under their labels, three in a line. Pixels: (H, W, 4) in [0,
    1]."""
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
        axes.set_title(wrapped(label), fontsize=12)
    return figure


PLOT = Plot(draw)
