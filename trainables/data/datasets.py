"""The data set types a study may name, their configuration, and how one is read.

To add a type: write a function that returns a `Source` (`contract.py`), add one line to DATASETS. A
study names one of a user's own as `module:Name`, without a line here.
The function returns the parts that the data set itself has; `read` cuts what is missing and drops
labels that are not wanted, so that both are the same for all types.
"""

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from trainables.config import Config
from trainables.data import splits
from trainables.data.cifar10 import read_cifar10
from trainables.data.contract import DatasetType, Source, decoded_as, only_used
from trainables.data.folds import Split, in_folds
from trainables.data.listed_datasets import FROM_NAME, read_csv, read_image_folder
from trainables.data.masks import (
    Look,
    numbered,
    numbers_of,
    read_deepglobe,
    read_mask_folders,
    read_voc,
)
from trainables.data.named_datasets import (
    Scenes,
    as_dataset_type,
    read_digit_scenes,
    read_digits,
    read_mini_imagenet,
    read_office_home,
)
from trainables.dataset import DataError, near
from trainables.layouts.class_names import check_text, warning_of
from trainables.layouts.mask_pairs import check_patterns
from trainables.layouts.name_labels import check_pattern
from trainables.layouts.split_names import PARTS
from trainables.own_code.names import WithOwn
from trainables.pixels.bands import Reading

# name in a study → how it is read, default side in px, one line about it, whether it has masks
_BUILT_IN = {
    "digits": DatasetType(read_digits, 8, "1,797 handwritten digits of 8x8 px, built in"),
    "cifar10": DatasetType(read_cifar10, 32, "CIFAR-10: the official files, or class folders"),
    "image_folder": DatasetType(
        read_image_folder, 64, "one folder a class, alone or under train, val and test"
    ),
    "csv": DatasetType(read_csv, 64, "train.csv, or any .csv file, of file names and labels"),
    "office_home": DatasetType(
        read_office_home, 128, "Office-Home: the official folders, or train.csv and val.csv"
    ),
    "mini_imagenet": DatasetType(
        read_mini_imagenet, 128, "Mini-ImageNet: class folders, train.csv, or images alone"
    ),
    "deepglobe": DatasetType(
        read_deepglobe, 512, "NNNN_sat.jpg with NNNN_mask.png, and classes.csv if not its own", True
    ),
    "mask_folders": DatasetType(
        read_mask_folders, 512, "folders images and masks, with classes.csv", True
    ),
    "voc": DatasetType(
        read_voc, 512, "Pascal VOC's form: JPEGImages, SegmentationClass, lists in ImageSets", True
    ),
    "digit_scenes": DatasetType(read_digit_scenes, 64, "digits on photographs, built in", True),
}
DATASETS: WithOwn[DatasetType] = WithOwn(_BUILT_IN, as_dataset_type)

_TABLED = ("mask_folders", "deepglobe", "voc")  # types with a table of classes
_DOMAINS = ("image_folder", "office_home")  # types that may have domain folders
_LISTED = ("csv", "mini_imagenet", "office_home")  # types that may be a .csv file
_NAMED_FILES = ("image_folder", "mini_imagenet")  # types whose file names may hold the class


class _PlaceAndParts(Config):
    """The first keys of a data set: where it lies, and how it is cut into parts."""

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
    split: Split | None = Field(
        None,
        description="`{by: group, pattern: ...}` or `{by: group, column: ...}`: images of a group, "
        "such as a patient, are never in two parts; default: each image by itself",
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="into how many folds all images are cut: one is the test. Without `fold` that "
        "of seed s is fold s mod `folds`, so as many seeds as folds are a whole cross-validation",
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None, description="the fold that every Run tests, from 0; default: one for each seed"
    )


