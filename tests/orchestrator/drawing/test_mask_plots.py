"""Tests of mask figures: image, ground truth, prediction and errors, with the classes named."""

import numpy as np
import pytest

from orchestrator.drawing.mask_plots import (
    default_colors,
    draw_confusion,
    draw_mask_grid,
    draw_mask_row,
    mask_rows,
    painted,
)
from trainables.dataset import IGNORED


def kept(**changes):
    """Two images of 4x4 px; a quarter of the truth does not count, one pixel that does is wrong."""
    truth = np.zeros((2, 4, 4), dtype=np.uint8)
    truth[:, 2:], truth[:, :, 3] = 1, IGNORED
    predicted = np.zeros((2, 4, 4), dtype=np.uint8)
    predicted[:, 2:] = 1
    predicted[:, 0, 0] = 1
    arrays = {
        "images": np.full((2, 4, 4, 3), 100, dtype=np.uint8),
        "truth": truth,
        "predicted": predicted,
        "names": np.array(["0013", "a$b"]),
        "classes": np.array(["land", "water"]),
        "colours": np.array([[10, 20, 30], [200, 100, 0]], dtype=np.uint8),
    }
    return arrays | changes


def test_a_watched_image_has_four_panels():
    rows = mask_rows(7, kept())
    assert [row.name for row in rows] == ["0013", "a$b"]
    figure = draw_mask_row(rows[0])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "0013",
        "ground truth",
        "prediction, epoch 7",
        "errors in red: 91.7 % of pixels right",
    ]
    errors = figure.axes[3].images[0].get_array()
    assert (errors == [200, 30, 30]).all(axis=-1).sum() == 1
    assert (errors[:, 3] == [225, 225, 225]).all()  # what does not count is neither
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["land", "water", "not counted"]


def test_classes_have_their_own_colors_or_ones_that_differ():
    row = mask_rows(1, kept())[0]
    assert painted(row.truth, row.colors)[0, 0].tolist() == [10, 20, 30]
    bare = mask_rows(1, kept(colours=np.zeros((0, 3), dtype=np.uint8)))[0]
    assert np.array_equal(bare.colors, default_colors(2))
    for count in (7, 8, 21, 60):
        assert len({tuple(color) for color in default_colors(count)}) == count


@pytest.mark.parametrize("count", [2, 12])
def test_the_legend_names_every_class(count):
    classes = np.array([f"class {k}" for k in range(count)])
    row = mask_rows(1, kept(classes=classes, colours=default_colors(count)))[0]
    names = [text.get_text() for text in draw_mask_row(row).legends[0].get_texts()]
    assert names[:-1] == list(classes)


def test_a_confusion_matrix_is_in_percent_of_each_true_class():
    axes = draw_confusion(np.array([[3, 1, 0], [0, 8, 0], [0, 0, 0]]), ["a", "b", "c"]).axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "75.0",
        "25.0",
        "0.0",
        "0.0",
        "100.0",
        "0.0",
    ]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c (absent)"]


def test_a_grid_has_a_row_an_image_and_a_column_a_model():
    both = mask_rows(7, kept())
    figure = draw_mask_grid({"fcn32s, seed 0": both, "deeplabv3, seed 0": both[:1]})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "0013", "ground truth", "fcn32s, seed 0\n91.7 % right", "deeplabv3, seed 0\n91.7 % right",
        "a$b", "ground truth", "fcn32s, seed 0\n91.7 % right", "",
    ]  # fmt: skip
    assert [len(axes.images) for axes in figure.axes] == [1] * 7 + [0]
    assert "No compared Run" in draw_mask_grid({}).texts[0].get_text()
