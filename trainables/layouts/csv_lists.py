"""Lists a data set from CSV: which image lies in which split and class. No image is decoded.

Forms: a folder with train.csv (and val.csv, test.csv), or one .csv file, which may name the splits
in a column `split`. The columns are found by their usual names. File names are relative to the
folder of the .csv file, or to a folder beside it: train/ for train.csv, or the one that has them.
"""

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainables.dataset import DataError, few, near
from trainables.files import only_files
from trainables.layouts.class_folders import LEARN_WITHOUT, check_same_classes, in_order
from trainables.layouts.csv_files import FilesBeside
from trainables.layouts.folders import Listing, Scan, is_litter
from trainables.layouts.split_names import PARTS, part_of, split_files

_FILE = tuple(
    "filename file path file_name filepath file_path image image_path image_name img "
    "img_path".split()
)
_LABEL = ("label", "class", "category", "target", "class_name", "label_name")
_ID = ("id", "image_id", "img_id", "image_no")  # names the image where nothing else does
_INDEX = ("", "index")  # of rows, as pandas writes it
_SPLIT = ("split",)
_NO_LABEL = frozenset(("", "none", "nan", "null", "na", "n/a", "?", "unknown"))


@dataclass(frozen=True)
class _Row:
    """Describes one image.

    line: in the file, from 1; label and split: "" where there is no such column.
    """

    line: int
    name: str
    label: str
    split: str
    group: str = ""


@dataclass(frozen=True)
class _Columns:
    """Numbers of the columns, from 0. label: None where there is none, or it is not wanted."""

    name: int
    label: int | None
    split: int | None
    group: int | None = None


def is_manifest(folder: Path) -> bool:
    """Return whether the folder lists its images in a train.csv, or one with such a name."""
    return any(part_of(file.stem) == "train" for file in _csv_files(folder))


def list_csv(
    place: Path,
    labels: bool,
    scan: Scan | None = None,
    *,
    join: bool = False,
    group: str | None = None,
) -> Listing:
    """List the images of a .csv file, or of a folder with train.csv.

    Names are relative to the folder and sorted. Classes are sorted, by value if all are whole
    numbers; without `labels` the column is not needed. scan: counts what is passed over; join:
    take splits together whose classes are all different; group: the column of the group of each
    image, which `scan` then holds. Raises DataError, and OSError as it comes.
    """
    scan = scan or Scan(place if place.is_dir() else place.parent)
    if place.is_dir():
        files = _split_files(place)
        scan.read_otherwise(file.name for file in files.values())
        rows = {p: _read(file, labels, single=False, group=group) for p, file in files.items()}
    else:
        scan.read_otherwise([place.name])
        rows = _by_split(place, _read(place, labels, single=True, group=group))
    if labels:
        rows = _without_unlabelled(place, rows, scan)
    rows = {
        part: _resolve(place if place.is_file() else files[part], r) for part, r in rows.items()
    }
    _check_in_one_split(place, rows)
    _pass_over_unlisted(scan, rows)
    if group is not None:
        scan.groups = {row.name: row.group for listed in rows.values() for row in listed}
    listing: Listing = {part: {} for part in rows}
    for part, listed in rows.items():
        for row in listed:
            listing[part].setdefault(row.label if labels else "", []).append(row.name)
    if join and labels:
        listing = _joined(listing, scan)
    check_same_classes(place, listing)
    classes = in_order(listing["train"])
    return {part: {name: sorted(listing[part][name]) for name in classes} for part in listing}


def _csv_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.csv") if not is_litter(file.name))


def _split_files(folder: Path) -> dict[str, Path]:
    """Return part → its .csv file, `train` first."""
    there = [file.name for file in _csv_files(folder)]
    files = split_files(folder, there)
    if "train" not in files:
        what = f"only {few(there)}" if there else "no train.csv"
        inside = [str(f) for f in sorted(folder.iterdir()) if f.is_dir() and is_manifest(f)]
        hint = f", perhaps {few(inside)}" if inside else ""
        raise DataError(
            f"{folder} holds {what}: add train.csv, or name the .csv file or its folder in "
            f"`path:`{hint}"
        )
    return {part: folder / name for part, name in files.items()}


