"""A class comes from the table of numbers or colors; a value that the table lacks is named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.dataset import IGNORED
from trainables.pixels.class_table import DEEPGLOBE, read_palette
from trainables.pixels.images import UnreadableImage
from trainables.pixels.mask_values import MaskTally, read_mask, tally_mask
from trainables.pixels.palette import Palette

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


def test_colours_become_ids_and_what_is_ignored_does_not_count(tmp_path: Path) -> None:
    ids = read_mask(mask(tmp_path, [[RED, GREEN], [GREY, RED]]), COLOURED)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 1], [IGNORED, 0]]


def test_deepglobes_colours_are_rounded_as_its_page_says(tmp_path: Path) -> None:
    ids = read_mask(mask(tmp_path, [[(3, 250, 255), (1, 2, 0), (129, 255, 127)]]), DEEPGLOBE)
    assert ids.tolist() == [[0, IGNORED, 1]]
    # red is left by rounding; it is no class either
    ids = read_mask(mask(tmp_path, [[(255, 255, 255), (250, 9, 3)]]), DEEPGLOBE)
    assert ids.tolist() == [[5, IGNORED]]


def test_a_colour_that_is_not_in_the_table_is_named_with_its_count(tmp_path: Path) -> None:
    path = mask(tmp_path, [[RED, (1, 2, 3)], [(1, 2, 3), (9, 9, 9)]])
    wanted = r"mask has 2 pixels of colour \(1, 2, 3\) and 1 more colours"
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
    with pytest.raises(
        UnreadableImage, match="has 2 pixels of value 7, which the class table lacks"
    ):
        read_mask(path, INDEXED)


@pytest.mark.parametrize("kind", ["CMYK", "uint16", "float32"])
def test_a_mask_that_shows_no_colours_of_8_bits_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    if kind == "CMYK":
        Image.new("CMYK", (2, 2), "red").save(path)
    else:
        Image.fromarray(np.array([[0, 1]], dtype=kind)).save(path)
    with pytest.raises(UnreadableImage, match="must show colours of 8 bits, as the class table"):
        read_mask(path, COLOURED)


BLACK_WHITE = Palette(("back", "front"), ((0, 0, 0), (255, 255, 255)), (RED,))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_in_any_mode_the_colour_shown_decides(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (3, 1), "white")
    image.putpixel((1, 0), (0, 0, 0))
    if mode == "P":  # the first index is white
        image = Image.new("P", (3, 1))
        image.putpalette([255, 255, 255, 255, 0, 0, 0, 0, 0])
        image.putdata([0, 2, 0])
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", BLACK_WHITE).tolist() == [[1, 0, 1]]


def test_a_transparent_pixel_has_no_colour(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 2), "red")
    image.putpixel((0, 0), (255, 0, 0, 254))
    image.save(tmp_path / "a.png")
    for palette in (COLOURED, INDEXED):
        with pytest.raises(UnreadableImage, match="mask has transparent pixels"):
            read_mask(tmp_path / "a.png", palette)


def test_a_transparent_colour_of_a_palette_is_what_it_is(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    for name, clear in (("a.png", 0), ("b.png", b"\x00\x80"), ("a.gif", 1)):
        image.save(tmp_path / name, transparency=clear)
        assert read_mask(tmp_path / name, COLOURED).tolist() == [[0, 1]]
        assert read_mask(tmp_path / name, INDEXED).tolist() == [[0, 1]]


def test_a_grey_palette_is_read_as_grey(tmp_path: Path) -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([255, 255, 255, 0, 0, 0, 128, 128, 128])
    image.putdata([0, 1, 2, 1])
    image.save(tmp_path / "a.png")
    palette = Palette(("back", "front"), numbers=(0, 255), ignored_numbers=(128,))
    assert read_mask(tmp_path / "a.png", palette).tolist() == [[1, 0, IGNORED, 0]]
    assert tally_mask(tmp_path / "a.png", palette).grey_palette
    # grey colours in a palette of colours are indices: background and car of Pascal VOC
    image.putpalette([0, 0, 0, 128, 128, 128, *RED])
    image.putdata([0, 1, 1, 0])
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", INDEXED).tolist() == [[0, 1, 1, 0]]
    used = {0: (0, 0, 0), 1: (128, 128, 128)}
    assert tally_mask(tmp_path / "a.png", INDEXED) == MaskTally([2, 2], {}, {}, used)


def test_grey_that_was_saved_as_rgb_is_grey(tmp_path: Path) -> None:
    path = mask(tmp_path, [[0, 1], [255, 1]], "L")
    for mode in ("RGB", "RGBA", "LA"):
        with Image.open(path) as image:
            image.convert(mode).save(tmp_path / "a.png")
        assert read_mask(tmp_path / "a.png", INDEXED).tolist() == [[0, 1], [IGNORED, 1]]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGB", "mask has colours, and the class table has none: give it the columns r, g, b"),
        ("RGBA", "mask has colours"),
        ("CMYK", "mask is CMYK, must hold whole numbers"),
    ],
)
def test_a_mask_of_colours_is_refused_where_the_table_has_numbers(
    tmp_path: Path, mode: str, message: str
) -> None:
    Image.new(mode, (2, 2), "red").save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match=message):
        read_mask(tmp_path / "a.tif", INDEXED)


def test_one_bit_is_0_and_1_or_what_it_shows_where_the_table_says_so(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.bmp"):
        Image.fromarray(np.array([[False, True, True]])).save(tmp_path / name)
        assert read_mask(tmp_path / name, INDEXED).tolist() == [[0, 1, 1]]
        shown = Palette(("roof", "grass"), numbers=(0, 255))
        assert read_mask(tmp_path / name, shown).tolist() == [[0, 1, 1]]
        both = Palette(("roof", "grass", "sky"), numbers=(0, 1, 255))
        assert read_mask(tmp_path / name, both).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_the_numbers_in_the_file(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(grey_png([[0, 1, (1 << bits) - 1, 0]], bits))
    palette = Palette(("a", "b"), numbers=(0, 1), more_numbers=((3, 1), (15, 1)))
    assert read_mask(path, palette).tolist() == [[0, 1, 1, 0]]


def grey_png(rows: list[list[int]], bits: int) -> bytes:
    """A PNG of grey levels with few bits, which Pillow reads and does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    lines = b""
    for row in rows:
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["uint16", "int16", "int32", "float32"])
def test_masks_of_more_bits_hold_whole_numbers(tmp_path: Path, kind: str) -> None:
    palette = Palette(("a", "b", "c"), numbers=(0, 1, 1000), ignored_numbers=(-1,))
    numbers = np.array([[0, 1, 1000, 255, 0 if kind == "uint16" else -1]]).astype(kind)
    with_sign = numbers.astype(np.int32) if kind == "int16" else numbers
    Image.fromarray(with_sign).save(tmp_path / "a.tif")
    last = 0 if kind == "uint16" else IGNORED
    assert read_mask(tmp_path / "a.tif", palette).tolist() == [[0, 1, 2, IGNORED, last]]
    if kind == "uint16":
        Image.fromarray(numbers).save(tmp_path / "a.png")
        assert read_mask(tmp_path / "a.png", palette).tolist() == [[0, 1, 2, IGNORED, 0]]


