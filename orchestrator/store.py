"""Checkpoints by key: written whole, verified when read, the newest that verifies.

<root>/<key>/epoch_00012/{weights.pt, training.pt, manifest.json}   one checkpoint
<root>/<key>/{attempt, progress.json, done.json}                    who writes, how far, the result

A checkpoint appears by renaming a synced temporary folder, so it is there whole or not at all.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.home import locked, read_json, write_json

log = logging.getLogger(__name__)
WEIGHTS, TRAINING, MANIFEST = "weights.pt", "training.pt", "manifest.json"
_KEY = re.compile(r"[0-9a-z_-]{1,64}")
_EPOCH = re.compile(r"epoch_(\d{5,})")


class StaleWriter(Exception):
    """A newer attempt owns the key: this writer must stop."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose files have the sizes and sha256 that its manifest names."""

    path: Path
    epoch: int
    info: Mapping[str, Any]  # what the writer said of it; JSON
    files: Mapping[str, Mapping[str, Any]]  # name → bytes and sha256

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def training(self) -> Path:
        return self.path / TRAINING


class Store:
    """All checkpoints under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Raises ValueError on a key that is no plain word: it must not leave the store."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key: {key!r}")
        return self.root / key

    def claim(self, key: str) -> int:
        """Become the key's writer. Returns the attempt's number, from 1; older ones are fenced."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            attempt = self.attempt(key) + 1
            write_json(folder / "attempt", {"attempt": attempt})
        return attempt

    def attempt(self, key: str) -> int:
        return int((read_json(self.folder(key) / "attempt") or {}).get("attempt", 0))

    def save(
        self,
        key: str,
        attempt: int,
        epoch: int,
        files: Mapping[str, Callable[[Path], None]],
        info: Mapping[str, Any],
    ) -> Checkpoint:
        """Write one checkpoint. files: name → function that writes it to a path."""
        folder = self.folder(key)
        temporary, final = folder / f".epoch_{epoch:05d}.{attempt}", folder / f"epoch_{epoch:05d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name, write in files.items():
                write(temporary / name)
            sums = {name: _describe(temporary / name) for name in files}
            manifest = {"epoch": epoch, "attempt": attempt, "files": sums, "info": dict(info)}
            _write_manifest(temporary, manifest)
            _sync(temporary)
            with locked(folder / ".lock"):
                self._fence(key, attempt)
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(folder)
        return Checkpoint(final, epoch, info, sums)

    def _fence(self, key: str, attempt: int) -> None:
        newest = self.attempt(key)
        if newest != attempt:
            raise StaleWriter(f"attempt {attempt} of {key}: attempt {newest} has taken over")

    def epochs(self, key: str) -> list[int]:
        """Epochs that have a checkpoint folder, verified or not, ascending."""
        folder = self.folder(key)
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := _EPOCH.fullmatch(name)))

    def load(self, key: str, epoch: int) -> Checkpoint | None:
        """The checkpoint of an epoch if every file verifies; else a warning names the file."""
        path = self.folder(key) / f"epoch_{epoch:05d}"
        manifest = _read_manifest(path)
        if manifest is None:
            log.warning("checkpoint %s: %s is missing or damaged", path, MANIFEST)
            return None
        for name, wanted in manifest["files"].items():
            if not (path / name).is_file() or _describe(path / name) != wanted:
                log.warning("checkpoint %s: %s is missing or damaged", path, name)
                return None
        return Checkpoint(path, manifest["epoch"], manifest["info"], manifest["files"])

    def newest(self, key: str) -> Checkpoint | None:
        """The newest checkpoint that verifies and can be gone on from."""
        for epoch in reversed(self.epochs(key)):
            found = self.load(key, epoch)
            if found is not None and found.training.is_file():
                return found
        return None

    def prune(self, key: str, attempt: int, best: int, keep: int = 2) -> None:
        """Keep the newest `keep` whole and of the best one its weights; remove the rest."""
        with locked(self.folder(key) / ".lock"):
            self._fence(key, attempt)
            for left in self.folder(key).glob(".epoch_*"):  # of a writer that was killed
                shutil.rmtree(left)
            for epoch in self.epochs(key)[:-keep]:
                path = self.folder(key) / f"epoch_{epoch:05d}"
                if epoch == best:
                    _drop_training_state(path)
                else:
                    shutil.rmtree(path)

    def report(self, key: str, attempt: int, progress: Mapping[str, Any]) -> None:
        """How far a Run is, for whoever looks: seconds old at most, not synced."""
        path = self.folder(key) / "progress.json"
        temporary = path.with_name(f".progress.{attempt}")
        temporary.write_text(json.dumps({"attempt": attempt, **progress}), encoding="utf-8")
        os.replace(temporary, path)

    def progress(self, key: str) -> dict[str, Any] | None:
        return read_json(self.folder(key) / "progress.json")

    def finish(self, key: str, attempt: int, result: Mapping[str, Any]) -> None:
        """The Run is done; `result` is what its MLflow run is made from."""
        with locked(self.folder(key) / ".lock"):
            self._fence(key, attempt)
            write_json(self.folder(key) / "done.json", {"attempt": attempt, **result})

    def result(self, key: str) -> dict[str, Any] | None:
        """The result of a finished Run; None when it is not finished or its best is gone."""
        done = read_json(self.folder(key) / "done.json")
        if done is None:
            return None
        path = self.folder(key) / f"epoch_{done['best_epoch']:05d}"
        manifest = _read_manifest(path)
        if manifest is None or not _has_its_files(path, manifest):
            return None
        return done

    def forget(self, key: str) -> None:
        """Remove every checkpoint and the result, so that the Run is trained anew."""
        (self.folder(key) / "done.json").unlink(missing_ok=True)
        for epoch in self.epochs(key):
            shutil.rmtree(self.folder(key) / f"epoch_{epoch:05d}")

    def set_origin(self, key: str, origin: Mapping[str, str]) -> None:
        """Which MLflow run (`run_id` at `uri`) holds the Run's training."""
        write_json(self.folder(key) / "origin.json", dict(origin))

    def origin(self, key: str) -> dict[str, Any] | None:
        return read_json(self.folder(key) / "origin.json")

    def best(self, key: str) -> Checkpoint | None:
        """The chosen checkpoint of a finished Run, verified."""
        done = self.result(key)
        return self.load(key, done["best_epoch"]) if done else None


def _drop_training_state(path: Path) -> None:
    """Take the optimizer state out of a checkpoint: manifest first, so that it stays whole."""
    manifest = _read_manifest(path)
    if manifest and TRAINING in manifest["files"]:
        del manifest["files"][TRAINING]
        _write_manifest(path, manifest)
        (path / TRAINING).unlink(missing_ok=True)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    write_json(folder / MANIFEST, body | {"sha256": _digest(body)})


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """A manifest that says what was written; None when it is missing or damaged."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or manifest.pop("sha256", None) != _digest(manifest):
        return None
    return manifest


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _has_its_files(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every file is there with its size: a quick look, not a verification."""
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == wanted["bytes"]
        for name, wanted in manifest["files"].items()
    )


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _sync(folder: Path) -> None:
    """Flush a folder's files and its own entries to the disk."""
    for path in [*(p for p in folder.iterdir() if p.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
