"""Draws the watched images with ground truth and the predicted masks of every compared row."""

from matplotlib.figure import Figure

from orchestrator.drawing.mask_plots import draw_mask_grid
from orchestrator.plots.contract import Plot, PlotData


def draw(data: PlotData) -> Figure:
    """Return a row per image, a column per model, then the producers' pictures of the same
    image."""
    masks = data.masks()
    images = sorted({row.name for rows in masks.values() for row in rows})
    return draw_mask_grid(masks, data.produced_pictures(images))


PLOT = Plot(draw)
