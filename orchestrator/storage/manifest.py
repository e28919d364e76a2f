"""Manifests show whether a folder is whole: they name size and sha256 of every file, and bear a
sha256 of their own. So do the records of the images that a producer has finished so far:

<run>/produced/{0013.json, 0013.png, 0013.done}   until the Run is finished
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    """Return whether every file is there with its size. Quick: no sha256 is computed."""
    manifest = read_manifest(folder)
    return manifest is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == expected["bytes"]
        for name, expected in manifest["files"].items()
    )


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
