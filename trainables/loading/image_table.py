"""Opens a decoded data set, memory-mapped: the folder that `decoded_cache` writes."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from trainables.dataset import DataError, DataInfo, Indices

FORMAT = 3  # of the folder and of what decides a pixel: raise it when either changes
_BLOCK = 1 << 22  # bytes read at once


class _Meta(TypedDict):
    """Describes what `meta.json` holds."""

    fingerprint: str
    format: int
    parts: dict[str, int]
    classes: list[str]
    size: int
    masks: bool
    names: list[str]
    colours: list[tuple[int, int, int]]
    bytes: dict[str, int]
    crc32: dict[str, int]
    mean: NotRequired[list[float]]
    std: NotRequired[list[float]]
    reading: NotRequired[dict[str, Any]]
    windows: NotRequired[bool]


_META = TypeAdapter(_Meta)


@dataclass(frozen=True)
class ImageTable:
    """A decoded data set.

    images: (N, 3, S, S) uint8 RGB in [0, 255], or (N, C, S, S) float32 of other channels, less the
    mean of the training set and over its deviation; read-only, memory-mapped; labels: (N,) int64
    class ids, -1 without labels; parts: indices into both for `train`, `val`, `test`; images that
    could not be read are black and in no part; classes: names by id; size: S in px; fingerprint:
    hash of the content; names: of the images, none in caches without masks of earlier versions.
    Data sets with masks also have masks: (N, S, S) uint8 class ids, 255 where a pixel does not
    count; colours: RGB in [0, 255] of the classes, if they
    have any. mean, std: of each channel in training, where they are not RGB; reading: how files
    became images; windows: (N, 3) image, top and left in px of each row, where images with masks
    are larger than S and lie in several rows, one after the other; None: each row is an image.
    """

    images: np.memmap[Any, np.dtype[Any]]
    labels: Indices
    parts: dict[str, Indices]
    classes: tuple[str, ...]
    size: int
    fingerprint: str
    masks: np.memmap[Any, np.dtype[np.uint8]] | None = None
    names: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)
    windows: Indices | None = None

    def of_images(self, rows: Indices) -> list[Indices]:
        """Group rows by the image that they show, in their order."""
        if self.windows is None:
            return [rows[k : k + 1] for k in range(len(rows))]
        ends = np.flatnonzero(np.diff(self.windows[rows, 0])) + 1
        return np.split(rows, ends) if len(rows) else []

    def places(self, rows: Indices) -> list[tuple[int, int]] | None:
        """Return top and left of each row in its image; None where each row is an image."""
        if self.windows is None:
            return None
        return [(top, left) for _, top, left in self.windows[rows].tolist()]

    @property
    def channels(self) -> int:
        """Return the number of channels of an image."""
        return int(self.images.shape[1])

    @property
    def info(self) -> DataInfo:
        """Return what a model must know of its data."""
        return DataInfo(self.classes, self.size, self.channels)

    @property
    def labelled(self) -> bool:
        """Return whether each image has a class."""
        return bool(self.classes) and self.masks is None


def open_table(path: Path) -> ImageTable:
    """Map the folder that `build` wrote. Raises DataError if it is absent or damaged."""
    reason = fault(path)
    if reason is not None:
        raise DataError(f"{path}: {reason}: build it again")
    meta = json.loads((path / "meta.json").read_bytes())
    return ImageTable(
        images=np.load(path / "images.npy", mmap_mode="r"),
        labels=np.load(path / "labels.npy"),
        parts={part: np.load(path / f"part_{part}.npy") for part in meta["parts"]},
        classes=tuple(meta["classes"]),
        size=meta["size"],
        fingerprint=meta["fingerprint"],
        masks=np.load(path / "masks.npy", mmap_mode="r") if meta["masks"] else None,
        names=tuple(meta["names"]),
        colours=tuple((r, g, b) for r, g, b in meta["colours"]),
        mean=tuple(meta.get("mean", ())),
        std=tuple(meta.get("std", ())),
        reading=meta.get("reading", {}),
        windows=np.load(path / "windows.npy") if meta.get("windows") else None,
    )


def fault(path: Path) -> str | None:
    """Return why a folder cannot be used, or None. Reads meta.json and the sizes of the files."""
    if not path.is_dir():
        return "no decoded images here"
    try:
        meta = json.loads((path / "meta.json").read_bytes())
        if (meta["fingerprint"], meta["format"]) != (path.name, FORMAT):
            return "another data set's, or an older version's"
        _META.validate_json((path / "meta.json").read_bytes(), strict=True)
        for name, size in meta["bytes"].items():
            if (actual := (path / name).stat().st_size) != size:
                return f"damaged ({name} has {actual} bytes, must have {size})"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"damaged (meta.json: {'.'.join(map(str, first['loc']))}: {first['msg']})"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"damaged ({error})"
    return None


def changed(path: Path) -> str | None:
    """Return the first file whose checksum has changed, or None. Reads all files of a folder that
    has no `fault`, gigabytes per second."""
    written = json.loads((path / "meta.json").read_bytes())["crc32"]
    for name, value in written.items():
        if checksum(path / name) != value:
            return str(name)
    return None


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file: it detects damage by a disk, not by an attacker."""
    value = 0
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value
