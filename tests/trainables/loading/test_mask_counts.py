"""Pixels are counted by class and part; what the table lacks and classes that no training mask
shows are errors with values, counts and files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.loading import mask_counts
from trainables.loading.decoded_cache import load_table
from trainables.loading.mask_counts import MaskCounts, check_masks, count_masks


def make(folder: Path, table: str, masks: list[Any]) -> Path:
    """`images` and `masks` of so many pairs, in `train`; the last two are in `test`."""
    for number, mask in enumerate(masks):
        place = folder / ("test" if number >= len(masks) - 2 else "train")
        (place / "images").mkdir(parents=True, exist_ok=True)
        (place / "masks").mkdir(exist_ok=True)
        pixels = np.array(mask, dtype=np.uint8)
        Image.new("RGB", pixels.shape[::-1]).save(place / f"images/{number}.png")
        Image.fromarray(pixels).save(place / f"masks/{number}.png")
    (folder / "classes.csv").write_text(table)
    return folder


def count(folder: Path, **settings: Any) -> MaskCounts:
    config = DatasetConfig(type="mask_folders", path=str(folder), size=8, **settings)
    return count_masks(read(config, None), folder.parent / "manifest.json")


def errors(folder: Path, on_corrupt: Any = "fail", trained_on: bool = True) -> list[str]:
    return check_masks(count(folder), on_corrupt, trained_on)


ZERO_ONE = "id,name\n0,background\n1,object\n"


def test_pixels_are_counted_by_class_and_part(tmp_path: Path) -> None:
    masks = [[[0, 1, 255]], [[0, 1, 1]], [[0, 0, 0]], [[0, 0, 1]], [[1, 1, 255]], [[0, 255, 255]]]
    counts = count(make(tmp_path / "data", ZERO_ONE, masks))
    training = np.array(counts.pixels("train")) + counts.pixels("val")
    assert training.tolist() == [7, 4] and counts.pixels("test") == [1, 2]
    assert counts.uncounted("test") == {"255": 3}


def test_masks_of_0_and_255_with_ids_0_and_1_are_an_error_with_values_counts_and_files(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "data", ZERO_ONE, [[[0, 0, 255]]] * 7)
    (line,) = errors(folder)
    assert line.startswith("class 'object' (1) has no pixel in the 4 training masks, which hold ")
    assert "'background' (0): 8 pixels in 4 masks (masks/0.png, " in line
    assert "255 (not counted): 4 pixels in 4 masks" in line and "correct classes.csv" in line
    with pytest.raises(DataError, match="class 'object'"):
        load_table(DatasetConfig(type="mask_folders", path=str(folder), size=8), tmp_path / "cache")
    assert errors(folder, trained_on=False) == []  # a producer learns nothing
    (folder / "classes.csv").write_text("id,name\n0,background\n255,object\n")
    assert errors(folder) == []
    assert count(folder).pixels("test") == [4, 2]


def test_a_class_that_only_the_test_masks_show_is_an_error(tmp_path: Path) -> None:
    masks = [[[0, 1, 0]]] * 5 + [[[0, 1, 2]]] * 2
    (line,) = errors(make(tmp_path / "data", ZERO_ONE + "2,car\n3,bus\n", masks))
    assert line.startswith("classes 'car' (2), 'bus' (3) have no pixel in the 4 training masks")


def test_values_that_the_table_lacks_are_one_line_with_counts_and_files(tmp_path: Path) -> None:
    masks = [[[0, 1, 7]], [[0, 1, 7]], [[0, 9, 1]], [[0, 1, 1]], [[0, 1, 1]]]
    folder = make(tmp_path / "data", ZERO_ONE, masks)
    for on_corrupt in ("fail", "skip"):  # a table with a fault is no damaged image
        (line,) = errors(folder, on_corrupt)
        assert line.startswith(
            "masks hold values that the class table lacks: 7: 2 pixels in 2 masks (masks/0.png, "
            "masks/1.png), 9: 1 pixel in 1 mask (masks/2.png): add them to classes.csv"
        )


def test_masks_that_cannot_be_read_are_one_line_a_reason(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", ZERO_ONE, [[[0, 1, 1]]] * 9)
    for number in range(4):
        Image.new("RGB", (3, 1), "red").save(folder / f"train/masks/{number}.png")
    (line,) = errors(folder)
    assert line.startswith("data set has 4 unreadable images: train/images/0.png, ")
    assert line.count("mask is RGB") == 1
    assert errors(folder, "skip") == []


def test_a_mask_that_did_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_files: list[str] = []
    tally = mask_counts.tally_mask

    def spy(path: Path, palette: Any) -> Any:
        read_files.append(path.name)
        return tally(path, palette)

    monkeypatch.setattr(mask_counts, "tally_mask", spy)
    folder = make(tmp_path / "data", ZERO_ONE, [[[0, 1, number]] for number in [0, 1] * 3])
    first = count(folder)
    assert len(read_files) == 2  # of six masks two contents
    assert count(folder) == first and len(read_files) == 2
    Image.fromarray(np.array([[1, 1, 255]], dtype=np.uint8)).save(folder / "test/masks/5.png")
    assert count(folder).pixels("test") == [2, 3] and read_files[2:] == ["5.png"]
    (folder / "classes.csv").write_text("id,name\n1,object\n0,background\n255,edge\n")
    assert count(folder).pixels("test") == [2, 3, 1] and len(read_files) == 6


def test_masks_in_memory_are_counted_too(tmp_path: Path) -> None:
    config = DatasetConfig(type="digit_scenes")
    counts = count_masks(read(config, None), tmp_path / "manifest.json")
    assert sum(sum(counts.pixels(part)) for part in counts.parts) == 60 * 64 * 64
    assert check_masks(counts, "fail", True) == []
