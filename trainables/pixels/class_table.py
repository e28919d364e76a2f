"""Reads `classes.csv`: the classes of masks, and which numbers or colors they have."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainables.dataset import DataError, few
from trainables.files import only_files, read_whole
from trainables.pixels.palette import MOST_CLASSES, Color, Palette

TABLE = "classes.csv"
_LONGEST = 100  # characters of a name
_NUMBERS = re.compile(r"(-?\d{1,9})(?:-(\d{1,9}))?")  # one number, or a range
_BETWEEN = re.compile(r"[\s,;|/]+")
_MOST_NUMBERS = 65_536  # of one class

# colors of the data set's page (arXiv:1805.06561); its masks were compressed: round at 128.
# Black is its `unknown`; the few red pixels that rounding leaves have no class either.
DEEPGLOBE = Palette(
    ("urban", "agriculture", "rangeland", "forest", "water", "barren"),
    ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255)),
    ((0, 0, 0), (255, 0, 0)),
    rounded=True,
)

# Pascal VOC's classes (host.robots.ox.ac.uk/pascal/VOC), by number; 255 is its border
VOC = Palette(
    tuple(
        "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
        "motorbike person pottedplant sheep sofa train tvmonitor".split()
    ),
    numbers=tuple(range(21)),
)
_LINES = "class_names.txt"  # beside VOC's folders, as labelme writes it

Row = Mapping[str, str]


def read_palette(path: Path) -> Palette:
    """Read a table with the columns `name`, and `r`, `g`, `b` (masks with colors), or `id`, or
    `values` (masks with numbers), and perhaps `ignored`.

    `values` holds the numbers of a class, such as `255`, `1 2 7` or `10-19`; a row without them
    has its `id`. Class ids count from 0 over the classes that are not ignored, by `id`, else by
    row. Raises DataError.
    """
    rows = _rows(path)
    if not rows or "name" not in rows[0]:
        raise DataError(
            f"{path} needs a header with `name`, and `r,g,b`, `id` or `values`, and a row a class"
        )
    columns = rows[0].keys()
    coloured = {"r", "g", "b"} <= columns
    if not coloured and not {"id", "values"} & columns:
        raise DataError(
            f"{path} has neither the columns r, g, b nor id nor values: add colours or ids"
        )
    if "id" in columns and not ("values" in columns and any(not row["id"].strip() for row in rows)):
        rows.sort(key=lambda row: _number(path, row, "id"))
    left_out = [row.get("ignored", "0").strip().lower() in ("1", "true", "yes") for row in rows]
    names = [row["name"].strip() for row, out in zip(rows, left_out, strict=True) if not out]
    _check_names(path, names)
    if coloured:
        return _of_colours(path, rows, left_out, names)
    return _of_numbers(path, rows, left_out, names)


def named_by_lines(folder: Path) -> Palette | None:
    """Read class_names.txt, a class a line: numbers count from 0, or from a line `__ignore__` on,
    which has none. Returns None where there is no such file. Raises DataError."""
    path = folder / _LINES
    if not path.exists():
        return None
    try:
        lines = read_whole(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    names = [line.strip() for line in lines if line.strip()]
    if names and names[0].strip("_").lower() in ("ignore", "ignored"):
        names = names[1:]
    _check_names(path, names)
    return Palette(tuple(names), numbers=tuple(range(len(names))))


def is_pure(palette: Palette) -> bool:
    """Return whether all channels of all colors are 0 or 255, so that rounding finds each again."""
    channels = {channel for colour in (*palette.colours, *palette.ignored) for channel in colour}
    return bool(channels) and channels <= {0, 255}


def _of_colours(
    path: Path, rows: Sequence[Row], left_out: Sequence[bool], names: Sequence[str]
) -> Palette:
    colours = [_color(path, row) for row in rows]
    _check_unique(path, "colour", list(map(str, colours)))
    return Palette(
        tuple(names),
        tuple(c for c, out in zip(colours, left_out, strict=True) if not out),
        tuple(c for c, out in zip(colours, left_out, strict=True) if out),
    )


def _of_numbers(
    path: Path, rows: Sequence[Row], left_out: Sequence[bool], names: Sequence[str]
) -> Palette:
    numbers = [_numbers_of(path, row) for row in rows]
    what = "value" if "values" in rows[0] else "id"
    _check_unique(path, what, [str(number) for some in numbers for number in some])
    counted = [some for some, out in zip(numbers, left_out, strict=True) if not out]
    return Palette(
        tuple(names),
        numbers=tuple(some[0] for some in counted),
        ignored_numbers=tuple(
            n for some, out in zip(numbers, left_out, strict=True) if out for n in some
        ),
        more_numbers=tuple((n, index) for index, some in enumerate(counted) for n in some[1:]),
    )


def _check_names(path: Path, names: Sequence[str]) -> None:
    _check_unique(path, "name", names)
    invalid = [name for name in names if not (name.isprintable() and 0 < len(name) <= _LONGEST)]
    if invalid:
        shown = few([ascii(name[:_LONGEST]) for name in invalid])
        raise DataError(
            f"{path} has names that are empty, too long or cannot be printed ({shown}): give each "
            f"class a name of 1 to {_LONGEST} characters"
        )
    if len(names) < 2:
        raise DataError(f"{path} has fewer than two classes that count: add some")
    if len(names) > MOST_CLASSES:
        raise DataError(
            f"{path} has {len(names)} classes that count, {MOST_CLASSES} is the most: "
            "unite some: `values` may name several numbers"
        )


def _numbers_of(path: Path, row: Row) -> list[int]:
    """Return the numbers that a class has in a mask: those of `values`, else its `id`."""
    text = row.get("values", "").strip()
    if not text:
        if not row.get("id", "").strip():
            raise DataError(f"{path}: {row['name']!r} has neither values nor id: give one")
        return [_number(path, row, "id")]
    numbers: list[int] = []
    for word in _BETWEEN.split(text):
        match = _NUMBERS.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < first + _MOST_NUMBERS:
            raise DataError(
                f"{path}: values of {row['name']!r} are {text!r}, must be whole numbers or ranges, "
                "such as `0 255` or `10-19`"
            )
        numbers += range(first, last + 1)
    return list(dict.fromkeys(numbers))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="", opener=only_files) as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file in UTF-8 ({error})") from error
    if any(None in row or None in row.values() for row in rows):
        raise DataError(f"{path} has rows with more or fewer columns than its header: repair them")
    return [{name.strip().lower(): value for name, value in row.items()} for row in rows]


def _number(path: Path, row: Row, column: str) -> int:
    text = row[column].strip()
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise DataError(f"{path}: {column} of {row['name']!r} is {text!r}, must be a whole number")
    return int(text)


def _channel(path: Path, row: Row, column: str) -> int:
    text = row[column].strip()
    if not re.fullmatch(r"\d{1,9}", text) or int(text) > 255:
        raise DataError(f"{path}: {column} of {row['name']!r} is {text!r}, must be 0 to 255")
    return int(text)


def _color(path: Path, row: Row) -> Color:
    r, g, b = (_channel(path, row, channel) for channel in "rgb")
    return r, g, b


def _check_unique(path: Path, what: str, values: Sequence[str]) -> None:
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    if twice:
        raise DataError(f"{path} has one {what} for two classes ({few(twice)}): keep one")
