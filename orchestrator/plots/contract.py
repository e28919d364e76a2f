"""Defines what a plot of a comparison is, and finds one by its name.

To add a plot: a file `orchestrator/plots/NAME.py` with `PLOT = Plot(draw)`, and one line in PLOTS
of `orchestrator/config/study_schema.py`. A study asks for it by its name under `compare.plots`.
Files that draw load matplotlib, which takes half a second: they are imported when they draw.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.drawing.mask_plots import MaskRow
    from orchestrator.drawing.style import Pixels
    from orchestrator.reporting.comparison import Table


class PlotData(Protocol):
    """Gives a plot what it can draw of a submission. Each call reads from MLflow only what it
    returns."""

    @property
    def tables(self) -> "Sequence[Table]":
        """Return the compared rows; their Runs have the history of the compared metric."""

    def tables_of(self, metric: str) -> "Sequence[Table]":
        """Return the rows of another metric, over every stage of the study."""

    def tsne_maps(self) -> "Mapping[str, Pixels]":
        """Return label and seed → the t-SNE picture after the last epoch, (H, W, 4) in [0, 1]."""

    def masks(self) -> "Mapping[str, Sequence[MaskRow]]":
        """Return label and seed → the masks of the watched images after the last epoch."""

    def produced_pictures(self, images: Sequence[str]) -> "Mapping[str, Mapping[str, Pixels]]":
        """Return the label of a producer → name of an image → its picture, (H, W, 3 or 4) in [0,
        1]."""


@dataclass(frozen=True)
class Plot:
    """One figure of a comparison.

    histories: full names of metrics whose curve it needs of every Run, beside the compared metric.
    """

    draw: "Callable[[PlotData], Figure]"
    histories: tuple[str, ...] = ()


def load_plot(name: str) -> Plot:
    """Return the plot of a name in PLOTS."""
    plot: Plot = importlib.import_module(f"orchestrator.plots.{name}").PLOT
    return plot


def save_curves(
    history: Mapping[str, Sequence[tuple[int, float]]], chosen_epoch: int | None, folder: Path
) -> None:
    """Draw the curves of one Run into a folder, as PNG: see `plots.curves`. history: metric →
    (epoch, value)."""
    curves = importlib.import_module("orchestrator.plots.curves")
    curves.save_curves(history, chosen_epoch, folder)
