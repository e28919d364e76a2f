"""Draws masks of watched images: one row per image, a grid of all models, a confusion matrix.

Every panel has a title and every class a color and a name, so that a figure explains itself.
matplotlib takes half a second to load: it is imported where something is drawn.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.drawing.style import COLORS, lines_of, new_figure
from trainables.dataset import IGNORED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.uint8]
_WITH_NUMBERS = 25  # classes of a confusion matrix whose shares are written
_IGNORED_COLOR = np.array([225, 225, 225], dtype=np.uint8)
_RIGHT, _WRONG = np.array([235, 235, 235], np.uint8), np.array([200, 30, 30], np.uint8)
_SIDE = 3.2  # inches of a panel
_TITLE = 36  # characters in a line of a panel's title
_HUE_STEP = 0.618034  # of the color circle, between two classes (golden ratio)


class MaskRow(NamedTuple):
    """One watched image with its masks after an epoch.

    image: (H, W, 3) uint8. truth, predicted: (H, W) class ids, IGNORED where a pixel does not
    count. colors: (K, 3) uint8, one per class.
    """

    name: str
    epoch: int
    image: Pixels
    truth: Pixels
    predicted: Pixels
    classes: tuple[str, ...]
    colors: Pixels


def mask_rows(epoch: int, kept: dict[str, npt.NDArray[Any]]) -> list[MaskRow]:
    """Return a MaskRow for each watched image. kept: arrays as `watched_masks` returns them."""
    classes = tuple(str(name) for name in kept["classes"])
    colors = kept["colours"] if len(kept["colours"]) else default_colors(len(classes))
    return [
        MaskRow(str(name), epoch, image, truth, predicted, classes, colors)
        for name, image, truth, predicted in zip(
            kept["names"], kept["images"], kept["truth"], kept["predicted"], strict=True
        )
    ]


def draw_mask_row(row: MaskRow) -> "Figure":
    """Image, ground truth, prediction and errors side by side, with the share of right pixels."""
    counted = row.truth != IGNORED
    errors = np.where((row.predicted != row.truth)[..., None], _WRONG, _RIGHT)
    panels = {
        row.name: row.image,
        "ground truth": painted(row.truth, row.colors),
        f"prediction, epoch {row.epoch}": painted(row.predicted, row.colors),
        f"errors in red: {100 * _share_right(row):.1f} % of pixels right": np.where(
            counted[..., None], errors, _IGNORED_COLOR
        ),
    }
    figure = new_figure(_SIDE * len(panels), _SIDE + 0.75)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, pixels) in zip(grid, panels.items(), strict=True):
        _show(axes, title, pixels)
    _add_legend(figure, row, bool((~counted).any()))
    return figure


def draw_mask_grid(
    masks: Mapping[str, Sequence[MaskRow]], pictures: Mapping[str, Mapping[str, Any]] | None = None
) -> "Figure":
    """Return a row per watched image: the image, ground truth, and what every model predicts.

    masks: name of a model → its MaskRows. pictures: further columns, title → image → its picture.
    """
    pictures = pictures or {}
    names = list(dict.fromkeys(row.name for rows in masks.values() for row in rows))
    columns = 2 + len(masks) + len(pictures)
    figure = new_figure(_SIDE * columns, _SIDE * max(1, len(names)) + 0.9)
    if not names:
        figure.text(0.5, 0.5, "No compared Run has masks of watched images.", ha="center")
        return figure
    grid = figure.subplots(len(names), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    by_place = {(row.name, model): row for model, rows in masks.items() for row in rows}
    for line, name in zip(grid, names, strict=True):
        first = next(row for (image, _), row in by_place.items() if image == name)
        _show(line[0], name, first.image)
        _show(line[1], "ground truth", painted(first.truth, first.colors))
        for axes, title in zip(line[2 + len(masks) :], pictures, strict=True):
            if name in pictures[title]:
                _show(axes, title, pictures[title][name])
        for axes, model in zip(line[2:], masks, strict=False):
            if row := by_place.get((name, model)):
                lines = [*lines_of(model, _TITLE), f"{100 * _share_right(row):.1f} % right"]
                _show(axes, "\n".join(lines), painted(row.predicted, row.colors))
    ignored = any((row.truth == IGNORED).any() for row in by_place.values())
    _add_legend(figure, first, ignored)
    return figure


def draw_confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> "Figure":
    """Return a confusion matrix in percent of each true class; the row of an absent class is empty.

    matrix: (K, K) numbers of pixels or images, rows are true classes, columns are predicted ones.
    Of many classes the shares are shown by color alone.
    """
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(100.0 * matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    few = len(classes) <= _WITH_NUMBERS
    side = 2.0 + (0.75 if few else 0.18) * len(classes)
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if not few:
        figure.colorbar(image, ax=axes, label="%", shrink=0.6)
    for row, column in np.ndindex(*shares.shape) if few else ():
        if not np.isnan(shares[row, column]):
            color = "white" if shares[row, column] > 60 else "black"
            text = f"{shares[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    names = [f"{name} (absent)" if not total else name
             for name, total in zip(classes, totals[:, 0], strict=True)]  # fmt: skip
    angle, size = (45, None) if few else (90, 7)
    axes.set_xticks(range(len(classes)), classes, rotation=angle, ha="right", fontsize=size)
    axes.set_yticks(range(len(classes)), names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title("test: share of each true class (%)", loc="left", fontsize=10)
    return figure


def painted(ids: Pixels, colors: Pixels) -> Pixels:
    """(H, W) class ids → (H, W, 3) uint8 in the colors of the classes; IGNORED is pale gray."""
    table = np.tile(_IGNORED_COLOR, (256, 1))
    table[: len(colors)] = colors
    return np.asarray(table[ids])


def default_colors(count: int) -> Pixels:
    """Return (count, 3) uint8: a color per class for data sets that define none."""
    from matplotlib.colors import hsv_to_rgb, to_rgb

    if count <= len(COLORS):
        chosen: list[Any] = [to_rgb(color) for color in COLORS[:count]]
    else:  # neighbors far apart in hue, in three degrees of brightness
        chosen = [hsv_to_rgb((k * _HUE_STEP % 1, 0.85, 1 - 0.25 * (k % 3))) for k in range(count)]
    return np.asarray(np.rint(255 * np.array(chosen)), dtype=np.uint8)


def _share_right(row: MaskRow) -> float:
    """Return the share in [0, 1] of the counted pixels whose class is right."""
    counted = row.truth != IGNORED
    right = counted & (row.predicted == row.truth)
    return float(right.sum()) / max(1, int(counted.sum()))


def _show(axes: "Axes", title: str, pixels: Pixels) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_axis_off()


def _add_legend(figure: "Figure", row: MaskRow, ignored: bool) -> None:
    """Name every class below the panels, and the ignored pixels where there are any."""
    from matplotlib.patches import Patch

    colors = zip(row.classes, row.colors, strict=True)
    named = [*colors, *([("not counted", _IGNORED_COLOR)] if ignored else [])]
    handles = [
        Patch(facecolor=tuple(color / 255), edgecolor="#888888", label=name)
        for name, color in named
    ]
    columns = min(8, len(row.classes) + 1)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False
    )
