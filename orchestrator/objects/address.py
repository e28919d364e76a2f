"""Open a store by its address, and find out whether a host can use it."""

import secrets
import urllib.parse
from pathlib import Path

from orchestrator.objects.cloud import TRIES, open_bucket
from orchestrator.objects.contract import Changed, Objects, ObjectsError
from orchestrator.objects.folder import FolderObjects


def open_objects(address: str, tries: int = TRIES) -> Objects:
    """Open `s3://BUCKET[/PREFIX]`, or a folder by its absolute path. Nothing is asked or made yet.
    tries: of a request while the store is away. Raises ObjectsError for another address."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "s3" and parts.netloc:
        return open_bucket(parts.netloc, parts.path.strip("/"), address, tries)
    if address.startswith("/"):
        return FolderObjects(Path(address))
    raise ObjectsError(f"no store has the address {address}: give s3://BUCKET/PREFIX or a folder")


def trouble_of_objects(address: str) -> str:
    """Return why this host cannot use the store at an address; empty where it can."""
    try:
        return trouble_of(open_objects(address, tries=1))
    except ObjectsError as error:
        return str(error).removeprefix(f"the store {address} ")


def trouble_of(objects: Objects) -> str:
    """Return why a store is of no use; empty where this host can read, write, write on a condition
    and delete there. What it writes is gone afterwards. Raises ObjectsError."""
    name = f".check/{secrets.token_hex(8)}"
    try:
        version = objects.put_if_absent(name, b"1")
        return _trouble(objects, name, version)
    except Changed:
        return "refuses to write on a condition that holds"
    finally:
        objects.delete([name])


def _trouble(objects: Objects, name: str, version: str) -> str:
    found = objects.get(name)
    if found is None or found.content != b"1":
        return "does not give back what was written"
    if not _refuses(objects, name, None):
        return "writes over an object that shall not be there (If-None-Match is not kept)"
    objects.put_if_unchanged(name, b"2", version)
    if not _refuses(objects, name, version):
        return "writes over an object that was changed meanwhile (If-Match is not kept)"
    if name not in objects.list(name.partition("/")[0]):
        return "does not list what was written"
    return ""


def _refuses(objects: Objects, name: str, version: str | None) -> bool:
    try:
        if version is None:
            objects.put_if_absent(name, b"3")
        else:
            objects.put_if_unchanged(name, b"3", version)
    except Changed:
        return True
    return False
