"""CIFAR-10: the official files, verified by their checksums, or class folders with its names."""

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainables.data.contract import Settings, Source, from_listing, possible_places
from trainables.dataset import DataError
from trainables.files import read_whole
from trainables.layouts.class_folders import list_images
from trainables.layouts.folders import Scan
from trainables.layouts.split_names import SPLIT_NAMES

CIFAR10_FOLDER = "cifar-10-batches-py"  # of the official files
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
# md5 of the official files, as torchvision has them
CHECKSUMS = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}


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
    try:
        read = _read_official_files(folder, download)
    except (RuntimeError, OSError) as error:
        fault = "is incomplete or fails its checksum: set `download: true`"
        if download:
            fault = f"cannot be downloaded ({error}): put the official files there"
        raise DataError(f"CIFAR-10 in {folder} {fault}") from error
    classes = tuple(read.pop("batches.meta")["label_names"])
    # (N, 3072) uint8: red, green, blue of 32 rows → (N, 32, 32, 3)
    rows = np.concatenate([batch["data"] for batch in read.values()])
    images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    labels = [label for batch in read.values() for label in batch["labels"]]
    count, cut = len(images), len(images) - len(read["test_batch"]["labels"])
    return Source(
        classes=classes,
        names=[f"{'train' if i < cut else 'test'}/{i:05d}" for i in range(count)],
        labels=np.array(labels, dtype=np.int64),
        parts={"train": np.arange(cut), "test": np.arange(cut, count)},
        files=[],
        decode=lambda index: Image.fromarray(images[index]),
    )


def _read_official_files(folder: Path, download: bool) -> dict[str, Any]:
    """Return name → content of the official files. Raises RuntimeError, OSError."""
    paths = [folder / CIFAR10_FOLDER / name for name in CHECKSUMS]
    try:
        return {path.name: _read_official_file(path) for path in paths}
    except (RuntimeError, OSError):
        if not download:
            raise
    from torchvision.datasets import CIFAR10  # seconds to load

    CIFAR10(folder, download=True)
    return {path.name: _read_official_file(path) for path in paths}


def _read_official_file(path: Path) -> Any:
    """Return what a pickle of the authors holds. Raises RuntimeError where it is another file: its
    code is not run."""
    content = read_whole(path)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != CHECKSUMS[path.name]:
        raise RuntimeError(f"{path} fails its checksum")
    with warnings.catch_warnings():  # NumPy's, about the age of the official pickles
        warnings.simplefilter("ignore")
        return pickle.loads(content, encoding="latin1")
