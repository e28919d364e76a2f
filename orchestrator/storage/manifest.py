"""Manifests show whether a folder is whole: they name size and sha256 of every file, and bear a
sha256 of their own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.files import read_json, write_json

MANIFEST = "manifest.json"


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
