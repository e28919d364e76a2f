"""Tests of the figures of a search: which trials are drawn, and what the texts say."""

import numpy as np
import pytest

from orchestrator.config.search_schema import Search
from orchestrator.drawing.search_plots import draw_best, draw_importance, draw_parallel
from orchestrator.storage.trial_log import Trial

SEARCH = Search.model_validate(
    {"trials": 5, "space": {"lr": {"log": [1e-4, 1.0]}, "batch_size": {"choice": [16, 32, 64]}}}
)


def trial(index: int, state: str, figure: float | None, ended: float, lr: float = 0.01) -> Trial:
    values = {"lr": lr, "batch_size": 32}
    return Trial(index, values, f"key{index}", f"A{index}", state, figure=figure, ended=ended)  # type: ignore[arg-type]


TRIALS = [
    trial(0, "FINISHED", 0.5, 120.0),
    trial(1, "STOPPED", 0.2, 30.0, lr=1.0),
    trial(2, "FINISHED", 0.4, 60.0),
    trial(3, "FAILED", None, 10.0),
    trial(4, "FINISHED", 0.9, 180.0, lr=1e-4),
]


@pytest.mark.parametrize(
    ("mode", "best"), [("max", [0.5, 0.5, 0.5, 0.9]), ("min", [0.5] + [0.2] * 3)]
)
def test_the_best_so_far_is_of_those_with_a_figure_in_their_order(mode: str, best: list[float]):
    left, right = draw_best(TRIALS, "val/accuracy", mode).axes
    assert list(left.lines[0].get_xdata()) == [0, 1, 2, 4]
    assert list(left.lines[0].get_ydata()) == best
    assert list(right.lines[0].get_xdata()) == [0.5, 1.0, 2.0, 3.0]  # minutes, by time
    accumulated = np.maximum if mode == "max" else np.minimum
    assert list(right.lines[0].get_ydata()) == list(accumulated.accumulate([0.2, 0.4, 0.5, 0.9]))


def test_a_figure_says_how_many_trials_were_stopped_and_how_many_failed():
    figure = draw_best(TRIALS, "val/accuracy", "max")
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        "trained to its end", "stopped early", "best so far",
    }  # fmt: skip
    assert legend.get_title().get_text() == "1 failed"


def test_a_line_goes_through_a_trial_s_parameters_in_the_order_of_their_axes():
    axes = draw_parallel(TRIALS, SEARCH).axes[0]
    lines = {tuple(np.round(line.get_ydata(), 6)): line.get_linestyle() for line in axes.lines
             if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [0, 1]}  # fmt: skip
    assert lines == {(0.5, 0.5): "-", (1.0, 0.5): ":", (0.0, 0.5): "-"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["lr", "batch_size"]
    assert axes.get_title(loc="left") == "dotted: stopped early"


def test_importance_says_of_which_trials_it_is():
    shares = {"lr": 0.7, "batch_size": 0.3}
    with_figure = [trial for trial in TRIALS if trial.figure is not None]
    axes = draw_importance(shares, with_figure, "val/accuracy").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.7, 0.3]
    assert "over 4 trials" in axes.get_xlabel()
    assert axes.get_title(loc="left").startswith("stopped early: 1,")
    whole = [trial for trial in with_figure if trial.state == "FINISHED"]
    assert draw_importance(shares, whole, "val/accuracy").axes[0].get_title(loc="left") == ""
