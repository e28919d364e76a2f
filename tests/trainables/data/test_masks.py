"""Images find their masks, and files without partner are named. A class comes from the table of
colors, and a color that the table lacks is named with file and count."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.contract import Palette
from trainables.data.images import UnreadableImage
from trainables.data.masks import DEEPGLOBE, list_pairs, pair_name, read_mask, read_palette
from trainables.dataset import IGNORED, DataError

RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (155, 155, 155)
COLOURED = Palette(("roof", "grass"), (RED, GREEN), (GREY,))
INDEXED = Palette(("roof", "grass"), numbers=(0, 1))


def table(folder: Path, text: str) -> Path:
    path = folder / "classes.csv"
    path.write_text(text)
    return path


def mask(folder: Path, pixels: object, mode: str = "RGB") -> Path:
    path = folder / "0001_mask.png"
    Image.fromarray(np.array(pixels, dtype=np.uint8), mode=None).convert(mode).save(path)
    return path


def test_a_table_of_colours_numbers_the_classes_that_count(tmp_path: Path) -> None:
    text = "id,name,r,g,b,ignored\n1,grass,0,255,0,0\n0,roof,255,0,0,0\n2,unlabeled,155,155,155,1\n"
    assert read_palette(table(tmp_path, text)) == COLOURED
    text = "name,r,g,b\nroof,255,0,0\ngrass,0,255,0\n"
    assert read_palette(table(tmp_path, text)) == Palette(COLOURED.names, COLOURED.colours)


def test_a_table_without_colours_is_of_ids(tmp_path: Path) -> None:
    assert read_palette(table(tmp_path, "name,id\ngrass,1\nroof,0\n")) == INDEXED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header with `name`"),
        ("colour\nred\n", "needs a header with `name`"),
        ("name\nroof\n", "neither the columns r, g, b nor id"),
        ("name,r,g,b\nroof,255,0,0\n", "fewer than two classes"),
        ("name,r,g,b\nroof,255,0,0\nroof,0,255,0\n", r"one name for two classes \(roof\)"),
        ("name,r,g,b\nroof,255,0,0\ngrass,255,0,0\n", "one colour for two classes"),
        ("name,r,g,b\nroof,256,0,0\ngrass,0,255,0\n", "r of 'roof' is '256', must be 0 to 255"),
        ("name,r,g,b\nroof,x,0,0\ngrass,0,255,0\n", "r of 'roof' is 'x'"),
        ("name,r,g,b\nroof,255,0\ngrass,0,255,0\n", "more or fewer columns"),
        ("name,id\nroof,1\ngrass,1\n", "one id for two classes"),
        ("name,id\nroof (old),0\ngrass,1\n", r"has roof \(old\): use letters, digits"),
    ],
)
def test_a_table_with_a_fault_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_palette(table(tmp_path, text))


def test_colours_become_ids_and_what_is_ignored_does_not_count(tmp_path: Path) -> None:
    ids = read_mask(mask(tmp_path, [[RED, GREEN], [GREY, RED]]), COLOURED)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 1], [IGNORED, 0]]


def test_deepglobes_colours_are_rounded_as_its_page_says(tmp_path: Path) -> None:
    ids = read_mask(mask(tmp_path, [[(3, 250, 255), (1, 2, 0), (129, 255, 127)]]), DEEPGLOBE)
    assert ids.tolist() == [[0, IGNORED, 1]]
    with pytest.raises(UnreadableImage, match=r"1 pixels of colour \(255, 0, 0\)"):
        read_mask(mask(tmp_path, [[(255, 255, 255), (255, 0, 0)]]), DEEPGLOBE)


def test_a_colour_that_is_not_in_the_table_is_named_with_file_and_count(tmp_path: Path) -> None:
    path = mask(tmp_path, [[RED, (1, 2, 3)], [(1, 2, 3), (9, 9, 9)]])
    wanted = r"mask 0001_mask.png has 2 pixels of colour \(1, 2, 3\) and 1 more colours"
    with pytest.raises(UnreadableImage, match=wanted):
        read_mask(path, COLOURED)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_of_ids_hold_them_themselves(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 1], [255, 1]], dtype=np.uint8)).save(path)
    if mode == "P":
        palette = Image.fromarray(np.array([[0, 1], [255, 1]], dtype=np.uint8))
        palette.putpalette(list(range(256)) * 3)
        palette.save(path)
    assert read_mask(path, INDEXED).tolist() == [[0, 1], [IGNORED, 1]]


def test_an_id_that_no_class_has_is_named(tmp_path: Path) -> None:
    path = mask(tmp_path, [[0, 7], [7, 1]], "L")
    with pytest.raises(UnreadableImage, match="has 2 pixels of id 7, which the class table lacks"):
        read_mask(path, INDEXED)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "I;16", "1"])
def test_a_coloured_mask_of_another_mode_is_refused(tmp_path: Path, mode: str) -> None:
    pixels = np.array([[RED, GREEN]], dtype=np.uint8)
    image = Image.fromarray(pixels)
    grey = Image.fromarray(np.array([[0, 1]], dtype=np.uint16))
    path = tmp_path / "a.png"
    (grey if mode == "I;16" else image.convert(mode)).save(path)
    with pytest.raises(UnreadableImage, match=f"mask a.png is {mode}, must be RGB"):
        read_mask(path, COLOURED)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_a_mask_of_ids_in_another_mode_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    grey = Image.fromarray(np.array([[0, 1]], dtype=np.uint16))
    (grey if mode == "I;16" else Image.new(mode, (2, 2))).save(path)
    with pytest.raises(UnreadableImage, match=f"is {mode}, must be 8-bit class ids"):
        read_mask(path, INDEXED)


def test_a_mask_in_which_nothing_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no pixel that counts"):
        read_mask(mask(tmp_path, [[GREY, GREY]]), COLOURED)


def test_a_damaged_mask_is_said(tmp_path: Path) -> None:
    path = mask(tmp_path, np.zeros((50, 50, 3)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableImage, match="mask 0001_mask.png is damaged"):
        read_mask(path, COLOURED)


def test_numbers_may_have_gaps_and_some_may_not_count(tmp_path: Path) -> None:
    palette = read_palette(table(tmp_path, "id,name,ignored\n7,roof,0\n3,grass,0\n0,edge,1\n"))
    assert palette.names == ("grass", "roof")
    assert read_mask(mask(tmp_path, [[7, 3], [0, 255]], "L"), palette).tolist() == [
        [1, 0],
        [IGNORED, IGNORED],
    ]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_satellite_pairs_alone_and_in_splits(tmp_path: Path) -> None:
    touch(tmp_path / "flat", "2_sat.jpg", "2_mask.png", "10_sat.jpg", "10_mask.png", "notes.txt")
    flat = {"train": [("10_sat.jpg", "10_mask.png"), ("2_sat.jpg", "2_mask.png")]}
    assert list_pairs(tmp_path / "flat") == flat
    both = ("train/1_sat.jpg", "train/1_mask.png", "validation/2_sat.jpg", "validation/2_mask.png")
    found = list_pairs(touch(tmp_path / "split", *both, "classes.csv"))
    assert found == {"train": [both[:2]], "val": [both[2:]]}


def test_folders_of_images_and_masks_with_equal_names(tmp_path: Path) -> None:
    names = ("train/images/a.jpg", "train/masks/a.png", "test/images/b.tif", "test/masks/b.png")
    assert list_pairs(touch(tmp_path, *names)) == {"train": [names[:2]], "test": [names[2:]]}


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
        (["val/1_sat.jpg", "val/1_mask.png"], "has val/ but no train folder"),
        (["val/a", "valid/a", "train/a"], "two folders for one split"),
    ],
)
def test_a_file_without_partner_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_pairs(touch(tmp_path, *names))


def test_a_pair_is_called_by_its_number() -> None:
    assert [pair_name("train/0013_sat.jpg"), pair_name("images/roof.png")] == ["0013", "roof"]
