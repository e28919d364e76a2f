"""Images as they are, neither squared nor framed, one at a time: for what looks at whole pictures.

Of a list of a data set's files, or of a decoded table where it has none.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainables.data.class_folders import few
from trainables.data.class_table import Palette, read_mask
from trainables.data.images import UnreadableImage, open_image
from trainables.data.mask_pairs import stem
from trainables.data.source import Source
from trainables.dataset import DataError, Indices
from trainables.loading.image_table import ImageTable, open_table

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """names: of all images; rows: places of those that can be read; held_out: of those that nothing
    learns from; validation: the first of these; classes: of the pixels; open: place → (H, W, 3) RGB
    and, of data sets with masks, (H, W) class ids."""

    names: tuple[str, ...]
    rows: Indices
    validation: Indices
    held_out: Indices
    classes: tuple[str, ...]
    open: Callable[[int], tuple[Pixels, Pixels | None]]


def needs_table(source: Source) -> bool:
    """Whether its pictures are those of the decoded table."""
    return not source.files


def list_pictures(source: Source, on_corrupt: Literal["fail", "skip"], path: Path) -> None:
    """Write the files of a data set for another process, whole or absent, unless they are there.

    Every file is looked at: raises DataError for those that cannot be read, or leaves them out.
    """
    masks = source.masks
    places = {
        "files": [str(file.resolve()) for file in source.files],
        "masks": [str(file.resolve()) for file in masks.files] if masks else None,
    }
    if path.is_file():  # its name says what the files hold, and they may have been moved
        listed = json.loads(path.read_text(encoding="utf-8"))
        if {name: listed[name] for name in places} == places:
            return
    errors = {row: why for row in range(len(source.files)) if (why := _fault(source, row))}
    if errors and on_corrupt == "fail":
        shown = few([f"{source.names[row]} ({why})" for row, why in errors.items()], most=10)
        count = f"{len(errors)} unreadable image{'s' if len(errors) > 1 else ''}"
        raise DataError(f"data set has {count}: {shown}: repair them or set `on_corrupt: skip`")
    listed = {
        **places,
        "palette": asdict(masks.palette) if masks and masks.palette else None,
        "names": source.names,
        "parts": {part: rows.tolist() for part, rows in source.parts.items()},
        "unreadable": sorted(errors),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(listed), encoding="utf-8")
    os.replace(temporary, path)


def open_pictures(path: Path) -> Pictures:
    """path: a list of files, or a table's folder. Raises DataError, or OSError where the list is
    gone; opening a picture raises UnreadableImage."""
    if path.suffix != ".json":
        return _of_table(open_table(path))
    listed = json.loads(path.read_text(encoding="utf-8"))
    files, palette = listed["files"], _palette(listed["palette"])

    def opened(row: int) -> tuple[Pixels, Pixels | None]:
        image = np.asarray(open_image(Path(files[row])))
        truth = read_mask(Path(listed["masks"][row]), palette) if palette else None
        if truth is not None and truth.shape != image.shape[:2]:
            raise UnreadableImage("image and mask are of different size")
        return image, truth

    parts = {part: np.array(rows, dtype=np.int64) for part, rows in listed["parts"].items()}
    bad = np.array(listed["unreadable"], dtype=np.int64)
    return _pictures(listed["names"], parts, palette.names if palette else (), bad, opened)


def short_names(names: Sequence[str], rows: Indices) -> list[str]:
    """What the rows' artifacts are called: the image's own name, with a few digits of where it lies
    where two would be called the same. Never `manifest`, which names them all."""
    short = [stem(names[row]) for row in rows]
    twice = {name for name in short if short.count(name) > 1} | {"manifest"}
    return [
        f"{name}_{hashlib.sha256(names[row].encode()).hexdigest()[:6]}" if name in twice else name
        for name, row in zip(short, rows, strict=True)
    ]


def _fault(source: Source, row: int) -> str | None:
    """Why an image, or its mask, cannot be used."""
    try:
        image = source.decode(row)
        truth = source.masks.decode(row) if source.masks else None
    except UnreadableImage as error:
        return str(error)
    if truth is not None and truth.shape != (image.height, image.width):
        return f"image has {image.width}x{image.height} px, its mask another size"
    return None


def _palette(given: dict[str, Any] | None) -> Palette | None:
    if given is None:
        return None
    made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    for name in ("colours", "ignored"):
        made[name] = tuple(tuple(colour) for colour in made[name])
    return Palette(**made)


def _of_table(table: ImageTable) -> Pictures:
    masks = table.masks

    def opened(row: int) -> tuple[Pixels, Pixels | None]:
        image = np.ascontiguousarray(table.images[row].transpose(1, 2, 0))
        return image, None if masks is None else np.array(masks[row])

    names = table.names or tuple(f"{row:05d}" for row in range(len(table.images)))
    return _pictures(names, table.parts, table.classes, np.array([], dtype=np.int64), opened)


def _pictures(
    names: Sequence[str],
    parts: dict[str, Indices],
    classes: tuple[str, ...],
    bad: Indices,
    opened: Callable[[int], tuple[Pixels, Pixels | None]],
) -> Pictures:
    rows = np.setdiff1d(np.concatenate(list(parts.values())), bad)
    held_out = np.concatenate([parts["val"], parts["test"]])
    return Pictures(tuple(names), rows, np.setdiff1d(parts["val"], bad), held_out, classes, opened)
