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
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from trainables.contents.copies import settle_copies
from trainables.contents.file_hashes import as_remembered, remember
from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import IGNORED, DataError, Indices, few
from trainables.loading.band_statistics import standardize_file
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
from trainables.pixels.bands import Bands, square_bands
from trainables.pixels.images import (
    UnreadableImage,
    square,
    unreadable_images,
)
from trainables.pixels.windows import cut_pair

log = logging.getLogger(__name__)
_CHUNK_BYTES = 4 << 20
_VERIFIED = "verified.json"  # of a cache: its files as they were when they were last read whole
_AHEAD = 16  # chunks decoded before they are written, at most

Progress = Callable[[int, int], None]  # images done, images in all
Numbers = npt.NDArray[Any]
Decoded = tuple[list[Numbers], dict[int, str]]


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
) -> Path:
    """Decode all images into folder/<fingerprint>, unless it is there and undamaged. Returns it.

    progress: called with images done and all images. Raises DataError (unreadable images, too
    little space) or OSError, and then leaves nothing behind.
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
        _check_space(folder, rows * _bytes_of_a_pixel(source) * config.side**2)
        temporary.mkdir()
        try:
            meta = _write_arrays(source, config, (temporary, layout), progress)
            with _synced(temporary / "meta.json") as stream:
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
    source: Source, config: DatasetConfig, into: tuple[Path, Layout], progress: Progress | None
) -> dict[str, Any]:
    """Write and sync images, labels and parts. into: the folder, and the windows of each image.
    Returns their description for meta.json."""
    (folder, layout), size = into, config.side
    errors = _write_images(source, size, into, progress)
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
        with _synced(folder / f"{name}.npy") as stream:
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


def _write_images(
    source: Source, size: int, into: tuple[Path, Layout], progress: Progress | None
) -> dict[int, str]:
    """Decode in threads, write images and masks in order. Returns index → reason of those that
    cannot be read.

    Written as a stream: on a memory map a full disk is a signal that kills the process.
    """
    (folder, layout), channels = into, source.reading.channels
    rows, count = sum(map(len, layout)), len(source.names)
    step = max(1, min(256, _CHUNK_BYTES // (channels * size**2)) * count // rows)
    chunks = [range(i, min(i + step, count)) for i in range(0, count, step)]
    shapes: dict[str, tuple[int, ...]] = {"images": (rows, channels, size, size)}
    if source.masks is not None:
        shapes["masks"] = (rows, size, size)
    types = {"images": "|u1" if source.bands is None else "<f4", "masks": "|u1"}
    errors: dict[int, str] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_strict_pillow())
        pool = stack.enter_context(ThreadPoolExecutor(_threads(source)))
        streams = [
            stack.enter_context(_array(folder / f"{name}.npy", shape, types[name]))
            for name, shape in shapes.items()
        ]
        decoded = _in_order(pool, lambda chunk: _decode(source, size, chunk, layout), chunks)
        for chunk, (arrays, unreadable) in zip(chunks, decoded, strict=True):
            for stream, array in zip(streams, arrays, strict=True):
                stream.write(array.tobytes())
            errors |= unreadable
            if progress is not None:
                progress(chunk.stop, count)
    return errors


def _threads(source: Source) -> int:
    """Return the number of threads: one for tiny images, whose decoding is mostly Python code
    (CIFAR-10 takes 1.6 times as long with two)."""
    sample = source.files[:: max(1, len(source.files) // 100)]
    size = sum(file.stat().st_size for file in sample) / max(1, len(sample))
    return min(8, os.cpu_count() or 1) if size > 4096 else 1


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[range], Decoded],
    chunks: list[range],
) -> Iterator[Decoded]:
    """Work like pool.map, but only a few chunks ahead, so that memory stays bounded."""
    waiting: deque[Future[Decoded]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(work, chunk))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(source: Source, size: int, chunk: Sequence[int], places: Layout) -> Decoded:
    """Decode the images of a chunk. places: of the windows of every image.

    Returns arrays and index → reason of unreadable images. The arrays are (rows, 3, size, size)
    uint8 pixels, black where unreadable, or float32 numbers of all channels, NaN where there is no
    image; and with masks (rows, size, size) class ids. An image has a row for each window.
    """
    rows = sum(len(places[index]) for index in chunk)
    shape, plain = (rows, source.reading.channels, size, size), source.bands is None
    pixels: Numbers = np.zeros(shape, np.uint8) if plain else np.full(shape, np.nan, np.float32)
    ids = np.full((rows, size, size), IGNORED, dtype=np.uint8)
    errors, row = {}, 0
    for index in chunk:
        here = slice(row, row + len(places[index]))
        row = here.stop
        try:
            image = source.decode(index) if source.bands is None else source.bands(index)
            if source.masks is None:
                pixels[here] = _square(image, size).transpose(2, 0, 1)  # HWC → CHW
            else:
                mask = source.masks.decode(index)
                cut_pair(image, mask, places[index], (pixels[here], ids[here]))
        except UnreadableImage as error:
            errors[index] = str(error)
    return ([pixels] if source.masks is None else [pixels, ids]), errors


def _square(image: Image.Image | Bands, size: int) -> Numbers:
    if isinstance(image, Image.Image):
        return np.asarray(square(image, size))
    return square_bands(image, size)


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


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Make a truncated image an error, whatever the process has set, and silence warnings."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextlib.contextmanager
def _array(path: Path, shape: tuple[int, ...], kind: str) -> Iterator[BinaryIO]:
    """Open a new .npy file with its header written. kind: NumPy's text for the type."""
    with _synced(path) as stream:
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        yield stream


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that is on the disk when the block ends."""
    with open(path, "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Sync the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
