"""States the contract of an object store: few methods, of which two decide who of several writers
wins.

An object is a name, such as `4f2a/head.json`, and bytes. It appears whole or not at all. Each
content that a name has had has a version; equal versions mean that nobody has written in between.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Protocol

from orchestrator.config.errors import UserError


class ObjectsError(UserError):
    """Says in a line why a store does not answer, or what it refuses."""


class Changed(Exception):
    """Says that the condition of a put does not hold: another writer was quicker. Nothing was
    written."""


@dataclass(frozen=True)
class Found:
    """Holds an object as it was read. version: as `Objects.put_if_unchanged` takes it."""

    content: bytes
    version: str


class Sink(Protocol):
    """Takes bytes, such as a file."""

    def write(self, data: bytes, /) -> int:
        """Take bytes. Returns how many."""


class Objects(Protocol):
    """Stores objects by their names. Every method raises ObjectsError where the store does not
    answer or refuses."""

    address: str

    def get(self, name: str) -> Found | None:
        """Return a small object; None where there is none."""

    def download(self, name: str, file: Sink) -> bool:
        """Write an object of any size to a file. Returns whether there is one."""

    def put(self, name: str, content: bytes | IO[bytes]) -> None:
        """Write an object, whatever is there. A file is read from where it stands to its end."""

    def put_if_absent(self, name: str, content: bytes) -> str:
        """Write a small object where there is none, and return its version. Raises Changed."""

    def put_if_unchanged(self, name: str, content: bytes, version: str) -> str:
        """Write a small object over the one of that version, and return the new version. Raises
        Changed where it has another version, or is gone."""

    def list(self, folder: str) -> list[str]:
        """Return the names of all objects below a folder, such as `4f2a/1`, sorted."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects. One that is not there is no error."""
