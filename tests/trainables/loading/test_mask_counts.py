"""Pixels are counted by class and part; what the table lacks and classes that no training mask
shows are errors with values, counts and files."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.data.datasets import DatasetConfig, read
from trainables.data.masks import numbers_or_reason
from trainables.dataset import DataError
from trainables.loading import mask_counts
from trainables.loading.decoded_cache import load_table
from trainables.loading.mask_counts import (
    MaskCounts,
    check_masks,
    count_masks,
    remembered_numbers,
)


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
    return check_masks(count(folder), on_corrupt, 8 if trained_on else None)


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
    assert line.count("mask has colours") == 1
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
    assert check_masks(counts, "fail", 64) == []


def index_mask(path: Path, palette: list[int], indices: list[int]) -> None:
    image = Image.new("P", (len(indices), 1))
    image.putpalette(palette)
    image.putdata(indices)
    image.save(path)


BLACK, RED, GREEN = (0, 0, 0), (128, 0, 0), (0, 128, 0)


@pytest.mark.parametrize(
    ("palette", "indices", "message"),
    [
        ((BLACK, RED, GREEN), [0, 1, 2], None),
        ((BLACK, RED, GREEN, RED), [1, 3, 0], None),  # one mask shows that two indices look alike
        ((BLACK,), [0, 0, 0], None),  # only background, and only that in its palette
        ((BLACK, GREEN, RED), [0, 0, 0], None),  # what is not used does not matter
        (
            (BLACK, GREEN, RED),
            [0, 1, 1],
            r"palettes of masks differ \(index 1 is \(128, 0, 0\) in masks/[05].png and "
            r"\(0, 128, 0\) in masks/1.png, .*give classes.csv the columns r, g, b",
        ),
        (
            (GREEN, BLACK, GREEN, RED),
            [3, 3, 3],
            r"palettes of masks differ \(colour \(128, 0, 0\) is index 1 in masks/[05].png and 3",
        ),
    ],
)
def test_palettes_that_differ_between_masks_are_refused(
    tmp_path: Path, palette: tuple[Any, ...], indices: list[int], message: str | None
) -> None:
    table = "id,name\n0,back\n1,roof\n2,grass\n3,car\n"
    folder = make(tmp_path / "data", table, [[[0, 1, 2]]] * 7)
    for number in range(7):
        part = "test" if number > 4 else "train"
        palettes = (BLACK, RED, GREEN) if number != 1 else palette
        flat = [channel for colour in palettes for channel in colour]
        mask = folder / part / f"masks/{number}.png"
        index_mask(mask, flat, [0, 1, 2] if number != 1 else indices)
    found = errors(folder, trained_on=False)
    assert len(found) == (message is not None)
    if message:
        assert re.match(message, found[0]), found


def test_with_colours_in_the_table_palettes_may_differ(tmp_path: Path) -> None:
    table = "name,r,g,b\nback,0,0,0\nroof,128,0,0\n"
    folder = make(tmp_path / "data", table, [[[0, 0, 0]]] * 6)
    for number in range(6):
        part = "test" if number > 3 else "train"
        order = [*BLACK, *RED] if number % 2 else [*RED, *BLACK]
        indices = [0, 0, 1] if number % 2 else [1, 1, 0]
        index_mask(folder / part / f"masks/{number}.png", order, indices)
    assert errors(folder) == []
    assert count(folder).pixels("test") == [4, 2]


def test_a_class_without_pixels_says_that_a_grey_palette_is_read_as_grey(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", ZERO_ONE, [[[0, 0, 0]]] * 6)
    for number in range(6):
        part = "test" if number > 3 else "train"
        index_mask(folder / part / f"masks/{number}.png", [0, 0, 0, 255, 255, 255], [0, 1, 1])
    (line,) = errors(folder)
    assert "255 (not counted)" in line and "(of grey palettes what they show" in line


def test_images_that_exif_turns_without_their_masks_are_one_line_with_both_names(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "data", ZERO_ONE, [[[0, 1], [1, 1]]] * 7)
    exif = Image.Exif()
    exif[0x0112] = 3
    for number in (1, 2):
        Image.new("RGB", (2, 2)).save(folder / f"train/images/{number}.png", exif=exif)
    for on_corrupt in ("fail", "skip"):
        (line,) = errors(folder, on_corrupt)
        assert "EXIF says to turn the image and not its mask" in line
        assert "(2: train/images/1.png with masks/1.png, train/images/2.png with masks/2" in line


def test_pairs_that_do_not_fit_are_named_before_anything_is_decoded(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", ZERO_ONE, [[[0, 1, 1]]] * 7)
    Image.new("RGB", (3, 2)).save(folder / "train/images/1.png")
    (line,) = errors(folder)
    assert "train/images/1.png (image has 3x2 px, its mask 3x1)" in line
    wide = np.array([[0, 1] * 5], dtype=np.uint8)  # larger than the squares: it lies in windows
    Image.new("RGB", (10, 1)).save(folder / "train/images/1.png")
    Image.fromarray(wide).save(folder / "train/masks/1.png")
    assert errors(folder) == []
    assert errors(folder, trained_on=False) == []  # a producer sees images at their own size


def test_numbers_as_classes_are_looked_for_once_and_a_changed_mask_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "data", ZERO_ONE, [[[0, 1, 255, k]] for k in range(7)])
    config = DatasetConfig(type="mask_folders", path=str(folder), size=8, classes="auto")
    opened: list[str] = []

    def spy(mask: Path) -> Any:
        opened.append(mask.name)
        return numbers_or_reason(mask)

    monkeypatch.setattr(mask_counts, "numbers_or_reason", spy)

    def classes() -> tuple[str, ...]:
        opened.clear()
        look = remembered_numbers(tmp_path / "manifest.json")
        return read(config, None, look=look).classes

    assert classes() == tuple("0123456") and sorted(opened) == [f"{k}.png" for k in range(7)]
    assert classes() == tuple("0123456") and opened == []
    Image.fromarray(np.array([[0, 1, 9, 2]], np.uint8)).save(folder / "train/masks/2.png")
    assert classes() == tuple("01234569") and opened == ["2.png"]
    (folder / "test/masks/6.png").write_bytes(b"no image")
    assert classes() == tuple("0123459") and opened == ["6.png"]
    (tmp_path / "manifest-numbers.json").write_text("damaged")
    assert classes() == tuple("0123459") and len(opened) == 7


def test_photographs_in_place_of_numbered_masks_are_refused_and_not_remembered(
    tmp_path: Path,
) -> None:
    masks = [np.arange(400).reshape(20, 20) + k for k in range(7)]
    folder = make(tmp_path / "data", ZERO_ONE, [mask % 256 for mask in masks])
    for place, mask in zip(sorted(folder.glob("*/masks/*.png")), masks, strict=True):
        Image.fromarray(mask.astype(np.uint16)).save(place)
    config = DatasetConfig(type="mask_folders", path=str(folder), size=20, classes="auto")
    with pytest.raises(DataError, match="hold 405 numbers that count: .* needs 2 to 254"):
        read(config, None, look=remembered_numbers(tmp_path / "manifest.json"))
    assert "[1, [" not in (tmp_path / "manifest-numbers.json").read_text()


def test_masks_that_were_saved_as_jpeg_are_refused_as_such(tmp_path: Path) -> None:
    checker = np.kron(np.indices((6, 6)).sum(0) % 2 * 255, np.ones((3, 3)))
    folder = make(tmp_path / "data", "id,name\n0,bg\n255,object\n", [checker] * 7)
    for path in folder.glob("*/masks/*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    config = DatasetConfig(type="mask_folders", path=str(folder), size=18)
    counts = count_masks(read(config, None), tmp_path / "manifest.json")
    (line,) = check_masks(counts, "fail", 18)
    assert line.endswith(
        "JPEG changes them when it saves a mask: save masks as PNG, from the originals"
    )
