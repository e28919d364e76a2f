"""Finds near copies in caches of decoded images, once: results are kept in the cache's folder."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.contents.near_copies import FORMAT, Hashes, difference_hashes, near_pairs
from trainables.dataset import DataError
from trainables.loading.image_table import ImageTable, open_table

log = logging.getLogger(__name__)
_FOLDER = "near_copies"  # in a cache
_LEAST_SIDE = 16  # px; of 8x8 px, two digits of one writer look the same


@dataclass(frozen=True)
class Near:
    """Says how many images of a part look nearly like training images.

    count: of `total` images; example: the most alike, its name and that of the training image.
    """

    part: str
    count: int
    total: int
    example: tuple[str, str]


def find_near(own: Path, other: Path) -> list[Near]:
    """Return the near copies of one cache's `test` and `val` in the training part of another one,
    or of the same. Computes what is not kept yet. Raises DataError for a damaged cache."""
    known = known_near(own, other)
    if known is not None:
        return known
    table, theirs = open_table(own), open_table(other)
    found, big = [], min(table.size, theirs.size) >= _LEAST_SIDE
    if big:
        hashes, their_hashes = _hashes(own, table), _hashes(other, theirs)
    for part in ("test", "val") if big else ():
        mine = (table.images, hashes, table.parts[part])
        pairs = near_pairs(mine, (theirs.images, their_hashes, theirs.parts["train"]))
        if len(pairs):
            example = (_name(table, pairs[0, 0]), _name(theirs, pairs[0, 1]))
            found.append(Near(part, len(pairs), len(table.parts[part]), example))
    content = {"format": FORMAT, "found": [asdict(near) for near in found]}
    _keep(_file(own, other), json.dumps(content).encode())
    return found


def known_near(own: Path, other: Path) -> list[Near] | None:
    """Return what `find_near` has found before; None where nothing is kept."""
    try:
        kept = json.loads(_file(own, other).read_bytes())
        if kept["format"] != FORMAT:
            return None
        return [Near(**{**near, "example": tuple(near["example"])}) for near in kept["found"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(own: Path, other: Path) -> Path:
    return own / _FOLDER / f"{other.name}.json"


def _hashes(cache: Path, table: ImageTable) -> Hashes:
    """Return the hash of each image, kept in the cache."""
    file = cache / _FOLDER / f"hashes_{FORMAT}.bin"
    try:
        hashes = np.frombuffer(file.read_bytes(), np.uint64)
        if len(hashes) == len(table.images):
            return hashes
    except (OSError, ValueError):
        log.debug("%s: no hashes are kept yet", cache)
    hashes = difference_hashes(table.images)
    _keep(file, hashes.tobytes())
    return hashes


def _keep(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Where writing fails it is computed again."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, file)
    except OSError as error:
        log.warning("%s is not written: %s", file, error)


def _name(table: ImageTable, row: Any) -> str:
    return table.names[int(row)] if table.names else f"image {int(row)}"


def near_line(near: Near, own: str, other: str) -> str:
    """Return a warning for people. own, other: names of the two data sets."""
    where = "training images" if own == other else f"training images of {other!r}"
    several = near.count > 1
    return (
        f"warning: {near.count:,} of {near.total:,} {near.part} images look{'' if several else 's'}"
        f" nearly like {where} ({near.example[0]} ~ {near.example[1]}): if they are copies, "
        "saved anew or resized, remove one of each"
    )


def near_lines(own: tuple[str, Path], other: tuple[str, Path], compute: bool) -> list[str]:
    """Return a warning for each part of one data set that has near copies in training of another.

    own, other: name of the data set and its cache; compute: whether what is not kept is computed.
    """
    if not compute:
        found = known_near(own[1], other[1]) or []
        return [near_line(near, own[0], other[0]) for near in found]
    try:
        return [near_line(near, own[0], other[0]) for near in find_near(own[1], other[1])]
    except DataError as error:
        return [f"warning: near copies are not looked for: {error}"]
