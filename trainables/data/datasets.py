"""Which images, which labels, which split: data sets as they lie on disk, decoded one at a time.

To add a data set: one function that returns a Source, one line in DATASETS. The function returns
the parts as the data set gives them (`train`, `train` and `test`, or all three); `read` cuts what
is missing and forgets labels that are not wanted, so that both are the same everywhere.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_validator

from trainables.config import Config
from trainables.data import splits
from trainables.data.class_folders import (
    SPLIT_NAMES,
    Listing,
    list_domains,
    list_images,
    list_unlabelled,
    near,
)
from trainables.data.class_table import DEEPGLOBE, TABLE, read_palette
from trainables.data.csv_lists import is_manifest, list_csv
from trainables.data.digit_scenes import SCENE_CLASSES, digit_scenes
from trainables.data.images import open_image
from trainables.data.source import Source, from_memory, from_pairs, only_used
from trainables.dataset import DataError, Indices

CIFAR10_FOLDER = "cifar-10-batches-py"  # of the official files
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())


class DatasetConfig(Config):
    """An entry under a study's `data:`. Its splits belong to the data set, not to a run."""

    type: str = Field(description="what lies on disk: one of the data set types")
    path: str | None = Field(
        None, description="the folder, or a .csv file; default: found under --data DIR"
    )
    subfolder: str | None = Field(None, description="the folder below --data DIR, not with `path`")
    size: Annotated[int, Field(ge=4, le=8192)] | None = Field(
        None, description="side in px of the square image; default: the type's own"
    )
    val_fraction: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.1, description="share of the training images for validation, if it has no own split"
    )
    split_seed: int = Field(0, description="seed of the random splits")
    on_corrupt: Literal["fail", "skip"] = Field(
        "fail", description="what to do about images that cannot be read"
    )
    download: bool = Field(False, description="cifar10 only: download it if it is missing")
    limit: Annotated[int, Field(ge=2)] | None = Field(
        None, description="number of training images at most, validation included, by class"
    )
    labels: bool = Field(
        True, description="false: ignore the classes; images may then lie in any folder"
    )
    domains: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="office_home only: some of Art, Clipart, Product, Real World"
    )

    @field_validator("type")
    @classmethod
    def _type_is_known(cls, name: str) -> str:
        if name not in DATASETS:
            raise ValueError(f"unknown data set '{name}' ({near(name, DATASETS)})")
        return name

    @field_validator("subfolder")
    @classmethod
    def _subfolder_stays_below(cls, name: str | None) -> str | None:
        path = PurePath(name or ".")
        if name == "" or path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"subfolder {name!r} must stay below --data DIR: make it relative, without '..'"
            )
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> "DatasetConfig":
        if self.path is not None and self.subfolder is not None:
            raise ValueError("path and subfolder are two places: keep one")
        if self.domains is not None and self.type != "office_home":
            raise ValueError(f"domains are for type office_home, not {self.type}: remove them")
        return self

    @property
    def side(self) -> int:
        """Side in px of the square images, the type's own where the study names none."""
        return self.size or DATASETS[self.type].size


@dataclass(frozen=True)
class DatasetType:
    """How to read a type, its default side in px, and one line about it for people."""

    read: Callable[[DatasetConfig, Path | None], Source]
    size: int
    about: str
    masked: bool = False


def read(config: DatasetConfig, root: Path | None, cut: bool = True) -> Source:
    """The data set with parts `train`, `val` and `test`. root: the folder of `--data`, if any.
    cut: whether what is missing is cut; else the parts of a set of files are as they lie, for who
    does not learn, and what has no validation has all its images there.

    Nothing is decoded. Raises DataError.
    """
    try:
        source = DATASETS[config.type].read(config, root)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror or error}") from error
    if not config.labels:
        nobody = np.full(len(source.names), -1, np.int64)
        source = replace(source, classes=(), labels=nobody, masks=None)
    elif len(source.classes) < 2:
        raise DataError(
            f"data set has one class only ({source.classes[0]!r}): give one folder, "
            "or one label in CSV, for each class"
        )
    if not cut and source.files:
        every = np.sort(np.concatenate(list(source.parts.values())))
        return replace(source, parts={"val": every, "test": every[:0]} | source.parts)
    cuts = splits.Cuts(config.val_fraction, config.split_seed, config.limit)
    classes = source.classes if source.labelled else ()
    parts = splits.complete(source.parts, source.labels, classes, cuts)
    return only_used(replace(source, parts=parts))


def _places(config: DatasetConfig, root: Path | None) -> list[Path]:
    """Where the data set may lie, the likeliest first."""
    if config.path is not None:
        return [Path(config.path)]
    if config.subfolder is not None:
        if root is None:
            raise DataError(f"subfolder {config.subfolder!r} lies below --data: give --data DIR")
        return [root / config.subfolder]
    if root is None:
        raise DataError(f"{config.type} needs a folder: give --data DIR, or `path:` in the study")
    return [root / config.type, root]