def test_a_number_of_16_bits_is_never_cut_to_8(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256, 257]], dtype=np.uint16)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="1 pixels of value 256 and 1 more values"):
        read_mask(tmp_path / "a.tif", INDEXED)


def test_fractions_are_refused(tmp_path: Path) -> None:
    for value in (0.5, np.nan):
        Image.fromarray(np.array([[0, value]], dtype=np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(UnreadableImage, match="mask is F, must hold whole numbers"):
            read_mask(tmp_path / "a.tif", INDEXED)


def test_255_is_a_class_where_the_table_names_it(tmp_path: Path) -> None:
    path = mask(tmp_path, [[0, 128, 255]], "L")
    two = read_palette(table(tmp_path, "id,name\n0,background\n255,object\n128,edge\n"))
    assert two.names == ("background", "edge", "object")
    assert read_mask(path, two).tolist() == [[0, 1, 2]]
    text = "name,values,ignored\nbackground,0,\nobject,255,\nedge,128,1\n"
    assert read_mask(path, read_palette(table(tmp_path, text))).tolist() == [[0, IGNORED, 1]]
    text = "name,values\nbackground,0\nobject,128 255\n"
    assert read_mask(path, read_palette(table(tmp_path, text))).tolist() == [[0, 1, 1]]


def test_a_tally_counts_classes_and_what_does_not_count_and_what_is_unknown(
    tmp_path: Path,
) -> None:
    path = mask(tmp_path, [[0, 1, 1, 255], [7, 7, 9, 1]], "L")
    assert tally_mask(path, INDEXED) == MaskTally([1, 3], {"255": 1}, {"7": 2, "9": 1}, {})
    path = mask(tmp_path, [[RED, GREEN, GREY, (1, 2, 3)]])
    wanted = MaskTally([1, 1], {"(155, 155, 155)": 1}, {"(1, 2, 3)": 1}, {})
    assert tally_mask(path, COLOURED) == wanted


def test_a_mask_in_which_nothing_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no pixel that counts"):
        read_mask(mask(tmp_path, [[GREY, GREY]]), COLOURED)


def test_a_damaged_mask_is_said(tmp_path: Path) -> None:
    path = mask(tmp_path, np.zeros((50, 50, 3)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableImage, match="mask is damaged"):
        read_mask(path, COLOURED)


def test_numbers_may_have_gaps_and_some_may_not_count(tmp_path: Path) -> None:
    palette = read_palette(table(tmp_path, "id,name,ignored\n7,roof,0\n3,grass,0\n0,edge,1\n"))
    assert palette.names == ("grass", "roof")
    assert read_mask(mask(tmp_path, [[7, 3], [0, 255]], "L"), palette).tolist() == [
        [1, 0],
        [IGNORED, IGNORED],
    ]
