"""t-SNE pictures: what is drawn, that all of it is there and inside, and that a page is safe."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from orchestrator.drawing.style import COLORS, save
from orchestrator.drawing.tsne_page import tsne_page
from orchestrator.drawing.tsne_plot import (
    Map,
    Snapshot,
    class_style,
    draw_tsne,
    limits_around,
    tsne_data,
)
from trainables.monitoring.feature_quality import knn_accuracy

pytestmark = pytest.mark.filterwarnings("error")

EVIL = '<img src=x onerror=alert(1)></script><script>"$x^2$" & %{x}\n_'
LIMITS = ((-50.0, 50.0), (-50.0, 50.0))


def snapshots(images: int = 60, classes: int = 3) -> tuple[list[Snapshot], np.ndarray]:
    """Features of noise, then of one centre a class, and the labels."""
    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    noise = random.normal(size=(images, 16)).astype(np.float32)
    centres = random.normal(size=(classes, 16)).astype(np.float32)
    return [Snapshot(1, noise), Snapshot(100, centres[labels] + 0.2 * noise)], labels


def grid_map(classes: int, images: int = 1300, near: float = 2.0) -> Map:
    """A map of groups on a grid, `near` their spread; no classes: unlabelled."""
    random = np.random.default_rng(0)
    labels = np.arange(images) % max(1, classes)
    side = int(np.ceil(max(1, classes) ** 0.5))
    centres = np.stack([labels % side, labels // side], 1) * 80 / side - 36
    points = centres + random.normal(scale=near, size=(images, 2)).clip(-2 * near, 2 * near)
    names = tuple(f"Class_{number}" for number in range(classes))
    if not classes:
        return Map(7, points, np.full(images, -1), (), None, LIMITS)
    return Map(7, points, labels, names, 0.413, LIMITS)


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def names_of(figure: Figure) -> list[Annotation]:
    return [text for text in figure.axes[0].texts if isinstance(text, Annotation)]


def test_data_has_a_map_of_each_snapshot_and_limits_near_its_outermost_points() -> None:
    given, labels = snapshots()
    maps = tsne_data(given, labels, ("a", "b", "c"))
    assert [one.epoch for one in maps] == [1, 100]
    for one in maps:
        assert one.points.shape == (60, 2)
        (left, right), (bottom, top) = one.limits
        assert (one.points > (left, bottom)).all() and (one.points < (right, top)).all()
        assert max(np.ptp(one.points, 0) / (right - left, top - bottom)) > 0.9
        assert 0.5 < (right - left) / (top - bottom) < 2


def test_a_flat_map_has_a_flat_picture_without_empty_bands() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (300, 2)) * (40, 10)
    (left, right), (bottom, top) = limits_around(points)
    assert (right - left, top - bottom) == pytest.approx(
        (88, 52), rel=0.02
    )  # 80 wide, 55 % high, margins
    flat = grid_map(3)._replace(limits=((left, right), (bottom, top)))
    figure = draw_tsne(flat)
    figure.draw_without_rendering()
    box = figure.axes[0].get_window_extent()
    assert box.width / box.height == pytest.approx((right - left) / (top - bottom))
    assert figure.get_figheight() * figure.dpi - box.height < 80


def test_ten_classes_have_ten_colors_and_ten_shapes() -> None:
    styles = [class_style(number) for number in range(10)]
    assert len({style.color for style in styles}) == len({style.mark for style in styles}) == 10


def test_data_holds_the_leave_one_out_accuracy_of_the_features() -> None:
    given, labels = snapshots()
    noise, clear = tsne_data(given, labels, ("a", "b", "c"))
    features, known = torch.from_numpy(given[0].features), torch.from_numpy(labels)
    assert noise.knn == knn_accuracy(features, known, features, known, own=True)
    assert noise.knn is not None and noise.knn < 0.6
    assert clear.knn == 1


def test_data_without_labels_has_no_accuracy() -> None:
    given, labels = snapshots(12)
    (tsne_map,) = tsne_data(given[:1], np.full_like(labels, -1), ("unused",))
    assert tsne_map.knn is None


def test_equal_features_have_limits_too() -> None:
    (tsne_map,) = tsne_data(
        [Snapshot(1, np.ones((8, 4), np.float32))], np.arange(8) % 2, ("a", "b")
    )
    assert tsne_map.limits == ((-1, 1), (-1, 1))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(59) % 3, "not 59 images, as there are labels, in epochs [1, 100]"),
        (np.arange(60) % 4, "labels must all be 0 to 2, or all be -1"),
        (np.arange(60) % 4 - 1, "labels must all be 0 to 2, or all be -1"),
        (np.zeros(10_001, np.int64), "10001 images are too many to tell apart: at most 10000"),
    ],
)
def test_data_that_does_not_fit_is_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tsne_data(snapshots()[0], labels, ("a", "b", "c"))
    with pytest.raises(ValueError, match="no snapshots"):
        tsne_data([], labels, ("a", "b", "c"))


def test_220_classes_differ_and_two_in_a_row_differ_in_color_and_shape() -> None:
    styles = [class_style(number) for number in range(220)]
    assert len(set(styles)) == 220
    for one, other in zip(styles, styles[1:], strict=False):
        assert one.color != other.color and one.mark != other.mark
    assert not any(style.hollow for style in styles[:110])
    assert class_style(-1) == class_style(0) == class_style(220)


@pytest.mark.parametrize("classes", [0, 1, 2, 10, 65, 200])
def test_the_legend_has_every_class_and_nothing_lies_outside_the_figure(classes: int) -> None:
    tsne_map = grid_map(classes)
    figure = draw_tsne(tsne_map)
    figure.draw_without_rendering()
    assert legend_of(figure) == list(tsne_map.classes)
    (axes,) = figure.axes
    map_box, parts = axes.get_window_extent(), [axes, *figure.texts, *figure.legends]
    for box in (part.get_window_extent() for part in parts):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    for legend in figure.legends:
        assert legend.get_window_extent().x0 > map_box.x1
    assert map_box.width == pytest.approx(map_box.height)
    assert figure.texts[0].get_window_extent().y1 < map_box.y0


def test_a_legend_of_long_names_is_shortened_and_stays_inside() -> None:
    names = tuple(f"{'wide ' * 40}{number:02d}" for number in range(65))
    figure = draw_tsne(grid_map(65)._replace(classes=names))
    assert legend_of(figure)[64] == "wide wide wide wide w…e 64"
    assert len(set(legend_of(figure))) == 65
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (65, "epoch 7, 1,300 images of 65 classes, kNN accuracy 41.3 % (leave-one-out, "),
        (1, "epoch 7, 1,300 images of 1 class, kNN accuracy 41.3 % (leave-one-out, "),
    ],
)
def test_the_caption_says_what_is_drawn(classes: int, expected: str) -> None:
    text = draw_tsne(grid_map(classes)).texts[0].get_text()
    assert text.replace("\n", " ") == f"{expected}20 neighbours)"
    few = draw_tsne(grid_map(classes, images=8)).texts[0].get_text()
    assert few.replace("\n", " ").endswith("(leave-one-out, 7 neighbours)")


def test_an_unlabelled_map_has_one_color_and_no_legend() -> None:
    figure = draw_tsne(grid_map(0))
    assert not figure.legends and not names_of(figure)
    (points,) = figure.axes[0].collections
    faces = {matplotlib.colors.to_hex(each).upper() for each in points.get_facecolor()}
    assert faces == {COLORS[0]}
    assert figure.texts[0].get_text() == "epoch 7, 1,300 images"


def test_points_have_their_places_and_the_colors_of_their_classes() -> None:
    tsne_map = grid_map(3, images=30)
    axes = draw_tsne(tsne_map).axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == LIMITS
    (points,) = axes.collections
    drawn = {
        (*map(float, place), matplotlib.colors.to_hex(face).upper())
        for place, face in zip(points.get_offsets(), points.get_facecolor(), strict=True)
    }
    places = zip(tsne_map.points.tolist(), tsne_map.labels, strict=True)
    assert drawn == {(*place, class_style(label).color) for place, label in places}


def test_points_are_smaller_the_more_there_are() -> None:
    sizes = [
        draw_tsne(grid_map(2, images=images)).axes[0].collections[0].get_sizes()[0]
        for images in (100, 2000, 10_000)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize("classes", [2, 10, 65])
def test_groups_are_named_within_the_map_and_no_name_lies_on_another(classes: int) -> None:
    figure = draw_tsne(grid_map(classes))
    names, room = names_of(figure), figure.axes[0].get_window_extent()
    assert len(names) > 0.9 * classes
    boxes = [name.get_window_extent() for name in names]
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:number]) == 0
        assert room.x0 < box.x0 and box.x1 < room.x1 and room.y0 < box.y0 and box.y1 < room.y1


def test_classes_that_lie_nowhere_in_particular_are_not_named() -> None:
    assert names_of(draw_tsne(grid_map(10, near=60))) == []


@pytest.mark.parametrize("classes", [2, 65])
def test_a_picture_of_odd_names_is_saved_whole(classes: int, tmp_path: Path) -> None:
    names = (EVIL, "", *(f"$\\frac{number}" for number in range(classes - 2)))
    save(draw_tsne(grid_map(classes)._replace(classes=names)), tmp_path / "tsne.png")
    with Image.open(tmp_path / "tsne.png") as picture:
        assert picture.width > 700 and picture.height > 700
        assert np.asarray(picture.convert("L")).min() < 50


class Page(HTMLParser):
    """Tags with their attributes, and the scripts, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.scripts += [""] * (tag == "script")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data

    def drawing(self) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
        """What plotly is given: traces, layout, config."""
        script, read = self.scripts[-1], json.JSONDecoder().raw_decode
        traces, end = read(script, script.index("[{"))
        layout, end = read(script, script.index("{", end))
        return traces, layout, read(script, script.index("{", end))[0]