def _by_split(file: Path, rows: list[_Row]) -> dict[str, list[_Row]]:
    """Return part → its rows, `train` first, by the column `split` if there is one."""
    if not any(row.split for row in rows):
        return {"train": rows}
    faulty = [f"line {row.line}: {row.split!r}" for row in rows if part_of(row.split) is None]
    _refuse(file, "row{} of an unknown split", faulty, "write train, val or test")
    parts = {part: [row for row in rows if part_of(row.split) == part] for part in PARTS}
    filled = {part: listed for part, listed in parts.items() if listed}
    if "train" not in filled:
        raise DataError(f"{file} has rows of split {few(list(filled))} but none of train: add some")
    return filled


def _without_unlabelled(
    place: Path, rows: dict[str, list[_Row]], scan: Scan
) -> dict[str, list[_Row]]:
    """Leave out splits without any label, such as the test images of a contest."""
    kept = {}
    for part, listed in rows.items():
        if part != "train" and all(row.label.lower() in _NO_LABEL for row in listed):
            for row in listed:
                scan.pass_over(row.name, f"{part} has no labels")
            continue
        empty = [f"line {row.line}" for row in listed if not row.label]
        _refuse(place, "row{} without a label", empty, f"fill them in, or {LEARN_WITHOUT}")
        kept[part] = listed
    return kept


def _check_in_one_split(place: Path, rows: Mapping[str, list[_Row]]) -> None:
    """Raise DataError for an image in two splits: it would be trained on and then tested."""
    count = Counter(row.name for listed in rows.values() for row in listed)
    shared = sorted(name for name, times in count.items() if times > 1)
    _refuse(place, "file{} in more than one split", shared, "keep one row of each")


def _pass_over_unlisted(scan: Scan, rows: Mapping[str, list[_Row]]) -> None:
    """Count the images that lie beside listed ones and are in no row."""
    listed = {row.name for part in rows.values() for row in part}
    for folder in sorted({os.path.dirname(name) for name in listed}):
        for image in scan.list(folder)[1]:
            if os.path.join(folder, image) not in listed:
                scan.pass_over(image, "in no row of the list")


def _joined(listing: Listing, scan: Scan) -> Listing:
    """Return one part `train` where no two splits have a class in common; else the listing."""
    classes = [name for part in listing.values() for name in part]
    if len(listing) == 1 or len(set(classes)) < len(classes):
        return listing
    counts = ", ".join(f"{part} {len(by_class)}" for part, by_class in listing.items())
    scan.notes.append(
        f"the lists have different classes ({counts}): they are taken together, and validation "
        "and test are cut anew from every class"
    )
    return {"train": {name: images for part in listing.values() for name, images in part.items()}}


def _read(file: Path, labels: bool, *, single: bool, group: str | None) -> list[_Row]:
    """Read the rows of a file. single: whether it may have a column `split`; group: the column of
    groups."""
    table = _parse(file)
    if not table:
        raise DataError(f"{file} is empty: give it a header and a row for each image")
    (_, header), *body = table
    columns = _columns(file, header, labels, single, group)
    if not body:
        raise DataError(f"{file} has no rows: add one for each image, or remove the file")
    faulty = [f"line {line}" for line, cells in body if len(cells) != len(header)]
    _refuse(file, "row{} with more or fewer cells than the header", faulty, "repair them")
    rows = [_row(line, cells, columns) for line, cells in body]
    nameless = [f"line {row.line}" for row in rows if not row.name]
    _refuse(file, "row{} without a file name", nameless, "fill them in or remove them")
    alone = [f"line {row.line}" for row in rows if group is not None and not row.group]
    _refuse(file, f"row{{}} without a {group}", alone, "fill them in: parts are cut by it")
    return rows


