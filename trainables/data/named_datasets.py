"""Data sets with a name: scikit-learn's digits and scenes made of them, CIFAR-10, Mini-ImageNet and
Office-Home."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.contract import (
    Masks,
    Settings,
    Source,
    find_place,
    from_listing,
    possible_places,
)
from trainables.data.listed_datasets import read_csv, read_image_folder
from trainables.dataset import DataError, Pixels
from trainables.layouts.class_folders import list_domains, list_images
from trainables.layouts.csv_lists import is_manifest
from trainables.layouts.folders import Scan
from trainables.layouts.split_names import SPLIT_NAMES

CIFAR10_FOLDER = "cifar-10-batches-py"  # of the official files
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
SCENE_CLASSES = ("photograph", "zero", "one", "seven")
SIDE = 64
_DIGITS = (0, 1, 7)  # of the classes after the first
_COUNT, _SEED = 60, 0
_LARGER = 3  # a digit of 8x8 px becomes 24x24
_INK = 8  # grey level of 16 from which a pixel belongs to the digit


def read_digits(settings: Settings, root: Path | None) -> Source:
    """Read scikit-learn's 1,797 digits of 8x8 px: grey levels 0..16 become 0..255."""
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


def read_digit_scenes(settings: Settings, root: Path | None) -> Source:
    """Read scikit-learn's digits on its photographs, with a class for every pixel."""
    images, masks = digit_scenes()
    return Source(
        classes=SCENE_CLASSES,
        names=[f"scenes/{i:03d}" for i in range(len(images))],
        labels=np.full(len(images), -1, dtype=np.int64),
        parts={"train": np.arange(len(images))},
        files=[],
        decode=lambda index: Image.fromarray(images[index]),
        masks=Masks([], lambda index: masks[index]),
    )


def digit_scenes() -> tuple[Pixels, Pixels]:
    """Make small photographs with digits on them, and masks that are exact by construction.

    Returns (60, 64, 64, 3) uint8 RGB and (60, 64, 64) uint8 class ids: parts of two photographs,
    each with two to four digits in one color each. Where digits overlap, the later one is on top.
    """
    from sklearn.datasets import load_digits, load_sample_images  # seconds to load, seldom needed

    digits, photographs = load_digits(), load_sample_images().images
    chance = np.random.Generator(np.random.PCG64(_SEED))
    images = np.empty((_COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((_COUNT, SIDE, SIDE), dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        photograph = photographs[chance.integers(len(photographs))]
        top, left = (chance.integers(length - SIDE) for length in photograph.shape[:2])
        image[:] = photograph[top : top + SIDE, left : left + SIDE]
        for _ in range(chance.integers(2, 5)):
            number = int(chance.integers(len(_DIGITS)))
            drawn = digits.images[chance.choice(np.flatnonzero(digits.target == _DIGITS[number]))]
            ink = np.kron(drawn >= _INK, np.ones((_LARGER, _LARGER), dtype=bool))
            y, x = chance.integers(SIDE - len(ink) + 1, size=2)
            spot = (slice(y, y + len(ink)), slice(x, x + len(ink)))
            image[spot][ink] = chance.integers(256, size=3)
            mask[spot][ink] = number + 1
    return images, masks


def read_mini_imagenet(settings: Settings, root: Path | None) -> Source:
    """Read Mini-ImageNet: train.csv with its images, class folders, or images without labels."""
    if is_manifest(find_place(settings, root)):
        return read_csv(settings, root, join=True)
    return read_image_folder(settings, root)


def read_office_home(settings: Settings, root: Path | None) -> Source:
    """Read Office-Home: the official folders, domain/class/image, or train.csv with its images."""
    folder = find_place(settings, root)
    if not is_manifest(folder):
        scan = Scan(folder)
        return from_listing(folder, list_domains(scan, settings.domains), scan)
    if settings.domains is not None:
        raise DataError(f"{folder} holds train.csv, which knows no domains: remove `domains:`")
    return read_csv(settings, root)


def read_cifar10(settings: Settings, root: Path | None) -> Source:
    """Read CIFAR-10: the official files, verified by torchvision's checksums, or class folders."""
    places = possible_places(settings, root)
    places += [place.parent for place in places if place.name == CIFAR10_FOLDER]
    for place in places:
        if (place / CIFAR10_FOLDER).is_dir():
            return _read_official_cifar10(place, settings.download)
        if any((place / split / CIFAR10_CLASSES[0]).is_dir() for split in ("", *SPLIT_NAMES)):
            scan = Scan(place)
            source = from_listing(place, list_images(scan), scan)
            if source.classes != CIFAR10_CLASSES:
                raise DataError(f"{place} has not CIFAR-10's classes: use `type: image_folder`")
            return source
    if settings.download:
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
