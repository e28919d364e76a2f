"""Finds pairs in Pascal VOC's form, which many programs for labelling write too."""

from pathlib import Path

from trainables.dataset import DataError, few
from trainables.files import read_whole
from trainables.layouts.folders import Scan, has_image_ending
from trainables.layouts.mask_pairs import Pairs
from trainables.layouts.split_names import PARTS

IMAGES, LISTS = "JPEGImages", "ImageSets/Segmentation"
MASKS = ("SegmentationClass", "SegmentationClassPNG")


def find_voc(folder: Path) -> Path:
    """Return the folder that holds JPEGImages, below `folder` or itself. Raises DataError."""
    places = [folder, *folder.glob("VOC*"), *folder.glob("VOCdevkit/VOC*")]
    found = sorted(place for place in places if (place / IMAGES).is_dir())
    if len(found) == 1:
        return found[0]
    if found:
        names = few(list(map(str, found)))
        raise DataError(f"{folder} has several sets ({names}): name one in `path:`")
    raise DataError(f"{folder} has no folder {IMAGES} beside {MASKS[0]}: correct the folder")


def list_voc(scan: Scan) -> dict[str, Pairs]:
    """Return part → pairs, by the lists train.txt, val.txt and test.txt; without them all pairs.

    A list whose images have no masks, such as the public test list, is passed over. Raises
    DataError for a listed image or mask that is missing, and OSError as it comes.
    """
    folder = next((name for name in MASKS if (scan.root / name).is_dir()), None)
    if folder is None:
        raise DataError(f"{scan.root} has {IMAGES} but no folder {MASKS[0]}: add it")
    images, masks = (_by_stem(scan, f"{name}/") for name in (IMAGES, folder))
    lists = {part: names for part in PARTS if (names := _listed(scan.root, part)) is not None}
    if not lists:
        lists = {"train": sorted(masks)}
    if "train" not in lists:
        raise DataError(f"{scan.root / LISTS} has {few(list(lists))} but no train.txt: add it")
    parts: dict[str, Pairs] = {}
    for part, names in lists.items():
        if part != "train" and not any(name in masks for name in names):
            for name in names:
                scan.pass_over(images.get(name, name), f"{part} has no masks")
            continue
        _check_there(scan.root, part, names, images, masks)
        parts[part] = [(images[name], masks[name]) for name in sorted(set(names))]
    used = {name for names in lists.values() for name in names}
    for name in sorted(images.keys() - used):
        scan.pass_over(images[name], "in no list, or without a mask")
    return parts


def _check_there(
    root: Path, part: str, names: list[str], images: dict[str, str], masks: dict[str, str]
) -> None:
    missing = [name for name in names if name not in images or name not in masks]
    if missing:
        raise DataError(
            f"{root} lacks the image or mask of {len(missing)} names in {part}.txt "
            f"({few(missing)}): add them, or remove the names"
        )


def _by_stem(scan: Scan, inner: str) -> dict[str, str]:
    """Return name without ending → file."""
    return {Path(name).stem: f"{inner}{name}" for name in scan.list(inner)[1]}


def _listed(root: Path, part: str) -> list[str] | None:
    """Return the names in a list, None where there is none; a name may have an ending."""
    file = root / LISTS / f"{part}.txt"
    if not file.exists():
        return None
    try:
        lines = read_whole(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: save it as UTF-8") from error
    words = [line.split()[0] for line in lines if line.strip()]
    if not words:
        raise DataError(f"{file} is empty: give it a name a line, or remove it")
    return [Path(word).stem if has_image_ending(word) else Path(word).name for word in words]
