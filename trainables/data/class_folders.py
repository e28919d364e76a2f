"""A folder of images on disk: which lie in which split and class. Nothing is opened.

Layouts: class folders alone, or inside split folders (`train` with `val`, `test` or both); class
folders inside the domains of Office-Home; images at any depth, where labels do not count.
"""

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainables.data.images import EXTENSIONS
from trainables.dataset import DataError

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= {"val": "val", "valid": "val", "validation": "val"}
DOMAINS = ("Art", "Clipart", "Product", "Real World")
LEARN_WITHOUT = "set `labels: false` to learn without labels"
_SUFFIXES = tuple(f".{extension}" for extension in EXTENSIONS)

# part → class → names of images relative to a folder; without labels: one class, ""
Listing = dict[str, dict[str, list[str]]]


def list_images(folder: Path) -> Listing:
    """Class folders, alone or inside split folders; classes and names sorted, each part has all.

    Parts are those that the folder has, `train` first. Raises DataError, and OSError as it comes.
    """
    found = {part: _scan(folder, prefix) for part, prefix in _split_folders(folder).items()}
    check_same_classes(folder, found)
    return found


def list_unlabelled(folder: Path) -> Listing:
    """Every image below `folder`, at any depth, or below each of its split folders; sorted.

    Raises DataError, and OSError as it comes.
    """
    found = {}
    for part, prefix in _unlabelled_splits(folder).items():
        found[part] = {"": _below(folder, prefix)}
        if not found[part][""]:
            raise DataError(
                f"{folder / prefix} holds no images ({', '.join(EXTENSIONS)}): add some"
            )
    return found


def list_domains(folder: Path, wanted: Sequence[str] | None) -> Listing:
    """Office-Home's layout, domain/class/image: a class has the images of all `wanted` domains.

    wanted: None for those that are there. One part, `train`. Raises DataError, and OSError as it
    comes.
    """
    chosen = _choose_domains(folder, wanted)
    found = {name: _scan(folder, f"{name}/") for name in chosen}
    classes = sorted(set().union(*found.values()))
    lacking = [
        f"{name} lacks {few([repr(c) for c in classes if c not in found[name]])}"
        for name in chosen
        if len(found[name]) < len(classes)
    ]
    if lacking:
        raise DataError(
            f"domains of {folder} have different classes: {'; '.join(lacking)}: "
            "make them the same, or choose others with `domains:`"
        )
    every = {c: sorted(image for name in chosen for image in found[name][c]) for c in classes}
    return {"train": every}


def check_same_classes(place: Path, found: Listing) -> None:
    """Raises DataError unless all parts have the classes of `train`."""
    for part in found:
        differing = sorted(found[part].keys() ^ found["train"].keys())
        if differing:
            where = [f"{c!r} only in {part if c in found[part] else 'train'}" for c in differing]
            raise DataError(
                f"splits of {place} have different classes: {few(where)}: make them the same"
            )


def _split_folders(folder: Path) -> dict[str, str]:
    """part → the prefix of its class folders; without split folders: {"train": ""}.

    One folder with a split's name and images in it may be a class ("train" among vehicles).
    """
    inside = _subfolders(folder)
    named = _named_as_splits(inside)
    if len(named) < 2 and not any(_list(folder / name)[0] for name in named):
        return {"train": ""}
    return _by_part(folder, named, inside)


def _unlabelled_splits(folder: Path) -> dict[str, str]:
    """The same where labels do not count: then nothing else may lie beside split folders."""
    inside, images = _list(folder)
    named = _named_as_splits(inside)
    if all(SPLIT_NAMES[name.lower()] == "train" for name in named):
        return {"train": ""}
    others = [name for name in (*inside, *images) if name not in named]
    if others:
        raise DataError(
            f"{folder} has {few(others)} beside its split folders ({few(named)}): "
            "move them into one of these, or away"
        )
    return _by_part(folder, named, inside)


def _named_as_splits(inside: Sequence[str]) -> list[str]:
    return [name for name in inside if name.lower() in SPLIT_NAMES]


def _by_part(folder: Path, named: Sequence[str], inside: Sequence[str]) -> dict[str, str]:
    """part → the prefix of its folder, `train` first. named: those of `inside` that are splits."""
    parts = {SPLIT_NAMES[name.lower()]: f"{name}/" for name in named}
    if len(parts) < len(named):
        raise DataError(f"{folder} has two folders for one split ({few(named)}): keep one")
    if "train" not in parts or (len(parts) == 1 and len(inside) > 1):
        missing = "train" if "train" not in parts else "val or test"
        raise DataError(f"{folder} has {few(inside)} but no {missing} folder: rename or add it")
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}


def _choose_domains(folder: Path, wanted: Sequence[str] | None) -> list[str]:
    """The folders of the wanted domains, in any spelling ("Real World", "Real_World")."""
    known = {_plain(name) for name in DOMAINS}
    inside = [name for name in _list(folder)[0] if _plain(name) in known]
    there = {_plain(name): name for name in inside}
    if not inside:
        raise DataError(
            f"{folder} holds none of Office-Home's domains ({', '.join(DOMAINS)}) and no "
            "train.csv: correct the folder, or use `type: image_folder`"
        )
    if len(there) < len(inside):
        raise DataError(f"{folder} has two folders for one domain ({few(inside)}): keep one")
    for name in wanted or ():
        if _plain(name) not in there:
            raise DataError(f"{folder} has no domain {name!r} ({near(name, inside)})")
    return [there[key] for key in sorted({_plain(name) for name in wanted or inside})]


def _plain(domain: str) -> str:
    return "".join(letter for letter in domain.lower() if letter not in " _-")


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


def _below(folder: Path, prefix: str) -> list[str]:
    """Names of all images below folder/prefix, sorted; a folder linked twice counts once."""
    found: list[str] = []
    todo, seen = [prefix], set[str]()
    while todo:
        inner = todo.pop()
        place = os.path.realpath(folder / inner)
        if place not in seen:
            seen.add(place)
            folders, images = _list(folder / inner)
            found += [f"{inner}{image}" for image in images]
            todo += [f"{inner}{name}/" for name in reversed(folders)]
    return sorted(found)


def _subfolders(folder: Path) -> list[str]:
    folders, images = _list(folder)
    if not folders:
        what = "images but no class folders" if images else "no images"
        cure = f", or {LEARN_WITHOUT}" if images else ""
        raise DataError(f"{folder} holds {what}: give one folder for each class{cure}")
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


def near(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, if one is near, and all of them."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}there are: {', '.join(choices)}"