def page(tsne_map: Map, names: list[str] | None = None) -> Page:
    return Page(tsne_page(tsne_map, names or ["image"] * len(tsne_map.points)))


def test_a_page_loads_nothing_from_elsewhere_and_sends_nothing() -> None:
    shown = page(grid_map(65))
    assert {tag for tag, _ in shown.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "div", "script")
    }
    named = {name for _, attributes in shown.tags for name in attributes}
    assert not named & {"src", "href", "srcset", "data", "action"}
    (policy,) = [tsne_map["content"] for _, tsne_map in shown.tags if "http-equiv" in tsne_map]
    assert policy is not None and policy.startswith("default-src 'none'; form-action 'none'; ")
    assert "http" not in policy
    assert "http" not in shown.scripts[-1]
    assert shown.drawing()[2]["showSendToCloud"] is False


def test_names_in_a_page_are_text() -> None:
    tsne_map = grid_map(2, images=8)._replace(classes=(EVIL, "cat & dog"))
    shown = page(tsne_map, [f"{EVIL}{number}" for number in range(8)])
    assert [tag for tag, _ in shown.tags].count("script") == len(shown.scripts)
    assert "Plotly.newPlot(" in shown.scripts[-1] and "<" not in shown.scripts[-1]
    escaped = html.escape(EVIL, quote=False).replace("\n", "?")
    one, other = shown.drawing()[0]
    assert one["text"] == [f"{escaped}{number}" for number in (0, 2, 4, 6)]
    assert one["meta"] == [escaped]
    assert one["name"].startswith("&lt;img src=x ")
    assert (other["name"], other["meta"]) == ("cat &amp; dog", ["cat &amp; dog"])
    assert EVIL not in one["hovertemplate"]


