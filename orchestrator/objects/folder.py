"""Objects in a folder: on one machine, or on a file system whose file locks hold between hosts.

NFSv4 and the large cluster file systems hold them. Where a file system does not, use a bucket.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orchestrator.objects.contract import Changed, Found, ObjectsError, Sink
from orchestrator.storage.files import locked, replacing

_LOCK = ".lock"


class FolderObjects:
    """Objects as files below a folder. A version is the sha256 of the content."""

    def __init__(self, root: Path) -> None:
        self.root, self.address = root, str(root)

    def get(self, name: str) -> Found | None:
        with self._asked():
            try:
                content = (self.root / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return Found(content, _version(content))

    def download(self, name: str, file: Sink) -> bool:
        with self._asked():
            try:
                source = (self.root / name).open("rb")
            except (FileNotFoundError, NotADirectoryError):
                return False
            with source:
                while part := source.read(1 << 20):
                    file.write(part)
            return True

    def put(self, name: str, content: bytes | IO[bytes]) -> None:
        with self._asked():
            self._write(name, content)

    def put_if_absent(self, name: str, content: bytes) -> str:
        return self._put_if(name, content, None)

    def put_if_unchanged(self, name: str, content: bytes, version: str) -> str:
        return self._put_if(name, content, version)

    def list(self, folder: str) -> list[str]:
        with self._asked():
            files = [path for path in (self.root / folder).rglob("*") if path.is_file()]
            names = [path.relative_to(self.root) for path in files]
        return sorted(str(name) for name in names if not name.name.startswith("."))

    def delete(self, names: Iterable[str]) -> None:
        with self._asked():
            for name in names:
                (self.root / name).unlink(missing_ok=True)

    def _put_if(self, name: str, content: bytes, version: str | None) -> str:
        with self._asked():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_name(f".{path.name}{_LOCK}")):
                known = _version(path.read_bytes()) if path.exists() else None
                if known != version:
                    raise Changed(name)
                self._write(name, content)
        return _version(content)

    def _write(self, name: str, content: bytes | IO[bytes]) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ObjectsError(f"the store {self.address} fails: {error.strerror}") from error


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
