"""Images find their masks, and files without partner are named."""

from pathlib import Path

import pytest

from trainables.dataset import DataError
from trainables.layouts.folders import Scan
from trainables.layouts.mask_pairs import (
    check_patterns,
    list_pairs,
    list_pairs_by_patterns,
    pair_name,
)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_satellite_pairs_alone_and_in_splits(tmp_path: Path) -> None:
    touch(tmp_path / "flat", "2_sat.jpg", "2_mask.png", "10_sat.jpg", "10_mask.png", "notes.txt")
    flat = {"train": [("10_sat.jpg", "10_mask.png"), ("2_sat.jpg", "2_mask.png")]}
    assert list_pairs(Scan(tmp_path / "flat")) == flat
    both = ("train/1_sat.jpg", "train/1_mask.png", "validation/2_sat.jpg", "validation/2_mask.png")
    found = list_pairs(Scan(touch(tmp_path / "split", *both, "classes.csv")))
    assert found == {"train": [both[:2]], "val": [both[2:]]}


def test_folders_of_images_and_masks_with_equal_names(tmp_path: Path) -> None:
    names = ("train/images/a.jpg", "train/masks/a.png", "test/images/b.tif", "test/masks/b.png")
    assert list_pairs(Scan(touch(tmp_path, *names))) == {"train": [names[:2]], "test": [names[2:]]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1_sat.jpg"], r"1 image without mask \(1_sat.jpg\)"),
        (
            ["1_sat.jpg", "1_mask.png", "2_mask.png", "3_mask.png"],
            r"2 masks without image \(2_mask",
        ),
        (["images/a.jpg", "masks/b.png"], r"1 image without mask \(images/a.jpg\)"),
        (["1_sat.jpg", "1_sat.png", "1_mask.png"], "1_sat.jpg and 1_sat.png, both of 1: keep one"),
        (["a.jpg"], "neither NNNN_sat.jpg with NNNN_mask.png nor the folders images and masks"),
        (["val/1_sat.jpg", "val/1_mask.png"], "has val but no train folder"),
        (["val/a", "valid/a", "train/a"], "two folders for one split"),
    ],
)
def test_a_file_without_partner_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_pairs(Scan(touch(tmp_path, *names)))


def test_a_pair_is_called_by_its_number() -> None:
    assert [pair_name("train/0013_sat.jpg"), pair_name("images/roof.png")] == ["0013", "roof"]


PATTERNS = [
    ("CamVid/{part}", "CamVid/{part}annot",
     ["CamVid/train/1.png", "CamVid/trainannot/1.png", "CamVid/val/2.png",
      "CamVid/valannot/2.png"],
     {"train": [("CamVid/train/1.png", "CamVid/trainannot/1.png")],
      "val": [("CamVid/val/2.png", "CamVid/valannot/2.png")]}),
    ("*_image.png", "*_annotation.png", ["a_image.png", "a_annotation.png"],
     {"train": [("a_image.png", "a_annotation.png")]}),
    ("{part}/image", "{part}/label", ["train/image/0.png", "train/label/0.tif"],
     {"train": [("train/image/0.png", "train/label/0.tif")]}),
    ("left/{part}/*/*_left.png", "fine/{part}/*/*_ids.png",
     ["left/train/ulm/1_left.png", "fine/train/ulm/1_ids.png", "left/train/bonn/1_left.png",
      "fine/train/bonn/1_ids.png"],
     {"train": [("left/train/bonn/1_left.png", "fine/train/bonn/1_ids.png"),
                ("left/train/ulm/1_left.png", "fine/train/ulm/1_ids.png")]}),
    ("{part}_images", "{part}_masks",
     ["train_images/a.jpg", "train_masks/a.png", "test_images/b.jpg", "test_masks/b.png"],
     {"train": [("train_images/a.jpg", "train_masks/a.png")],
      "test": [("test_images/b.jpg", "test_masks/b.png")]}),
    ("{part}2017/*.jpg", "masks/{part}2017/*.png",
     ["train2017/a.jpg", "masks/train2017/a.png"],
     {"train": [("train2017/a.jpg", "masks/train2017/a.png")]}),
]  # fmt: skip


@pytest.mark.parametrize(("images", "masks", "names", "found"), PATTERNS)
def test_two_patterns_find_pairs_of_any_layout(
    tmp_path: Path, images: str, masks: str, names: list[str], found: dict[str, object]
) -> None:
    check_patterns(images, masks)
    scan = Scan(touch(tmp_path, *names, "notes.txt"))
    assert list_pairs_by_patterns(scan, images, masks) == found


def test_what_fits_no_pattern_is_counted(tmp_path: Path) -> None:
    scan = Scan(touch(tmp_path, "a_image.png", "a_mask.png", "b.png", "c.txt"))
    list_pairs_by_patterns(scan, "*_image.png", "*_mask.png")
    assert scan.passed == {(".png", "fits no pattern"): 1, (".txt", "not an image"): 1}


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("{part}/a", "b", "both have"),
        ("*/a_*.png", "*.png", "another number of"),
        ("../a", "b", "below the folder"),
        ("/a", "b", "below the folder"),
        ("", "b", "below the folder"),
        ("{part}/{part}", "{part}/*", "twice"),
    ],
)
def test_patterns_that_cannot_find_pairs_are_refused(images: str, masks: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_patterns(images, masks)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/x/1.png"], "has no images that fit 'CamVid/{part}' .* .there are: train."),
        (["CamVid/train/1.png"], r"1 image without mask \(CamVid/train/1.png\)"),
        (["CamVid/val/1.png", "CamVid/valannot/1.png"], "has val but no train"),
        (["CamVid/train/1.png", "CamVid/Train/1.jpg"], "both of 1: keep one"),
    ],
)
def test_patterns_that_find_no_set_are_said(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_pairs_by_patterns(Scan(touch(tmp_path, *names)), "CamVid/{part}", "CamVid/{part}annot")


def test_a_layout_without_known_names_says_how_to_name_it(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.png", "trainannot/a.png")
    with pytest.raises(DataError, match="say with `images:` and `masks:` where they lie"):
        list_pairs(Scan(tmp_path))
    touch(tmp_path / "two", "train_images/a.png", "train_masks/a.png", "val_images/b.png",
          "val_masks/b.png")  # fmt: skip
    with pytest.raises(DataError, match="two folders for one split .*`images:` and `masks:`"):
        list_pairs(Scan(tmp_path / "two"))
