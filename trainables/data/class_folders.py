"""Lists a folder of images: which lie in which split and class. No image is opened.

Layouts: class folders alone, or inside split folders (`train` with `val`, `test` or both); class
folders inside the domains of Office-Home; images at any depth, without labels.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from trainables.data.contract import Listing, Settings, Source, find_place, from_listing
from trainables.dataset import DataError, few, near
from trainables.pixels.images import EXTENSIONS

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= {"val": "val", "valid": "val", "validation": "val"}
DOMAINS = ("Art", "Clipart", "Product", "Real World")
LEARN_WITHOUT = "set `labels: false` to learn without labels"
_SUFFIXES = tuple(f".{extension}" for extension in EXTENSIONS)


def read_image_folder(settings: Settings, root: Path | None) -> Source:
    """Read class folders, or without `labels` all images at any depth."""
    folder = find_place(settings, root)
    list_all = list_images if settings.labels else list_unlabelled
    return from_listing(folder, list_all(folder))


def list_images(folder: Path) -> Listing:
    """List class folders, alone or inside split folders. Classes and names are sorted.

    Parts are those that the folder has, `train` first; each has all classes. Raises DataError for
    another layout, and OSError as it comes.
    """
    listing = {part: _scan(folder, prefix) for part, prefix in _split_folders(folder).items()}
    check_same_classes(folder, listing)
    return listing


def list_unlabelled(folder: Path) -> Listing:
    """List every image below `folder`, at any depth, or below each of its split folders; sorted.

    Raises DataError, and OSError as it comes.
    """
    listing = {}
    for part, prefix in _unlabelled_splits(folder).items():
        listing[part] = {"": _below(folder, prefix)}
        if not listing[part][""]:
            raise DataError(
                f"{folder / prefix} holds no images ({', '.join(EXTENSIONS)}): add some"
            )
    return listing


def list_domains(folder: Path, wanted: Sequence[str] | None) -> Listing:
    """List Office-Home's layout, domain/class/image: a class has the images of all wanted domains.

    wanted: names of domains, None for those that are there. Returns one part, `train`. Raises
    DataError, and OSError as it comes.
    """
    chosen = _choose_domains(folder, wanted)
    by_domain = {name: _scan(folder, f"{name}/") for name in chosen}
    classes = sorted(set().union(*by_domain.values()))
    lacking = [
        f"{name} lacks {few([repr(c) for c in classes if c not in by_domain[name]])}"
        for name in chosen
        if len(by_domain[name]) < len(classes)
    ]
    if lacking:
        raise DataError(
            f"domains of {folder} have different classes: {'; '.join(lacking)}: "
            "make them the same, or choose others with `domains:`"
        )
    every = {c: sorted(image for name in chosen for image in by_domain[name][c]) for c in classes}
    return {"train": every}


def check_same_classes(place: Path, listing: Listing) -> None:
    """Raise DataError unless all parts have the classes of `train`."""
    for part in listing:
        differing = sorted(listing[part].keys() ^ listing["train"].keys())
        if differing:
            where = [f"{c!r} only in {part if c in listing[part] else 'train'}" for c in differing]
            raise DataError(
                f"splits of {place} have different classes: {few(where)}: make them the same"
            )


def _split_folders(folder: Path) -> dict[str, str]:
    """Return part → prefix of its class folders; without split folders {"train": ""}.

    One folder with a split's name and images in it may be a class ("train" among vehicles).
    """
    inside = _subfolders(folder)
    named = _named_as_splits(inside)
    if len(named) < 2 and not any(_list(folder / name)[0] for name in named):
        return {"train": ""}
    return _by_part(folder, named, inside)


def _unlabelled_splits(folder: Path) -> dict[str, str]:
    """Return part → prefix without labels: then nothing else may lie beside split folders."""
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
    """Return part → prefix of its folder, `train` first. named: the splits in `inside`."""
    parts = {SPLIT_NAMES[name.lower()]: f"{name}/" for name in named}
    if len(parts) < len(named):
        raise DataError(f"{folder} has two folders for one split ({few(named)}): keep one")
    if "train" not in parts or (len(parts) == 1 and len(inside) > 1):
        missing = "train" if "train" not in parts else "val or test"
        raise DataError(f"{folder} has {few(inside)} but no {missing} folder: rename or add it")
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}


def _choose_domains(folder: Path, wanted: Sequence[str] | None) -> list[str]:
    """Return the folders of the wanted domains, in any spelling ("Real World", "Real_World")."""
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
    """Return class → names of its images relative to `folder`, sorted."""
    by_class = {}
    for name in _subfolders(folder / prefix):
        deeper, images = _list(folder / prefix / name)
        what = f"folders ({few(deeper)})" if deeper else "no images"
        if deeper or not images:
            raise DataError(
                f"class folder {folder / prefix / name} holds {what}: images must lie directly "
                f"in it ({', '.join(EXTENSIONS)}), and `path:` must name the folder of the classes"
            )
        by_class[name] = [f"{prefix}{name}/{image}" for image in images]
    return by_class


def _below(folder: Path, prefix: str) -> list[str]:
    """Return the names of all images below folder/prefix, sorted; a linked folder counts once."""
    names: list[str] = []
    todo, visited = [prefix], set[str]()
    while todo:
        inner = todo.pop()
        place = os.path.realpath(folder / inner)
        if place not in visited:
            visited.add(place)
            folders, images = _list(folder / inner)
            names += [f"{inner}{image}" for image in images]
            todo += [f"{inner}{name}/" for name in reversed(folders)]
    return sorted(names)


def _subfolders(folder: Path) -> list[str]:
    folders, images = _list(folder)
    if not folders:
        what = "images but no class folders" if images else "no images"
        cure = f", or {LEARN_WITHOUT}" if images else ""
        raise DataError(f"{folder} holds {what}: give one folder for each class{cure}")
    return folders


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Return (folders, images) directly in `folder`, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    folders = {entry.name for entry in visible if entry.is_dir()}
    images = {entry.name for entry in visible if entry.name.lower().endswith(_SUFFIXES)}
    return sorted(folders), sorted(images - folders)