class DatasetConfig(_PlaceAndParts):
    """Configures a data set, an entry of `data:`. Runs share its splits, except by seed."""

    on_corrupt: Literal["fail", "skip"] = Field(
        "fail", description="what to do about images that cannot be read"
    )
    on_duplicates: Literal["error", "drop", "keep"] = Field(
        "error",
        description="what to do about images of equal content in two parts, under two labels, or "
        "by which a later stage on other data is judged; drop: leave them out of training (else of "
        "validation), those with two labels out of their part; keep: `plan` and `compare` say so",
    )
    download: bool = Field(False, description="cifar10 only: download it if it is missing")
    limit: (
        Annotated[int, Field(ge=2)]
        | dict[Literal["train", "val", "test"], Annotated[int, Field(ge=1)]]
        | None
    ) = Field(
        None,
        description="number of training images at most, validation included, by class; or of each "
        "part, such as `{train: 1000, test: 200}`",
    )
    labels: bool | Literal["from_name"] = Field(
        True,
        description="false: ignore the classes; images may then lie in any folder. from_name: the "
        "class is a part of the file name",
    )
    name_pattern: str = Field(
        "{label}_*",
        description="image_folder, mini_imagenet only: with `labels: from_name`, where the class "
        "stands in a file name without its ending; `*` is any text, `{number}` digits",
    )
    channels: Annotated[int, Field(ge=4, le=512)] | None = Field(
        None, description="number of bands to train on where they are more than RGB; default: RGB"
    )
    bands: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3)] | None = Field(
        None,
        description="bands of a file, from 1: red, green and blue, such as [3, 2, 1], or as many "
        "as `channels`",
    )
    limits: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="numbers of a file that become black and white, such as [0, 4095]"
    )
    page: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="page of a TIFF or frame of an animation that is read, from 1; default: files "
        "with several are refused",
    )
    domains: (
        Annotated[list[str], Field(min_length=1)]
        | dict[Literal["train", "val", "test"], Annotated[list[str], Field(min_length=1)]]
        | None
    ) = Field(
        None,
        description="image_folder, office_home only: names of some of the domain folders, which "
        "hold the class folders (domain/class/image), or of those of each part, such as `{train: "
        "[Art, Product], test: [Clipart]}`; default: all",
    )

    images: str | None = Field(
        None,
        description="mask_folders only: where the images lie below `path`, such as "
        "`CamVid/{part}` or `{part}/*_image.png`; `{part}` is a split, `*` any text",
    )
    masks: str | None = Field(
        None, description="mask_folders only: where the masks lie, with the same `{part}` and `*`"
    )
    classes: str | None = Field(
        None,
        description="mask_folders, deepglobe, voc only: a table of classes below `path` (default: "
        "classes.csv), or `auto`: the numbers in the masks",
    )

    scenes: Scenes | None = Field(None, description="digit_scenes only: how they are drawn")

    @field_validator("type")
    @classmethod
    def _type_is_known(cls, name: str) -> str:
        if name not in DATASETS:
            raise ValueError(f"unknown data set '{name}' ({near(name, DATASETS)})")
        return name

    @field_validator("name_pattern")
    @classmethod
    def _pattern_has_a_label(cls, pattern: str) -> str:
        check_pattern(pattern)
        return pattern

    @field_validator("limits")
    @classmethod
    def _limits_rise(cls, limits: list[float] | None) -> list[float] | None:
        if limits is not None and not limits[0] < limits[1]:
            raise ValueError(f"limits {limits} must be the lower number, then the higher one")
        return limits

    @field_validator("limit", mode="before")
    @classmethod
    def _limit_is_a_number_or_parts(cls, limit: Any) -> Any:
        numbers = list(limit.values()) if isinstance(limit, dict) else [limit]
        known = not isinstance(limit, dict) or (limit and set(limit) <= set(PARTS))
        least = 1 if isinstance(limit, dict) else 2
        whole = all(type(number) is int and number >= least for number in numbers)
        if limit is not None and not (known and whole):
            raise ValueError(
                "must be a whole number from 2 on, or numbers of parts such as "
                f"{{train: 1000, val: 100, test: 200}}, not {limit!r}"
            )
        return limit

    @field_validator("domains", mode="before")
    @classmethod
    def _domains_are_of_parts(cls, domains: Any) -> Any:
        if isinstance(domains, dict) and (odd := [part for part in domains if part not in PARTS]):
            raise ValueError(f"names domains of train, val and test, not of {odd[0]!r}")
        return domains

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
    def _places_and_folds_fit(self) -> "DatasetConfig":
        if self.path is not None and self.subfolder is not None:
            raise ValueError("path and subfolder are two places: keep one")
        if self.folds is None and self.fold is not None:
            raise ValueError("fold needs `folds`, such as `folds: 5, fold: 0`")
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} must be less than folds ({self.folds}): from 0 on")
        if self.split and self.split.column and self.type not in _LISTED:
            types = ", ".join(_LISTED)
            raise ValueError(f"split.column is for types {types}: give `pattern` for {self.type}")
        return self

    @model_validator(mode="after")
    def _domains_of_parts_fit(self) -> "DatasetConfig":
        if isinstance(self.domains, dict):
            lacking = [part for part in ("train", "test") if part not in self.domains]
            if lacking:
                raise ValueError(f"domains names none to {lacking[0]}: give train and test some")
            if self.folds is not None:
                raise ValueError("domains names those of the test, and folds cuts one: keep one")
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> "DatasetConfig":
        if self.bands is not None and len(self.bands) != (self.channels or 3):
            raise ValueError(
                f"bands names {len(self.bands)}, and there are {self.channels or 3} channels: set "
                "`channels` to the number of bands, or name as many"
            )
        if self.channels is not None and self.limits is not None:
            raise ValueError(
                "limits are for RGB, and channels are normalized by the training set: keep one"
            )
        return self

    @model_validator(mode="after")
    def _type_has_what_is_set(self) -> "DatasetConfig":
        if self.domains is not None and self.type not in _DOMAINS:
            types = " and ".join(_DOMAINS)
            raise ValueError(f"domains are for types {types}, not {self.type}: remove them")
        if self.scenes is not None and self.type != "digit_scenes":
            raise ValueError(f"scenes are for type digit_scenes, not {self.type}: remove them")
        if (self.images is None) != (self.masks is None):
            raise ValueError("images and masks belong together: give both, or neither")
        if self.images is not None and self.masks is not None:
            if self.type != "mask_folders":
                raise ValueError(f"images and masks are for type mask_folders, not {self.type}")
            check_patterns(self.images, self.masks)
        if self.classes is not None and self.type not in _TABLED:
            raise ValueError(f"classes are for types {', '.join(_TABLED)}, not {self.type}")
        if self.labels == FROM_NAME and self.type not in _NAMED_FILES:
            types = " and ".join(_NAMED_FILES)
            raise ValueError(f"labels: from_name is for types {types}, not {self.type}: remove it")
        return self

    @property
    def side(self) -> int:
        """Return side of the square images in px: `size`, or the default of the type."""
        return self.size or DATASETS[self.type].size

    @property
    def reading(self) -> Reading:
        """Return how the bands of a file become an image."""
        low, high = self.limits or (0.0, 0.0)
        limits = (low, high) if self.limits else None
        return Reading(tuple(self.bands or ()), limits, self.channels or 3, self.page)


