"""Opens images at their own size, neither cropped nor padded, one at a time, for producers.

They come from a list of the files of a data set, or from a decoded table where it has no files.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from trainables.data.contract import Source
from trainables.dataset import DataError, Indices, Pixels
from trainables.layouts.mask_pairs import pair_name
from trainables.loading.image_table import ImageTable, open_table
from trainables.pixels.bands import Reading
from trainables.pixels.images import UnreadableImage, open_image, unreadable_images
from trainables.pixels.pairs import open_pair_image, read_pair_mask
from trainables.pixels.palette import Palette

_SAMPLE = 8  # images that are decoded to see whether this kind is read


@dataclass(frozen=True)
class OriginalImages:
    """The images of a data set at their own size.

    names: of all images; rows: numbers of those that can be read; validation: rows of `val`;
    held_out: rows of `val` and `test`; classes: of the pixels, empty without masks; open: row →
    (H, W, 3) uint8 RGB and, with masks, (H, W) uint8 class ids.
    """

    names: tuple[str, ...]
    rows: Indices
    validation: Indices
    held_out: Indices
    classes: tuple[str, ...]
    open: Callable[[int], tuple[Pixels, Pixels | None]]


class _List(TypedDict):
    """Describes what a list of files holds."""

    files: list[str]
    masks: list[str] | None
    palette: dict[str, Any] | None
    bands: NotRequired[list[int]]
    limits: NotRequired[list[float] | None]
    page: NotRequired[int | None]
    names: list[str]
    parts: dict[str, list[int]]
    unreadable: list[int]


def _read_list(path: Path) -> dict[str, Any] | None:
    """Read a list of files; None where it is damaged."""
    try:
        listed = json.loads(path.read_bytes())
        TypeAdapter(_List).validate_python(listed, strict=True)
    except (ValueError, RecursionError, ValidationError):
        return None
    return dict(listed)


def needs_table(source: Source) -> bool:
    """Return whether images must come from the decoded table: they have no files, or are no RGB."""
    return not source.files or source.bands is not None


def write_image_list(source: Source, on_corrupt: Literal["fail", "skip"], path: Path) -> None:
    """Write the list of files of a data set for another process, unless it is there already.

    Every file is decoded once: those that cannot be read raise DataError, or with `skip` are
    marked as unreadable. The list is written under another name and renamed.
    """
    masks = source.masks
    places = {
        "files": [str(file.resolve()) for file in source.files],
        "masks": [str(file.resolve()) for file in masks.files] if masks else None,
    }
    if path.is_file():  # its name is the hash of the content, but files may have been moved
        known = _read_list(path)
        if known is not None and {name: known[name] for name in places} == places:
            return
    faults = ((row, _fault(source, row)) for row in range(len(source.files)))
    errors = {row: reason for row, reason in faults if reason}
    if errors and on_corrupt == "fail":
        raise unreadable_images({source.names[row]: reason for row, reason in errors.items()})
    listed = {
        **places,
        "palette": asdict(masks.palette) if masks and masks.palette else None,
        "bands": source.reading.bands,
        "limits": source.reading.limits,
        "page": source.reading.page,
        "names": source.names,
        "parts": {part: rows.tolist() for part, rows in source.parts.items()},
        "unreadable": sorted(errors),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(listed), encoding="utf-8")
    os.replace(temporary, path)


def unreadable_sample(source: Source) -> dict[str, str]:
    """Decode a few images of a set of files, evenly spread: name → why one cannot be read.

    Kinds of files that are not read are found so before a study starts, not single damaged ones.
    """
    rows = range(0, len(source.files), max(1, len(source.files) // _SAMPLE))
    faults = {}
    for row in rows:
        try:
            source.decode(row)
        except UnreadableImage as error:
            faults[source.names[row]] = str(error)
    return faults


def open_images(path: Path) -> OriginalImages:
    """Open a list of files (.json) or the folder of a decoded table.

    Raises DataError, and OSError if the list is gone. `open` raises UnreadableImage.
    """
    if path.suffix != ".json":
        return _of_table(open_table(path))
    listed = _read_list(path)
    if listed is None:
        raise DataError(f"{path} is damaged: submit the study again, which writes it anew")
    files, palette = listed["files"], _palette(listed["palette"])
    reading = Reading.of(listed)  # lists written before have none

    def open_row(row: int) -> tuple[Pixels, Pixels | None]:
        file = Path(files[row])
        if palette is None:
            return np.asarray(open_image(file, reading)), None
        mask = Path(listed["masks"][row])
        image = np.asarray(open_pair_image(file, mask, reading))
        truth = read_pair_mask(file, mask, palette, reading.page)
        if truth.shape != image.shape[:2]:
            raise UnreadableImage("image and mask are of different size")
        return image, truth

    parts = {part: np.array(rows, dtype=np.int64) for part, rows in listed["parts"].items()}
    bad = np.array(listed["unreadable"], dtype=np.int64)
    return _original_images(listed["names"], parts, palette.names if palette else (), bad, open_row)


def short_names(names: Sequence[str], rows: Indices) -> list[str]:
    """Return the names of the artifacts of some rows: the name of the image without folder.

    Where two are equal, six digits of the hash of the full name are added; also to `manifest`,
    which is the name of the list of all artifacts.
    """
    short = [pair_name(names[row]) for row in rows]
    twice = {name for name in short if short.count(name) > 1} | {"manifest"}
    return [
        f"{name}_{hashlib.sha256(names[row].encode()).hexdigest()[:6]}" if name in twice else name
        for name, row in zip(short, rows, strict=True)
    ]


def _fault(source: Source, row: int) -> str | None:
    """Return why an image, or its mask, cannot be used; None if it can."""
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
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    for name in ("colours", "ignored", "more_numbers"):
        fields[name] = tuple(tuple(entry) for entry in fields.get(name, ()))
    return Palette(**fields)


def _of_table(table: ImageTable) -> OriginalImages:
    masks = table.masks

    def open_row(row: int) -> tuple[Pixels, Pixels | None]:
        image = np.ascontiguousarray(table.images[row].transpose(1, 2, 0))
        return image, None if masks is None else np.array(masks[row])

    names = table.names or tuple(f"{row:05d}" for row in range(len(table.images)))
    return _original_images(
        names, table.parts, table.classes, np.array([], dtype=np.int64), open_row
    )


def _original_images(
    names: Sequence[str],
    parts: dict[str, Indices],
    classes: tuple[str, ...],
    bad: Indices,
    open_row: Callable[[int], tuple[Pixels, Pixels | None]],
) -> OriginalImages:
    rows = np.setdiff1d(np.concatenate(list(parts.values())), bad)
    held_out = np.concatenate([parts["val"], parts["test"]])
    return OriginalImages(
        tuple(names), rows, np.setdiff1d(parts["val"], bad), held_out, classes, open_row
    )
