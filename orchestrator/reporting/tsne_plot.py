"""Draws t-SNE maps of a Run's validation features.

`tsne_data` computes what is drawn, `draw_tsne` draws the figure of a PNG, `tsne_page` writes a page
that names the image under the pointer. Loads torch and openTSNE, which takes seconds.
"""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

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
from plotly.io import to_html

from orchestrator.reporting.style import COLORS
from trainables.monitoring.feature_quality import NEIGHBOURS, knn_accuracy
from trainables.monitoring.tsne import Features, Points, tsne

Labels = npt.NDArray[np.int64]
Limits = tuple[float, float]

MOST = 10_000  # images: a page of more is slow to draw
# matplotlib's name, plotly's, and the area that looks as large as a circle's. Ten and seven colours
# have no common divisor: a class and the next differ in both, and 70 pass before a pair comes again
SHAPES = (
    *(("o", "circle", 1.0), ("s", "square", 0.9), ("^", "triangle-up", 1.2)),
    *(("D", "diamond", 0.7), ("v", "triangle-down", 1.2), ("P", "cross", 1.3)),
    *(("*", "star", 2.0), ("<", "triangle-left", 1.2), ("X", "x", 1.3)),
    (">", "triangle-right", 1.2),
)
_SIDE, _GAP, _FOOT = 6.4, 0.1, 0.36  # inches: the map's side, margins, the caption's line
_ROWS = 40  # of the legend: more take another column
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; form-action 'none'; \
script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:">
<title>t-SNE, {title}</title>
<style>html, body {{ height: 100%; margin: 0 }}</style>
</head>
<body>
{division}
</body>
</html>
"""


class Snapshot(NamedTuple):
    """What a Run made of its images after an epoch. features: (N, D) float32."""

    epoch: int
    features: Features


class Map(NamedTuple):
    """points: (N, 2); labels: (N,) from 0, or all -1 where there are none; knn: leave-one-out
    accuracy of the features in [0, 1]; limits: of x and of y, the same in all maps of a Run."""

    epoch: int
    points: Points
    labels: Labels
    classes: tuple[str, ...]
    knn: float | None
    limits: tuple[Limits, Limits]


class Style(NamedTuple):
    """Of a class's points. mark, symbol: matplotlib's and plotly's name of the shape; area: 1 for a
    circle; hollow: white inside."""

    colour: str
    mark: str
    symbol: str
    area: float
    hollow: bool


def tsne_data(
    snapshots: Sequence[Snapshot], labels: Labels, classes: Sequence[str], seed: int = 0
) -> list[Map]:
    """A map of each snapshot of the same images, at most 10,000, in the order given: each starts
    from the one before. Raises ValueError on features, labels or numbers that do not fit."""
    _check(snapshots, labels, classes)
    maps = tsne([each.features for each in snapshots], seed)
    limits = _limits(maps)
    return [
        Map(each.epoch, points, labels, tuple(classes), _knn(each.features, labels), limits)
        for each, points in zip(snapshots, maps, strict=True)
    ]


def style(number: int) -> Style:
    """Of a class, or of -1; the same in every picture."""
    number = max(0, number)
    hollow = number // (len(COLORS) * len(SHAPES)) % 2 == 1
    return Style(COLORS[number % len(COLORS)], *SHAPES[number % len(SHAPES)], hollow)


def caption(found: Map) -> str:
    """One line: epoch, images, classes, kNN accuracy."""
    text = f"epoch {found.epoch}, {len(found.points):,} images"
    if found.knn is None:
        return text
    count, nearest = len(np.unique(found.labels)), min(NEIGHBOURS, len(found.points) - 1)
    text += f" of {count:,} class{'es' if count > 1 else ''}"
    return f"{text}, kNN accuracy {100 * found.knn:.1f} % (leave-one-out, {nearest} neighbours)"


def draw_tsne(found: Map) -> Figure:
    """The map, classes named where they prevail, a legend beside it, the caption below it."""
    height = _GAP + _SIDE + _FOOT
    figure = Figure(figsize=(2 * _GAP + _SIDE, height))
    if found.knn is not None:
        figure.set_figwidth(figure.get_figwidth() + _GAP + _draw_legend(figure, found.classes))
    width = figure.get_figwidth()
    axes = figure.add_axes((_GAP / width, _FOOT / height, _SIDE / width, _SIDE / height))
    axes.set(xlim=found.limits[0], ylim=found.limits[1], aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_color("#BBBBBB")
    _draw_points(axes, found)
    if found.knn is not None:
        _draw_names(axes, found)
    inches = figure.dpi_scale_trans
    figure.text(_GAP, _FOOT / 2, caption(found), transform=inches, va="center", fontsize=9)
    return figure


def tsne_page(found: Map, names: Sequence[str]) -> str:
    """The map as an HTML page that loads nothing: about 5 MB, most of it plotly.js. It names the
    image (`names`, one each) and the class under the pointer; a click in the legend hides a class.
    """
    if len(names) != len(found.points):
        raise ValueError(f"{len(names)} names for {len(found.points)} images")
    shown = range(len(found.classes)) if found.knn is not None else [-1]
    figure = {"data": [_trace(found, names, each) for each in shown], "layout": _layout(found)}
    config = {
        "showSendToCloud": False,  # plotly's default is a button that uploads the picture
        "displaylogo": False,
        "scrollZoom": True,
        "modeBarButtonsToRemove": ["select2d", "lasso2d"],
    }
    division = to_html(figure, config, full_html=False, validate=False, div_id="map")
    return _PAGE.format(title=html.escape(caption(found)), division=division)


def _check(snapshots: Sequence[Snapshot], labels: Labels, classes: Sequence[str]) -> None:
    """`tsne` looks at the features themselves."""
    if not snapshots:
        raise ValueError("no snapshots to draw")
    if len(labels) > MOST:
        raise ValueError(f"{len(labels)} images are too many to tell apart: at most {MOST}")
    wrong = [each.epoch for each in snapshots if len(each.features) != len(labels)]
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


def _limits(maps: Sequence[Points]) -> tuple[Limits, Limits]:
    """A square around the points of all maps, with a margin."""
    points = np.concatenate(maps)
    low, high = points.min(0), points.max(0)
    (x, y), half = (low + high) / 2, max(1.0, 0.53 * float((high - low).max()))
    return (float(x - half), float(x + half)), (float(y - half), float(y + half))


def _area(count: int) -> float:
    """Of a point, in square points: smaller the more there are."""
    return float(np.clip(24_000 / count, 5, 40))


def _draw_points(axes: Axes, found: Map) -> None:
    """In an order of chance, so that no class lies above the others."""
    order = np.random.default_rng(0).permutation(len(found.points))
    looks = [style(number) for number in found.labels[order]]
    marks = [MarkerStyle(look.mark) for look in looks]
    drawn = PathCollection(
        [mark.get_path().transformed(mark.get_transform()) for mark in marks],
        sizes=[look.area * _area(len(order)) for look in looks],
        offsets=found.points[order],
        offset_transform=axes.transData,
        facecolors=["white" if look.hollow else look.colour for look in looks],
        edgecolors=[look.colour if look.hollow else "white" for look in looks],
        linewidths=[0.8 if look.hollow else 0.25 for look in looks],
    )
    drawn.set_transform(IdentityTransform())
    axes.add_collection(drawn, autolim=False)


def _draw_legend(figure: Figure, classes: Sequence[str]) -> float:
    """Right of the map, every class, as they are numbered. Returns its width in inches."""
    columns = -(-len(classes) // _ROWS)
    legend = figure.legend(
        [_mark(style(number)) for number in range(len(classes))],
        [_short(name, 26) for name in classes],
        loc="upper left",
        bbox_to_anchor=(2 * _GAP + _SIDE, _GAP + _SIDE + _FOOT - _GAP),
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
    return float(legend.get_window_extent().width) / figure.dpi


def _mark(look: Style) -> Line2D:
    face, size = "white" if look.hollow else look.colour, 5.5 * look.area**0.5
    return Line2D([], [], ls="", marker=look.mark, ms=size, mfc=face, mec=look.colour, mew=0.8)


def _draw_names(axes: Axes, found: Map) -> None:
    """Class names on the map, the clearest first, as long as there is room."""
    taken: list[Bbox] = []
    size = 10.0 if len(found.classes) <= 12 else 7.0
    for number, spot, radius in _spots(found):
        name = axes.annotate(
            _short(found.classes[number], 16),
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


def _spots(found: Map) -> list[tuple[int, Points, float]]:
    """(class, the median of its points, in points of type how far most lie from it), where most of
    the points around it are the class's own."""
    spots = []
    scale = 72 * _SIDE / (found.limits[0][1] - found.limits[0][0])
    for number in np.unique(found.labels):
        own = found.labels == number
        spot = np.median(found.points[own], axis=0)
        far = np.linalg.norm(found.points - spot, axis=1)
        share = float(own[far.argsort()[: min(10, max(3, own.sum()))]].mean())
        spots.append((share, int(number), spot, scale * float(np.quantile(far[own], 0.9))))
    spots.sort(key=lambda each: -each[0])
    return [(number, spot, radius) for share, number, spot, radius in spots if share > 0.5]


