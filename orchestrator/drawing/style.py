"""Holds what all figures share: colors, labels of axes, wrapped names, and saving a figure.

Figures are matplotlib Figure objects, never pyplot's global state, so that any thread may draw.
matplotlib takes half a second to load: it is imported where something is drawn.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from orchestrator.reporting.comparison import Table
from trainables.metrics import metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.float32]

# Okabe & Ito's palette, which color-blind readers can tell apart, without its yellow
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES, MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v")  # of lines of one color
_SPLITS = {"train": "training", "val": "validation"}
_LOG_FROM = 5.0  # largest over smallest value, from which an axis is logarithmic
_LINE = 48  # characters in a line of a label


def axis_label(metric: str) -> str:
    """Return the text at the axis of a metric: `val/knn_accuracy` → `validation kNN accuracy`.

    A percentage has its sign at the ticks, every other unit stands in brackets.
    """
    split, _, figure = metric.rpartition("/") if metric.count("/") < 2 else metric.partition("/")
    known = metric_of(metric)
    label, unit = known.label, known.unit
    if figure.startswith(f"{known.name}/"):  # of one class: `iou/<class>`
        label += f" of {figure.partition('/')[2]}"
    text = f"{_SPLITS.get(split, split)} {label}".strip()
    return text if unit in ("", "%") else f"{text} ({unit})"


def spans_decades(values: Sequence[float]) -> bool:
    """Return whether an axis of these values is to be logarithmic: one large first value would
    press all others to the bottom."""
    return bool(values) and min(values) > 0 and max(values) >= _LOG_FROM * min(values)


def label_styles(tables: Iterable[Table]) -> dict[str, int]:
    """Return a number for each label of the tables: the same color and mark in every figure."""
    labels = dict.fromkeys(row.label for table in tables for row in table.rows)
    return {label: number for number, label in enumerate(labels)}


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that keeps its labels apart. width, height: in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def stacked_axes(labels: Sequence[str], heights: Sequence[float]) -> "tuple[Figure, list[Axes]]":
    """Return a figure with one Axes below the other, wide enough for the longest label.

    heights: of each Axes, in inches. Without any, the figure says that there is nothing to draw.
    """
    width = 7.5 + 0.08 * max((min(len(label), _LINE) for label in labels), default=0)
    height = sum(heights) + 0.75 * len(heights) + 0.3
    figure = new_figure(width, height)
    if not heights:
        figure.text(0.5, 0.5, "No Run of the compared stages reports the metric.", ha="center")
        return figure, []
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    return figure, list(grid[:, 0])


def wrapped(label: str) -> str:
    """Return the label in lines of at most 48 characters, for texts in which `$` starts a
    formula."""
    return "\n".join(lines_of(label, _LINE)).replace("$", r"\$")


def lines_of(label: str, width: int) -> list[str]:
    """Return the label in lines of at most `width` characters, broken after a separator if it has
    one."""
    return re.findall(rf".{{1,{width}}}(?:(?<=[\[,/ ])|$)|.+", label)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG or SVG, by the path's ending, nothing cut at its edge.

    Makes the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def read_picture(path: Path) -> Pixels:
    """Read a PNG file, (H, W, 3 or 4) in [0, 1]."""
    from matplotlib.image import imread

    return np.asarray(imread(path))
