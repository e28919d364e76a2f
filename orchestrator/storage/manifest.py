"""Manifests show whether a folder is whole: they name size and sha256 of every file, and bear a
sha256 of their own. So do the records of the images that a producer has finished so far:

<run>/produced/{0013.json, 0013.png, 0013.done}   until the Run is finished
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from orchestrator.storage.files import read_json, write_json
from orchestrator.storage.record_shapes import ImageRecord

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
PRODUCED, NOTE = "produced", ".done"  # a producer's folder, and how the name of a record ends


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder. Its `files` map names to what `describe` returns."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    write_json(folder / MANIFEST, body | {"sha256": _digest(body)})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read a manifest; None when it is missing, damaged or was changed."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or manifest.pop("sha256", None) != _digest(manifest):
        return None
    return manifest


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def has_its_files(folder: Path) -> bool:
    """Return whether every file is there, with its size and the time at which it was written.
    Quick: a sha256 is computed only where the time is another one, as in a copy of a home."""
    manifest = read_manifest(folder)
    return manifest is not None and all(
        _seems_unchanged(folder / name, expected, manifest.get("written", {}).get(name))
        for name, expected in manifest["files"].items()
    )


def _seems_unchanged(path: Path, expected: Mapping[str, Any], written: int | None) -> bool:
    """written: ns since 1970; None in a manifest of an earlier version, which has no times."""
    if not path.is_file() or path.stat().st_size != expected["bytes"]:
        return False
    return written in (None, path.stat().st_mtime_ns) or describe(path) == expected


def times_of(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Return when each file of a folder was written, in ns since 1970: `written` of a manifest."""
    return {name: (folder / name).stat().st_mtime_ns for name in names}


class HashedFile:
    """A file that is hashed while it is written, so that it need not be read again. It can be
    written from its beginning to its end alone."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._bytes = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Write bytes. Returns how many."""
        self._digest.update(data)
        self._bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()

    def describe(self) -> dict[str, Any]:
        """Return what `describe` will return of the file."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def describe(path: Path) -> dict[str, Any]:
    """Return the size in bytes and the sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def verified_file(path: Path) -> Path | None:
    """Return a file that the manifest of its folder names, if it is as it was written; None where
    there is none. A warning names a damaged one."""
    if not path.is_file():
        return None
    manifest = read_manifest(path.parent)
    if manifest is None or manifest["files"].get(path.name) != describe(path):
        log.warning("%s is damaged: it is not used", path)
        return None
    return path


def finished_images(run: Path) -> dict[str, dict[str, Any]]:
    """Name of an image → its record, of the images whose files all have the size and sha256 that
    the record names. run: the Run's folder."""
    records = {}
    for path in sorted((run / PRODUCED).glob(f"*{NOTE}")):
        record = read_json(path, ImageRecord)
        if record and has_files_of(path.parent, record):
            records[path.name.removesuffix(NOTE)] = record
    return records


def has_files_of(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a folder has all files of a record, unchanged."""
    return all(
        (folder / file).is_file() and describe(folder / file) == expected
        for file, expected in record["files"].items()
    )