def _parse(file: Path) -> list[tuple[int, list[str]]]:
    """Return (line, stripped cells) of header and rows, without empty lines."""
    line = 0
    table = []
    try:
        with open(file, encoding="utf-8-sig", newline="", opener=only_files) as stream:
            first = stream.readline()
            between = next((mark for mark in ",;\t" if mark in first), ",")
            stream.seek(0)
            reader = csv.reader(stream, strict=True, delimiter=between)
            for cells in reader:
                line = reader.line_num
                if cells:
                    table.append((line, [cell.strip() for cell in cells]))
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file} is no CSV below line {line} ({error}): repair it") from error
    return table


def _columns(
    file: Path, header: list[str], labels: bool, single: bool, group: str | None
) -> _Columns:
    """Find the columns. Raises DataError for one that is unknown, missing, or there twice."""
    names = [name.lower() for name in header]
    if group is not None and group.lower() not in names:
        raise DataError(f"{file} has no column {group!r} for `split` ({near(group, header)})")
    wanted = group.lower() if group is not None else None
    known = [*_FILE, *_LABEL, *_ID, *(_SPLIT if single else ())]
    unused = {name for name in names[:1] if name in _INDEX}
    unused |= {name for name in names if name.startswith("unnamed: ")}  # pandas' word for ""
    unused |= {wanted} if wanted is not None else set()
    unknown = [name for name in names if name not in known and name not in unused]
    if unknown:
        usual = [*_FILE[:3], *_LABEL[:2], _ID[0], *(_SPLIT if single else ())]
        cure = f"repair the header ({near(unknown[0], usual)})"
        _refuse(file, "unknown column{}", [repr(name) for name in unknown], cure)
    name, label, split = (_column(file, names, meant) for meant in (_FILE, _LABEL, _SPLIT))
    if name is None:
        name = _column(file, names, _ID)
    if name is None:
        raise DataError(f"{file} has no column `filename`: add it")
    if labels and label is None and part_of(file.stem) != "test":
        raise DataError(f"{file} has no column `label`: add it, or {LEARN_WITHOUT}")
    place = names.index(wanted) if wanted is not None else None
    return _Columns(name, label if labels else None, split, place)


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
    group = "" if columns.group is None else cells[columns.group]
    return _Row(line, cells[columns.name], label, split, group)


def _resolve(file: Path, rows: list[_Row]) -> list[_Row]:
    """Make names relative to the folder of the file. Raises DataError unless each exists, once."""
    beside = FilesBeside(file)
    outside = [row.name for row in rows if beside.leads_out(row.name)]
    cure = f"make them relative to {file.parent}"
    _refuse(file, "file name{} outside of its folder", outside, cure)
    found = [(row, beside.find(row.name)) for row in rows]
    missing = [row.name for row, names in found if not names]
    cure = f"put them into {file.parent} or {file.parent / file.stem}, or correct the names"
    _refuse(file, "missing file{}", missing, cure)
    several = [f"{row.name}: {few(names)}" for row, names in found if len(names) > 1]
    _refuse(file, "name{} of several files", several, "write folder and ending of each")
    resolved = [replace(row, name=names[0]) for row, names in found]
    count = Counter(row.name for row in resolved)
    twice = [name for name, times in count.items() if times > 1]
    _refuse(file, "file{} in more than one row", twice, "keep one row of each")
    return resolved


def _refuse(place: Path, what: str, cases: Sequence[str], cure: str) -> None:
    """Raise DataError if there are any cases. what: with {} where the plural has an s."""
    if cases:
        noun = what.format("s" if len(cases) > 1 else "")
        raise DataError(f"{place} has {len(cases)} {noun} ({few(cases)}): {cure}")
