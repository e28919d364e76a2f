"""Defines what a data set type is: a function that finds images on disk and returns a `Source`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from trainables.dataset import DataError, Indices
from trainables.layouts.class_folders import Domains
from trainables.layouts.folders import Listing, PassedOver, Scan
from trainables.pixels.bands import AS_THE_FILE_SAYS, Bands, Reading, preview
from trainables.pixels.images import open_bands, open_image
from trainables.pixels.pairs import open_pair_bands, open_pair_image
from trainables.pixels.palette import Color, Ids, Palette

Part = TypeVar("Part")


@dataclass(frozen=True)
class Masks:
    """A class for every pixel.

    files: one per image, or none where masks are held in memory; decode: index → (H, W) uint8 class
    ids, 255 where a pixel does not count, raises UnreadableImage; palette: what decides, beside the
    files, which pixel has which class; numbered: the classes are the numbers in the files, which
    were not looked at yet.
    """

    files: list[Path]
    decode: Callable[[int], Ids]
    palette: Palette | None = None
    numbered: bool = False

    @property
    def meaning(self) -> str:
        """Return the palette as text, for a hash; empty without one."""
        return self.palette.meaning if self.palette else ""

    @property
    def colours(self) -> tuple[Color, ...]:
        """Return the RGB in [0, 255] of each class; empty where masks hold ids."""
        return self.palette.colours if self.palette else ()


@dataclass(frozen=True)
class Source:
    """The images of a data set, not decoded yet.

    names, labels (N,) int64 and `files` share one order; names are unique, relative and sorted
    within a class. Without labels there are no classes and every label is -1; with masks the
    classes are those of the pixels, and every label is -1 too. parts: disjoint sorted indices by
    split. files: one per image, or none where the images are held in memory. decode: index → RGB of
    any size, raises UnreadableImage. reading: how it decodes files; bands: where it reads more than
    RGB, index → (H, W, channels). passed_over: number of files beside the images that are not read,
    by kind and reason; notes: what else a reader should know, one line each; cut: the parts that
    were cut from training images, since the set has none; groups: of each image, where a .csv file
    names them; given: the parts that the data set has of its own.
    """

    classes: tuple[str, ...]
    names: list[str]
    labels: Indices
    parts: dict[str, Indices]
    files: list[Path]
    decode: Callable[[int], Image.Image]
    masks: Masks | None = None
    reading: Reading = AS_THE_FILE_SAYS
    bands: Callable[[int], Bands] | None = None
    passed_over: PassedOver = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cut: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()

    @property
    def labelled(self) -> bool:
        """Return whether an image has a class."""
        return bool(self.classes) and self.masks is None


def decoded_as(source: Source, reading: Reading) -> Source:
    """Return a source whose files are decoded in a certain way. Raises DataError without files."""
    files, masks = source.files, source.masks
    if not files:
        if reading != AS_THE_FILE_SAYS:
            raise DataError("its images lie in no files: remove bands, limits, channels and page")
        return source

    def bands(index: int) -> Bands:
        if masks is None:
            return open_bands(files[index], reading)
        return open_pair_bands(files[index], masks.files[index], reading)

    def decode(index: int) -> Image.Image:
        if reading.channels != 3:
            return Image.fromarray(preview(bands(index)))
        if masks is None:
            return open_image(files[index], reading)
        return open_pair_image(files[index], masks.files[index], reading)

    more = bands if reading.channels != 3 else None
    return replace(source, decode=decode, reading=reading, bands=more)


def only_used(source: Source) -> Source:
    """Drop images that are in no part (left out by `limit`), so that they are not decoded."""
    bands = source.bands
    used = np.sort(np.concatenate(list(source.parts.values())))
    if len(used) == len(source.names):
        return source
    return replace(
        source,
        names=[source.names[i] for i in used],
        labels=source.labels[used],
        parts={part: np.searchsorted(used, indices) for part, indices in source.parts.items()},
        files=[source.files[i] for i in used] if source.files else [],
        decode=lambda index: source.decode(int(used[index])),
        bands=bands and (lambda index: bands(int(used[index]))),
        masks=source.masks and _selected_masks(source.masks, used),
    )


def _selected_masks(masks: Masks, used: Indices) -> Masks:
    files = [masks.files[i] for i in used] if masks.files else []
    return Masks(files, lambda index: masks.decode(int(used[index])), masks.palette)


class Grouping(Protocol):
    """The part of a `split` that decides how a list is read."""

    @property
    def column(self) -> str | None: ...


class Settings(Protocol):
    """The part of a data set's configuration that decides where and how it is read."""

    @property
    def type(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def subfolder(self) -> str | None: ...
    @property
    def labels(self) -> bool | str: ...
    @property
    def name_pattern(self) -> str: ...
    @property
    def domains(self) -> Domains | None: ...
    @property
    def split(self) -> Grouping | None: ...
    @property
    def download(self) -> bool: ...
    @property
    def images(self) -> str | None: ...
    @property
    def masks(self) -> str | None: ...
    @property
    def classes(self) -> str | None: ...
    @property
    def page(self) -> int | None: ...
    @property
    def scenes(self) -> "Drawing | None": ...
    @property
    def side(self) -> int: ...


class Drawing(Protocol):
    """How digits are drawn on photographs: `named_datasets.Scenes`."""

    @property
    def number(self) -> int: ...
    @property
    def digit(self) -> int: ...
    @property
    def digits(self) -> list[int]: ...
    @property
    def threshold(self) -> int: ...
    @property
    def ink(self) -> int: ...
    @property
    def brightness(self) -> float: ...


@dataclass(frozen=True)
class DatasetType:
    """One entry of the registry.

    read: settings and the folder of `--data`, if any → the images with the parts that the data set
    itself has (`train`, `train` and `test`, or all three), nothing decoded; raises DataError, and
    OSError as it comes. size: default side in px. about: one line for people. masked: has masks.
    """

    read: Callable[[Settings, Path | None], Source]
    size: int
    about: str
    masked: bool = False


def possible_places(settings: Settings, root: Path | None) -> list[Path]:
    """Return where the data set may lie, the likeliest first. root: the folder of `--data`, if any.

    Raises DataError where a folder is needed and none is given.
    """
    if settings.path is not None:
        return [Path(settings.path)]
    if settings.subfolder is not None:
        if root is None:
            raise DataError(f"subfolder {settings.subfolder!r} lies below --data: give --data DIR")
        return [root / settings.subfolder]
    if root is None:
        raise DataError(f"{settings.type} needs a folder: give --data DIR, or `path:` in the study")
    return [root / settings.type, root]


def find_place(settings: Settings, root: Path | None, *, file: bool = False) -> Path:
    """Return the folder of the data set; with `file` it may be one file. Raises DataError."""
    places = possible_places(settings, root)
    for place in places:
        if place.is_dir() or (file and place.is_file()):
            return place
    what = "file or folder" if file else "folder"
    key = "subfolder" if settings.subfolder is not None else "path"
    raise DataError(f"{places[-1]}: no such {what}: correct `{key}:` or --data")


def without_validation(listed: dict[str, Part]) -> dict[str, Part]:
    """Return the parts with a `val` that has no `test` beside it as `test`: it was published to be
    reported on."""
    if "test" in listed or "val" not in listed:
        return listed
    return {"test" if part == "val" else part: listed[part] for part in listed}


def from_listing(folder: Path, listing: Listing, scan: Scan | None = None) -> Source:
    """Return the images of a listing, whose names are relative to `folder`.

    scan: what listed them, and knows what was passed over.
    """
    listing = without_validation(listing)
    classes = tuple(listing["train"])
    names: list[str] = []
    labels: list[int] = []
    parts: dict[str, Indices] = {}
    for part, by_class in listing.items():
        start = len(names)
        for label, name in enumerate(classes):
            names += by_class[name]
            labels += [label] * len(by_class[name])
        parts[part] = np.arange(start, len(names), dtype=np.int64)
    files = [folder / name for name in names]
    ids = np.array(labels, dtype=np.int64)
    source = Source(classes, names, ids, parts, files, lambda index: open_image(files[index]))
    if scan is None:
        return source
    groups = tuple(scan.groups[name] for name in names) if scan.groups else ()
    return replace(source, passed_over=scan.passed, notes=tuple(scan.notes), groups=groups)