def _find(config: DatasetConfig, root: Path | None, *, file: bool = False) -> Path:
    """The folder of the data set, or its file where it may be one."""
    places = _places(config, root)
    found = next((place for place in places if place.is_dir() or file and place.is_file()), None)
    if found is None:
        what = "file or folder" if file else "folder"
        key = "subfolder" if config.subfolder is not None else "path"
        raise DataError(f"{places[-1]}: no such {what}: correct `{key}:` or --data")
    return found


def _from_listing(folder: Path, found: Listing) -> Source:
    """found: names relative to `folder`; a `val` without a `test` is the test set."""
    if "test" not in found and "val" in found:
        found = {"test" if part == "val" else part: found[part] for part in found}
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


def _read_image_folder(config: DatasetConfig, root: Path | None) -> Source:
    folder = _find(config, root)
    list_all = list_images if config.labels else list_unlabelled
    return _from_listing(folder, list_all(folder))


def _read_csv(config: DatasetConfig, root: Path | None) -> Source:
    place = _find(config, root, file=True)
    folder = place if place.is_dir() else place.parent
    return _from_listing(folder, list_csv(place, config.labels))


def _read_mini_imagenet(config: DatasetConfig, root: Path | None) -> Source:
    """The course's train.csv with its images, class folders, or images alone."""
    read = _read_csv if is_manifest(_find(config, root)) else _read_image_folder
    return read(config, root)


def _read_office_home(config: DatasetConfig, root: Path | None) -> Source:
    """The official folders, domain/class/image, or the course's train.csv with its images."""
    folder = _find(config, root)
    if not is_manifest(folder):
        return _from_listing(folder, list_domains(folder, config.domains))
    if config.domains is not None:
        raise DataError(f"{folder} holds train.csv, which knows no domains: remove `domains:`")
    return _read_csv(config, root)


def _read_cifar10(config: DatasetConfig, root: Path | None) -> Source:
    """The official files, with torchvision's checksums, or the same classes as class folders."""
    places = _places(config, root)
    places += [place.parent for place in places if place.name == CIFAR10_FOLDER]
    for place in places:
        if (place / CIFAR10_FOLDER).is_dir():
            return _read_official_cifar10(place, config.download)
        if any((place / split / CIFAR10_CLASSES[0]).is_dir() for split in ("", *SPLIT_NAMES)):
            source = _from_listing(place, list_images(place))
            if source.classes != CIFAR10_CLASSES:
                raise DataError(f"{place} has not CIFAR-10's classes: use `type: image_folder`")
            return source
    if config.download:
        return _read_official_cifar10(places[0], download=True)
    raise DataError(
        f"no CIFAR-10 in {places[-1]}: put {CIFAR10_FOLDER} or class folders there, "
        "or set `download: true`"
    )


def _read_official_cifar10(folder: Path, download: bool) -> Source:
    from torchvision.datasets import CIFAR10  # seconds to load, and few studies need it

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
    from sklearn.datasets import load_digits  # seconds to load, and few studies need it

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


def _read_deepglobe(config: DatasetConfig, root: Path | None) -> Source:
    """NNNN_sat.jpg beside NNNN_mask.png, in the colours of classes.csv or else DeepGlobe's own."""
    folder = _find(config, root)
    table = folder / TABLE
    return from_pairs(folder, read_palette(table) if table.is_file() else DEEPGLOBE)


def _read_mask_folders(config: DatasetConfig, root: Path | None) -> Source:
    """Folders images and masks, and classes.csv, which says what a mask holds."""
    folder = _find(config, root)
    if not (folder / TABLE).is_file():
        raise DataError(f"{folder} has no {TABLE}: give `id,name`, or `name,r,g,b`, a row a class")
    return from_pairs(folder, read_palette(folder / TABLE))


def _read_digit_scenes(config: DatasetConfig, root: Path | None) -> Source:
    """scikit-learn's digits on its photographs."""
    return from_memory(SCENE_CLASSES, *digit_scenes(), "scenes")


DATASETS: dict[str, DatasetType] = {
    "digits": DatasetType(_read_digits, 8, "1,797 handwritten digits of 8x8 px, built in"),
    "cifar10": DatasetType(_read_cifar10, 32, "CIFAR-10: the official files, or class folders"),
    "image_folder": DatasetType(
        _read_image_folder, 64, "one folder a class, alone or under train, val and test"
    ),
    "csv": DatasetType(_read_csv, 64, "train.csv, or any .csv file, of file names and labels"),
    "office_home": DatasetType(
        _read_office_home, 128, "Office-Home: the official folders, or train.csv and val.csv"
    ),
    "mini_imagenet": DatasetType(
        _read_mini_imagenet, 128, "Mini-ImageNet: class folders, train.csv, or images alone"
    ),
    "deepglobe": DatasetType(
        _read_deepglobe,
        512,
        "NNNN_sat.jpg with NNNN_mask.png, and classes.csv if not its own",
        True,
    ),
    "mask_folders": DatasetType(
        _read_mask_folders, 512, "folders images and masks, with classes.csv", True
    ),
    "digit_scenes": DatasetType(_read_digit_scenes, 64, "digits on photographs, built in", True),
}
