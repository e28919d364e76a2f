"""A watched image beside its truth, what was predicted, and where that is wrong: one strip each,
and a grid of all models.

To be read without the code: every panel has a title, every class a colour and a name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from orchestrator.reporting.plots import COLOURS
from trainables.dataset import IGNORED

Pixels = npt.NDArray[np.uint8]
_OUTSIDE = np.array([225, 225, 225], dtype=np.uint8)  # does not count
_RIGHT, _WRONG = np.array([235, 235, 235], np.uint8), np.array([200, 30, 30], np.uint8)
_SIDE = 3.2  # inches of a panel
_GOLDEN = 0.618034  # of the circle of hues, between two classes: neighbours differ most


class Strip(NamedTuple):
    """image: (H, W, 3); truth, predicted: (H, W) class ids; colours: (K, 3) of the classes."""

    name: str
    epoch: int
    image: Pixels
    truth: Pixels
    predicted: Pixels
    classes: tuple[str, ...]
    colours: Pixels


def strips_data(epoch: int, kept: dict[str, npt.NDArray[Any]]) -> list[Strip]:
    """One for each watched image. kept: as `watch.watched_masks` makes it."""
    classes = tuple(str(name) for name in kept["classes"])
    colours = kept["colours"] if len(kept["colours"]) else default_colours(len(classes))
    return [
        Strip(str(name), epoch, image, truth, predicted, classes, colours)
        for name, image, truth, predicted in zip(
            kept["names"], kept["images"], kept["truth"], kept["predicted"], strict=True
        )
    ]


def draw_strip(strip: Strip) -> Figure:
    """Picture, ground truth, prediction, errors; the share of right pixels, and the classes."""
    counted = strip.truth != IGNORED
    errors = np.where((strip.predicted != strip.truth)[..., None], _WRONG, _RIGHT)
    panels = {
        strip.name: strip.image,
        "ground truth": painted(strip.truth, strip.colours),
        f"prediction, epoch {strip.epoch}": painted(strip.predicted, strip.colours),
        f"errors: {100 * _right(strip):.1f} % of pixels right": np.where(
            counted[..., None], errors, _OUTSIDE
        ),
    }
    figure = Figure(figsize=(_SIDE * len(panels), _SIDE + 0.75), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, pixels) in zip(grid, panels.items(), strict=True):
        _show(axes, title, pixels)
    _add_legend(figure, strip, bool((~counted).any()))
    return figure


def draw_grid(
    masks: Mapping[str, Sequence[Strip]], beside: Mapping[str, Mapping[str, Any]] | None = None
) -> Figure:
    """A row for each watched image: picture, ground truth, and what every model predicts. masks:
    name of a model → its strips. beside: name of a column → image → picture of it."""
    beside = beside or {}
    names = list(dict.fromkeys(strip.name for strips in masks.values() for strip in strips))
    columns = 2 + len(masks) + len(beside)
    size = (_SIDE * columns, _SIDE * max(1, len(names)) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    if not names:
        figure.text(0.5, 0.5, "No compared Run has masks of watched images.", ha="center")
        return figure
    grid = figure.subplots(len(names), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    strips = {(strip.name, model): strip for model, each in masks.items() for strip in each}
    for line, name in zip(grid, names, strict=True):
        first = next(strip for (image, _), strip in strips.items() if image == name)
        _show(line[0], name, first.image)
        _show(line[1], "ground truth", painted(first.truth, first.colours))
        for axes, column in zip(line[2 + len(masks) :], beside, strict=True):
            if name in beside[column]:
                _show(axes, column, beside[column][name])
        for axes, model in zip(line[2:], masks, strict=False):
            if strip := strips.get((name, model)):
                title = f"{model}: {100 * _right(strip):.1f} % right"
                _show(axes, title, painted(strip.predicted, strip.colours))
    ignored = any((strip.truth == IGNORED).any() for strip in strips.values())
    _add_legend(figure, first, ignored)
    return figure


def draw_confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """(K, K) pixels, rows the truth: each row in percent of the class's pixels, a class that is
    absent left empty."""
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(100.0 * matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    side = 2.0 + 0.75 * len(classes)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(*shares.shape):
        if not np.isnan(shares[row, column]):
            colour = "white" if shares[row, column] > 60 else "black"
            text = f"{shares[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    names = [f"{name} (absent)" if not total else name
             for name, total in zip(classes, totals[:, 0], strict=True)]  # fmt: skip
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title("test pixels of each true class (%)", loc="left", fontsize=10)
    return figure


def painted(ids: Pixels, colours: Pixels) -> Pixels:
    """(H, W) class ids → (H, W, 3); what does not count is pale grey."""
    table = np.tile(_OUTSIDE, (256, 1))
    table[: len(colours)] = colours
    return np.asarray(table[ids])


def default_colours(count: int) -> Pixels:
    """(count, 3) for classes that have no colour of their own."""
    chosen: list[Any] = [to_rgb(colour) for colour in COLOURS[:count]]
    if count > len(COLOURS):  # by their hues, neighbours far apart, in three degrees of brightness
        chosen = [hsv_to_rgb((k * _GOLDEN % 1, 0.85, 1 - 0.25 * (k % 3))) for k in range(count)]
    return np.asarray(np.rint(255 * np.array(chosen)), dtype=np.uint8)


def _right(strip: Strip) -> float:
    """Share of the pixels that count."""
    counted = strip.truth != IGNORED
    right = counted & (strip.predicted == strip.truth)
    return float(right.sum()) / max(1, int(counted.sum()))


def _show(axes: Axes, title: str, pixels: Pixels) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_axis_off()


def _add_legend(figure: Figure, strip: Strip, ignored: bool) -> None:
    figure.legend(
        handles=_legend(strip.classes, strip.colours, ignored), loc="outside lower center",
        ncols=min(8, len(strip.classes) + 1), fontsize=9, frameon=False,
    )  # fmt: skip


def _legend(classes: Sequence[str], colours: Pixels, ignored: bool) -> list[Patch]:
    found = [
        Patch(facecolor=tuple(colour / 255), edgecolor="#888888", label=name)
        for name, colour in zip(classes, colours, strict=True)
    ]
    if ignored:
        found.append(
            Patch(facecolor=tuple(_OUTSIDE / 255), edgecolor="#888888", label="not counted")
        )
    return found
