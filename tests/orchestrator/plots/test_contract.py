"""Tests of the plots of a comparison: each name has a file, each draws every kind of comparison."""

import re
from dataclasses import replace
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

import orchestrator.plots
from orchestrator.config.study_schema import PLOTS
from orchestrator.drawing.mask_plots import mask_rows
from orchestrator.drawing.style import save
from orchestrator.plots.bars import bars_data, draw_bars
from orchestrator.plots.contract import load_plot
from orchestrator.plots.curves import curves_data, draw_curves
from orchestrator.plots.tsne import draw_maps
from orchestrator.reporting.comparison import Comparison, tables
from tests.orchestrator.drawing.test_mask_plots import kept
from tests.orchestrator.reporting.samples import CASES, Data, compared, record, texts

pytestmark = pytest.mark.filterwarnings("error")

OF_TABLES = ("bars", "curves", "loss")  # the others draw pictures


def drawn(name, tables):
    """The figure of a plot. The loss is shown as the accuracy of the same Runs."""
    return load_plot(name).draw(Data(tables, tables))


def test_every_name_has_a_file_and_every_file_a_name():
    folder = Path(orchestrator.plots.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "contract"}
    assert files == set(PLOTS)
    assert all(callable(load_plot(name).draw) for name in PLOTS)


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_draws_a_whole_submission_and_an_empty_one(name, tmp_path):
    """A plot that is added has this test at once."""
    maps = {"A, seed 0": np.full((40, 50, 4), 0.5, dtype=np.float32)}
    pictures = {"sam": {"0013": np.full((4, 4, 3), 0.5, dtype=np.float32)}}
    rows = {"fcn, seed 0": mask_rows(7, kept())}
    whole = Data(CASES["few"], CASES["few"], maps, rows, pictures)
    for number, data in enumerate((whole, Data())):
        save(load_plot(name).draw(data), tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as picture:
            assert np.asarray(picture.convert("L")).min() < 100, "nothing is drawn"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", OF_TABLES)
def test_every_plot_draws_every_comparison_to_a_picture_of_sensible_size(name, case, tmp_path):
    figure = drawn(name, CASES[case])
    save(figure, tmp_path / "new" / "figure.png")
    with Image.open(tmp_path / "new" / "figure.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width < 3000 and picture.height < 4000
        if CASES[case]:
            assert picture.width > 900 and picture.height > 150
            assert np.asarray(picture.convert("L")).min() < 100


@pytest.mark.parametrize("name", OF_TABLES)
def test_every_plot_names_every_row_that_has_values(name):
    words = " ".join(texts(drawn(name, CASES["forty"])))
    assert all(row.label in words for row in CASES["forty"][0].rows)


@pytest.mark.parametrize("name", OF_TABLES)
def test_every_plot_has_a_panel_for_each_data_set_and_task(name):
    made = CASES["broken"]
    assert len(made) == 3
    panels = drawn(name, made).axes
    assert [axes.get_title(loc="left") for axes in panels] == [each.title for each in made]


def test_a_label_has_one_color_in_bars_and_curves():
    made = compared([record("A"), record("B"), record("C", dataset="feedbeef")])
    bars = {bar.row.label: bar.style for panel in bars_data(made) for bar in panel.bars}
    lines = {line.label: line.style for panel in curves_data(made) for line in panel.lines}
    assert bars == lines == {"A": 0, "B": 1, "C": 2}
    patch = draw_bars(bars_data(made)).axes[1].patches[0]
    line = draw_curves(curves_data(made)).axes[1].lines[0]
    assert matplotlib.colors.same_color(patch.get_facecolor()[:3], line.get_color())


def test_bars_are_as_long_as_the_means_and_say_them():
    figure = drawn("bars", compared([record("A", 0, 0.5), record("A", 1, 0.52), record("B")]))
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0.51, 0.5])
    assert {"51.00 %  [38.29, 63.71]  (n=2)", "50.00 %  (n=1)"} <= set(texts(figure))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["A", "B"]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top, "the first row is on top"


def test_the_legend_of_bars_names_the_marks_that_are_drawn():
    marks = {"one seed", "95 % interval of the mean"}
    expected = {"one_run": set(), "few": marks, "few_with_reference": {*marks, "reference figure"}}
    for case, names in expected.items():
        legends = drawn("bars", CASES[case]).legends
        assert {text.get_text() for legend in legends for text in legend.get_texts()} == names


def test_a_mean_that_is_not_finite_is_said_and_finite_seeds_stay():
    figure = drawn("bars", CASES["broken"])
    assert {"not finite  (n=2)", "not finite  (n=1)", "no finished Run"} <= set(texts(figure))
    dots = [line for line in figure.axes[0].lines if line.get_label() == "one seed"]
    assert [list(line.get_xdata()) for line in dots] == [[0.5]]


def test_long_labels_are_broken_after_separators_and_keep_every_character():
    label = "stage[" + ",".join(f"key{number}=value{number}" for number in range(12)) + "]"
    figure = drawn("bars", compared([record(label)]))
    (label_drawn,) = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert label_drawn.replace("\n", "") == label
    assert all(len(line) <= 48 for line in label_drawn.split("\n"))
    assert re.fullmatch(r"(.*,\n)+.*\]", label_drawn)


def test_differences_are_drawn_with_their_intervals():
    runs = [record("A", seed, value) for seed, value in enumerate([0.5, 0.52, 0.55])]
    runs += [record("B", seed, value) for seed, value in enumerate([0.4, 0.43, 0.44])]
    runs += [record("C", 0, 0.4), record("D", state="FAILED")]
    asked = (("A", "B"), ("C", "A"), ("A", "D"))
    comparison = Comparison("test/accuracy", None, "label", ("differences",), {}, asked)
    figure = load_plot("differences").draw(Data(tables(runs, comparison)))
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["A - B", "C - A", "A - D"]
    words = texts(figure)
    assert {"+10.00  (n=3)", "-10.00  (n=1)", "nothing can be said"} <= set(words)
    assert "95 % interval, established" in words
    (interval,) = axes.collections
    ends = interval.get_segments()[0][:, 0]
    expected = tables(runs, comparison)[0].differences[0].interval
    assert ends == pytest.approx(tuple(expected))
    assert any("right of 0: the first is better" in word for word in words)
    loss = [replace(run, metrics={"test/loss": 1.0}) for run in runs]
    drawn_loss = load_plot("differences").draw(
        Data(tables(loss, replace(comparison, metric="test/loss")))
    )
    assert any("left of 0: the first is better" in word for word in texts(drawn_loss))
    assert any("asks for no difference" in word for word in texts(drawn("differences", [])))


def test_maps_stand_side_by_side_under_their_labels():
    pictures = {f"s{n}": np.full((4, 5, 4), n / 4, dtype=np.float32) for n in range(4)}
    figure = draw_maps(pictures)
    shown = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert shown.keys() == pictures.keys()
    assert all(np.array_equal(shown[name], pictures[name]) for name in pictures)
    assert "No compared Run has a t-SNE map." in texts(draw_maps({}))
