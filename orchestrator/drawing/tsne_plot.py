"""Draws t-SNE maps of a Run's validation features.

`tsne_data` computes what is drawn, `draw_tsne` draws the figure of a PNG. Loads torch and openTSNE,
which takes seconds.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox, BboxBase, IdentityTransform

from orchestrator.drawing.style import COLORS
from trainables.monitoring.feature_quality import NEIGHBORS, knn_accuracy
from trainables.monitoring.tsne import Features, Points, tsne

Labels = npt.NDArray[np.int64]
Limits = tuple[float, float]

MOST = 10_000  # images: a page of more is slow to draw
# so that ten classes have ten colors: wine, olive, grey and brown, dark enough on white
CLASS_COLORS = (*COLORS, "#882255", "#8A8A1F", "#888888", "#7A4A1E")
# Name in matplotlib, name in plotly, area at which it looks as large as a circle. Ten shapes and
# eleven colors have no common divisor: two classes in a row differ in both, and a pair of shape and
# color comes again after 110 classes.
SHAPES = (
    *(("o", "circle", 1.0), ("s", "square", 0.9), ("^", "triangle-up", 1.2)),
    *(("D", "diamond", 0.7), ("v", "triangle-down", 1.2), ("P", "cross", 1.3)),
    *(("*", "star", 2.0), ("<", "triangle-left", 1.2), ("X", "x", 1.3)),
    (">", "triangle-right", 1.2),
)
_GAP, _FOOT = 0.1, 0.52  # inches: margins, the lines of the caption
_SIDES = ((20, 4.8, 30), (math.inf, 6.4, 40))  # classes at most → longer side, rows of the legend
_FLATTEST = 0.55  # the shorter side of a map, as a share of the longer one


class Snapshot(NamedTuple):
    """The features of a Run's images after an epoch. features: (N, D) float32."""

    epoch: int
    features: Features


class Map(NamedTuple):
    """One t-SNE map, ready to be drawn.

    points: (N, 2). labels: (N,) class ids from 0, or all -1 where there are none. knn:
    leave-one-out accuracy of the features in [0, 1], None without labels. limits: of x and of y,
    near the outermost points.
    """

    epoch: int
    points: Points
    labels: Labels
    classes: tuple[str, ...]
    knn: float | None
    limits: tuple[Limits, Limits]


class Style(NamedTuple):
    """Says how the points of a class are drawn.

    mark, symbol: the shape's name in matplotlib and in plotly. area: relative to a circle, so that
    all shapes look equally large. hollow: white inside.
    """

    color: str
    mark: str
    symbol: str
    area: float
    hollow: bool


def tsne_data(
    snapshots: Sequence[Snapshot], labels: Labels, classes: Sequence[str], seed: int = 0
) -> list[Map]:
    """Compute a map for each snapshot of the same images, in the order given.

    Each map starts from the positions of the one before, so that clusters keep their places.
    labels: (N,) class ids, or all -1. Raises ValueError where features, labels and classes do not
    fit together, or for more than 10,000 images.
    """
    _check(snapshots, labels, classes)
    maps, names = tsne([snapshot.features for snapshot in snapshots], seed), tuple(classes)
    return [
        Map(shot.epoch, points, labels, names, _knn(shot.features, labels), limits_around(points))
        for shot, points in zip(snapshots, maps, strict=True)
    ]


def class_style(number: int) -> Style:
    """Return the style of a class, the same in every figure; -1 has the style of class 0."""
    number = max(0, number)
    hollow = number // (len(CLASS_COLORS) * len(SHAPES)) % 2 == 1
    color = CLASS_COLORS[number % len(CLASS_COLORS)]
    return Style(color, *SHAPES[number % len(SHAPES)], hollow)


def caption(tsne_map: Map) -> str:
    """Return one line with epoch, number of images and classes, and kNN accuracy."""
    text = f"epoch {tsne_map.epoch}, {len(tsne_map.points):,} images"
    if tsne_map.knn is None:
        return text
    count, nearest = len(np.unique(tsne_map.labels)), min(NEIGHBORS, len(tsne_map.points) - 1)
    text += f" of {count:,} class{'es' if count > 1 else ''}"
    return f"{text}, kNN accuracy {100 * tsne_map.knn:.1f} % (leave-one-out, {nearest} neighbours)"


