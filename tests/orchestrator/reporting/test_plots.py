"""Figures: what is drawn, that all of it is there, and that the files are pictures."""

import math
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from orchestrator.reporting import plots
from orchestrator.reporting.comparison import Comparison, RunRecord, tables
from orchestrator.reporting.plots import (
    PLOTS,
    bars_data,
    curves_data,
    draw_bars,
    draw_curves,
    draw_maps,
    run_curves,
)

pytestmark = pytest.mark.filterwarnings("error")


def record(label, seed=0, base=0.5, **changes):
    """A finished Run of three epochs whose accuracy ends at `base`."""
    curve = [(0, base / 2), (1, base * 0.8), (2, base)]
    history = {"val/accuracy": curve, "test/accuracy": [(2, base)]}
    name = (label.partition("[")[0], label, seed, f"{label}-{seed}")
    metrics = {"test/accuracy": base, "val/accuracy": base}
    made = RunRecord(
        *name, "FINISHED", "r", "classify", "d1c0ffee12345678", "digits", metrics, history
    )
    return replace(made, **changes)


def compared(runs, metric="test/accuracy", **reference):
    return tables(runs, Comparison(metric, None, "label", tuple(PLOTS), reference))


def study(labels, seeds, **reference):
    """Labels with a leading underscore, which matplotlib's own legends leave out."""
    names = [f"_s[lr={number},wd=0.1]" for number in range(labels)]
    runs = [
        record(name, seed, 0.3 + 0.01 * number + 0.02 * seed)
        for number, name in enumerate(names)
        for seed in range(seeds)
    ]
    return compared(runs, **reference)


BROKEN = [
    record("A", 0, math.nan, history={"val/accuracy": [(0, 0.1), (1, math.nan)]}),
    record("A", 1, 0.5),
    record("lost", 0, math.inf, history={"val/accuracy": [(0, math.inf)]}),
    record("waiting", state="PENDING"),
    record("_under$score$", 0, 0.5, history={}),
    record("elsewhere", dataset="feedbeef"),
    record("huge", 0, 0.2, history={"val/accuracy": [(0, 0.1)]}, trainable="rotation"),
]
CASES = {
    "one_run": study(1, 1),
    "few": study(4, 3),
    "few_with_reference": study(4, 3, _s=0.4),
    "many": study(12, 5, _s=0.4),
    "forty": study(40, 1),
    "broken": compared(BROKEN, A=0.3, waiting=0.2),
    "nothing_finished": compared([record("A", state="RUNNING")]),
    "diverged_loss": compared([record("A", metrics={"test/loss": 1e38})], "test/loss"),
    "nothing": [],
}


def texts(figure):
    """Every text of the figure, as drawn."""
    return [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))]


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def notes(figure):
    return figure.get_supxlabel().splitlines()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_draws_every_comparison_to_a_picture_of_sensible_size(name, case, tmp_path):
    figure = PLOTS[name](CASES[case])
    plots.save(figure, tmp_path / "new" / "figure.png")
    with Image.open(tmp_path / "new" / "figure.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width < 3000 and picture.height < 4000
        if CASES[case]:
            assert picture.width > 900 and picture.height > 150
            assert np.asarray(picture.convert("L")).min() < 100


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_names_every_row_that_has_values(name):
    drawn = " ".join(texts(PLOTS[name](CASES["forty"])))
    assert all(row.label in drawn for row in CASES["forty"][0].rows)


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_has_a_panel_for_each_data_set_and_task(name):
    made = CASES["broken"]
    assert len(made) == 3
    drawn = PLOTS[name](made).axes
    assert [axes.get_title(loc="left") for axes in drawn] == [each.title for each in made]


def test_a_label_has_one_colour_in_bars_and_curves():
    made = compared([record("A"), record("B"), record("C", dataset="feedbeef")])
    bars = {bar.row.label: bar.style for panel in bars_data(made) for bar in panel.items}
    lines = {line.label: line.style for panel in curves_data(made) for line in panel.items}
    assert bars == lines == {"A": 0, "B": 1, "C": 2}
    patch = draw_bars(bars_data(made)).axes[1].patches[0]
    line = draw_curves(curves_data(made)).axes[1].lines[0]
    assert matplotlib.colors.same_color(patch.get_facecolor()[:3], line.get_color())


def test_bars_are_as_long_as_the_means_and_say_them():
    figure = PLOTS["bars"](compared([record("A", 0, 0.5), record("A", 1, 0.52), record("B")]))
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0.51, 0.5])
    assert {"51.00 ± 1.41 %  (n=2)", "50.00 %  (n=1)"} <= set(texts(figure))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["A", "B"]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top, "the first row is on top"


def test_the_legend_of_bars_names_the_marks_that_are_drawn():
    marks = {"one seed", "± one standard deviation"}
    expected = {"one_run": set(), "few": marks, "few_with_reference": {*marks, "reference figure"}}
    for case, names in expected.items():
        legends = PLOTS["bars"](CASES[case]).legends
        assert {text.get_text() for legend in legends for text in legend.get_texts()} == names


