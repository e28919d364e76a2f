"""Segmentation sets as they lie: their classes by a table, by Pascal VOC's names, or by number."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import IGNORED, DataError
from trainables.layouts.class_names import safe_names


def pair(image: Path, mask: Path, values: list[int], colours: bool = False) -> None:
    """An image of its own, and a mask of one row with these numbers, perhaps with a palette."""
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(image))).integers(0, 256, (1, len(values), 3))
    Image.fromarray(pixels.astype(np.uint8)).save(image)
    picture = Image.fromarray(np.array([values], dtype=np.uint8))
    if colours:
        picture.putpalette([k * 7 % 256 for k in range(768)])
    picture.save(mask)


def voc(folder: Path, lists: dict[str, list[str]], values: list[int]) -> Path:
    for part, names in lists.items():
        (folder / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            mask = folder / f"SegmentationClass/{name}.png"
            pair(folder / f"JPEGImages/{name}.jpg", mask, values, colours=True)
    return folder


def source_of(kind: str, path: Path, **settings: Any) -> Source:
    return read(DatasetConfig(type=kind, path=str(path), **settings), None)


def names(source: Source, part: str) -> list[str]:
    return [source.names[row] for row in source.parts[part]]


@pytest.mark.parametrize("above", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_pascal_vocs_form_is_read_by_its_lists(tmp_path: Path, above: str) -> None:
    lists = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}
    folder = voc(tmp_path / above, lists, [0, 15, 255, 20])
    pair(folder / "JPEGImages/f.jpg", folder / "x/f.png", [0])
    (folder / "SegmentationClass/e.png").unlink()
    source = source_of("voc", tmp_path)
    assert source.classes[:2] == ("background", "aeroplane") and len(source.classes) == 21
    assert names(source, "test") == ["JPEGImages/d.jpg"]
    assert sorted(names(source, "train") + names(source, "val")) == [
        f"JPEGImages/{name}.jpg" for name in "abc"
    ]
    assert source.masks is not None
    assert source.masks.decode(0).tolist() == [[0, 15, IGNORED, 20]]
    assert source.passed_over == {
        (".jpg", "test has no masks"): 1,
        (".jpg", "in no list, or without a mask"): 1,
    }


def test_without_lists_all_masks_count_and_names_may_lie_beside(tmp_path: Path) -> None:
    for number in range(8):
        mask = tmp_path / f"SegmentationClassPNG/{number}.png"
        pair(tmp_path / f"JPEGImages/{number}.jpg", mask, [0, 1, 2])
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ntv/monitor\ncafé (old)\n")
    source = source_of("voc", tmp_path)
    assert source.classes == ("_background_", "tv-monitor", "café -old-")
    assert any("'tv/monitor' is tv-monitor" in note for note in source.notes)
    assert len(source.names) == 8


@pytest.mark.parametrize(
    ("lists", "remove", "message"),
    [
        ({"val": ["a"]}, (), "has val but no train.txt"),
        ({"train": ["a", "b"]}, ("JPEGImages/b.jpg",), r"lacks .* of 1 names in train.txt \(b\)"),
        ({"train": ["a", "b"]}, ("SegmentationClass/a.png",), r"of 1 names in train.txt \(a\)"),
    ],
)
def test_lists_that_do_not_fit_the_files_are_refused(
    tmp_path: Path, lists: dict[str, list[str]], remove: tuple[str, ...], message: str
) -> None:
    voc(tmp_path, lists, [0, 1])
    for name in remove:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=message):
        source_of("voc", tmp_path)


@pytest.mark.parametrize(
    ("values", "classes", "decoded"),
    [
        ([0, 3, 7], ("0", "3", "7"), [0, 1, 2]),
        ([0, 3, 255], ("0", "3"), [0, 1, IGNORED]),
        ([0, 255, 0], ("0", "255"), [0, 1, 0]),
    ],
)
def test_numbers_without_a_table_are_classes(
    tmp_path: Path, values: list[int], classes: tuple[str, ...], decoded: list[int]
) -> None:
    for number in range(6):
        pair(tmp_path / f"images/{number}.png", tmp_path / f"masks/{number}.png", values)
    with pytest.raises(DataError, match="classes: auto"):
        source_of("mask_folders", tmp_path)
    source = source_of("mask_folders", tmp_path, classes="auto")
    assert source.classes == classes
    assert source.masks is not None and source.masks.decode(0).tolist() == [decoded]


def test_masks_that_auto_cannot_read_are_refused(tmp_path: Path) -> None:
    for number in range(6):
        pair(tmp_path / f"images/{number}.png", tmp_path / f"masks/{number}.png", [0, 0])
        Image.new("RGB", (2, 1), (255, number, 0)).save(tmp_path / f"masks/{number}.png")
    with pytest.raises(DataError, match=r"hold 0 numbers .*mask has colours.*classes.csv"):
        source_of("mask_folders", tmp_path, classes="auto")


def test_camvids_layout_is_read_with_its_own_table(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for number in range(3):
            name = f"{part}{number}.png"
            pair(
                tmp_path / f"CamVid/{part}/{name}", tmp_path / f"CamVid/{part}annot/{name}", [0, 1]
            )
    (tmp_path / "camvid.csv").write_text("id,name\n0,sky\n1,road\n")
    given = {"images": "CamVid/{part}", "masks": "CamVid/{part}annot"}
    source = source_of("mask_folders", tmp_path, **given, classes="camvid.csv")
    assert [len(source.parts[part]) for part in ("train", "val", "test")] == [3, 3, 3]
    with pytest.raises(DataError, match=r"gone.csv: no such file: correct `classes`"):
        source_of("mask_folders", tmp_path, **given, classes="gone.csv")


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "mask_folders", "images": "a"},
        {"type": "mask_folders", "images": "{part}", "masks": "b"},
        {"type": "voc", "images": "a", "masks": "b"},
        {"type": "image_folder", "classes": "auto"},
    ],
)
def test_keys_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatasetConfig(**settings)


def test_names_of_metrics_are_safe_and_differ() -> None:
    given = ("sky", "tv/monitor", "tv:monitor", "tv-monitor", "..", "'", "木", "a (b)", "_x_")
    assert safe_names(given) == (
        "sky", "tv-monitor", "tv-monitor-2", "tv-monitor-3", "-..", "-", "木", "a -b-", "_x_",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["class_names.txt", "ImageSets/Segmentation/train.txt"])
def test_a_pipe_in_place_of_a_list_is_refused_not_passed_over(tmp_path: Path, name: str) -> None:
    folder = voc(tmp_path, {"train": ["a", "b", "c"]}, [0, 15])
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match=f"cannot read {folder / name}: a pipe, not a file"):
        source_of("voc", folder)
