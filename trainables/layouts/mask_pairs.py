"""Finds pairs of an image and its mask, by known layouts or by two patterns.

Known are `NNNN_sat.jpg` beside `NNNN_mask.png` (DeepGlobe's) and a folder of images beside a folder
of masks with equal names, each alone or inside split folders.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainables.dataset import DataError, few
from trainables.layouts.folders import Scan, has_image_ending
from trainables.layouts.split_names import PARTS, SPLIT_NAMES, by_part, named_as_splits

Pairs = list[tuple[str, str]]  # image and mask, relative to the data set's folder
Files = dict[tuple[str, ...], str]  # what a pair has in common → its file

_SATELLITE, _MASK = "_sat", "_mask"
_IMAGES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation")
_MARKS = re.compile(r"(\{part\}|\*)")
_PART = rf"(?P<part>(?:{'|'.join(sorted(SPLIT_NAMES, reverse=True))})(?:[ _-]?\d+)?)"


def pair_name(name: str) -> str:
    """Return the name of a pair: that of its image without folder, ending and `_sat`."""
    return Path(name).stem.removesuffix(_SATELLITE)


def list_pairs(scan: Scan) -> dict[str, Pairs]:
    """Return part → pairs, sorted by name; `train` alone where there are no split folders.

    Raises DataError for an image without a mask, a mask without an image, and a folder without
    pairs; OSError as it comes.
    """
    folders, _ = scan.list()
    named = named_as_splits(folders)
    if not named:
        return {"train": _pairs(scan, "")}
    if len(set(named.values())) < len(named):
        raise DataError(
            f"{scan.root} has two folders for one split ({few(list(named))}): keep one, or say "
            "with `images:` and `masks:` which hold what"
        )
    if "train" not in named.values():
        raise DataError(f"{scan.root} has {few(list(named))} but no train folder: add it")
    for name in folders:
        if name not in named:
            scan.pass_over_folder(name, "beside the splits")
    parts = by_part(scan, named, list(named) if len(named) > 1 else [])
    return {part: _pairs(scan, prefix) for part, prefix in parts.items()}


def list_pairs_by_patterns(scan: Scan, images: str, masks: str) -> dict[str, Pairs]:
    """Return part → pairs of the files that fit two patterns, see `check_patterns`.

    Raises DataError as `list_pairs`.
    """
    found = [_by_part(scan, pattern) for pattern in (images, masks)]
    parts = [part for part in PARTS if part in found[0] or part in found[1]]
    if not parts:
        raise DataError(
            f"{scan.root} has no images that fit {images!r} and {masks!r}: correct `images` and "
            f"`masks`, which are relative to `path`{_hint(scan)}"
        )
    listed = {
        part: _joined(scan.root, found[0].get(part, {}), found[1].get(part, {})) for part in parts
    }
    if "train" not in listed:
        raise DataError(f"{scan.root} has {few(parts)} but no train: `{{part}}` must find it")
    scan.pass_over_rest(
        {file for pairs in listed.values() for pair in pairs for file in pair}, "fits no pattern"
    )
    return listed


def check_patterns(images: str, masks: str) -> None:
    """Raise ValueError for patterns that cannot find pairs.

    A pattern is a path below the folder of the data set. `{part}` is the name of a split, `*` any
    text, equal in both patterns. One that ends in a folder means all images in it, by their names.
    """
    for key, pattern in (("images", images), ("masks", masks)):
        if os.path.isabs(pattern) or ".." in pattern.split("/") or not pattern:
            raise ValueError(f"{key} {pattern!r} must be a path below the folder of the data set")
        if pattern.count("{part}") > 1:
            raise ValueError(f"{key} {pattern!r} has {{part}} twice: write * for one of them")
    if ("{part}" in images) != ("{part}" in masks):
        raise ValueError("images and masks must both have {part}, or neither")
    if _stars(images) != _stars(masks):
        raise ValueError(f"images {images!r} and masks {masks!r} have another number of *")


def _stars(pattern: str) -> int:
    return pattern.count("*") + ("*" not in pattern.rpartition("/")[2])


def _by_part(scan: Scan, pattern: str) -> dict[str, Files]:
    """Return part → files that fit a pattern; `train` alone where it has no `{part}`."""
    *folders, last = [segment for segment in pattern.split("/") if segment not in ("", ".")]
    if "*" not in last:
        folders, last = [*folders, last], "*"
    places: list[tuple[str, str, tuple[str, ...]]] = [("", "train", ())]
    for segment in folders:
        places = [
            (f"{inner}{name}/", found or part, (*stars, *texts))
            for inner, part, stars in places
            for name in scan.list(inner)[0]
            for found, texts in _fit(segment, name)
        ]
    parts: dict[str, Files] = {}
    for inner, part, stars in places:
        for name in scan.list(inner)[1]:
            for found, texts in _fit(last, name):
                key = (*stars, *texts[:-1], _without_ending(texts[-1]))
                _add(scan.root, parts.setdefault(found or part, {}), key, f"{inner}{name}")
    return parts


def _fit(segment: str, name: str) -> list[tuple[str | None, tuple[str, ...]]]:
    """Return [(part, texts of the stars)] if a name fits one segment of a pattern, else []."""
    meaning = {"{part}": _PART, "*": "(.*)"}
    form = "".join(meaning.get(piece, re.escape(piece)) for piece in _MARKS.split(segment))
    match = re.fullmatch(form, name, re.IGNORECASE if "{part}" in segment else 0)
    if match is None:
        return []
    text = match.groupdict().get("part")
    part = SPLIT_NAMES[re.sub(r"[ _-]?\d+$", "", text.lower())] if text else None
    own = match.re.groupindex.get("part")
    return [(part, tuple(t for k, t in enumerate(match.groups(), start=1) if k != own))]


def _without_ending(text: str) -> str:
    return os.path.splitext(text)[0] if has_image_ending(text) else text


def _pairs(scan: Scan, prefix: str) -> Pairs:
    place, folders = scan.root / prefix, scan.list(prefix)[0]
    image_folders = [name for name in _IMAGES if name in folders]
    mask_folders = [name for name in _MASKS if name in folders]
    if len(image_folders) == len(mask_folders) == 1:
        images, masks = (
            _in_folder(scan, f"{prefix}{name}/", "") for name in (*image_folders, *mask_folders)
        )
    else:
        images, masks = (_in_folder(scan, prefix, ending) for ending in (_SATELLITE, _MASK))
        for name in scan.list(prefix)[1]:
            if not os.path.splitext(name)[0].endswith((_SATELLITE, _MASK)):
                scan.pass_over(name, f"neither {_SATELLITE} nor {_MASK}")
    if not images and not masks:
        raise DataError(
            f"{place} holds neither NNNN{_SATELLITE}.jpg with NNNN{_MASK}.png nor the folders "
            f"images and masks: correct the folder, or say with `images:` and `masks:` where they "
            f"lie{_hint(scan)}"
        )
    return _joined(place, images, masks)


def _in_folder(scan: Scan, inner: str, ending: str) -> Files:
    """Return the images of a folder whose names end so, by their names without it."""
    files: Files = {}
    for name in scan.list(inner)[1]:
        stem = os.path.splitext(name)[0]
        if stem.endswith(ending):
            _add(scan.root / inner, files, (stem.removesuffix(ending),), f"{inner}{name}")
    return files


def _add(place: Path, files: Files, key: tuple[str, ...], file: str) -> None:
    if key in files:
        one, other = files[key].rpartition("/")[2], file.rpartition("/")[2]
        raise DataError(f"{place} has {one} and {other}, both of {' '.join(key)}: keep one")
    files[key] = file


def _joined(place: Path, images: Files, masks: Files) -> Pairs:
    _check_alone(place, "image", "mask", images.keys() - masks.keys(), images)
    _check_alone(place, "mask", "image", masks.keys() - images.keys(), masks)
    return [(images[key], masks[key]) for key in sorted(images)]


def _check_alone(
    place: Path,
    what: str,
    other: str,
    keys: set[tuple[str, ...]],
    files: Mapping[tuple[str, ...], str],
) -> None:
    if keys:
        shown = few([files[key] for key in sorted(keys)])
        count = f"{len(keys)} {what}{'s' if len(keys) > 1 else ''} without {other}"
        raise DataError(f"{place} has {count} ({shown}): add what is missing, or remove them")


def _hint(scan: Scan) -> str:
    """Name the folders that are there, for a message."""
    inside: Sequence[str] = scan.list()[0]
    return f" (there are: {few(inside)})" if inside else ""
