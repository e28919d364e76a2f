"""Charts of a report: one large value does not press all others to the bottom."""

import re

import numpy as np
import pytest

from orchestrator.plots.curves import Line, Panel
from orchestrator.report_page.charts import curves_chart


def heights(values: list[float], metric: str) -> tuple[str, list[float]]:
    """The title of a chart of one curve, and how far below the top (px) its points lie."""
    line = Line("A", 0, (1, 2, 3), np.array([values]), ())
    chart = curves_chart(Panel("table", metric, (line,)))
    assert chart is not None
    marks = re.findall(r'<circle class="mark c0" cx="[\d.]+" cy="([\d.]+)"', chart.svg)
    return chart.title, [float(mark) for mark in marks[:3]]


def test_a_large_first_loss_leaves_the_others_to_be_seen() -> None:
    title, (first, second, third) = heights([10.0, 1.0, 0.1], "val/loss")
    assert title == "table: validation loss, logarithmic axis"
    assert second - first == pytest.approx(third - second) and third - first > 150


def test_values_of_one_size_have_a_plain_axis() -> None:
    title, (first, second, third) = heights([3.0, 2.0, 1.0], "val/loss")
    assert title == "table: validation loss" and second - first == pytest.approx(third - second)


@pytest.mark.parametrize("values", [[0.9, 0.1, 0.05], [0.5, 0.0, 0.1]])
def test_a_percentage_has_a_plain_axis(values: list[float]) -> None:
    assert "logarithmic" not in heights(values, "val/accuracy")[0]


def test_a_value_of_zero_has_no_logarithm() -> None:
    assert "logarithmic" not in heights([10.0, 1.0, 0.0], "val/loss")[0]


def test_many_decades_have_a_tick_each() -> None:
    line = Line("A", 0, (1, 2), np.array([[1e6, 1e-3]]), ())
    chart = curves_chart(Panel("table", "val/loss", (line,)))
    assert chart is not None and chart.svg.count('class="grid"') == 10
