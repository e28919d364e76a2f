"""Decodes images once into one memory-mapped file, in a folder that is complete or absent.

`fingerprint` hashes the content, `build` decodes it into folder/<fingerprint>, `open_table` maps
that; `load_table` does all three. The folder is written under another name, synced and renamed, so
that a killed builder leaves no incomplete one. A file lock, which the kernel releases, makes a
second builder wait for the first and use its result.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trainables.contents.copies import settle_copies
from trainables.contents.file_hashes import as_remembered, remember
from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError, Indices, few
from trainables.loading.band_statistics import standardize_file
from trainables.loading.decoding import Progress, synced, write_images
from trainables.loading.fingerprints import content_hashes, fingerprint
from trainables.loading.image_table import (
    FORMAT,
    ImageTable,
    changed,
    checksum,
    fault,
    open_table,
)
from trainables.loading.mask_counts import (
    Layout,
    check_masks,
    count_masks,
    remembered_numbers,
    window_layout,
)
from trainables.pixels.images import unreadable_images

log = logging.getLogger(__name__)
_VERIFIED = "verified.json"  # of a cache: its files as they were when they were last read whole


def load_table(config: DatasetConfig, cache_folder: Path, root: Path | None = None) -> ImageTable:
    """Read a data set, decode it unless the cache has it, and open it: for notebooks.

    cache_folder: where decoded images are kept, made if absent; root: the folder in which data sets
    lie, needed where `config` has no `path` and its type is not built in. Raises DataError.
    """
    manifest = cache_folder / "file_hashes.json"
    source = read(config, root, look=remembered_numbers(manifest))
    contents = content_hashes(source, manifest)
    source = settle_copies(source, contents, config.on_duplicates).source
    key = fingerprint(source, config, manifest, contents)
    if source.masks is not None:
        errors = check_masks(count_masks(source, manifest), config.on_corrupt, config.side)
        if errors:
            raise DataError("; ".join(errors))
    return open_table(build(source, config, key, cache_folder))


def build(
    source: Source,
    config: DatasetConfig,
    fingerprint: str,
    folder: Path,
    progress: Progress | None = None,
    same_images: Path | None = None,
) -> Path:
    """Decode all images into folder/<fingerprint>, unless it is there and undamaged. Returns it.

    progress: called with images done and all images. same_images: a folder that was built from the
    same data set with other parts; what is decoded there is used, not decoded and stored again,
    where it has the same images. Raises DataError (unreadable images, too little space) or OSError,
    and then leaves nothing behind.
    """
    final, temporary = folder / fingerprint, folder / f"{fingerprint}.tmp"
    if _is_complete(final):
        return final
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{fingerprint}.lock"):
        if _is_complete(final):
            return final
        for leftover in (temporary, final):  # of a killed builder; damaged later
            shutil.rmtree(leftover, ignore_errors=True)
        layout = window_layout(source, config.side)
        rows = sum(map(len, layout))
        if same_images is not None and not _has_images(same_images, source, layout):
            same_images = None
        if same_images is None:
            _check_space(folder, rows * _bytes_of_a_pixel(source) * config.side**2)
        temporary.mkdir()
        try:
            meta = _write_arrays(source, config, (temporary, layout), progress, same_images)
            with synced(temporary / "meta.json") as stream:
                stream.write(json.dumps(meta | {"fingerprint": fingerprint}, indent=1).encode())
            _sync(temporary)
            os.rename(temporary, final)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(folder)  # a failed write names no file
            raise
        _sync(folder)
    return final


def _bytes_of_a_pixel(source: Source) -> int:
    masks = 0 if source.masks is None else 1
    return masks + (3 if source.bands is None else 4 * source.reading.channels)


def _is_complete(folder: Path) -> bool:
    """Return whether a cache is there as it was written; warn about one that has changed. It is
    read whole only where it is not on the disk as it was when it was last read whole."""
    reason = fault(folder)
    files = sorted(path for path in folder.glob("*") if path.suffix in (".npy", ".json"))
    files = [path for path in files if path.name != _VERIFIED]
    if reason is None and not as_remembered(files, folder / _VERIFIED):
        if name := changed(folder):
            reason = f"damaged ({name} is not as it was written)"
        else:
            remember(files, folder / _VERIFIED)
    if reason is not None and folder.is_dir():
        log.warning("%s: %s: the images are decoded again", folder, reason)
    return reason is None


def _write_arrays(
    source: Source,
    config: DatasetConfig,
    into: tuple[Path, Layout],
    progress: Progress | None,
    same_images: Path | None,
) -> dict[str, Any]:
    """Write and sync images, labels and parts. into: the folder, and the windows of each image.
    Returns their description for meta.json."""
    (folder, layout), size = into, config.side
    if same_images is None:
        errors = write_images(source, size, into, progress)
    else:
        errors = _link_images(source, same_images, folder)
    unreadable = {source.names[index]: reason for index, reason in errors.items()}
    if errors and config.on_corrupt == "fail":
        raise unreadable_images(unreadable)
    bad = np.array(sorted(errors), dtype=np.int64)
    parts = {part: np.setdiff1d(indices, bad) for part, indices in source.parts.items()}
    _check_not_emptied(source, parts)
    image_of_row = np.repeat(np.arange(len(layout)), [len(places) for places in layout])
    tiled = len(image_of_row) > len(layout)
    if tiled:
        parts = {k: np.flatnonzero(np.isin(image_of_row, rows)) for k, rows in parts.items()}
    statistics = {}
    if source.bands is not None:
        statistics = standardize_file(folder / "images.npy", parts["train"])
    arrays = {"labels": source.labels[image_of_row]}
    arrays |= {f"part_{part}": parts[part] for part in parts}
    if tiled:
        places = np.array([place for places in layout for place in places], dtype=np.int64)
        arrays["windows"] = np.column_stack([image_of_row, places])
    for name, array in arrays.items():
        with synced(folder / f"{name}.npy") as stream:
            np.save(stream, array)
    return {
        "format": FORMAT,
        "classes": source.classes,
        "size": config.side,
        "masks": source.masks is not None,
        "windows": tiled,
        "names": [source.names[index] for index in image_of_row],
        "colours": source.masks.colours if source.masks is not None else [],
        "count": len(image_of_row),
        "parts": {part: len(indices) for part, indices in parts.items()},
        "skipped": unreadable,
        "reading": asdict(source.reading),
        **statistics,
        "crc32": {file.name: checksum(file) for file in sorted(folder.iterdir())},
        "bytes": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
    }


def _has_images(built: Path, source: Source, layout: Layout) -> bool:
    """Return whether a folder holds what would be decoded. Channels other than RGB it never does:
    they are normalized by the images of the training part."""
    if source.bands is not None or fault(built) is not None:
        return False
    names = [name for name, places in zip(source.names, layout, strict=True) for _ in places]
    return bool(json.loads((built / "meta.json").read_bytes())["names"] == names)


def _link_images(source: Source, built: Path, folder: Path) -> dict[int, str]:
    """Give a folder the images and masks of another one, as hard links. Returns what
    `write_images` does."""
    for name in ("images", "masks") if source.masks is not None else ("images",):
        os.link(built / f"{name}.npy", folder / f"{name}.npy")
    skipped = json.loads((built / "meta.json").read_bytes())["skipped"]
    numbers = {name: index for index, name in enumerate(source.names)} if skipped else {}
    return {numbers[name]: reason for name, reason in skipped.items()}


def _check_not_emptied(source: Source, parts: dict[str, Indices]) -> None:
    """Raise DataError if a class has no training image left, or a part no image."""
    seen = set(np.unique(source.labels[parts["train"]]).tolist())
    classes = source.classes if source.labelled else ()
    without = [name for label, name in enumerate(classes) if label not in seen]
    needed = ("val", "test") if source.labelled else ("train", "val", "test")
    emptied = [f"class {name!r} of train" for name in without]
    emptied += [part for part in needed if not len(parts[part])]
    if emptied:
        raise DataError(f"all images of {few(emptied)} are unreadable: repair them")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder} has {free / 1e9:.1f} GB free, the images need {needed / 1e9:.1f} GB: "
            "free some space, or choose a smaller `size` or a `limit`"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive file lock over processes and threads; the kernel releases it on death."""
    with open(path, "ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _sync(folder: Path) -> None:
    """Sync the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
