"""Reads data sets with masks: pairs of files, a table of classes and colors, masks as class ids.

Pairs have two forms, each alone or inside split folders: `NNNN_sat.jpg` beside `NNNN_mask.png`
(DeepGlobe's), or folders `images` and `masks` with equal names. A class comes from the table, never
from a gray level; a color that is not in it is an error.
"""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.data.class_folders import SPLIT_NAMES
from trainables.data.contract import (
    Color,
    Ids,
    Masks,
    Palette,
    Settings,
    Source,
    find_place,
    without_validation,
)
from trainables.data.images import EXTENSIONS, FORMATS, UnreadableImage, open_image
from trainables.dataset import IGNORED, DataError, few

TABLE = "classes.csv"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")  # part of the name of a metric
_UNKNOWN = 254  # in a look-up table: a color that no class has


# colors of the data set's page (arXiv:1805.06561); its masks were compressed: round at 128
DEEPGLOBE = Palette(
    ("urban", "agriculture", "rangeland", "forest", "water", "barren"),
    ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255)),
    ((0, 0, 0),),
    rounded=True,
)
_SATELLITE, _MASK = "_sat", "_mask"
_FOLDERS = ("images", "masks")
Pairs = list[tuple[str, str]]  # image and mask, relative to the data set's folder


def read_deepglobe(settings: Settings, root: Path | None) -> Source:
    """Read NNNN_sat.jpg beside NNNN_mask.png, in the colors of classes.csv, else of DeepGlobe."""
    folder = find_place(settings, root)
    table = folder / TABLE
    return _from_pairs(folder, read_palette(table) if table.is_file() else DEEPGLOBE)


def read_mask_folders(settings: Settings, root: Path | None) -> Source:
    """Read folders `images` and `masks`, and classes.csv, which says what a mask holds."""
    folder = find_place(settings, root)
    if not (folder / TABLE).is_file():
        raise DataError(f"{folder} has no {TABLE}: give `id,name`, or `name,r,g,b`, a row a class")
    return _from_pairs(folder, read_palette(folder / TABLE))


def _from_pairs(folder: Path, palette: Palette) -> Source:
    """Return the images and masks of a folder. Raises DataError."""
    listed = without_validation(list_pairs(folder))
    pairs = [pair for part in listed.values() for pair in part]
    ends = np.cumsum([len(part) for part in listed.values()])
    parts = {
        part: np.arange(end - len(listed[part]), end)
        for part, end in zip(listed, ends, strict=True)
    }
    images, masks = ([folder / pair[k] for pair in pairs] for k in (0, 1))
    return Source(
        classes=palette.names,
        names=[image for image, _ in pairs],
        labels=np.full(len(pairs), -1, dtype=np.int64),
        parts=parts,
        files=images,
        decode=lambda index: open_image(images[index]),
        masks=Masks(masks, lambda index: read_mask(masks[index], palette), palette),
    )


def list_pairs(folder: Path) -> dict[str, Pairs]:
    """Return part → pairs, sorted by name; `train` alone where there are no split folders.

    Raises DataError for an image without a mask, a mask without an image, and a folder without
    pairs; OSError as it comes.
    """
    splits = _splits(folder)
    return {part: _pairs(folder, prefix) for part, prefix in splits.items()}


def pair_name(name: str) -> str:
    """Return the name of a pair: that of its image without folder, ending and `_sat`."""
    return Path(name).stem.removesuffix(_SATELLITE)


def _splits(folder: Path) -> dict[str, str]:
    prefixes: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        part = SPLIT_NAMES.get(name.lower())
        if part is None or not (folder / name).is_dir():
            continue
        if part in prefixes:
            raise DataError(
                f"{folder} has two folders for one split ({prefixes[part]}{name}): keep one"
            )
        prefixes[part] = f"{name}/"
    if prefixes and "train" not in prefixes:
        raise DataError(f"{folder} has {few(list(prefixes.values()))} but no train folder: add it")
    return prefixes or {"train": ""}


