"""`classes.csv` says which numbers or colors the classes of masks have; its faults are named."""

from pathlib import Path

import pytest

from trainables.dataset import DataError
from trainables.pixels.class_table import read_palette
from trainables.pixels.palette import Palette

RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (155, 155, 155)
COLOURED = Palette(("roof", "grass"), (RED, GREEN), (GREY,))
INDEXED = Palette(("roof", "grass"), numbers=(0, 1))


def table(folder: Path, text: str) -> Path:
    path = folder / "classes.csv"
    path.write_text(text)
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
        ("name\nroof\n", "neither the columns r, g, b nor id nor values"),
        ("name,r,g,b\nroof,255,0,0\n", "fewer than two classes"),
        ("name,r,g,b\nroof,255,0,0\nroof,0,255,0\n", r"one name for two classes \(roof\)"),
        ("name,r,g,b\nroof,255,0,0\ngrass,255,0,0\n", "one colour for two classes"),
        ("name,r,g,b\nroof,256,0,0\ngrass,0,255,0\n", "r of 'roof' is '256', must be 0 to 255"),
        ("name,r,g,b\nroof,x,0,0\ngrass,0,255,0\n", "r of 'roof' is 'x'"),
        ("name,r,g,b\nroof,255,0\ngrass,0,255,0\n", "more or fewer columns"),
        ("name,id\nroof,1\ngrass,1\n", "one id for two classes"),
        ("name,id\n,0\ngrass,1\n", "names that are empty, too long or cannot be printed"),
        ("name,id\nro\x07of,0\ngrass,1\n", r"cannot be printed \('ro.x07of'\)"),
        ("name,id\nroof,x\ngrass,1\n", "id of 'roof' is 'x', must be a whole number"),
        ("name,values\nroof,0 1\ngrass,1 2\n", r"one value for two classes \(1\)"),
        ("name,values\nroof,0.5\ngrass,1\n", "values of 'roof' are '0.5', must be whole numbers"),
        ("name,values\nroof,9-3\ngrass,1\n", "values of 'roof' are '9-3', must be whole numbers"),
        ("name,values\nroof,0-99999\ngrass,1\n", "values of 'roof' are '0-99999', must be"),
        ("name,values\nroof,\ngrass,1\n", "'roof' has neither values nor id"),
        ("name,id\n" + "".join(f"c{i},{i}\n" for i in range(255)), "has 255 classes .* 254 is the"),
    ],
)
def test_a_table_with_a_fault_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_palette(table(tmp_path, text))


def test_values_name_the_numbers_of_a_class_and_ids_only_its_place(tmp_path: Path) -> None:
    text = "id,name,values,ignored\n1,object,128 255,\n0,background,0,\n2,edge,200-202;-1,yes\n"
    assert read_palette(table(tmp_path, text)) == Palette(
        ("background", "object"),
        numbers=(0, 128),
        ignored_numbers=(200, 201, 202, -1),
        more_numbers=((255, 1),),
    )


def test_a_row_without_values_has_its_id(tmp_path: Path) -> None:
    palette = read_palette(table(tmp_path, "id,name,values\n0,sky,\n1,tree,7\n255,road,\n"))
    assert palette.numbers == (0, 7, 255)


def test_what_a_table_means_is_the_same_text_until_a_class_has_several_numbers() -> None:
    old = (
        "Palette(names=('roof', 'grass'), colours=(), ignored=(), rounded=False, "
        "numbers=(0, 1), ignored_numbers=())"
    )
    assert INDEXED.meaning == old  # it is in the fingerprint of every data set with masks
    more = Palette(INDEXED.names, numbers=(0, 1), more_numbers=((2, 1),))
    assert more.meaning not in (old, repr(more))
