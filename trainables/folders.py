"""A folder of images on disk: which lie in which split and class. Nothing is opened.

Layouts: class folders alone, or inside split folders (`train` with `val`, `test` or both).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from trainables.images import EXTENSIONS
from trainables.table import DataError as DataError

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= {"val": "val", "valid": "val", "validation": "val"}
_SUFFIXES = tuple(f".{extension}" for extension in EXTENSIONS)


def list_images(folder: Path) -> dict[str, dict[str, list[str]]]:
    """part → class → names relative to `folder`; classes and names sorted, each part has all.

    Parts are those that the folder has, `train` first. Raises DataError, and OSError as it comes.
    """
    found = {part: _scan(folder, prefix) for part, prefix in _split_folders(folder).items()}
    for part in found:
        differing = sorted(found[part].keys() ^ found["train"].keys())
        if differing:
            where = [f"{c!r} only in {part if c in found[part] else 'train'}" for c in differing]
            raise DataError(
                f"splits of {folder} have different classes: {few(where)}: make them the same"
            )
    return found


def _split_folders(folder: Path) -> dict[str, str]:
    """part → the prefix of its class folders; without split folders: {"train": ""}.

    One folder with a split's name and images in it may be a class ("train" among vehicles).
    """
    inside = _subfolders(folder)
    named = [name for name in inside if name.lower() in SPLIT_NAMES]
    if len(named) < 2 and not any(_list(folder / name)[0] for name in named):
        return {"train": ""}
    parts = {SPLIT_NAMES[name.lower()]: f"{name}/" for name in named}
    if len(parts) < len(named):
        raise DataError(f"{folder} has two folders for one split ({few(named)}): keep one")
    if "train" not in parts or (len(parts) == 1 and len(inside) > 1):
        missing = "train" if "train" not in parts else "val or test"
        raise DataError(f"{folder} has {few(inside)} but no {missing} folder: rename or add it")
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}


def _scan(folder: Path, prefix: str) -> dict[str, list[str]]:
    """class → its images' names relative to `folder`, sorted."""
    found = {}
    for name in _subfolders(folder / prefix):
        deeper, images = _list(folder / prefix / name)
        what = f"folders ({few(deeper)})" if deeper else "no images"
        if deeper or not images:
            raise DataError(
                f"class folder {folder / prefix / name} holds {what}: images must lie directly "
                f"in it ({', '.join(EXTENSIONS)}), and `path:` must name the folder of the classes"
            )
        found[name] = [f"{prefix}{name}/{image}" for image in images]
    return found


def _subfolders(folder: Path) -> list[str]:
    folders, images = _list(folder)
    if not folders:
        what = "images but no class folders" if images else "no images"
        raise DataError(f"{folder} holds {what}: give one folder for each class")
    return folders


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """(folders, images) directly in `folder`, sorted by name, hidden ones left out."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    folders = {entry.name for entry in visible if entry.is_dir()}
    images = {entry.name for entry in visible if entry.name.lower().endswith(_SUFFIXES)}
    return sorted(folders), sorted(images - folders)


def few(words: Sequence[str], most: int = 5) -> str:
    """The first of `words`, and how many more there are."""
    shown = ", ".join(words[:most])
    return shown + (f" and {len(words) - most} more" if len(words) > most else "")