def _pairs(folder: Path, prefix: str) -> Pairs:
    place = folder / prefix
    if all((place / name).is_dir() for name in _FOLDERS):
        images, masks = (_by_pair_name(place, f"{name}/", "") for name in _FOLDERS)
    else:
        images, masks = _by_pair_name(place, "", _SATELLITE), _by_pair_name(place, "", _MASK)
    if not images and not masks:
        raise DataError(
            f"{place} holds neither NNNN{_SATELLITE}.jpg with NNNN{_MASK}.png nor the folders "
            "images and masks: correct the folder"
        )
    _check_alone(place, "image", "mask", images.keys() - masks.keys(), images)
    _check_alone(place, "mask", "image", masks.keys() - images.keys(), masks)
    return [(prefix + images[name], prefix + masks[name]) for name in sorted(images)]


def _by_pair_name(place: Path, inside: str, ending: str) -> dict[str, str]:
    """Return name of the pair → file relative to `place`."""
    files: dict[str, str] = {}
    for name in sorted(os.listdir(place / inside)):
        base, _, extension = name.rpartition(".")
        if name.startswith(".") or extension.lower() not in EXTENSIONS or not base.endswith(ending):
            continue
        known = base.removesuffix(ending)
        if known in files:
            raise DataError(
                f"{place} has {files[known]} and {inside}{name}, both of {known}: keep one"
            )
        files[known] = f"{inside}{name}"
    return files


def _check_alone(
    place: Path, what: str, other: str, names: Sequence[str] | set[str], files: Mapping[str, str]
) -> None:
    if names:
        shown = few([files[name] for name in sorted(names)])
        count = f"{len(names)} {what}{'s' if len(names) > 1 else ''} without {other}"
        raise DataError(f"{place} has {count} ({shown}): add what is missing, or remove them")


def read_palette(path: Path) -> Palette:
    """Read a table with the columns `name`, `r`, `g`, `b` (masks with colors), `id` and `ignored`.

    `id` is needed where masks have no colors: it is the number in the mask. Class ids count from 0
    over the classes that are not ignored, by `id`, else by row. Raises DataError.
    """
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
    invalid = [name for name in names if not _NAME.fullmatch(name)]
    if invalid:
        raise DataError(f"{path} has {few(invalid)}: use letters, digits, - _ . or space")
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
    colours = [_color(path, row) for row in rows]
    _check_unique(path, "colour", list(map(str, colours)))
    return Palette(
        tuple(names),
        tuple(c for c, out in zip(colours, left_out, strict=True) if not out),
        tuple(c for c, out in zip(colours, left_out, strict=True) if out),
    )


def read_mask(path: Path, palette: Palette) -> Ids:
    """Read a mask as (H, W) uint8 class ids, IGNORED where a pixel does not count.

    Masks with colors must be RGB, others one channel of 8 bits (or palette indices of a PNG).
    Raises UnreadableImage for another mode, a damaged file, a color or id that the table lacks,
    and a mask in which no pixel counts.
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
        unknown, counts = np.unique(codes[ids == _UNKNOWN], return_counts=True)
        most = unknown[counts.argmax()]
        colour = (int(most >> 16), int(most >> 8 & 255), int(most & 255))
        others = f" and {len(unknown) - 1} more colours" if len(unknown) > 1 else ""
        raise UnreadableImage(
            f"mask {path.name} has {counts.max()} pixels of colour {colour}{others}, "
            "which the colour table lacks"
        )
    return ids


def _code(colours: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return one number per color: (..., 3) → (...)."""
    wide = colours.astype(np.int64)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def _by_number(path: Path, pixels: Ids, palette: Palette) -> Ids:
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[[*palette.ignored_numbers, IGNORED]] = IGNORED
    table[list(palette.numbers)] = np.arange(len(palette.names))
    ids = table[pixels]
    if (ids == _UNKNOWN).any():
        unknown, counts = np.unique(pixels[ids == _UNKNOWN], return_counts=True)
        raise UnreadableImage(
            f"mask {path.name} has {counts.max()} pixels of id {unknown[counts.argmax()]}, "
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


def _color(path: Path, row: Mapping[str, str]) -> Color:
    r, g, b = (_number(path, row, channel, 255) for channel in "rgb")
    return r, g, b


def _check_unique(path: Path, what: str, values: Sequence[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise DataError(f"{path} has one {what} for two classes ({few(twice)}): keep one")