def test_a_mean_that_is_not_finite_is_said_and_finite_seeds_stay():
    figure = PLOTS["bars"](CASES["broken"])
    assert {"not finite  (n=2)", "not finite  (n=1)", "no finished Run"} <= set(texts(figure))
    dots = [line for line in figure.axes[0].lines if line.get_label() == "one seed"]
    assert [list(line.get_xdata()) for line in dots] == [[0.5]]


def test_long_labels_are_broken_after_separators_and_keep_every_character():
    label = "stage[" + ",".join(f"key{number}=value{number}" for number in range(12)) + "]"
    figure = PLOTS["bars"](compared([record(label)]))
    (drawn,) = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert drawn.replace("\n", "") == label
    assert all(len(line) <= 48 for line in drawn.split("\n"))
    assert re.fullmatch(r"(.*,\n)+.*\]", drawn)


def test_a_label_keeps_the_colour_that_another_figure_gave_it():
    first = compared([record("B"), record("A")])
    (panel,) = curves_data(compared([record(name) for name in ("A", "B", "C")]), first)
    assert {line.label: line.style for line in panel.items} == {"B": 0, "A": 1, "C": 2}


def test_maps_stand_side_by_side_under_their_labels():
    pictures = {f"s{n}": np.full((4, 5, 4), n / 4, dtype=np.float32) for n in range(4)}
    figure = draw_maps(pictures)
    shown = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert shown.keys() == pictures.keys()
    assert all(np.array_equal(shown[name], pictures[name]) for name in pictures)
    assert "No compared Run has a t-SNE map." in texts(draw_maps({}))


def test_curves_data_holds_a_row_a_seed_with_gaps_where_a_seed_has_no_value():
    short = {"val/accuracy": [(1, 0.4), (0, 0.2), (1, 0.3)]}
    (panel,) = curves_data(compared([record("A", 0, 0.5), record("A", 1, 0.5, history=short)]))
    (line,) = panel.items
    assert line.epochs == (0, 1, 2)
    np.testing.assert_allclose(line.values, [[0.25, 0.4, 0.5], [0.2, 0.3, math.nan]])


def test_curves_show_the_validation_twin_of_a_metric_measured_once():
    assert curves_data(CASES["few"])[0].metric == "val/accuracy"
    assert curves_data(compared([record("A")], "val/accuracy"))[0].metric == "val/accuracy"
    often = record("A", history={"test/accuracy": [(0, 0.1), (1, 0.2)], "val/accuracy": [(0, 1.0)]})
    assert curves_data(compared([often]))[0].metric == "test/accuracy"


def test_curves_draw_a_line_a_label_and_a_band_where_there_are_seeds():
    axes = PLOTS["curves"](CASES["many"]).axes[0]
    assert (len(axes.lines), len(axes.collections)) == (12, 12)
    axes = PLOTS["curves"](CASES["forty"]).axes[0]
    assert (len(axes.lines), len(axes.collections)) == (40, 0)
    strokes = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}
    assert len(strokes) == 40


def test_the_legend_of_curves_reads_like_the_ends_of_the_lines_and_stands_outside():
    figure = PLOTS["curves"](CASES["few"])
    assert legend_of(figure) == [f"_s[lr={number},wd=0.1]" for number in (3, 2, 1, 0)]
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend()
    assert legend.get_window_extent().x0 > figure.axes[0].get_window_extent().x1


def test_a_line_is_pale_where_a_seed_is_missing():
    short = record("A", 1, 0.5, history={"val/accuracy": [(0, 0.2), (1, 0.3)]})
    figure = PLOTS["curves"](compared([record("A", 0, 0.5), short]))
    full, pale = figure.axes[0].lines
    np.testing.assert_allclose(full.get_ydata(), [0.225, 0.35, math.nan])
    np.testing.assert_allclose(pale.get_ydata(), [0.225, 0.35, 0.5])
    assert pale.get_alpha() < 1 and any(note.startswith("Pale:") for note in notes(figure))


def test_a_run_of_one_epoch_is_a_visible_mark_at_an_integer_epoch():
    axes = PLOTS["curves"](compared([record("A", history={"val/accuracy": [(3, 0.5)]})])).axes[0]
    assert axes.lines[0].get_marker() not in ("", "None", None)
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == [3]


def test_curves_note_what_is_not_finite_and_what_has_no_values():
    assert {
        "A seed 0: 1 of 2 epochs not finite, first 1",
        "lost seed 0: 1 of 1 epochs not finite, first 0",
        "waiting: no values to draw",
    } <= set(notes(PLOTS["curves"](CASES["broken"])))


def test_a_long_list_of_notes_is_cut_but_counted():
    figure = PLOTS["curves"](compared([record(f"s{n}", state="PENDING") for n in range(20)]))
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
    plots.save(figure, tmp_path / "loss.png")
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
    plots.save(figures["loss"], tmp_path / "loss.png")


def test_importing_does_not_load_pyplot_or_the_stack():
    command = [
        sys.executable,
        "-c",
        "import sys, orchestrator.reporting.plots; print(*sys.modules)",
    ]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"matplotlib.pyplot", "ray", "mlflow", "torch"} & set(loaded.stdout.split())
