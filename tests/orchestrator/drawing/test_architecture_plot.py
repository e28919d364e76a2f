"""Tests of the model diagram: every block is named with its facts, paths do not cross."""

from pathlib import Path

import pytest

from orchestrator.drawing.architecture_plot import draw_architecture, in_units, lanes_of
from orchestrator.drawing.style import save
from tests.trainables.monitoring.test_architecture import CASES, drawn


@pytest.mark.parametrize("name", CASES)
def test_no_two_boxes_share_a_place_and_all_are_named(name: str) -> None:
    model, _ = drawn(name)
    places = list(zip(lanes_of(model), model.levels, strict=True))
    assert len(set(places)) == len(model.blocks)
    written = [text.get_text() for text in draw_architecture(model).axes[0].texts]
    assert {block.name for block in model.blocks} <= set(written)


def test_the_main_path_is_straight_and_an_auxiliary_head_stands_to_its_left() -> None:
    model, _ = drawn("deeplabv3")
    lanes = {block.name: lane for block, lane in zip(model.blocks, lanes_of(model), strict=True)}
    assert {lanes[name] for name in ("input", "encoder.layer4", "cat", "head.4")} == {0}
    assert lanes["auxiliary.0"] == lanes["auxiliary.4"] == -1
    branches = {lane for name, lane in lanes.items() if name.startswith("head.0.convs")}
    assert branches == {0, 1, 2, 3, 4}


def test_it_is_written_as_svg_and_png(tmp_path: Path) -> None:
    figure = draw_architecture(drawn("head")[0])
    for ending in ("svg", "png"):
        save(figure, tmp_path / f"architecture.{ending}")
    assert (tmp_path / "architecture.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "architecture.svg").read_text(encoding="utf-8")[:1000]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (41_996_878, "42 M"), (1.73e11, "173 G")],
)
def test_counts_are_read_at_a_glance(count: int, text: str) -> None:
    assert in_units(count) == text