def test_a_page_has_the_looks_and_the_limits_of_the_picture() -> None:
    tsne_map = grid_map(75)
    traces, layout, _ = page(tsne_map).drawing()
    assert [trace["name"] for trace in traces] == list(tsne_map.classes)
    for number, trace in enumerate(traces):
        style = class_style(number)
        assert trace["marker"]["color"] == style.color
        assert trace["marker"]["symbol"] == style.symbol + ("-open" if style.hollow else "")
        own = tsne_map.points[tsne_map.labels == number]
        np.testing.assert_allclose(np.stack([trace["x"], trace["y"]], 1), own, atol=1e-3)
    assert [tuple(layout[axis]["range"]) for axis in ("xaxis", "yaxis")] == list(tsne_map.limits)
    assert layout["showlegend"] is True


def test_a_page_of_an_unlabelled_map_has_no_legend() -> None:
    traces, layout, _ = page(grid_map(0)).drawing()
    assert len(traces) == 1 and len(traces[0]["x"]) == 1300
    assert layout["showlegend"] is False


def test_a_page_of_ten_thousand_images_stays_below_8_mb() -> None:
    names = [f"Real World/Class/{number:05}.jpg" for number in range(10_000)]
    assert len(tsne_page(grid_map(65, images=10_000), names).encode()) < 8_000_000


def test_a_page_wants_a_name_for_every_image() -> None:
    with pytest.raises(ValueError, match="3 names for 8 images"):
        tsne_page(grid_map(2, images=8), ["image"] * 3)