def read(
    config: DatasetConfig, root: Path | None, cut: bool = True, look: Look = numbers_of
) -> Source:
    """Find the images of a data set, with parts `train`, `val` and `test`; decode none of them.

    root: the folder of `--data`, if any; cut: whether missing parts are cut from the others; look:
    reads masks whose numbers are the classes.
    Without `cut` (for producers) a set of files keeps the parts that it has; where it has no `val`,
    all its images are in `val`. Raises DataError.
    """
    check_text([str(config.path or root or "")])
    try:
        source = DATASETS[config.type].read(config, root)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror or error}") from error
    check_text([*source.classes, *source.names])
    if not config.labels:
        no_label = np.full(len(source.names), -1, np.int64)
        source = replace(source, classes=(), labels=no_label, masks=None)
    elif len((source := numbered(source, look, config.page)).classes) < 2:
        raise DataError(
            f"data set has one class only ({source.classes[0]!r}): give one folder, "
            "or one label in CSV, for each class"
        )
    if warning := warning_of(source.classes):
        source = replace(source, notes=(*source.notes, warning))
    source = decoded_as(replace(source, given=frozenset(source.parts)), config.reading)
    if not cut and source.files:
        all_images = np.sort(np.concatenate(list(source.parts.values())))
        return replace(source, parts={"val": all_images, "test": all_images[:0]} | source.parts)
    if config.split is not None or config.folds is not None:
        return only_used(in_folds(source, config, config.limit))
    most = {str(k): n for k, n in config.limit.items()} if isinstance(config.limit, dict) else {}
    whole = config.limit if isinstance(config.limit, int) else None
    cuts = splits.Cuts(config.val_fraction, config.split_seed, whole)
    classes = source.classes if source.labelled else ()
    parts = splits.complete(source.parts, source.labels, classes, cuts)
    parts = splits.limited(parts, source.labels, classes, most, config.split_seed)
    made = frozenset(parts.keys() - source.given)
    return only_used(replace(source, parts=parts, cut=made))