def draw_tsne(tsne_map: Map) -> Figure:
    """Return the map with class names on it where they fit, a legend beside it, a caption below
    it."""
    wide, high = _size(tsne_map)
    height = _GAP + high + _FOOT
    figure = Figure(figsize=(2 * _GAP + wide, height))
    if tsne_map.knn is not None:
        figure.set_figwidth(figure.get_figwidth() + _GAP + _draw_legend(figure, tsne_map.classes))
        height = max(height, figure.get_figheight())
    width = figure.get_figwidth()
    place = (_GAP / width, 1 - (_GAP + high) / height, wide / width, high / height)
    axes = figure.add_axes(place)
    axes.set(xlim=tsne_map.limits[0], ylim=tsne_map.limits[1], aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_color("#BBBBBB")
    _draw_points(axes, tsne_map)
    if tsne_map.knn is not None:
        _draw_names(axes, tsne_map)
    text = "\n".join(textwrap.wrap(caption(tsne_map), round(13 * wide), break_on_hyphens=False))
    below = height - _GAP - high - _FOOT / 2
    inches = figure.dpi_scale_trans
    figure.text(_GAP, below, text, transform=inches, va="center", fontsize=9)
    return figure


def _size(tsne_map: Map) -> tuple[float, float]:
    """Return width and height of the map in inches."""
    (left, right), (low, high) = tsne_map.limits
    side, _ = _side(len(tsne_map.classes))
    longer = max(right - left, high - low)
    return side * (right - left) / longer, side * (high - low) / longer


def _side(classes: int) -> tuple[float, int]:
    """Return the longer side of a map in inches, and the rows of its legend."""
    return next((side, rows) for most, side, rows in _SIDES if classes <= most)


def _check(snapshots: Sequence[Snapshot], labels: Labels, classes: Sequence[str]) -> None:
    """Raises ValueError where numbers do not fit together; `tsne` checks the features."""
    if not snapshots:
        raise ValueError("no snapshots to draw")
    if len(labels) > MOST:
        raise ValueError(f"{len(labels)} images are too many to tell apart: at most {MOST}")
    wrong = [shot.epoch for shot in snapshots if len(shot.features) != len(labels)]
    if wrong:
        raise ValueError(f"not {len(labels)} images, as there are labels, in epochs {wrong}")
    known = (labels >= 0) & (labels < len(classes))
    if not (known.all() or (labels == -1).all()):
        raise ValueError(f"labels must all be 0 to {len(classes) - 1}, or all be -1")


def _knn(features: Features, labels: Labels) -> float | None:
    if labels[0] < 0:
        return None
    bank, known = torch.tensor(features), torch.tensor(labels, dtype=torch.int64)
    return knn_accuracy(bank, known, bank, known, own=True)


def limits_around(points: Points) -> tuple[Limits, Limits]:
    """Return a rectangle around the points, with a margin, no flatter than `_FLATTEST`."""
    low, high = points.min(0), points.max(0)
    longer = float((high - low).max())
    halves = np.maximum((high - low) / 2, _FLATTEST * longer / 2) + (0.05 * longer or 1.0)
    (x, y), (a, b) = (low + high) / 2, halves
    return (float(x - a), float(x + a)), (float(y - b), float(y + b))


def area_of_point(count: int) -> float:
    """Return the area of one of `count` points, in square points: the more, the smaller."""
    return float(np.clip(24_000 / count, 5, 40))


def _draw_points(axes: Axes, tsne_map: Map) -> None:
    """Draw all points in random order, so that no class covers the others."""
    order = np.random.default_rng(0).permutation(len(tsne_map.points))
    styles = [class_style(number) for number in tsne_map.labels[order]]
    marks = [MarkerStyle(style.mark) for style in styles]
    drawn = PathCollection(
        [mark.get_path().transformed(mark.get_transform()) for mark in marks],
        sizes=[style.area * area_of_point(len(order)) for style in styles],
        offsets=tsne_map.points[order],
        offset_transform=axes.transData,
        facecolors=["white" if style.hollow else style.color for style in styles],
        edgecolors=[style.color if style.hollow else "white" for style in styles],
        linewidths=[0.8 if style.hollow else 0.25 for style in styles],
    )
    drawn.set_transform(IdentityTransform())
    axes.add_collection(drawn, autolim=False)


def _draw_legend(figure: Figure, classes: Sequence[str]) -> float:
    """Name every class to the right of the map; the figure grows where the legend is higher.
    Returns the legend's width in inches."""
    _, rows = _side(len(classes))
    columns = -(-len(classes) // rows)
    wide, high = figure.get_size_inches()
    legend = figure.legend(
        [_mark(class_style(number)) for number in range(len(classes))],
        [shortened_name(name, 26) for name in classes],
        loc="upper left",
        bbox_to_anchor=(wide, high - _GAP),
        bbox_transform=figure.dpi_scale_trans,
        ncols=columns,
        fontsize=9 if columns == 1 and len(classes) <= 25 else 7.5,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handletextpad=0.3,
        columnspacing=1.0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    box = legend.get_window_extent()
    if (needed := float(box.height) / figure.dpi + 2 * _GAP) > high:
        figure.set_figheight(needed)
        legend.set_bbox_to_anchor((wide, needed - _GAP), figure.dpi_scale_trans)
    return float(box.width) / figure.dpi


def _mark(style: Style) -> Line2D:
    face, size = "white" if style.hollow else style.color, 5.5 * style.area**0.5
    return Line2D([], [], ls="", marker=style.mark, ms=size, mfc=face, mec=style.color, mew=0.8)


def _draw_names(axes: Axes, tsne_map: Map) -> None:
    """Write class names on the map, the best separated first, where there is room."""
    taken: list[Bbox] = []
    size = 10.0 if len(tsne_map.classes) <= 12 else 7.0
    for number, spot, radius in _spots(tsne_map):
        name = axes.annotate(
            shortened_name(tsne_map.classes[number], 16),
            (float(spot[0]), float(spot[1])),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            parse_math=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        for lift in _lifts(radius, size):
            name.xyann = (0, lift)
            box = name.get_window_extent()
            if _inside(box, axes.bbox) and not box.count_overlaps(taken):
                taken.append(box)
                break
        else:
            name.remove()


def _spots(tsne_map: Map) -> list[tuple[int, Points, float]]:
    """Return where to write class names: (class, median of its points, radius of 90 % of them).

    Only of classes that hold most of the points around their median, the best separated first. The
    radius is in points of type.
    """
    spots = []
    scale = 72 * _size(tsne_map)[0] / (tsne_map.limits[0][1] - tsne_map.limits[0][0])
    for number in np.unique(tsne_map.labels):
        own = tsne_map.labels == number
        spot = np.median(tsne_map.points[own], axis=0)
        far = np.linalg.norm(tsne_map.points - spot, axis=1)
        share = float(own[far.argsort()[: min(10, max(3, own.sum()))]].mean())
        spots.append((share, int(number), spot, scale * float(np.quantile(far[own], 0.9))))
    spots.sort(key=lambda spot: -spot[0])
    return [(number, spot, radius) for share, number, spot, radius in spots if share > 0.5]


def _lifts(radius: float, size: float) -> tuple[float, ...]:
    """Vertical offsets to try for a name, in points: inside large groups, else above or below."""
    clear = radius + size
    return (0, size, -size) if radius > 3 * size else (clear, -clear, clear + size, -clear - size)


def _inside(box: Bbox, room: BboxBase) -> bool:
    return bool(room.x0 < box.x0 and box.x1 < room.x1 and room.y0 < box.y0 and box.y1 < room.y1)


def shortened_name(name: str, most: int) -> str:
    """Return the name in at most `most` printable characters: its start and its end."""
    name = "".join(char if char.isprintable() else "?" for char in name)
    return name if len(name) <= most else f"{name[: most - 5]}…{name[-4:]}"
