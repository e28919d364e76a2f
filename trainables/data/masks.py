"""Finds the files of data sets with masks: pairs of an image and a mask, and a table of classes.

Pairs have two forms, each alone or inside split folders: `NNNN_sat.jpg` beside `NNNN_mask.png`
(DeepGlobe's), or folders `images` and `masks` with equal names. What a mask
holds is the table's matter: `pixels/class_table.py`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.contract import (
    Masks,
    Settings,
    Source,
    find_place,
    without_validation,
)
from trainables.dataset import DataError, few
from trainables.layouts.split_names import SPLIT_NAMES
from trainables.pixels.class_table import DEEPGLOBE, TABLE, is_pure, read_palette
from trainables.pixels.images import EXTENSIONS
from trainables.pixels.pairs import open_pair_image, read_pair_mask
from trainables.pixels.palette import Palette

_SATELLITE, _MASK = "_sat", "_mask"
_FOLDERS = ("images", "masks")
Pairs = list[tuple[str, str]]  # image and mask, relative to the data set's folder


def read_deepglobe(settings: Settings, root: Path | None) -> Source:
    """Read NNNN_sat.jpg beside NNNN_mask.png, in the colors of classes.csv, else of DeepGlobe."""
    folder = find_place(settings, root)
    table = folder / TABLE
    palette = read_palette(table) if table.is_file() else DEEPGLOBE
    return _from_pairs(folder, replace(palette, rounded=is_pure(palette)))


def read_mask_folders(settings: Settings, root: Path | None) -> Source:
    """Read folders `images` and `masks`, and classes.csv, which says what a mask holds."""
    folder = find_place(settings, root)
    if not (folder / TABLE).is_file():
        raise DataError(f"{folder} has no {TABLE}: give `id,name`, or `name,r,g,b`, a row a class")
    return _from_pairs(folder, read_palette(folder / TABLE))


def _from_pairs(folder: Path, palette: Palette) -> Source:
    """Return the images and masks of a folder. Raises DataError."""
    listed = without_validation(list_pairs(folder))
    pairs = [pair for part in listed.values() for pair in part]
    ends = np.cumsum([len(part) for part in listed.values()])
    parts = {
        part: np.arange(end - len(listed[part]), end)
        for part, end in zip(listed, ends, strict=True)
    }
    images, masks = ([folder / pair[k] for pair in pairs] for k in (0, 1))
    return Source(
        classes=palette.names,
        names=[image for image, _ in pairs],
        labels=np.full(len(pairs), -1, dtype=np.int64),
        parts=parts,
        files=images,
        decode=lambda index: open_pair_image(images[index], masks[index]),
        masks=Masks(masks, lambda k: read_pair_mask(images[k], masks[k], palette), palette),
    )


def list_pairs(folder: Path) -> dict[str, Pairs]:
    """Return part → pairs, sorted by name; `train` alone where there are no split folders.

    Raises DataError for an image without a mask, a mask without an image, and a folder without
    pairs; OSError as it comes.
    """
    splits = _splits(folder)
    return {part: _pairs(folder, prefix) for part, prefix in splits.items()}


def pair_name(name: str) -> str:
    """Return the name of a pair: that of its image without folder, ending and `_sat`."""
    return Path(name).stem.removesuffix(_SATELLITE)


def _splits(folder: Path) -> dict[str, str]:
    prefixes: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        part = SPLIT_NAMES.get(name.lower())
        if part is None or not (folder / name).is_dir():
            continue
        if part in prefixes:
            raise DataError(
                f"{folder} has two folders for one split ({prefixes[part]}{name}): keep one"
            )
        prefixes[part] = f"{name}/"
    if prefixes and "train" not in prefixes:
        raise DataError(f"{folder} has {few(list(prefixes.values()))} but no train folder: add it")
    return prefixes or {"train": ""}


def _pairs(folder: Path, prefix: str) -> Pairs:
    place = folder / prefix
    if all((place / name).is_dir() for name in _FOLDERS):
        images, masks = (_by_pair_name(place, f"{name}/", "") for name in _FOLDERS)
    else:
        images, masks = _by_pair_name(place, "", _SATELLITE), _by_pair_name(place, "", _MASK)
    if not images and not masks:
        raise DataError(
            f"{place} holds neither NNNN{_SATELLITE}.jpg with NNNN{_MASK}.png nor the folders "
            "images and masks: correct the folder"
        )
    _check_alone(place, "image", "mask", images.keys() - masks.keys(), images)
    _check_alone(place, "mask", "image", masks.keys() - images.keys(), masks)
    return [(prefix + images[name], prefix + masks[name]) for name in sorted(images)]


def _by_pair_name(place: Path, inside: str, ending: str) -> dict[str, str]:
    """Return name of the pair → file relative to `place`."""
    files: dict[str, str] = {}
    for name in sorted(os.listdir(place / inside)):
        base, _, extension = name.rpartition(".")
        if name.startswith(".") or extension.lower() not in EXTENSIONS or not base.endswith(ending):
            continue
        known = base.removesuffix(ending)
        if known in files:
            raise DataError(
                f"{place} has {files[known]} and {inside}{name}, both of {known}: keep one"
            )
        files[known] = f"{inside}{name}"
    return files


def _check_alone(
    place: Path, what: str, other: str, names: Sequence[str] | set[str], files: Mapping[str, str]
) -> None:
    if names:
        shown = few([files[name] for name in sorted(names)])
        count = f"{len(names)} {what}{'s' if len(names) > 1 else ''} without {other}"
        raise DataError(f"{place} has {count} ({shown}): add what is missing, or remove them")
