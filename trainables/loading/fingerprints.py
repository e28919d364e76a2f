"""Hashes what decides the pixels and labels of a data set, without decoding files."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.contents.file_hashes import Progress, file_hashes, masks_manifest, unseen
from trainables.data.contract import Masks, Source
from trainables.data.datasets import DatasetConfig
from trainables.loading.image_table import FORMAT

_TIFF_FORMAT = "tiff 2"  # of what decides a pixel of a TIFF: raise it when that changes
_MASK_FORMAT = 2  # of what decides a pixel of a mask: raise it when that changes


def fingerprint(
    source: Source,
    config: DatasetConfig,
    manifest: Path,
    contents: Sequence[str] | None = None,
    progress: Progress = unseen,
) -> str:
    """Hash names, content, labels, splits, and what decides the pixels. Returns 16 hex digits.

    manifest, progress: see `content_hashes`; contents: what that returned, if it was called before.
    The folder of the images is not part of the hash. Raises DataError for a file that cannot be
    read.
    """
    header: list[Any] = [FORMAT, config.side, config.on_corrupt, source.classes]
    if source.masks is not None and source.masks.files:
        header.append(_MASK_FORMAT)
    if source.masks is not None and config.on_corrupt == "skip":
        header.append("windows")  # once, pairs larger than the squares were skipped
    header.extend(_reading_of(source))
    digest = hashlib.sha256(json.dumps(header).encode())
    split = {int(i): part for part, indices in source.parts.items() for i in indices}
    contents = content_hashes(source, manifest, progress) if contents is None else contents
    if source.masks is not None:
        digest.update(json.dumps(source.masks.meaning).encode())
        hashes = _mask_hashes(source.masks, len(contents), masks_manifest(manifest), progress)
        contents = [f"{image} {mask}" for image, mask in zip(contents, hashes, strict=True)]
    for index, (name, content) in enumerate(zip(source.names, contents, strict=True)):
        line = f"{name}\0{content}\0{source.labels[index]}\0{split.get(index)}\n"
        digest.update(os.fsencode(line))
    return digest.hexdigest()[:16]


def content_hashes(source: Source, manifest: Path, progress: Progress = unseen) -> list[str]:
    """Return the hash of each image: of its file, or of its pixels where it has none.

    manifest: a file that remembers (path, size, mtime) → sha256, so that unchanged files are not
    read again; use one per data set. progress: is called now and then while files are read. Raises
    DataError for a file that cannot be read.
    """
    return file_hashes(source.files, manifest, progress) if source.files else _pixel_hashes(source)


def _reading_of(source: Source) -> list[str]:
    """Return what decides the pixels of files beside their content, where it is not as ever."""
    reading, page = source.reading, source.reading.page or 1
    tiffs = any(file.suffix.lower() in (".tif", ".tiff") for file in source.files)
    chosen = [] if reading.is_plain else [repr(reading)]
    return [_TIFF_FORMAT] * tiffs + chosen + ([f"page {page}"] if page > 1 else [])


def _pixel_hashes(source: Source) -> list[str]:
    images = (source.decode(index) for index in range(len(source.names)))
    return [hashlib.sha256(f"{i.size}".encode() + i.tobytes()).hexdigest() for i in images]


def _mask_hashes(masks: Masks, count: int, manifest: Path, progress: Progress) -> list[str]:
    """Hash each mask: its file, or its class ids where it is in memory."""
    if masks.files:
        return file_hashes(masks.files, manifest, progress)
    return [hashlib.sha256(masks.decode(index).tobytes()).hexdigest() for index in range(count)]