def _lifts(radius: float, size: float) -> tuple[float, ...]:
    """Where to try a name, in points of type: within large groups, above or below small ones."""
    clear = radius + size
    return (0, size, -size) if radius > 3 * size else (clear, -clear, clear + size, -clear - size)


def _inside(box: Bbox, room: BboxBase) -> bool:
    return bool(room.x0 < box.x0 and box.x1 < room.x1 and room.y0 < box.y0 and box.y1 < room.y1)


def _short(name: str, most: int) -> str:
    """In one printable line of at most `most` characters: its start and its end."""
    name = "".join(each if each.isprintable() else "?" for each in name)
    return name if len(name) <= most else f"{name[: most - 5]}…{name[-4:]}"


def _trace(found: Map, names: Sequence[str], number: int) -> dict[str, Any]:
    """One class."""
    own, look = np.flatnonzero(found.labels == number), style(number)
    name = found.classes[number] if number >= 0 else "unlabelled"
    return {
        "type": "scattergl",
        "mode": "markers",
        "name": _escaped(name, 40),
        "meta": [_escaped(name, 100)],
        "x": found.points[own, 0].round(3).tolist(),
        "y": found.points[own, 1].round(3).tolist(),
        "text": [_escaped(names[each], 100) for each in own.tolist()],
        "hovertemplate": "%{text}<br>%{meta[0]}<extra></extra>",
        "marker": {
            "color": look.colour,
            "symbol": look.symbol + "-open" * look.hollow,
            "size": 1.4 * _area(len(found.points)) ** 0.5 + 2,
            "line": {"color": look.colour if look.hollow else "white", "width": 0.5},
        },
    }


def _escaped(name: str, most: int) -> str:
    """plotly reads some tags in texts, and <, > and & as entities, but no quotes."""
    return html.escape(_short(name, most), quote=False)


def _layout(found: Map) -> dict[str, Any]:
    (x, y), axis = found.limits, {"visible": False, "constrain": "domain"}
    return {
        "title": {"text": caption(found), "font": {"size": 14}},
        "xaxis": {**axis, "range": x},
        "yaxis": {**axis, "range": y, "scaleanchor": "x"},
        "showlegend": found.knn is not None,
        "legend": {"itemsizing": "constant"},
        "margin": {"l": 10, "r": 10, "t": 50, "b": 10},
        "font": {"family": "sans-serif"},
        "hovermode": "closest",
        "dragmode": "pan",
    }
