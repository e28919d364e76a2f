"""A table of classes and colours, and files of masks → class ids.

A class comes from the table, never from a grey level; a colour that is not in it is an error.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.data.class_folders import few
from trainables.data.images import FORMATS, UnreadableImage
from trainables.dataset import IGNORED, DataError

Ids = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
TABLE = "classes.csv"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")  # it becomes part of a metric's name
_UNKNOWN = 254  # in a look-up table: a colour that no class has


@dataclass(frozen=True)
class Palette:
    """names: of the classes that count, by id. colours: id → RGB. ignored: colours of pixels that
    do not count. rounded: channels are 0 or 255, and what lies between is rounding.

    Without colours, masks hold numbers: `numbers` of the classes, `ignored_numbers` of what does
    not count, as 255 never does.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    ignored: tuple[Colour, ...] = ()
    rounded: bool = False
    numbers: tuple[int, ...] = ()
    ignored_numbers: tuple[int, ...] = ()


# the colours of the data set's own page; its masks were compressed and are to be rounded at 128
DEEPGLOBE = Palette(
    ("urban", "agriculture", "rangeland", "forest", "water", "barren"),
    ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255)),
    ((0, 0, 0),),
    rounded=True,
)


def read_palette(path: Path) -> Palette:
    """Columns `name`, then `r`, `g`, `b` where masks are coloured, and `id` and `ignored` if there
    are any. Class ids count up from 0 over the classes that are not ignored, in the order of the
    table, or of its ids, which are what masks without colours hold. Raises DataError."""
    rows = _rows(path)
    if not rows or "name" not in rows[0]:
        raise DataError(
            f"{path} needs a header with `name`, and `r,g,b` or `id`, and a row a class"
        )
    coloured = {"r", "g", "b"} <= rows[0].keys()
    if not coloured and "id" not in rows[0]:
        raise DataError(f"{path} has neither the columns r, g, b nor id: add colours or ids")
    if "id" in rows[0]:
        rows.sort(key=lambda row: _number(path, row, "id", 253))
    left_out = [row.get("ignored", "0").strip().lower() in ("1", "true", "yes") for row in rows]
    counted = [row for row, out in zip(rows, left_out, strict=True) if not out]
    names = [row["name"].strip() for row in counted]
    _check_unique(path, "name", names)
    odd = [name for name in names if not _NAME.fullmatch(name)]
    if odd:
        raise DataError(
            f"{path} has {few(odd)}: a class is called by letters, digits, - _ . and space"
        )
    if len(names) < 2:
        raise DataError(f"{path} has fewer than two classes that count: add some")
    if not coloured:
        numbers = [_number(path, row, "id", 253) for row in rows]
        _check_unique(path, "id", list(map(str, numbers)))
        return Palette(
            tuple(names),
            numbers=tuple(n for n, out in zip(numbers, left_out, strict=True) if not out),
            ignored_numbers=tuple(n for n, out in zip(numbers, left_out, strict=True) if out),
        )
    colours = [_colour(path, row) for row in rows]
    _check_unique(path, "colour", list(map(str, colours)))
    return Palette(
        tuple(names),
        tuple(c for c, out in zip(colours, left_out, strict=True) if not out),
        tuple(c for c, out in zip(colours, left_out, strict=True) if out),
    )


def read_mask(path: Path, palette: Palette) -> Ids:
    """(H, W) class ids, IGNORED where a pixel does not count.

    Coloured masks must be RGB, others one channel of 8 bits (or a PNG's palette indices). Raises
    UnreadableImage for another mode, a damaged file, a colour or id that the table lacks, and a
    mask in which no pixel counts.
    """
    mode, pixels = _pixels(path)
    if palette.colours:
        if mode != "RGB":
            raise UnreadableImage(f"mask {path.name} is {mode}, must be RGB as in the colour table")
        ids = _look_up(path, pixels, palette)
    else:
        if mode not in ("L", "P"):
            raise UnreadableImage(f"mask {path.name} is {mode}, must be 8-bit class ids (L or P)")
        ids = _by_number(path, pixels, palette)
    if (ids == IGNORED).all():
        raise UnreadableImage(f"mask {path.name} has no pixel that counts: remove the pair")
    return ids


def _pixels(path: Path) -> tuple[str, Ids]:
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return image.mode, np.array(image).astype(np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        raise UnreadableImage(f"mask {path.name} is damaged or no image") from error


def _look_up(path: Path, pixels: Ids, palette: Palette) -> Ids:
    if palette.rounded:
        pixels = np.where(pixels >= 128, 255, 0).astype(np.uint8)
    table = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)
    for number, colour in enumerate(palette.colours):
        table[_code(np.array(colour))] = number
    for colour in palette.ignored:
        table[_code(np.array(colour))] = IGNORED
    codes = _code(pixels)
    ids = table[codes]
    if (ids == _UNKNOWN).any():
        found, counts = np.unique(codes[ids == _UNKNOWN], return_counts=True)
        most = found[counts.argmax()]
        colour = (int(most >> 16), int(most >> 8 & 255), int(most & 255))
        others = f" and {len(found) - 1} more colours" if len(found) > 1 else ""
        raise UnreadableImage(
            f"mask {path.name} has {counts.max()} pixels of colour {colour}{others}, "
            "which the colour table lacks"
        )
    return ids


def _code(colours: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """(..., 3) → (...): one number a colour."""
    wide = colours.astype(np.int64)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def _by_number(path: Path, pixels: Ids, palette: Palette) -> Ids:
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[[*palette.ignored_numbers, IGNORED]] = IGNORED
    table[list(palette.numbers)] = np.arange(len(palette.names))
    ids = table[pixels]
    if (ids == _UNKNOWN).any():
        found, counts = np.unique(pixels[ids == _UNKNOWN], return_counts=True)
        raise UnreadableImage(
            f"mask {path.name} has {counts.max()} pixels of id {found[counts.argmax()]}, "
            "which the class table lacks"
        )
    return np.asarray(ids)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file in UTF-8 ({error})") from error
    if any(None in row or None in row.values() for row in rows):
        raise DataError(f"{path} has rows with more or fewer columns than its header: repair them")
    return [{name.strip().lower(): value for name, value in row.items()} for row in rows]


def _number(path: Path, row: Mapping[str, str], column: str, most: int) -> int:
    text = row[column].strip()
    if not text.isdecimal() or int(text) > most:
        raise DataError(f"{path}: {column} of {row['name']!r} is {text!r}, must be 0 to {most}")
    return int(text)


def _colour(path: Path, row: Mapping[str, str]) -> Colour:
    r, g, b = (_number(path, row, channel, 255) for channel in "rgb")
    return r, g, b


def _check_unique(path: Path, what: str, values: Sequence[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise DataError(f"{path} has one {what} for two classes ({few(twice)}): keep one")
