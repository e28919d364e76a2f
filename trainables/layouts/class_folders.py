"""Lists a folder of images: which lie in which split and class. No image is decoded.

Layouts: class folders alone, or inside split folders (`train` with `val`, `test` or both); class
folders inside the domains of Office-Home; images at any depth, without labels.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from trainables.dataset import DataError, few, near
from trainables.layouts.folders import Listing, Scan
from trainables.layouts.split_names import (
    PARTS,
    SPLIT_NAMES,
    by_part,
    named_as_splits,
    split_folders,
)

DOMAINS = ("Art", "Clipart", "Product", "Real World")
Domains = Sequence[str] | Mapping[Literal["train", "val", "test"], Sequence[str]]
LEARN_WITHOUT = "set `labels: false` to learn without labels"
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def list_images(scan: Scan) -> Listing:
    """List class folders, alone or inside split folders. Classes and names are sorted.

    Parts are those that the folder has, `train` first; each has all classes. Raises DataError for
    another layout, and OSError as it comes.
    """
    prefixes = split_folders(scan)
    if list(prefixes.values()) == [""] and _holds_domains(scan):
        scan.notes.append(
            f"classes lie in domains ({few(scan.list()[0])}), which are taken together: `domains:` "
            "chooses some"
        )
        return list_domains(scan, None, known=None)
    listing = {part: _classes(scan, prefix) for part, prefix in prefixes.items()}
    check_same_classes(scan.root, listing)
    return listing


def list_unlabelled(scan: Scan) -> Listing:
    """List every image below a folder, at any depth, or below each of its split folders; sorted.

    Raises DataError, and OSError as it comes.
    """
    listing = {}
    for part, prefix in unlabelled_splits(scan).items():
        listing[part] = {"": images_below(scan, prefix)}
        if not listing[part][""]:
            raise DataError(f"{scan.root / prefix} holds {_no_images(scan, prefix)}: add some")
    return listing


def list_domains(
    scan: Scan, wanted: Domains | None, known: Sequence[str] | None = DOMAINS
) -> Listing:
    """List Office-Home's layout, domain/class/image: a class has the images of all wanted domains.

    wanted: names of domains, or of those of each part; None for those that are there, in one part,
    `train`. known: names that count as domains, None for all folders. Raises DataError, and OSError
    as it comes.
    """
    by_part = wanted if isinstance(wanted, Mapping) else {"train": wanted}
    parts = {
        part: _choose_domains(scan, names, known)
        for part, names in sorted(by_part.items(), key=lambda item: PARTS.index(item[0]))
    }
    chosen = sorted(name for names in parts.values() for name in names)
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise DataError(f"`domains` names {few(twice)} for two parts: keep one of each")
    for name in scan.list()[0]:
        if name not in chosen:
            scan.pass_over_folder(name, "no chosen domain")
    by_domain = {name: _classes(scan, _classes_of_domain(scan, name)) for name in chosen}
    classes = sorted(set().union(*by_domain.values()))
    lacking = [
        f"{name} lacks {few([repr(c) for c in classes if c not in by_domain[name]])}"
        for name in chosen
        if len(by_domain[name]) < len(classes)
    ]
    if lacking:
        raise DataError(
            f"domains of {scan.root} have different classes: {'; '.join(lacking)}: "
            "make them the same, or choose others with `domains:`"
        )
    return {
        part: {c: sorted(i for name in names for i in by_domain[name][c]) for c in classes}
        for part, names in parts.items()
    }


def check_same_classes(place: Path, listing: Listing) -> None:
    """Raise DataError unless all parts have the classes of `train`."""
    for part in listing:
        differing = sorted(listing[part].keys() ^ listing["train"].keys())
        if differing:
            where = [f"{c!r} only in {part if c in listing[part] else 'train'}" for c in differing]
            raise DataError(
                f"splits of {place} have different classes: {few(where)}: make them the same"
            )


def in_order(classes: Iterable[str]) -> list[str]:
    """Sort classes, by value if all are whole numbers."""
    texts = sorted(classes)
    numbers = all(_WHOLE_NUMBER.fullmatch(text) for text in texts)
    return sorted(texts, key=int) if numbers else texts


def unlabelled_splits(scan: Scan) -> dict[str, str]:
    """Return part → prefix without labels: then nothing else may lie beside split folders."""
    inside, images = scan.list()
    named = named_as_splits(inside)
    if set(named.values()) <= {"train"}:
        return {"train": ""}
    others = [name for name in (*inside, *images) if name not in named]
    if others:
        raise DataError(
            f"{scan.root} has {few(others)} beside its split folders ({few(list(named))}): "
            "move them into one of these, or away"
        )
    return by_part(scan, named, inside)


def images_below(scan: Scan, prefix: str) -> list[str]:
    """Return the names of all images below root/prefix, sorted; a linked folder counts once."""
    names: list[str] = []
    todo, visited = [prefix], set[str]()
    while todo:
        inner = todo.pop()
        place = os.path.realpath(scan.root / inner)
        if place not in visited:
            visited.add(place)
            folders, images = scan.list(inner)
            names += [f"{inner}{image}" for image in images]
            todo += [f"{inner}{name}/" for name in reversed(folders)]
    return sorted(names)


def _holds_domains(scan: Scan) -> bool:
    """Return whether all folders hold class folders of the same names, and nothing else."""
    classes: list[list[str]] = []
    for name in scan.list()[0]:
        inner = _classes_of_domain(scan, name)
        folders, images = scan.list(inner)
        if images or not folders or any(scan.list(f"{inner}{f}/")[0] for f in folders):
            return False
        classes.append(folders)
    return len(classes) > 1 and all(names == classes[0] for names in classes)


def _classes_of_domain(scan: Scan, name: str) -> str:
    """Return the prefix of a domain's class folders, also where they lie in one folder inside, as
    in amazon/images/."""
    folders, images = scan.list(f"{name}/")
    if len(folders) == 1 and not images and scan.list(f"{name}/{folders[0]}/")[0]:
        return f"{name}/{folders[0]}/"
    return f"{name}/"


def _choose_domains(
    scan: Scan, wanted: Sequence[str] | None, known: Sequence[str] | None
) -> list[str]:
    """Return the folders of the wanted domains, in any spelling ("Real World", "Real_World")."""
    folder, inside = scan.root, scan.list()[0]
    if known is not None:
        plain = {_plain(name) for name in known}
        inside = [name for name in inside if _plain(name) in plain]
    there = {_plain(name): name for name in inside}
    if not inside and known is None:
        raise DataError(f"{folder} holds no folders of domains: correct the folder")
    if not inside:
        raise DataError(
            f"{folder} holds none of Office-Home's domains ({', '.join(DOMAINS)}) and no "
            f"train.csv: correct the folder{_inside_hint(scan)}, or use `type: image_folder`"
        )
    if len(there) < len(inside):
        raise DataError(f"{folder} has two folders for one domain ({few(inside)}): keep one")
    for name in wanted or ():
        if _plain(name) not in there:
            raise DataError(f"{folder} has no domain {name!r} ({near(name, inside)})")
    return [there[key] for key in sorted({_plain(name) for name in wanted or inside})]


def _plain(domain: str) -> str:
    return "".join(letter for letter in domain.lower() if letter not in " _-")


def _inside_hint(scan: Scan) -> str:
    """Name the folders inside that hold a list or splits of their own, for a message."""
    likely = []
    for name in scan.list()[0]:
        inside = os.listdir(scan.root / name)
        if any(SPLIT_NAMES.get(os.path.splitext(other)[0].lower()) for other in inside):
            likely.append(str(scan.root / name))
    return f", perhaps {' or '.join(likely[:3])}" if likely else ""


def _classes(scan: Scan, prefix: str) -> dict[str, list[str]]:
    """Return class → names of its images relative to the root, sorted."""
    folders, beside = scan.list(prefix)
    if not folders:
        raise DataError(_no_classes(scan, prefix, beside))
    by_class = {}
    for name in folders:
        inner = f"{prefix}{name}/"
        deeper, images = scan.list(inner)
        what = f"folders ({few(deeper)})" if deeper else _no_images(scan, inner)
        if deeper or not images:
            hint = f", perhaps {scan.root / prefix / name}" if deeper and not images else ""
            raise DataError(
                f"class folder {scan.root / prefix / name} holds {what}: images must lie directly "
                f"in it, and `path:` must name the folder of the classes{hint}"
            )
        by_class[name] = [f"{inner}{image}" for image in images]
    for image in beside:
        scan.pass_over(image, "beside the class folders")
    return by_class


def _no_classes(scan: Scan, prefix: str, images: Sequence[str]) -> str:
    """Return the message for a folder without class folders."""
    place = scan.root / prefix
    if not images:
        return f"{place} holds {_no_images(scan, prefix)}: give one folder for each class"
    return (
        f"{place} holds images but no class folders: give one folder for each class, a CSV file "
        f"(`type: csv`), `labels: from_name` if names tell it ({images[0]}), or {LEARN_WITHOUT}"
    )


def _no_images(scan: Scan, prefix: str) -> str:
    """Say that a folder has no images, and what lies there in their place."""
    others = scan.seen_in(prefix)
    return f"no images but {others}" if others else "no images"
