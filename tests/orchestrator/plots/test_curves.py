"""Tests of curves: which lines are drawn, that all of them are there, and the notes below them."""

import math
import subprocess
import sys

import numpy as np
import pytest

from orchestrator.drawing.style import axis_label, save
from orchestrator.plots.curves import curves_data, draw_curves, run_curves
from tests.orchestrator.reporting.samples import CASES, compared, legend_of, notes, record
from trainables.metrics import METRICS

pytestmark = pytest.mark.filterwarnings("error")


def curves(tables):
    return draw_curves(curves_data(tables))


def test_a_label_keeps_the_color_that_another_figure_gave_it():
    first = compared([record("B"), record("A")])
    (panel,) = curves_data(compared([record(name) for name in ("A", "B", "C")]), first)
    assert {line.label: line.style for line in panel.lines} == {"B": 0, "A": 1, "C": 2}


def test_curves_data_holds_a_row_a_seed_with_gaps_where_a_seed_has_no_value():
    short = {"val/accuracy": [(1, 0.4), (0, 0.2), (1, 0.3)]}
    (panel,) = curves_data(compared([record("A", 0, 0.5), record("A", 1, 0.5, history=short)]))
    (line,) = panel.lines
    assert line.epochs == (0, 1, 2)
    np.testing.assert_allclose(line.values, [[0.25, 0.4, 0.5], [0.2, 0.3, math.nan]])


def test_curves_show_the_validation_twin_of_a_metric_measured_once():
    assert curves_data(CASES["few"])[0].metric == "val/accuracy"
    assert curves_data(compared([record("A")], "val/accuracy"))[0].metric == "val/accuracy"
    often = record("A", history={"test/accuracy": [(0, 0.1), (1, 0.2)], "val/accuracy": [(0, 1.0)]})
    assert curves_data(compared([often]))[0].metric == "test/accuracy"


def test_curves_draw_a_line_a_label_and_a_band_where_there_are_seeds():
    axes = curves(CASES["many"]).axes[0]
    assert (len(axes.lines), len(axes.collections)) == (12, 12)
    axes = curves(CASES["forty"]).axes[0]
    assert (len(axes.lines), len(axes.collections)) == (40, 0)
    strokes = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}
    assert len(strokes) == 40


def test_the_legend_of_curves_reads_like_the_ends_of_the_lines_and_stands_outside():
    figure = curves(CASES["few"])
    assert legend_of(figure) == [f"_s[lr={number},wd=0.1]" for number in (3, 2, 1, 0)]
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend()
    assert legend.get_window_extent().x0 > figure.axes[0].get_window_extent().x1


def test_a_line_is_pale_where_a_seed_is_missing():
    short = record("A", 1, 0.5, history={"val/accuracy": [(0, 0.2), (1, 0.3)]})
    figure = curves(compared([record("A", 0, 0.5), short]))
    full, pale = figure.axes[0].lines
    np.testing.assert_allclose(full.get_ydata(), [0.225, 0.35, math.nan])
    np.testing.assert_allclose(pale.get_ydata(), [0.225, 0.35, 0.5])
    assert pale.get_alpha() < 1 and any(note.startswith("Pale:") for note in notes(figure))


def test_a_run_of_one_epoch_is_a_visible_mark_at_an_integer_epoch():
    axes = curves(compared([record("A", history={"val/accuracy": [(3, 0.5)]})])).axes[0]
    assert axes.lines[0].get_marker() not in ("", "None", None)
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == [3]


def test_curves_note_what_is_not_finite_and_what_has_no_values():
    assert {
        "A seed 0: 1 of 2 epochs not finite, first 1",
        "lost seed 0: 1 of 1 epochs not finite, first 0",
        "waiting: no values to draw",
    } <= set(notes(curves(CASES["broken"])))


def test_a_long_list_of_notes_is_cut_but_counted():
    figure = curves(compared([record(f"s{n}", state="PENDING") for n in range(20)]))
    assert notes(figure)[8:] == ["... and 12 more"]


HISTORY = {
    "train/loss": [(0, 2.0), (1, 1.0), (2, 0.5)],
    "val/loss": [(0, 2.1), (1, 1.5), (2, 1.6)],
    "val/accuracy": [(0, 0.2), (1, 0.6), (2, 0.5)],
    "test/accuracy": [(1, 0.55)],
}


def test_a_run_has_a_figure_of_its_loss_and_of_its_accuracy():
    figures = run_curves(HISTORY, 1)
    assert list(figures) == ["loss", "accuracy"]
    assert run_curves({"system/images_per_s": [(0, 1.0)]}, 1) == {}
    assert set(legend_of(figures["loss"])) == {"train/loss", "val/loss"}
    assert set(legend_of(figures["accuracy"])) == {"val/accuracy", "test/accuracy"}


@pytest.mark.parametrize(
    ("first", "scale"), [(2.0, "linear"), (30.0, "log"), (1e38, "log"), (-1.0, "linear")]
)
def test_a_loss_far_above_the_others_does_not_press_them_flat(tmp_path, first, scale):
    figure = run_curves({"val/loss": [(1, first), (2, 1.0), (3, 0.9)]}, None)["loss"]
    save(figure, tmp_path / "loss.png")
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    assert axes.get_ylabel() == ("loss (logarithmic)" if scale == "log" else "loss")
    assert 1 < len(axes.get_yticks()) < 15


def test_the_chosen_epoch_is_marked_and_the_test_value_is_a_point():
    axes = run_curves(HISTORY, 1)["accuracy"].axes[0]
    assert "chosen epoch 1" in [text.get_text() for text in axes.texts]
    assert list(axes.lines[-1].get_xdata()) == [1, 1]
    (point,) = [line for line in axes.lines if list(line.get_ydata()) == [0.55]]
    assert (point.get_linestyle(), point.get_marker()) == ("None", "o")


def test_a_run_that_diverged_is_drawn_with_a_note(tmp_path):
    figures = run_curves({"train/loss": [(0, 1.0), (1, math.nan)], "val/loss": [(0, math.inf)]}, 0)
    assert notes(figures["loss"])[-2:] == [
        "train/loss: 1 of 2 epochs not finite, first 1",
        "val/loss: 1 of 1 epochs not finite, first 0",
    ]
    save(figures["loss"], tmp_path / "loss.png")


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("test/accuracy", "test accuracy"),
        ("val/knn_accuracy", "validation kNN accuracy"),
        ("val/iou/road", "validation IoU of road"),
        ("system/images_per_s", "system speed (images/s)"),
        ("loss", "loss"),
    ],
)
def test_an_axis_names_its_metric_in_words(metric, label):
    assert axis_label(metric) == label


def test_a_run_has_a_curve_of_every_registered_metric():
    history = {f"val/{name}": [(0, 0.1), (1, 0.2)] for name in METRICS}
    assert list(run_curves(history, 1)) == list(METRICS)


def test_importing_does_not_load_pyplot_or_the_stack():
    command = [
        sys.executable,
        "-c",
        "import sys, orchestrator.plots.curves; print(*sys.modules)",
    ]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"matplotlib.pyplot", "ray", "mlflow", "torch"} & set(loaded.stdout.split())
