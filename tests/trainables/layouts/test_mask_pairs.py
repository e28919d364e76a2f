"""Images find their masks, and files without partner are named."""

from pathlib import Path

import pytest

from trainables.dataset import DataError
from trainables.layouts.folders import Scan
from trainables.layouts.mask_pairs import list_pairs, pair_name


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
