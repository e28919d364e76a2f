"""Images and their masks on disk: which belong together, and in which split. Nothing is opened.

Two forms, each alone or inside split folders: `NNNN_sat.jpg` beside `NNNN_mask.png` (DeepGlobe's),
or folders `images` and `masks` with equal names.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainables.data.class_folders import SPLIT_NAMES, few
from trainables.data.images import EXTENSIONS
from trainables.dataset import DataError

_SATELLITE, _MASK = "_sat", "_mask"
_FOLDERS = ("images", "masks")
Pairs = list[tuple[str, str]]  # image and mask, relative to the data set's folder


def list_pairs(folder: Path) -> dict[str, Pairs]:
    """Part → pairs, sorted by name; `train` alone where there are no split folders.

    Raises DataError for an image without a mask, a mask without an image, and a folder without
    pairs; OSError as it comes.
    """
    splits = _splits(folder)
    return {part: _pairs(folder, prefix) for part, prefix in splits.items()}


def stem(name: str) -> str:
    """What a pair is called: the image's name without folder, ending and `_sat`."""
    return Path(name).stem.removesuffix(_SATELLITE)


def _splits(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        part = SPLIT_NAMES.get(name.lower())
        if part is None or not (folder / name).is_dir():
            continue
        if part in found:
            raise DataError(
                f"{folder} has two folders for one split ({found[part]}{name}): keep one"
            )
        found[part] = f"{name}/"
    if found and "train" not in found:
        raise DataError(f"{folder} has {few(list(found.values()))} but no train folder: add it")
    return found or {"train": ""}


def _pairs(folder: Path, prefix: str) -> Pairs:
    place = folder / prefix
    if all((place / name).is_dir() for name in _FOLDERS):
        images, masks = (_by_stem(place, f"{name}/", "") for name in _FOLDERS)
    else:
        images, masks = _by_stem(place, "", _SATELLITE), _by_stem(place, "", _MASK)
    if not images and not masks:
        raise DataError(
            f"{place} holds neither NNNN{_SATELLITE}.jpg with NNNN{_MASK}.png nor the folders "
            "images and masks: correct the folder"
        )
    _check_alone(place, "image", "mask", images.keys() - masks.keys(), images)
    _check_alone(place, "mask", "image", masks.keys() - images.keys(), masks)
    return [(prefix + images[name], prefix + masks[name]) for name in sorted(images)]


def _by_stem(place: Path, inside: str, ending: str) -> dict[str, str]:
    """stem without its ending → file relative to `place`."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(place / inside)):
        base, _, extension = name.rpartition(".")
        if name.startswith(".") or extension.lower() not in EXTENSIONS or not base.endswith(ending):
            continue
        known = base.removesuffix(ending)
        if known in found:
            raise DataError(
                f"{place} has {found[known]} and {inside}{name}, both of {known}: keep one"
            )
        found[known] = f"{inside}{name}"
    return found


def _check_alone(
    place: Path, what: str, other: str, names: Sequence[str] | set[str], files: Mapping[str, str]
) -> None:
    if names:
        shown = few([files[name] for name in sorted(names)])
        count = f"{len(names)} {what}{'s' if len(names) > 1 else ''} without {other}"
        raise DataError(f"{place} has {count} ({shown}): add what is missing, or remove them")
