"""Lists a data set from CSV: which image lies in which split and class. No image is opened.

Forms: a folder with train.csv (and val.csv, test.csv), or one .csv file, which may name the splits
in a column `split`. Columns: `filename` (or `file`, `path`), `label` (or `class`), and `id`, which
is not used. File names are relative to the folder of the .csv file, or to a folder beside the file
that is named like it (train.csv: train/).
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from trainables.data.class_folders import LEARN_WITHOUT, SPLIT_NAMES, check_same_classes
from trainables.data.contract import Listing, Settings, Source, find_place, from_listing
from trainables.dataset import DataError, few, near

_FILE, _LABEL, _SPLIT = ("filename", "file", "path"), ("label", "class"), ("split",)
_UNUSED = ("id",)
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class _Row:
    """One image. line: in the file, from 1; label and split: "" where there is no such column."""

    line: int
    name: str
    label: str
    split: str


@dataclass(frozen=True)
class _Columns:
    """Numbers of the columns, from 0. label: None also where labels are not wanted."""

    name: int
    label: int | None
    split: int | None


def is_manifest(folder: Path) -> bool:
    """Return whether the folder lists its images in a train.csv."""
    return (folder / "train.csv").is_file()


def read_csv(settings: Settings, root: Path | None) -> Source:
    """Read a .csv file, or a folder with train.csv, and the images that it lists."""
    place = find_place(settings, root, file=True)
    folder = place if place.is_dir() else place.parent
    return from_listing(folder, list_csv(place, settings.labels))


def list_csv(place: Path, labels: bool) -> Listing:
    """List the images of a .csv file, or of a folder with train.csv.

    Names are relative to the folder and sorted. Classes are sorted, by value if all are whole
    numbers; without `labels` the column is not needed. Raises DataError, and OSError as it comes.
    """
    if place.is_dir():
        rows = {p: _read(file, labels, single=False) for p, file in _split_files(place).items()}
    else:
        rows = _by_split(place, _read(place, labels, single=True))
    _check_in_one_split(place, rows)
    listing: Listing = {part: {} for part in rows}
    for part, listed in rows.items():
        for row in listed:
            listing[part].setdefault(row.label, []).append(row.name)
    check_same_classes(place, listing)
    classes = _in_order(listing["train"])
    return {part: {name: sorted(listing[part][name]) for name in classes} for part in listing}


def _split_files(folder: Path) -> dict[str, Path]:
    """Return part → its .csv file, `train` first."""
    there = sorted(file.name for file in folder.glob("*.csv"))
    named = [name for name in there if Path(name).stem.lower() in SPLIT_NAMES]
    files = {SPLIT_NAMES[Path(name).stem.lower()]: folder / name for name in named}
    if len(files) < len(named):
        raise DataError(f"{folder} has two files for one split ({few(named)}): keep one")
    if "train" not in files:
        what = f"only {few(there)}" if there else "no train.csv"
        raise DataError(f"{folder} holds {what}: add train.csv, or name the .csv file in `path:`")
    return {part: files[part] for part in ("train", "val", "test") if part in files}


def _by_split(file: Path, rows: list[_Row]) -> dict[str, list[_Row]]:
    """Return part → its rows, `train` first, by the column `split` if there is one."""
    if not any(row.split for row in rows):
        return {"train": rows}
    faulty = [f"line {r.line}: {r.split!r}" for r in rows if r.split.lower() not in SPLIT_NAMES]
    _refuse(file, "row{} of an unknown split", faulty, "write train, val or test")
    parts: dict[str, list[_Row]] = {"train": [], "val": [], "test": []}
    for row in rows:
        parts[SPLIT_NAMES[row.split.lower()]].append(row)
    filled = {part: listed for part, listed in parts.items() if listed}
    if "train" not in filled:
        raise DataError(f"{file} has rows of split {few(list(filled))} but none of train: add some")
    return filled


def _check_in_one_split(place: Path, rows: Mapping[str, list[_Row]]) -> None:
    """Raise DataError for an image in two splits: it would be trained on and then tested."""
    count = Counter(row.name for listed in rows.values() for row in listed)
    shared = sorted(name for name, times in count.items() if times > 1)
    _refuse(place, "file{} in more than one split", shared, "keep one row of each")


def _in_order(classes: Iterable[str]) -> list[str]:
    """Sort classes, by value if all are whole numbers."""
    texts = sorted(classes)
    numbers = all(_WHOLE_NUMBER.fullmatch(text) for text in texts)
    return sorted(texts, key=int) if numbers else texts


def _read(file: Path, labels: bool, *, single: bool) -> list[_Row]:
    """Read the rows of a file, whose images exist. single: whether it may have a column `split`."""
    table = _parse(file)
    if not table:
        raise DataError(f"{file} is empty: give it a header and a row for each image")
    (_, header), *body = table
    columns = _columns(file, header, labels, single)
    if not body:
        raise DataError(f"{file} has no rows: add one for each image, or remove the file")
    faulty = [f"line {line}" for line, cells in body if len(cells) != len(header)]
    _refuse(file, "row{} with more or fewer cells than the header", faulty, "repair them")
    rows = [_row(line, cells, columns) for line, cells in body]
    nameless = [f"line {row.line}" for row in rows if not row.name]
    _refuse(file, "row{} without a file name", nameless, "fill them in or remove them")
    if columns.label is not None:
        empty = [f"line {row.line}" for row in rows if not row.label]
        _refuse(file, "row{} without a label", empty, f"fill them in, or {LEARN_WITHOUT}")
    return _resolve(file, rows)


def _parse(file: Path) -> list[tuple[int, list[str]]]:
    """Return (line, stripped cells) of header and rows, without empty lines."""
    line = 0
    table = []
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                line = reader.line_num
                if cells:
                    table.append((line, [cell.strip() for cell in cells]))
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file} is no CSV below line {line} ({error}): repair it") from error
    return table


def _columns(file: Path, header: list[str], labels: bool, single: bool) -> _Columns:
    """Find the columns. Raises DataError for one that is unknown, missing, or there twice."""
    known = [*_FILE, *_LABEL, *_UNUSED, *(_SPLIT if single else ())]
    names = [name.lower() for name in header]
    unknown = [name for name in names if name not in known]
    if unknown:
        cure = f"repair the header ({near(unknown[0], known)})"
        _refuse(file, "unknown column{}", [repr(name) for name in unknown], cure)
    name, label, split = (_column(file, names, meant) for meant in (_FILE, _LABEL, _SPLIT))
    if name is None:
        raise DataError(f"{file} has no column `filename`: add it")
    if labels and label is None:
        raise DataError(f"{file} has no column `label`: add it, or {LEARN_WITHOUT}")
    return _Columns(name, label if labels else None, split)


def _column(file: Path, names: list[str], meant: Sequence[str]) -> int | None:
    places = [place for place, name in enumerate(names) if name in meant]
    if len(places) > 1:
        raise DataError(
            f"{file} has two columns for one thing ({few([names[i] for i in places])}): keep one"
        )
    return places[0] if places else None


def _row(line: int, cells: list[str], columns: _Columns) -> _Row:
    label = "" if columns.label is None else cells[columns.label]
    split = "" if columns.split is None else cells[columns.split]
    return _Row(line, cells[columns.name], label, split)


def _resolve(file: Path, rows: list[_Row]) -> list[_Row]:
    """Make names relative to the folder of the file. Raises DataError unless each exists, once."""
    folder, beside = file.parent, file.parent / file.stem
    outside = [row.name for row in rows if _leads_out(row.name)]
    _refuse(file, "file name{} outside of its folder", outside, f"make them relative to {folder}")
    names = [_relative(folder, file.stem, row.name) for row in rows]
    missing = [row.name for row, name in zip(rows, names, strict=True) if name is None]
    cure = f"put them into {folder} or {beside}, or correct the names"
    _refuse(file, "missing file{}", missing, cure)
    resolved = [replace(row, name=name) for row, name in zip(rows, names, strict=True) if name]
    count = Counter(row.name for row in resolved)
    twice = [name for name, times in count.items() if times > 1]
    _refuse(file, "file{} in more than one row", twice, "keep one row of each")
    return resolved


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _relative(folder: Path, beside: str, name: str) -> str | None:
    """Return the path of the file relative to `folder`; None if it is missing."""
    tidy = str(PurePosixPath(name))  # "./a//b.jpg" is a/b.jpg
    places = (tidy, f"{beside}/{tidy}")
    return next((p for p in places if os.path.isfile(os.path.join(folder, p))), None)


def _refuse(place: Path, what: str, cases: Sequence[str], cure: str) -> None:
    """Raise DataError if there are any cases. what: with {} where the plural has an s."""
    if cases:
        noun = what.format("s" if len(cases) > 1 else "")
        raise DataError(f"{place} has {len(cases)} {noun} ({few(cases)}): {cure}")
