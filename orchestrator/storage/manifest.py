"""Folders that say of themselves whether they are whole: a manifest names every file with its size
and sha256, and bears a sha256 of its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.files import read_json, write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Say what a folder holds; `files` maps names to what `describe` returns."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    write_json(folder / MANIFEST, body | {"sha256": _digest(body)})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A manifest that says what was written; None when it is missing or damaged."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or manifest.pop("sha256", None) != _digest(manifest):
        return None
    return manifest


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def has_its_files(folder: Path) -> bool:
    """Whether every file is there with its size: a quick look, not a verification."""
    manifest = read_manifest(folder)
    return manifest is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == wanted["bytes"]
        for name, wanted in manifest["files"].items()
    )


def describe(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
