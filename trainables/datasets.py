"""Which images, which labels, which split: data sets as they lie on disk, decoded one at a time.

To add a data set: one function that returns a Source, one line in DATASETS. The function returns
the parts as the data set gives them (`train`, `train` and `test`, or all three); `read` cuts what
is missing, so that the cuts are the same everywhere.
"""

import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from trainables import splits
from trainables.config import Config
from trainables.folders import SPLIT_NAMES, list_images
from trainables.folders import DataError as DataError
from trainables.images import open_image
from trainables.splits import Indices

TEST_FRACTION = 0.2  # of a data set that comes without a test split
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())


class DatasetConfig(Config):
    """An entry under a study's `data:`. Its splits belong to the data set, not to a run."""

    type: str
    path: str | None = Field(None, description="the folder; default: found under --data DIR")
    size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        None, description="side in px of the square image; default: the type's own"
    )
    val_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    split_seed: int = 0
    on_corrupt: Literal["fail", "skip"] = "fail"
    download: bool = Field(False, description="cifar10 only: fetch it where it is missing")
    limit: Annotated[int, Field(ge=2)] | None = Field(
        None, description="at most so many training images, stratified, validation among them"
    )

    @field_validator("type")
    @classmethod
    def _type_is_known(cls, name: str) -> str:
        if name not in DATASETS:
            near = difflib.get_close_matches(name, DATASETS, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ValueError(f"unknown data set '{name}' ({hint}there are: {', '.join(DATASETS)})")
        return name

    @property
    def side(self) -> int:
        """Side in px of the square images, the type's own where the study names none."""
        return self.size or DATASETS[self.type].size


@dataclass(frozen=True)
class Source:
    """The images of a data set, not decoded yet.

    names, labels (N,) and `files` share one order; names are unique, relative and sorted within
    a class. parts: disjoint sorted indices by split. files: one an image, or none where the images
    are held in memory. decode: index → RGB of any size, raises UnreadableImage.
    """

    classes: tuple[str, ...]
    names: list[str]
    labels: Indices
    parts: dict[str, Indices]
    files: list[Path]
    decode: Callable[[int], Image.Image]


@dataclass(frozen=True)
class DatasetType:
    """How to read a type, its default side in px, and one line about it for people."""

    read: Callable[[DatasetConfig, Path | None], Source]
    size: int
    about: str


def read(config: DatasetConfig, root: Path | None) -> Source:
    """The data set with parts `train`, `val` and `test`. root: the folder of `--data`, if any.

    Nothing is decoded. Raises DataError.
    """
    try:
        source = DATASETS[config.type].read(config, root)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror or error}") from error
    if len(source.classes) < 2:
        raise DataError(
            f"data set has one class only ({source.classes[0]!r}): give one folder for each class"
        )
    return _only_used(replace(source, parts=_cut(source, config)))


def _cut(source: Source, config: DatasetConfig) -> dict[str, Indices]:
    """Parts as given, plus a test split, a limit and a validation split where they are due."""
    train, labels, classes = source.parts["train"], source.labels, source.classes
    test, val = source.parts.get("test"), source.parts.get("val")

    def divide(purpose: str, counts: Indices) -> tuple[Indices, Indices]:
        return splits.divide(train, labels, counts, classes, (purpose, config.split_seed))

    def counts() -> Indices:
        return splits.class_counts(labels[train], len(classes))

    if test is None:
        train, test = divide("test", splits.fraction(counts(), TEST_FRACTION))
    _check_enough(counts(), classes, config.limit)
    if config.limit is not None and config.limit < len(train):
        _, train = divide("limit", splits.quota(counts(), config.limit))
    if val is None:
        train, val = divide("val", splits.fraction(counts(), config.val_fraction))
    return {"train": train, "val": val, "test": test}


def _check_enough(counts: Indices, classes: tuple[str, ...], limit: int | None) -> None:
    """Every class needs an image to train on and one to validate with."""
    if counts.min() < 2:
        raise DataError(
            f"class {classes[counts.argmin()]!r} has too few training images ({counts.min()}): "
            "add some (2 at least) or remove the class"
        )
    if limit is not None and limit < 2 * len(classes):
        raise DataError(
            f"limit {limit} is too small for {len(classes)} classes with 2 training images each: "
            f"set it to {2 * len(classes)} or more"
        )


