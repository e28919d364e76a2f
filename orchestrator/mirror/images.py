"""Sends decoded images and lists of image files to the store: for nodes that do not see the
driver's disk.

images/<name>/files.json     path → bytes and sha256, put last: what it names is there
images/<name>/<sha256>       the content of a file
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from orchestrator.objects.contract import Changed, Objects
from orchestrator.storage.files import locked, sync_folder, temporary_folder
from orchestrator.storage.manifest import HashedFile, describe

_FEATURES = "features"  # below decoded images: each node keeps its own


class _File(TypedDict):
    bytes: int
    sha256: str


_LISTING: "TypeAdapter[dict[str, _File]]" = TypeAdapter(dict[str, _File])


def send_images(objects: Objects, table: Path) -> None:
    """Put decoded images (a folder) or a list of image files (one file) into the store, unless it
    has them. Raises ObjectsError."""
    if objects.get(_listing(table)) is not None:
        return
    files = _files_of(table)
    described: dict[str, _File] = {}
    for name, path in files.items():
        item = describe(path)
        described[name] = _File(bytes=int(item["bytes"]), sha256=str(item["sha256"]))
        with path.open("rb") as file:
            objects.put(_object(table, described[name]), file)
    try:
        objects.put_if_absent(_listing(table), json.dumps(described).encode())
    except Changed:  # another host has sent the same
        return


def fetch_images(objects: Objects, table: Path) -> None:
    """Get decoded images or a list of files onto this disk, unless it has them. Raises
    ObjectsError, and OSError where the store has none, or damaged ones."""
    if table.exists():
        return
    table.parent.mkdir(parents=True, exist_ok=True)
    with locked(table.with_name(f"{table.name}.lock")):
        if table.exists():  # another rank of this node was quicker
            return
        found = objects.get(_listing(table))
        if found is None:
            raise FileNotFoundError(f"the store {objects.address} has no images {table.name}")
        with temporary_folder(table, "fetched") as folder:
            _download(objects, table, _LISTING.validate_json(found.content), folder)
            single = folder / table.name
            (single if single.is_file() else folder).rename(table)
            if table.is_dir():  # `temporary_folder` removes what is left under its name
                sync_folder(table)


def _download(objects: Objects, table: Path, described: Mapping[str, _File], folder: Path) -> None:
    for name, item in described.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            hashed = HashedFile(file)
            there = objects.download(_object(table, item), hashed)
        if not there or hashed.describe() != dict(item):
            raise OSError(f"the store {objects.address}: {name} of {table.name} is damaged")


def _files_of(table: Path) -> dict[str, Path]:
    """Return name in the listing → file."""
    if table.is_file():
        return {table.name: table}
    found = {}
    for path in sorted(table.rglob("*")):
        name = path.relative_to(table)
        if path.is_file() and name.parts[0] != _FEATURES:
            found[str(name)] = path
    return found


def _listing(table: Path) -> str:
    return f"images/{table.name}/files.json"


def _object(table: Path, item: _File) -> str:
    return f"images/{table.name}/{item['sha256']}"
