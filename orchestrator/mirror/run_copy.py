"""Copies a Run's folder to an object store and back. The attempt that trains it sends it; it is
fetched where the Run goes on, where another Run starts from it, and where its result is read.

The folder on a disk stays what every other part of the project reads and writes. A commit makes the
store's files those of the folder, all at once: a checkpoint is there whole or not at all. A fetch
makes the folder's files those of the store, each verified by its sha256.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from orchestrator.objects.contract import Objects
from orchestrator.objects.head import Head, StoredFile, change_head, read_head
from orchestrator.storage.checkpoints import WEIGHTS, epochs_in, folder_of
from orchestrator.storage.files import (
    locked,
    replace_folder,
    replacing,
    sync_folder,
    temporary_folder,
)
from orchestrator.storage.manifest import (
    MANIFEST,
    PRODUCED,
    HashedFile,
    describe,
    has_its_files,
    read_manifest,
)
from orchestrator.storage.run_records import DONE, DONE_COPY, RunFolder, StaleWriter
from trainables.record_files import FEATURES, PREDICTIONS

log = logging.getLogger(__name__)
_FOLDERS = (FEATURES, str(Path(PREDICTIONS).parent), PRODUCED)
_RECORDS = (DONE, "usage.json")
_EPOCH = re.compile(r"(epoch_\d{5,})/.+")
_BLOB = re.compile(r"[^/]+/(\d+)/[0-9a-f]{64}")
_LOCK = ".fetch.lock"
_Described = Mapping[str, Any]  # bytes and sha256 of a file, as `describe` returns them


class _Damaged(Exception):
    """Says that a file of the store is not what was sent."""


class RunCopy:
    """Copies the files of one Run between a store and this disk. Methods raise ObjectsError."""

    def __init__(self, objects: Objects, run: RunFolder) -> None:
        self.objects, self.run = objects, run
        self._sums: dict[tuple[str, int, int], _Described] = {}  # name, time, size → described

    # --- sending -------------------------------------------------------------------------------

    def commit(self, attempt: int) -> int:
        """Make the store's files those of the folder. Returns the newest epoch that is stored now;
        0 before the first. Raises StaleWriter where a newer attempt has begun."""
        known = self._check(read_head(self.objects, self.run.key), attempt).files
        files: dict[str, StoredFile] = {}
        for epoch in epochs_in(self.run.path):
            files |= self._put_epoch(folder_of(self.run.path, epoch), known, attempt)
        for name in self._others():
            if stored := self._put_other(name, known, attempt):
                files[name] = stored
        before, after = change_head(
            self.objects,
            self.run.key,
            lambda head: replace(self._check(head, attempt), files=files, committed=attempt),
        )
        self._delete(set(before.files.values()) - set(after.files.values()), attempt)
        return max(_epochs_of(after), default=0)

    def tidy(self, attempt: int) -> None:
        """Remove objects that no head names: what attempts have left that died while they sent."""
        kept = {
            file.object(self.run.key)
            for file in read_head(self.objects, self.run.key).files.values()
        }
        names = self.objects.list(self.run.key)
        left = [name for name in names if (match := _BLOB.fullmatch(name))
                and int(match[1]) <= attempt and name not in kept]  # fmt: skip
        self.objects.delete(left)

    def _check(self, head: Head, attempt: int) -> Head:
        if head.attempt != attempt:
            raise StaleWriter(
                f"attempt {attempt} of {self.run.key}: attempt {head.attempt} has taken over"
            )
        return head

    def _delete(self, files: set[StoredFile], attempt: int) -> None:
        """Remove objects that the head named until now. Those of newer attempts are not ours."""
        self.objects.delete(file.object(self.run.key) for file in files if file.attempt <= attempt)

    def _put_epoch(
        self, folder: Path, known: Mapping[str, StoredFile], attempt: int
    ) -> dict[str, StoredFile]:
        """Put what of a checkpoint is not stored yet. Returns its files; none where it was removed
        meanwhile. A file that is open is whole, also when it is removed."""
        manifest = read_manifest(folder)
        if manifest is None:
            return {}
        try:
            text = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            return {}
        files: dict[str, StoredFile] = {}
        for name, item in manifest["files"].items():
            path = f"{folder.name}/{name}"
            try:
                stored = self._known(path, item, known)
                files[path] = stored or self._put(folder / name, item, attempt)
            except FileNotFoundError:
                return {}
        path = f"{folder.name}/{MANIFEST}"
        files[path] = self._known(path, _sum(text), known) or self._put_bytes(text, attempt)
        return files

    def _known(
        self, name: str, item: _Described, known: Mapping[str, StoredFile]
    ) -> StoredFile | None:
        stored = known.get(name)
        return stored if stored is not None and _is(stored, item) else None

    def _put(self, path: Path, item: _Described, attempt: int) -> StoredFile:
        with path.open("rb") as file:
            return self._put_object(file, item, attempt)

    def _put_bytes(self, content: bytes, attempt: int) -> StoredFile:
        return self._put_object(content, _sum(content), attempt)

    def _put_object(self, content: bytes | IO[bytes], item: _Described, attempt: int) -> StoredFile:
        stored = StoredFile(attempt, int(item["bytes"]), str(item["sha256"]))
        self.objects.put(stored.object(self.run.key), content)
        return stored

    def _others(self) -> list[str]:
        """Return the names of the files that count beside checkpoints."""
        root = self.run.path
        found = [root / name for name in _RECORDS if (root / name).is_file()]
        for folder in _FOLDERS:
            found += [path for path in (root / folder).rglob("*") if path.is_file()]
        names = [path.relative_to(root) for path in found]
        return sorted(str(name) for name in names if not name.name.startswith("."))

    def _put_other(
        self, name: str, known: Mapping[str, StoredFile], attempt: int
    ) -> StoredFile | None:
        """Put a file that is not stored yet; None where it was removed meanwhile."""
        path = self.run.path / name
        try:
            status = path.stat()
            stamp = (name, status.st_mtime_ns, status.st_size)
            if stamp in self._sums and (stored := self._known(name, self._sums[stamp], known)):
                return stored
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        stored = self._put_bytes(content, attempt)
        self._sums[stamp] = {"bytes": stored.bytes, "sha256": stored.sha256}
        return stored

    # --- fetching ------------------------------------------------------------------------------

    def fetch(self) -> bool:
        """Make the folder's files those of the store. Returns whether the store has any.

        A checkpoint of the folder that is newer than all of the store stays, where the attempt that
        wrote it was the last one to send anything. One that does not verify is left out with a
        warning, so that the one before it counts.
        """
        head = read_head(self.objects, self.run.key)
        if not head.files:
            return False
        self.run.path.mkdir(parents=True, exist_ok=True)
        with locked(self.run.path / _LOCK):
            self._drop(head)
            for epoch in _epochs_of(head):
                self._fetch_epoch(folder_of(self.run.path, epoch), head)
            for name, stored in head.files.items():
                if not _EPOCH.fullmatch(name):
                    self._fetch_other(name, stored)
            if DONE in head.files and (self.run.path / DONE).is_file():
                shutil.copyfile(self.run.path / DONE, self.run.path / DONE_COPY)
        return True

    def _drop(self, head: Head) -> None:
        """Remove checkpoints that are none of the Run any more."""
        stored = _epochs_of(head)
        newest = max(stored, default=0)
        for epoch in set(epochs_in(self.run.path)) - set(stored):
            folder = folder_of(self.run.path, epoch)
            written = read_manifest(folder) or {}
            if epoch < newest or written.get("attempt") != head.committed:
                shutil.rmtree(folder)
        for copy in self.run.path.glob("spare_*"):
            manifest = read_manifest(copy)
            original = head.files.get(f"{copy.name.replace('spare', 'epoch')}/{WEIGHTS}")
            if not (manifest and original and _is(original, manifest["files"].get(WEIGHTS, {}))):
                shutil.rmtree(copy)

    def _fetch_epoch(self, folder: Path, head: Head) -> None:
        prefix = f"{folder.name}/"
        files = {name.removeprefix(prefix): stored for name, stored in head.files.items()
                 if name.startswith(prefix)}  # fmt: skip
        manifest = folder / MANIFEST
        unchanged = manifest.is_file() and _is(files[MANIFEST], describe(manifest))
        if unchanged and has_its_files(folder):
            return
        with temporary_folder(folder, "fetched") as temporary:
            try:
                for name, stored in files.items():
                    self._download(stored, temporary / name)
            except _Damaged:
                log.warning("checkpoint %s of the store is missing or damaged", folder)
                return
            written = (read_manifest(temporary) or {}).get("written", {})
            for name, time in written.items():  # so that `has_its_files` need not hash them again
                os.utime(temporary / name, ns=(time, time))
            sync_folder(temporary)
            replace_folder(temporary, folder)

    def _fetch_other(self, name: str, stored: StoredFile) -> None:
        path = self.run.path / name
        if path.is_file() and path.stat().st_size == stored.bytes and _is(stored, describe(path)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as temporary:
                self._download(stored, temporary)
        except _Damaged:
            log.warning("%s of the store is damaged", path)

    def _download(self, stored: StoredFile, path: Path) -> None:
        """Write a file of the store to a path. Raises _Damaged where it is not what was sent."""
        with path.open("wb") as file:
            hashed = HashedFile(file)
            found = self.objects.download(stored.object(self.run.key), hashed)
        if not (found and _is(stored, hashed.describe())):
            raise _Damaged


def _sum(content: bytes) -> _Described:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _is(stored: StoredFile, item: _Described) -> bool:
    return (stored.bytes, stored.sha256) == (item.get("bytes"), item.get("sha256"))


def _epochs_of(head: Head) -> list[int]:
    """Return the epochs whose checkpoints a head has, ascending."""
    names = {match[1] for name in head.files if (match := _EPOCH.fullmatch(name))}
    return sorted(int(name.partition("_")[2]) for name in names)
