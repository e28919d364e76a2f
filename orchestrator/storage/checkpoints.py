"""Checkpoints by key: written whole, verified when read, the newest that verifies.

<root>/<key>/epoch_00012/{weights.pt, training.pt, manifest.json}   one checkpoint
<root>/<key>/spare_00009/{weights.pt, manifest.json}                the best one once more
<root>/<key>/{attempt, progress.json, done.json, ended.json}        who writes, how far, the result
<root>/<key>/logs/attempt_0001_rank_0.log                           what the Run itself said
<root>/<key>/features/epoch_00001.npz                               for t-SNE maps; may be lost
<root>/<key>/produced/{0013.json, 0013.png, 0013.done}              a producer's, until it has all

A checkpoint appears by renaming a synced temporary folder, so it is there whole or not at all. What
could not be trained again within an epoch stands twice: a single damaged file costs no more.
"""

import fcntl
import json
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.storage.files import locked, read_json, write_json
from orchestrator.storage.manifest import (
    MANIFEST,
    describe,
    has_its_files,
    read_manifest,
    sync,
    write_manifest,
)
from orchestrator.storage.run_log import named_logs
from trainables.monitoring.record_files import FEATURES

log = logging.getLogger(__name__)
WEIGHTS, TRAINING = "weights.pt", "training.pt"
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
        """The newest attempt's number, 0 before the first. Where the file that says so is damaged,
        the highest number that anything else of the key bears: a number is never given twice."""
        folder = self.folder(key)
        said = read_json(folder / "attempt")
        if said is not None and isinstance(said.get("attempt"), int):
            return int(said["attempt"])
        if not folder.is_dir():
            return 0
        notes = [read_json(folder / name) for name in ("progress.json", "done.json", "ended.json")]
        notes += [read_manifest(path) for path in folder.glob("epoch_*")]
        numbers = [int(note.get("attempt", 0)) for note in notes if note]
        return max([0, *numbers, *(attempt for attempt, _ in self.logs(key))])

    def own(self, key: str, who: str) -> IO[str] | None:
        """Become the key's only trainer until the returned file is closed, or this process dies.

        Returns None while another process, or another part of this one, is it. who: a few words
        for those who wait.
        """
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".owner").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / ".owner").stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise FileNotFoundError  # it was cleaned away meanwhile: this is nobody's lock
            file.truncate(0)
            file.write(who)
            file.flush()
        except (BlockingIOError, FileNotFoundError):
            file.close()
            return None
        except OSError:
            file.close()
            raise
        return file

    def owner(self, key: str) -> str | None:
        """Who trains the key now; None when nobody does."""
        try:
            with (self.folder(key) / ".owner").open(encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return (self.folder(key) / ".owner").read_text(encoding="utf-8") or "another process"
        return None

    def log(self, key: str, attempt: int, rank: int) -> Path:
        """Where a rank of an attempt writes what it has to say; the folder is made."""
        folder = self.folder(key) / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"attempt_{attempt:04d}_rank_{rank}.log"

    def logs(self, key: str) -> dict[tuple[int, int], Path]:
        """(attempt, rank) → log file, oldest attempt first."""
        return named_logs(self.folder(key) / "logs")

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
        return self._place(key, attempt, folder / f"epoch_{epoch:05d}", epoch, files, info)

    def keep(self, key: str, attempt: int, name: str, write: Callable[[Path], None]) -> None:
        """A file below the Run's folder that may be lost: whole or absent."""
        path = self.folder(key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{attempt}")
        try:
            write(temporary)
            self._fence(key, attempt)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def features(self, key: str) -> Path | None:
        """The folder of what a Run has kept to be drawn, if it has."""
        folder = self.folder(key) / FEATURES
        return folder if folder.is_dir() else None

    def back_up(self, key: str, attempt: int, epoch: int) -> None:
        """Keep a second copy of a checkpoint without its optimizer state, and of no other: of the
        best one, from when it is no longer the newest."""
        folder = self.folder(key)
        name = f"spare_{epoch:05d}"
        if not has_its_files(folder / name):
            source = self.load(key, epoch)
            if source is None:
                return  # the warning is said; whoever needs it next finds it missing
            copies = {
                name: lambda path, name=name: shutil.copyfile(source.path / name, path)
                for name in source.files
                if name != TRAINING
            }
            self._place(key, attempt, folder / name, epoch, copies, source.info)
        with locked(folder / ".lock"):
            self._fence(key, attempt)
            for other in folder.glob("spare_*"):
                if other.name != name:
                    shutil.rmtree(other)

    def _place(
        self,
        key: str,
        attempt: int,
        final: Path,
        epoch: int,
        files: Mapping[str, Callable[[Path], object]],
        info: Mapping[str, Any],
    ) -> Checkpoint:
        folder, temporary = final.parent, final.with_name(f".{final.name}.{attempt}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name, write in files.items():
                write(temporary / name)
            sums = {name: describe(temporary / name) for name in files}
            manifest = {"epoch": epoch, "attempt": attempt, "files": sums, "info": dict(info)}
            write_manifest(temporary, manifest)
            sync(temporary)
            with locked(folder / ".lock"):
                self._fence(key, attempt)
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(folder)
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
        """The checkpoint of an epoch if every file verifies, else its spare; a warning names the
        damaged file."""
        found = self._verified(self.folder(key) / f"epoch_{epoch:05d}")
        spare = self.folder(key) / f"spare_{epoch:05d}"
        if found is None and spare.is_dir():
            found = self._verified(spare)
            if found is not None:
                log.warning("checkpoint %s: its second copy is used", found.path)
        return found

    def _verified(self, path: Path) -> Checkpoint | None:
        manifest = read_manifest(path)
        if manifest is None:
            log.warning("checkpoint %s: %s is missing or damaged", path, MANIFEST)
            return None
        for name, wanted in manifest["files"].items():
            if not (path / name).is_file() or describe(path / name) != wanted:
                log.warning("checkpoint %s: %s is missing or damaged", path, name)
                return None
        return Checkpoint(path, manifest["epoch"], manifest["info"], manifest["files"])

    def newest(self, key: str) -> Checkpoint | None:
        """The newest checkpoint that verifies and can be gone on from."""
        for epoch in reversed(self.epochs(key)):
            found = self.load(key, epoch)
            if found is not None and TRAINING in found.files:
                return found
        return None

    def prune(self, key: str, attempt: int, best: int, keep: int = 2) -> None:
        """Keep the newest `keep` whole and of the best one its weights; remove the rest."""
        with locked(self.folder(key) / ".lock"):
            self._fence(key, attempt)
            for left in self.folder(key).glob(".[es]*_*.*"):  # of a writer that was killed
                shutil.rmtree(left, ignore_errors=True)  # or is about to be
            for epoch in self.epochs(key)[:-keep]:
                path = self.folder(key) / f"epoch_{epoch:05d}"
                if epoch == best:
                    _drop_training_state(path)
                else:
                    shutil.rmtree(path)

    def report(self, key: str, attempt: int, progress: Mapping[str, Any]) -> None:
        """How far a Run is, for whoever looks: seconds old at most, not synced."""
        self._fence(key, attempt)
        path = self.folder(key) / "progress.json"
        temporary = path.with_name(f".progress.{attempt}")
        who = {"time": time.time(), "host": platform.node(), "pid": os.getpid()}
        said = {"attempt": attempt, **who, **progress}
        temporary.write_text(json.dumps(said), encoding="utf-8")
        os.replace(temporary, path)

    def progress(self, key: str) -> dict[str, Any] | None:
        return read_json(self.folder(key) / "progress.json")

    def finish(self, key: str, attempt: int, result: Mapping[str, Any]) -> None:
        """The Run is done; `result` is what its MLflow run is made from."""
        with locked(self.folder(key) / ".lock"):
            self._fence(key, attempt)
            write_json(self.folder(key) / "done.json", {"attempt": attempt, **result})

    def end(self, key: str, attempt: int, state: str, reason: str, submission: str) -> None:
        """An attempt has ended without a result: FAILED or KILLED, and why. Waits here until MLflow
        has heard of it. submission: its MLflow run."""
        note = {"attempt": attempt, "state": state, "reason": reason, "submission": submission}
        write_json(self.folder(key) / "ended.json", note)

    def ended(self, key: str, submission: str) -> tuple[str, str] | None:
        """State and reason of the newest attempt, if it was this submission's and has ended without
        a result."""
        note = read_json(self.folder(key) / "ended.json") or {}
        if note.get("submission") != submission or note.get("attempt") != self.attempt(key):
            return None
        return str(note["state"]), str(note["reason"])

    def result(self, key: str) -> dict[str, Any] | None:
        """The result of a finished Run; None when it is not finished or its best is gone."""
        done = read_json(self.folder(key) / "done.json")
        if done is None:
            return None
        folder, epoch = self.folder(key), int(done["best_epoch"])
        paths = (folder / f"epoch_{epoch:05d}", folder / f"spare_{epoch:05d}")
        return done if any(has_its_files(path) for path in paths) else None

    def forget(self, key: str) -> None:
        """Remove every checkpoint and the result, so that the Run is trained anew."""
        (self.folder(key) / "done.json").unlink(missing_ok=True)
        for path in self.folder(key).glob("[es]*_*"):
            shutil.rmtree(path)

    def set_origin(self, key: str, origin: dict[str, str]) -> None:
        """Which MLflow run (`run_id` at `uri`) holds the Run's training."""
        self.folder(key).mkdir(parents=True, exist_ok=True)  # nobody may have claimed it yet
        write_json(self.folder(key) / "origin.json", origin)

    def origin(self, key: str) -> dict[str, Any] | None:
        return read_json(self.folder(key) / "origin.json")

    def best(self, key: str) -> Checkpoint | None:
        """The chosen checkpoint of a finished Run, verified."""
        done = self.result(key)
        return self.load(key, done["best_epoch"]) if done else None


def _drop_training_state(path: Path) -> None:
    """Take the optimizer state out of a checkpoint: manifest first, so that it stays whole."""
    manifest = read_manifest(path)
    if manifest and TRAINING in manifest["files"]:
        del manifest["files"][TRAINING]
        write_manifest(path, manifest)
        (path / TRAINING).unlink(missing_ok=True)