def _only_used(source: Source) -> Source:
    """Drop images left out by `limit`, so that nobody hashes or decodes them."""
    used = np.sort(np.concatenate(list(source.parts.values())))
    if len(used) == len(source.names):
        return source
    return Source(
        classes=source.classes,
        names=[source.names[i] for i in used],
        labels=source.labels[used],
        parts={part: np.searchsorted(used, indices) for part, indices in source.parts.items()},
        files=[source.files[i] for i in used] if source.files else [],
        decode=lambda index: source.decode(int(used[index])),
    )


def _read_image_folder(config: DatasetConfig, root: Path | None) -> Source:
    places = _places(config, root)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise DataError(f"{places[-1]}: no such folder: correct `path:` or --data")
    return _read_class_folders(folder)


def _places(config: DatasetConfig, root: Path | None) -> list[Path]:
    """Where the data set may lie, the likeliest first."""
    if config.path is not None:
        return [Path(config.path)]
    if root is None:
        raise DataError(f"{config.type} needs a folder: give --data DIR, or `path:` in the study")
    return [root / config.type, root]


def _read_class_folders(folder: Path) -> Source:
    """Class folders, alone or inside split folders; a `val` without a `test` is the test set."""
    found = list_images(folder)
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    classes = tuple(found["train"])
    names: list[str] = []
    labels: list[int] = []
    parts: dict[str, Indices] = {}
    for part, by_class in found.items():
        start = len(names)
        for label, name in enumerate(classes):
            names += by_class[name]
            labels += [label] * len(by_class[name])
        parts[part] = np.arange(start, len(names), dtype=np.int64)
    files = [folder / name for name in names]
    table = np.array(labels, dtype=np.int64)
    return Source(classes, names, table, parts, files, lambda index: open_image(files[index]))


def _read_cifar10(config: DatasetConfig, root: Path | None) -> Source:
    """The official files, with torchvision's checksums, or the same classes as class folders."""
    places = _places(config, root)
    places += [place.parent for place in places if place.name == CIFAR10.base_folder]
    for place in places:
        if (place / CIFAR10.base_folder).is_dir():
            return _read_official_cifar10(place, config.download)
        if any((place / split / CIFAR10_CLASSES[0]).is_dir() for split in ("", *SPLIT_NAMES)):
            source = _read_class_folders(place)
            if source.classes != CIFAR10_CLASSES:
                raise DataError(f"{place} has not CIFAR-10's classes: use `type: image_folder`")
            return source
    if config.download:
        return _read_official_cifar10(places[0], download=True)
    raise DataError(
        f"no CIFAR-10 in {places[-1]}: put {CIFAR10.base_folder} or class folders there, "
        "or set `download: true`"
    )


def _read_official_cifar10(folder: Path, download: bool) -> Source:
    try:
        with warnings.catch_warnings():  # NumPy's, about the age of the official pickles
            warnings.simplefilter("ignore")
            train, test = (CIFAR10(folder, split, download=download) for split in (True, False))
    except (RuntimeError, OSError) as error:
        fault = "is incomplete or fails its checksum: set `download: true`"
        if download:
            fault = f"cannot be downloaded ({error}): put the official files there"
        raise DataError(f"CIFAR-10 in {folder} {fault}") from error
    images = np.concatenate([train.data, test.data])
    cut, count = len(train.data), len(images)
    return Source(
        classes=tuple(train.classes),
        names=[f"{'train' if i < cut else 'test'}/{i:05d}" for i in range(count)],
        labels=np.array(train.targets + test.targets, dtype=np.int64),
        parts={"train": np.arange(cut), "test": np.arange(cut, count)},
        files=[],
        decode=lambda index: Image.fromarray(images[index]),
    )


def _read_digits(config: DatasetConfig, root: Path | None) -> Source:
    """scikit-learn's 1,797 digits: grey levels 0..16 become 0..255."""
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Source(
        classes=tuple(str(name) for name in digits.target_names),
        names=[f"digits/{i}" for i in range(len(grey))],
        labels=digits.target.astype(np.int64),
        parts={"train": np.arange(len(grey))},
        files=[],
        decode=lambda index: Image.fromarray(grey[index]).convert("RGB"),
    )


DATASETS: dict[str, DatasetType] = {
    "digits": DatasetType(_read_digits, 8, "1,797 handwritten digits of 8x8 px, built in"),
    "cifar10": DatasetType(_read_cifar10, 32, "CIFAR-10: the official files, or class folders"),
    "image_folder": DatasetType(
        _read_image_folder, 64, "one folder a class, alone or under train, val and test"
    ),
}
